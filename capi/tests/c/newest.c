// SPDX-License-Identifier: MIT OR Apache-2.0
/* newest CHANNEL: a reader that wants the newest frame gets it, although its thread has already kept an older one. */
#include "common.h"

#include <poll.h>

int main(int argc, char **argv) {
  rsshm_writer *writer;
  rsshm_reader *reader;
  rsshm_frame *frame;
  rsshm_reader_options options = {sizeof options, 0, 1, 0};
  rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
  static uint8_t picture[4096];
  rsshm_plane plane = {picture, 64, 0, 0};
  CHECK(argc == 2);
  EXPECT(rsshm_reader_open(argv[1], &options, &reader), RSSHM_OK);
  int fd = rsshm_reader_fd(reader);
  CHECK(fd >= 0);
  EXPECT(rsshm_writer_open(argv[1], NULL, &writer), RSSHM_OK);
  EXPECT(rsshm_writer_video(writer, "GRAY8", 64, 64, 30, 1), RSSHM_OK);
  EXPECT(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_OK);
  struct pollfd event = {fd, POLLIN, 0};
  CHECK(poll(&event, 1, 20000) == 1);
  for (int i = 2; i <= 5; i++) EXPECT(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_OK);
  EXPECT(rsshm_reader_next(reader, 0, &frame), RSSHM_OK);
  EXPECT(rsshm_frame_get(frame, &info), RSSHM_OK);
  CHECK(info.seq == 5 && info.missed == 4);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  EXPECT(rsshm_reader_next(reader, 0, &frame), RSSHM_TIMEOUT);
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  puts("ok");
  return 0;
}
