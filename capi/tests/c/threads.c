// SPDX-License-Identifier: MIT OR Apache-2.0
/* threads CHANNEL: waits in one thread, and wakes, disturbs and closes from another. */
#include "common.h"

#include <poll.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <unistd.h>

static rsshm_reader *reader;
static rsshm_writer *writer;

/* The thread that start() has started; 0 until the thread is about to make its call. */
static int started;

static void note_start(void) { __atomic_store_n(&started, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST); }

static void *next(void *unused) {
  rsshm_frame *frame;
  (void)unused;
  note_start();
  return (void *)(intptr_t)rsshm_reader_next(reader, 20 * SECOND, &frame);
}

static void *claim(void *unused) {
  rsshm_slot *slot;
  rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
  (void)unused;
  note_start();
  rsshm_status status = rsshm_writer_claim(writer, 0, &slot, &info);
  if (status == RSSHM_OK) rsshm_slot_release(slot);
  return (void *)(intptr_t)status;
}

static void *wait_for_reader(void *unused) {
  (void)unused;
  note_start();
  return (void *)(intptr_t)rsshm_writer_wait_for_reader(writer, RSSHM_FOREVER);
}

/* The state of a thread: S if it sleeps, and 0 if it has ended. */
static char state_of(int thread) {
  char path[64], text[512] = "";
  snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
  FILE *file = fopen(path, "r");
  if (file == NULL) return 0;
  size_t size = fread(text, 1, sizeof text - 1, file);
  fclose(file);
  const char *end = size > 0 ? strrchr(text, ')') : NULL;
  return end != NULL && end[1] == ' ' ? end[2] : 0;
}

/*
 * Starts a thread, and waits until it waits in its call, or has ended. A tool such as valgrind lets the threads run in turn,
 * and they sleep meanwhile. So the thread has to sleep for some time.
 */
static pthread_t start(void *(*body)(void *)) {
  pthread_t thread;
  int looks = 0;
  char state = 'R';
  __atomic_store_n(&started, 0, __ATOMIC_SEQ_CST);
  CHECK(pthread_create(&thread, NULL, body, NULL) == 0);
  for (int tries = 0; looks < 20 && state != 0; tries++) {
    CHECK(tries < 20000);
    usleep(1000);
    int id = __atomic_load_n(&started, __ATOMIC_SEQ_CST);
    if (id != 0) state = state_of(id);
    looks = id != 0 && state == 'S' ? looks + 1 : 0;
  }
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
    CHECK(!with_fd || is_readable(fd, 20000));
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
