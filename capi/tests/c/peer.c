// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * A peer of python/tests/test_matrix.py.
 *
 * write CHANNEL FORMAT WIDTH HEIGHT: writes frames from stdin, each after its size, and ends the stream.
 * read CHANNEL [observe]: prints frames in the same form, until the stream ends. A size with bit 31 set announces the
 * caps of the frames that follow.
 */
#include "common.h"

static uint8_t bytes[1 << 20];

static void record(uint32_t mark, const void *data, size_t size) {
  uint32_t word = mark | (uint32_t)size;
  CHECK(fwrite(&word, sizeof word, 1, stdout) == 1 && fwrite(data, 1, size, stdout) == size);
}

static void read_frames(const char *name, uint32_t flags) {
  rsshm_reader_options options = RSSHM_READER_OPTIONS_INIT;
  rsshm_reader *reader;
  rsshm_frame *frame;
  rsshm_status status;
  char caps[4096] = "";
  options.flags = flags;
  EXPECT(rsshm_reader_open(name, &options, &reader), RSSHM_OK);
  while ((status = rsshm_reader_next(reader, 20 * SECOND, &frame)) != RSSHM_EOS) {
    rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
    if (status == RSSHM_NO_WRITER) continue;
    EXPECT(status, RSSHM_OK);
    EXPECT(rsshm_frame_get(frame, &info), RSSHM_OK);
    if (strcmp(caps, info.caps) != 0) {
      CHECK(snprintf(caps, sizeof caps, "%s", info.caps) < (int)sizeof caps);
      record(UINT32_C(1) << 31, caps, strlen(caps));
    }
    record(0, info.data, info.size);
    CHECK(fflush(stdout) == 0);
    EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  }
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
}

static void write_frames(const char *name, const char *format, int width, int height) {
  rsshm_writer *writer;
  uint32_t size;
  EXPECT(rsshm_writer_open(name, NULL, &writer), RSSHM_OK);
  EXPECT(rsshm_writer_video(writer, format, width, height, 30, 1), RSSHM_OK);
  while (fread(&size, sizeof size, 1, stdin) == 1) {
    CHECK(size <= sizeof bytes && fread(bytes, 1, size, stdin) == size);
    EXPECT(rsshm_writer_write_bytes(writer, bytes, size, NULL), RSSHM_OK);
  }
  EXPECT(rsshm_writer_end_of_stream(writer), RSSHM_OK);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
}

int main(int argc, char **argv) {
  CHECK(argc >= 3);
  if (strcmp(argv[1], "read") == 0) {
    read_frames(argv[2], argc > 3 ? RSSHM_READ_ONLY : 0);
  } else {
    CHECK(argc == 6);
    write_frames(argv[2], argv[3], atoi(argv[4]), atoi(argv[5]));
  }
  return 0;
}
