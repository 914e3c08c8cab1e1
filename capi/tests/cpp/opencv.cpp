// SPDX-License-Identifier: MIT OR Apache-2.0
// opencv CHANNEL: checks Frame::mat() with OpenCV, for formats with a Mat and without.
#include <opencv2/core.hpp>
#include <rsshm.hpp>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "check.hpp"

using namespace std::chrono_literals;

// Writes a picture whose byte at row r and column c of plane p is p * 50 + r * 7 + c, and reads it.
static rsshm::Frame exchange(rsshm::Writer &writer, rsshm::Reader &reader, const char *format, int width, int height) {
  writer.video(format, width, height);
  std::optional<rsshm::Slot> slot = writer.claim();
  CHECK(slot);
  for (size_t p = 0; p < slot->plane_count(); p++) {
    for (uint32_t r = 0; r < slot->plane(p).rows; r++) {
      uint8_t *row = slot->row(p, r);
      for (uint32_t c = 0; c < slot->plane(p).row_bytes; c++) row[c] = static_cast<uint8_t>(p * 50 + r * 7 + c);
    }
  }
  slot->publish();
  std::optional<rsshm::Frame> frame = reader.next(20s);
  CHECK(frame && frame->format() == format && frame->width() == width && frame->height() == height);
  CHECK(frame->pts() && frame->age() < 20s);
  return std::move(*frame);
}

static bool fails(const rsshm::Frame &frame, const char *words) {
  try {
    frame.mat();
  } catch (const rsshm::Error &error) {
    return std::string(error.what()).find(words) != std::string::npos && error.status() == RSSHM_E_ARGUMENT;
  }
  return false;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  rsshm::Writer writer{argv[1]};
  rsshm::Reader reader{argv[1]};
  {
    rsshm::Frame frame = exchange(writer, reader, "BGR", 61, 47);
    cv::Mat mat = frame.mat();
    CHECK(mat.rows == 47 && mat.cols == 61 && mat.type() == CV_8UC3 && mat.data == frame.data());
    CHECK(mat.at<cv::Vec3b>(46, 60)[2] == static_cast<uint8_t>(46 * 7 + 182));
    // The Mat's own copy outlives the frame.
    cv::Mat copy = mat.clone();
    CHECK(copy.data != mat.data && copy.at<cv::Vec3b>(1, 1)[0] == 10);
  }
  {
    rsshm::Frame frame = exchange(writer, reader, "GRAY8", 30, 20);
    cv::Mat mat = frame.mat();
    CHECK(mat.type() == CV_8UC1 && mat.step[0] == 32 && mat.at<uint8_t>(19, 29) == static_cast<uint8_t>(19 * 7 + 29));
    cv::Mat sum;
    cv::reduce(mat, sum, 0, cv::REDUCE_SUM, CV_32S);
    CHECK(sum.cols == 30);
  }
  {
    rsshm::Frame frame = exchange(writer, reader, "RGB", 61, 47);
    cv::Mat picture = frame.bgr();
    CHECK(picture.rows == 47 && picture.cols == 61 && picture.type() == CV_8UC3);
    for (int r = 0; r < 47; r++) {
      const cv::Vec3b last = picture.at<cv::Vec3b>(r, 60);
      CHECK(last[2] == static_cast<uint8_t>(r * 7 + 180) && last[0] == static_cast<uint8_t>(r * 7 + 182));
    }
  }
  {
    rsshm::Frame frame = exchange(writer, reader, "BGRx", 16, 16);
    CHECK(frame.mat().type() == CV_8UC4);
  }
  {
    rsshm::Frame frame = exchange(writer, reader, "NV12", 62, 46);
    cv::Mat mat = frame.mat();
    CHECK(mat.rows == 69 && mat.cols == 62 && mat.type() == CV_8UC1);
    CHECK(mat.at<uint8_t>(45, 61) == static_cast<uint8_t>(45 * 7 + 61));
    CHECK(mat.at<uint8_t>(46, 0) == 50 && mat.at<uint8_t>(68, 61) == static_cast<uint8_t>(50 + 22 * 7 + 61));
    CHECK(fails(exchange(writer, reader, "NV12", 62, 45), "cvtColorTwoPlane"));
  }
  {
    rsshm::Frame frame = exchange(writer, reader, "I420", 64, 48);
    cv::Mat mat = frame.mat();
    CHECK(mat.rows == 72 && mat.at<uint8_t>(48, 0) == 50 && mat.at<uint8_t>(60, 0) == 100);
    CHECK(fails(exchange(writer, reader, "I420", 62, 48), "padded"));
  }
  {
    writer.caps("application/x-test");
    const char text[] = "no picture";
    CHECK(writer.write(text, sizeof text));
    std::optional<rsshm::Frame> frame = reader.next(20s);
    CHECK(frame && std::memcmp(frame->data(), text, sizeof text) == 0);
    CHECK(fails(*frame, "application/x-test") && fails(*frame, "no planes"));
    bool threw = false;
    try {
      frame->bgr();
    } catch (const rsshm::Error &error) {
      threw = error.status() == RSSHM_E_CAPS && std::strstr(error.what(), "application/x-test") != nullptr;
    }
    CHECK(threw);
  }
  std::puts("ok");
}
