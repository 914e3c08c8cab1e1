// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * reader CHANNEL: prints a line for each frame: its offset, its checksum, its seq, how many frames were missed before it,
 * and whether it is in place.
 */
#include <inttypes.h>
#include <rsshm.h>
#include <stdio.h>
#include <string.h>

#define SECOND INT64_C(1000000000)

/* The sum that tests/camera/readers.rs computes too. */
static uint64_t checksum(const uint8_t *data, size_t size) {
  uint64_t sum = size;
  for (size_t i = 0; i < size / 8; i++) {
    uint64_t word;
    memcpy(&word, data + 8 * i, 8);
    sum += word * (2 * i + 1);
  }
  return sum;
}

int main(int argc, char **argv) {
  rsshm_reader *reader;
  rsshm_frame *frame;
  if (argc < 2 || rsshm_reader_open(argv[1], NULL, &reader) != RSSHM_OK) {
    fprintf(stderr, "%s\n", rsshm_error());
    return 1;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  puts("ready");
  for (;;) {
    rsshm_status status = rsshm_reader_next(reader, 20 * SECOND, &frame);
    if (status == RSSHM_EVICTED || status == RSSHM_NO_WRITER || status == RSSHM_TIMEOUT) continue;
    if (status != RSSHM_OK) {
      fprintf(stderr, "status %d: %s\n", status, rsshm_error());
      return status != RSSHM_EOS;
    }
    rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
    if (rsshm_frame_get(frame, &info) != RSSHM_OK) return 1;
    int in_place = (info.flags & RSSHM_FRAME_IN_PLACE) != 0;
    printf("frame %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d\n", info.offset, checksum(info.data, info.size), info.seq,
           info.missed, in_place);
    rsshm_frame_release(frame);
  }
}
