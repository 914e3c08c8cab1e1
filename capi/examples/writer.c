// SPDX-License-Identifier: MIT OR Apache-2.0
/* writer CHANNEL [FRAMES]: writes gray frames, 30 a second. Build: cc writer.c $(pkg-config --cflags --libs rsshm) */
#define _POSIX_C_SOURCE 200809L

#include <rsshm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int main(int argc, char **argv) {
  rsshm_writer *writer;
  rsshm_status status = rsshm_writer_open(argc > 1 ? argv[1] : "cam0", NULL, &writer);
  if (status == RSSHM_OK) status = rsshm_writer_video(writer, "GRAY8", 640, 360, 30, 1);
  for (int i = 0, count = argc > 2 ? atoi(argv[2]) : 300; i < count && status >= 0; i++) {
    rsshm_slot *slot;
    rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
    status = rsshm_writer_claim(writer, 0, &slot, &info);
    if (status == RSSHM_OK) memset(info.data, i, info.size);
    if (status == RSSHM_OK) status = rsshm_slot_publish(slot, NULL);
    nanosleep(&(struct timespec){0, 33333333}, NULL);
  }
  if (status < 0) fprintf(stderr, "%s\n", rsshm_error());
  rsshm_writer_end_of_stream(writer);
  rsshm_writer_close(writer);
  return status < 0;
}
