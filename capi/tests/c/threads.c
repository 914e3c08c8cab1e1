// SPDX-License-Identifier: MIT OR Apache-2.0
/* threads CHANNEL: waits in one thread, and wakes, disturbs and closes from another. */
#include "common.h"

#include <poll.h>
#include <pthread.h>
#include <unistd.h>

static rsshm_reader *reader;
static rsshm_writer *writer;

static void *next(void *unused) {
  rsshm_frame *frame;
  (void)unused;
  return (void *)(intptr_t)rsshm_reader_next(reader, 20 * SECOND, &frame);
}

static void *claim(void *unused) {
  rsshm_slot *slot;
  rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
  (void)unused;
  rsshm_status status = rsshm_writer_claim(writer, 0, &slot, &info);
  if (status == RSSHM_OK) rsshm_slot_release(slot);
  return (void *)(intptr_t)status;
}

static void *wait_for_reader(void *unused) {
  (void)unused;
  return (void *)(intptr_t)rsshm_writer_wait_for_reader(writer, RSSHM_FOREVER);
}

static pthread_t start(void *(*body)(void *)) {
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, body, NULL) == 0);
  usleep(100000);
  return thread;
}

static rsshm_status join(pthread_t thread) {
  void *result;
  CHECK(pthread_join(thread, &result) == 0);
  return (rsshm_status)(intptr_t)result;
}

static int is_readable(int fd, int timeout_ms) {
  struct pollfd event = {fd, POLLIN, 0};
  return poll(&event, 1, timeout_ms) == 1;
}

int main(int argc, char **argv) {
  rsshm_frame *frame, *frames[8];
  static uint8_t picture[4096];
  rsshm_reader_stats stats = RSSHM_READER_STATS_INIT;
  CHECK(argc == 2);

  /* Without and with the descriptor. */
  for (int with_fd = 0; with_fd < 2; with_fd++) {
    EXPECT(rsshm_reader_open(argv[1], NULL, &reader), RSSHM_OK);
    int fd = with_fd ? rsshm_reader_fd(reader) : -1;
    CHECK(!with_fd || fd >= 0);

    /* A wake ends the present wait, and the next one if there is none. */
    pthread_t waiting = start(next);
    EXPECT(rsshm_reader_wake(reader), RSSHM_OK);
    EXPECT(join(waiting), RSSHM_WOKEN);
    EXPECT(rsshm_reader_next(reader, 0, &frame), RSSHM_TIMEOUT);
    EXPECT(rsshm_reader_wake(reader), RSSHM_OK);
    CHECK(!with_fd || is_readable(fd, 5000));
    EXPECT(rsshm_reader_next(reader, RSSHM_FOREVER, &frame), RSSHM_WOKEN);
    CHECK(!with_fd || !is_readable(fd, 0));
    EXPECT(rsshm_reader_next(reader, 0, &frame), RSSHM_TIMEOUT);

    if (!with_fd) {
      /* Two threads with one reader. */
      waiting = start(next);
      EXPECT_ERROR(rsshm_reader_next(reader, 0, &frame), RSSHM_E_STATE, "another thread");
      EXPECT_ERROR(rsshm_reader_fd(reader), RSSHM_E_STATE, "another thread");
      EXPECT(rsshm_reader_get_stats(reader, &stats), RSSHM_OK);
      EXPECT(rsshm_reader_wake(reader), RSSHM_OK);
      EXPECT(join(waiting), RSSHM_WOKEN);
    }

    /* A close ends the wait of another thread. */
    waiting = start(next);
    EXPECT(rsshm_reader_close(reader), RSSHM_OK);
    EXPECT(join(waiting), RSSHM_E_CLOSED);
  }

  /* A close without a wait joins the thread behind the descriptor. */
  for (int i = 0; i < 50; i++) {
    EXPECT(rsshm_reader_open(argv[1], NULL, &reader), RSSHM_OK);
    CHECK(rsshm_reader_fd(reader) >= 0);
    EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  }

  /* A lossless writer waits for a reader, and for a slot. */
  rsshm_writer_options options = RSSHM_WRITER_OPTIONS_INIT;
  options.flags = RSSHM_LOSSLESS;
  options.max_slots = 4;
  EXPECT(rsshm_writer_open(argv[1], &options, &writer), RSSHM_OK);
  EXPECT(rsshm_writer_video(writer, "GRAY8", 64, 64, 30, 1), RSSHM_OK);
  EXPECT(rsshm_writer_wait_for_reader(writer, SECOND / 10), RSSHM_TIMEOUT);
  pthread_t waiting = start(wait_for_reader);
  EXPECT_ERROR(rsshm_writer_wait_for_reader(writer, 0), RSSHM_E_STATE, "another thread");
  EXPECT(rsshm_writer_wake(writer), RSSHM_OK);
  EXPECT(join(waiting), RSSHM_WOKEN);
  EXPECT(rsshm_reader_open(argv[1], NULL, &reader), RSSHM_OK);
  EXPECT(rsshm_reader_next(reader, 0, &frame), RSSHM_TIMEOUT);
  EXPECT(rsshm_writer_wait_for_reader(writer, 20 * SECOND), RSSHM_OK);
  int count = 0;
  for (; count < 8; count++) {
    /* The reader takes no frame, so the writer has to wait at last. */
    waiting = start(claim);
    EXPECT(rsshm_writer_wake(writer), RSSHM_OK);
    rsshm_status status = join(waiting);
    if (status == RSSHM_WOKEN) break;
    EXPECT(status, RSSHM_OK);
    /* The wake came too late for that claim, so it ends the next wait. */
    rsshm_plane plane = {picture, 64, 0, 0};
    status = rsshm_writer_write(writer, &plane, 1, NULL);
    if (status == RSSHM_WOKEN) break;
    EXPECT(status, RSSHM_OK);
  }
  CHECK(count < 8);
  /* A wake may be left. Two wakes that no wait was between are one. */
  rsshm_slot *slot;
  rsshm_slot_info slot_info = RSSHM_SLOT_INFO_INIT;
  EXPECT(rsshm_writer_wake(writer), RSSHM_OK);
  EXPECT(rsshm_writer_claim(writer, 0, &slot, &slot_info), RSSHM_WOKEN);
  waiting = start(claim);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  EXPECT(join(waiting), RSSHM_E_CLOSED);

  /* Frames outlive their reader and their writer, and the threads that took them. */
  for (int i = 0; i < count; i++) EXPECT(rsshm_reader_next(reader, 0, &frames[i]), RSSHM_OK);
  EXPECT(rsshm_reader_next(reader, 0, &frame), RSSHM_NO_WRITER);
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  for (int i = 0; i < count; i++) {
    rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
    EXPECT(rsshm_frame_get(frames[i], &info), RSSHM_OK);
    CHECK(info.size == sizeof picture && memcmp(info.data, picture, sizeof picture) == 0);
    CHECK(strstr(info.caps, "GRAY8") != NULL);
    EXPECT(rsshm_frame_release(frames[i]), RSSHM_OK);
  }
  puts("ok");
  return 0;
}
