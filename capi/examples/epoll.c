// SPDX-License-Identifier: MIT OR Apache-2.0
/* epoll CHANNEL...: prints the frames of several channels in one thread, until each stream has ended. */
#include <inttypes.h>
#include <rsshm.h>
#include <stdio.h>
#include <sys/epoll.h>

int main(int argc, char **argv) {
  int epoll = epoll_create1(EPOLL_CLOEXEC), open = 0;
  rsshm_reader *readers[64];
  for (int i = 1; i < argc && i < 64; i++) {
    if (rsshm_reader_open(argv[i], NULL, &readers[i]) != RSSHM_OK) return fprintf(stderr, "%s\n", rsshm_error()), 1;
    int fd = rsshm_reader_fd(readers[i]);
    struct epoll_event event = {EPOLLIN, {.u32 = (uint32_t)i}};
    if (fd < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) return fprintf(stderr, "%s\n", rsshm_error()), 1;
    open++;
  }
  while (open > 0) {
    struct epoll_event event;
    if (epoll_wait(epoll, &event, 1, -1) != 1) continue;
    uint32_t i = event.data.u32;
    rsshm_frame *frame;
    /* The descriptor stays readable as long as there are frames, so one frame a turn is enough. */
    rsshm_status status = rsshm_reader_next(readers[i], 0, &frame);
    if (status == RSSHM_OK) {
      rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
      rsshm_frame_get(frame, &info);
      printf("%s: frame %" PRIu64 " from %d\n", argv[i], info.seq, info.data[0]);
      rsshm_frame_release(frame);
    } else if (status == RSSHM_EOS || status < 0) {
      printf("%s: %s\n", argv[i], status < 0 ? rsshm_error() : "the end");
      rsshm_reader_close(readers[i]);
      open--;
    }
  }
  return 0;
}
