// SPDX-License-Identifier: MIT OR Apache-2.0
// reader CHANNEL: prints the newest frames. With OpenCV, it also writes the first picture to frame.png:
//   c++ -std=c++17 -DWITH_OPENCV reader.cpp $(pkg-config --cflags --libs rsshm opencv4)
// Without OpenCV:
//   c++ -std=c++17 reader.cpp $(pkg-config --cflags --libs rsshm)
#ifdef WITH_OPENCV
#include <opencv2/core.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#endif
#include <iostream>
#include <rsshm.hpp>

int main(int argc, char **argv) {
  try {
    rsshm::Reader camera{argc > 1 ? argv[1] : "cam0", rsshm::latest};
    for (rsshm::Frame &frame : camera) {
      std::cout << "frame " << frame.seq() << ": " << frame.format() << ' ' << frame.width() << 'x' << frame.height()
                << ", " << frame.age() / std::chrono::microseconds(1) << " us old\n";
#ifdef WITH_OPENCV
      cv::Mat picture = frame.mat();
      if (frame.format() == "NV12") {
        cv::Mat converted;
        cv::cvtColor(picture, converted, cv::COLOR_YUV2BGR_NV12);
        picture = converted;
      }
      cv::imwrite("frame.png", picture);
      return 0;
#endif
    }
  } catch (const rsshm::Error &error) {
    std::cerr << error.what() << '\n';
    return 1;
  }
}
