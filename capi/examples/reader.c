// SPDX-License-Identifier: MIT OR Apache-2.0
/* reader CHANNEL: prints each frame. Build: cc reader.c $(pkg-config --cflags --libs rsshm) */
#include <inttypes.h>
#include <rsshm.h>
#include <stdio.h>

int main(int argc, char **argv) {
  rsshm_reader *reader;
  rsshm_frame *frame;
  rsshm_status status = rsshm_reader_open(argc > 1 ? argv[1] : "cam0", NULL, &reader);
  while (status >= 0 && status != RSSHM_EOS) {
    status = rsshm_reader_next(reader, RSSHM_FOREVER, &frame);
    if (status != RSSHM_OK) continue;
    rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
    rsshm_frame_get(frame, &info);
    printf("frame %" PRIu64 ": %s %dx%d, %zu bytes from %d\n", info.seq, info.format, info.width, info.height, info.size,
           info.data[0]);
    rsshm_frame_release(frame);
  }
  if (status < 0) fprintf(stderr, "%s\n", rsshm_error());
  rsshm_reader_close(reader);
  return status < 0;
}
