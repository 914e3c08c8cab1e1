// SPDX-License-Identifier: MIT OR Apache-2.0
/* fork CHANNEL: a forked child cannot use the handles of its parent, and opens its own. */
#include "common.h"

#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

static volatile int is_over;
static rsshm_frame *shared;

/* Takes and releases references all the time, so that the fork happens during a call. */
static void *disturb(void *unused) {
  (void)unused;
  while (!is_over) {
    CHECK(rsshm_frame_ref(shared) == shared);
    EXPECT(rsshm_frame_release(shared), RSSHM_OK);
  }
  return NULL;
}

int main(int argc, char **argv) {
  rsshm_writer *writer;
  rsshm_reader *reader, *polled;
  rsshm_frame *frame;
  rsshm_observer *observer;
  rsshm_slot *slot;
  rsshm_slot_info slot_info = RSSHM_SLOT_INFO_INIT;
  rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
  static uint8_t picture[4096];
  rsshm_plane plane = {picture, 64, 0, 0};
  CHECK(argc == 2);
  EXPECT(rsshm_writer_open(argv[1], NULL, &writer), RSSHM_OK);
  EXPECT(rsshm_writer_video(writer, "GRAY8", 64, 64, 30, 1), RSSHM_OK);
  EXPECT(rsshm_reader_open(argv[1], NULL, &reader), RSSHM_OK);
  EXPECT(rsshm_reader_open(argv[1], NULL, &polled), RSSHM_OK);
  CHECK(rsshm_reader_fd(polled) >= 0);
  EXPECT(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_OK);
  EXPECT(rsshm_reader_next(reader, 20 * SECOND, &shared), RSSHM_OK);
  EXPECT(rsshm_observer_open(argv[1], &observer), RSSHM_OK);
  EXPECT(rsshm_writer_claim(writer, 0, &slot, &slot_info), RSSHM_OK);
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, disturb, NULL) == 0);
  for (int round = 0; round < 20; round++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      alarm(20);
      EXPECT_ERROR(rsshm_reader_next(reader, 0, &frame), RSSHM_E_FORKED, "parent process");
      EXPECT(rsshm_reader_next(polled, RSSHM_FOREVER, &frame), RSSHM_E_FORKED);
      EXPECT(rsshm_reader_wake(polled), RSSHM_E_FORKED);
      EXPECT(rsshm_reader_close(polled), RSSHM_E_FORKED);
      EXPECT(rsshm_reader_close(reader), RSSHM_E_FORKED);
      EXPECT(rsshm_frame_get(shared, &info), RSSHM_E_FORKED);
      EXPECT(rsshm_frame_release(shared), RSSHM_E_FORKED);
      EXPECT(rsshm_slot_publish(slot, NULL), RSSHM_E_FORKED);
      EXPECT(rsshm_observer_newest(observer, &frame), RSSHM_E_FORKED);
      EXPECT(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_E_FORKED);
      EXPECT(rsshm_writer_readers(writer), RSSHM_E_FORKED);
      EXPECT(rsshm_writer_close(writer), RSSHM_E_FORKED);
      /* Handles of its own. */
      rsshm_reader *own;
      EXPECT(rsshm_reader_open(argv[1], NULL, &own), RSSHM_OK);
      EXPECT(rsshm_reader_next(own, 20 * SECOND, &frame), RSSHM_OK);
      EXPECT(rsshm_frame_get(frame, &info), RSSHM_OK);
      CHECK(info.seq >= 1 && info.data[0] == 0);
      EXPECT(rsshm_frame_release(frame), RSSHM_OK);
      CHECK(rsshm_reader_fd(own) >= 0);
      EXPECT(rsshm_reader_close(own), RSSHM_OK);
      /* _exit, because a leak checker would report what the parent's other threads own. */
      _exit(0);
    }
    int status;
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  }
  is_over = 1;
  CHECK(pthread_join(thread, NULL) == 0);
  /* The children have changed nothing. */
  EXPECT(rsshm_slot_release(slot), RSSHM_OK);
  EXPECT(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_OK);
  EXPECT(rsshm_reader_next(reader, 20 * SECOND, &frame), RSSHM_OK);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  EXPECT(rsshm_frame_release(shared), RSSHM_OK);
  EXPECT(rsshm_observer_close(observer), RSSHM_OK);
  EXPECT(rsshm_reader_close(polled), RSSHM_OK);
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  puts("ok");
  return 0;
}
