// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * reader CHANNEL: prints a line for each frame. It has the offset, the checksum of the bytes, the seq, how many frames were
 * missed before the frame, and whether it is in place. The last number is the checksum of the bytes that its descriptor
 * has, or 0 if it has none.
 */
#include <inttypes.h>
#include <linux/dma-buf.h>
#include <rsshm.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define SECOND INT64_C(1000000000)
#define MAX_OBJECTS 64

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

/* Tells the driver that the processor begins or ends to read. */
static int synchronise(int fd, uint64_t flag) {
  struct dma_buf_sync sync = {DMA_BUF_SYNC_READ | flag};
  return ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync);
}

/* The checksum of the bytes that a dmabuf has, through a mapping of this program; 0 if the system refuses a step. */
static uint64_t checksum_of_fd(const rsshm_fd *plane) {
  static const uint8_t *mapped[MAX_OBJECTS];
  if (plane->kind != RSSHM_FD_DMABUF || plane->object >= MAX_OBJECTS || plane->offset + plane->size > plane->object_size) return 0;
  const uint8_t **memory = &mapped[plane->object];
  if (*memory == NULL) {
    void *place = mmap(NULL, plane->object_size, PROT_READ, MAP_SHARED, plane->fd, 0);
    if (place == MAP_FAILED) return 0;
    *memory = place;
  }
  if (synchronise(plane->fd, DMA_BUF_SYNC_START) != 0) return 0;
  uint64_t sum = checksum(*memory + plane->offset, plane->size);
  return synchronise(plane->fd, DMA_BUF_SYNC_END) == 0 ? sum : 0;
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
    rsshm_fd plane = RSSHM_FD_INIT;
    uint64_t sum_of_fd = rsshm_frame_fd(frame, 0, &plane) == RSSHM_OK ? checksum_of_fd(&plane) : 0;
    int in_place = (info.flags & RSSHM_FRAME_IN_PLACE) != 0;
    printf("frame %" PRIu64 " %" PRIu64 " %" PRIu64 " %" PRIu64 " %d %" PRIu64 "\n", info.offset, checksum(info.data, info.size),
           info.seq, info.missed, in_place, sum_of_fd);
    rsshm_frame_release(frame);
  }
}
