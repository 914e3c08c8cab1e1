// SPDX-License-Identifier: MIT OR Apache-2.0
// A peer of python/tests/test_matrix.py, which does what tests/c/peer.c does, with the classes of rsshm.hpp. It draws the
// frames in place.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <rsshm.hpp>

using namespace std::chrono_literals;

static void check(bool condition, const char *what) {
  if (!condition) throw std::runtime_error(what);
}

static void record(uint32_t mark, std::string_view data) {
  const uint32_t word = mark | static_cast<uint32_t>(data.size());
  check(std::fwrite(&word, sizeof word, 1, stdout) == 1, "the size is not written");
  check(std::fwrite(data.data(), 1, data.size(), stdout) == data.size(), "the data is not written");
}

static void read_frames(const std::string &name) {
  rsshm::Reader reader{name};
  std::string caps;
  while (std::optional<rsshm::Frame> frame = reader.next(20s)) {
    if (frame->caps() != caps) {
      caps = frame->caps();
      record(uint32_t{1} << 31, caps);
    }
    record(0, {reinterpret_cast<const char *>(frame->data()), frame->size()});
    check(std::fflush(stdout) == 0, "the frame is not written");
  }
  check(reader.last() == RSSHM_EOS, "the stream does not end");
}

static void write_frames(const std::string &name, const std::string &format, int width, int height) {
  rsshm::Writer writer{name};
  writer.video(format, width, height);
  uint32_t size = 0;
  while (std::fread(&size, sizeof size, 1, stdin) == 1) {
    std::optional<rsshm::Slot> slot = writer.claim();
    check(slot && slot->size() == size, "there is no slot of this size");
    check(std::fread(slot->data(), 1, size, stdin) == size, "the input ends within a frame");
    slot->publish();
  }
  writer.end_of_stream();
}

int main(int argc, char **argv) {
  try {
    check(argc == 3 || argc == 6, "read CHANNEL, or write CHANNEL FORMAT WIDTH HEIGHT");
    if (argc == 3) {
      read_frames(argv[2]);
    } else {
      write_frames(argv[2], argv[3], std::atoi(argv[4]), std::atoi(argv[5]));
    }
  } catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
