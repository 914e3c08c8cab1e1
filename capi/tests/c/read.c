// SPDX-License-Identifier: MIT OR Apache-2.0
/* read CHANNEL [copy] [observe] [newest] [fd]: prints the number of each frame until the stream ends. */
#include "common.h"

#include <poll.h>

int main(int argc, char **argv) {
  rsshm_reader_options options = RSSHM_READER_OPTIONS_INIT;
  rsshm_reader *reader;
  rsshm_frame *frame;
  int fd = -1;
  for (int i = 2; i < argc; i++) {
    if (strcmp(argv[i], "copy") == 0) options.flags |= RSSHM_COPY;
    if (strcmp(argv[i], "observe") == 0) options.flags |= RSSHM_READ_ONLY;
    if (strcmp(argv[i], "newest") == 0) options.max_behind = 1;
    if (strcmp(argv[i], "fd") == 0) fd = 0;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  EXPECT(rsshm_reader_open(argv[1], &options, &reader), RSSHM_OK);
  if (fd == 0) fd = rsshm_reader_fd(reader);
  CHECK(fd >= -1);
  puts("ready");
  for (;;) {
    if (fd >= 0) {
      struct pollfd event = {fd, POLLIN, 0};
      CHECK(poll(&event, 1, 20000) == 1);
    }
    rsshm_status status = rsshm_reader_next(reader, fd >= 0 ? 0 : 20 * SECOND, &frame);
    if (status == RSSHM_EOS) break;
    if (status == RSSHM_NO_WRITER) {
      puts("no writer");
      continue;
    }
    EXPECT(status, RSSHM_OK);
    rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
    EXPECT(rsshm_frame_get(frame, &info), RSSHM_OK);
    int64_t number = -1;
    for (uint32_t p = 0; p < info.plane_count; p++) {
      /* Each row of each plane begins a pattern of its own. */
      for (uint32_t row = 0; row < info.planes[p].rows; row++) {
        int64_t found = frame_check(info.planes[p].data + row * info.planes[p].stride, info.planes[p].row_bytes);
        CHECK(found >= 0 && (number < 0 || number == found));
        number = found;
      }
    }
    if (info.plane_count == 0) number = frame_check(info.data, info.size);
    CHECK(number >= 0);
    printf("%" PRId64 " seq=%" PRIu64 " missed=%" PRIu64 " format=%s %dx%d@%d/%d planes=%u size=%zu in-place=%u pts=%d caps=%s\n",
           number, info.seq, info.missed, info.format, info.width, info.height, info.fps_n, info.fps_d, info.plane_count,
           info.size, info.flags & RSSHM_FRAME_IN_PLACE, info.pts_ns != RSSHM_TIME_NONE, info.caps);
    EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  }
  puts("eos");
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  return 0;
}
