// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * write_descriptors CHANNEL COUNT: waits for a reader, publishes numbered NV12 frames in memfds, and ends the stream. It
 * checks that each buffer comes back once.
 */
#include "common.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>

#define BUFFERS 8
#define SPARE 6
#define LUMA (64 * 32)
#define SIZE (LUMA * 3 / 2)
#define OFFSET 4096

static struct buffer {
  int fd;
  uint8_t *memory;
  int is_out;
} buffers[BUFFERS];
static int released_others;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

/* A thread of the library may call it. */
static void give_back(void *user) {
  struct buffer *buffer = user;
  pthread_mutex_lock(&lock);
  CHECK(buffer->is_out);
  buffer->is_out = 0;
  pthread_mutex_unlock(&lock);
}

static void count_release(void *user) { ++*(int *)user; }

static int count_out(void) {
  int count = 0;
  pthread_mutex_lock(&lock);
  for (int i = 0; i < BUFFERS; i++) count += buffers[i].is_out;
  pthread_mutex_unlock(&lock);
  return count;
}

/* Takes the buffers in turn, as a camera fills them, so that all are soon in use. */
static struct buffer *take(void) {
  static int next;
  struct buffer *found = NULL;
  /* The service may be giving a buffer back at this moment. */
  for (int tries = 0; found == NULL; tries++) {
    CHECK(tries < 20000);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < BUFFERS && found == NULL; i++) {
      struct buffer *buffer = &buffers[(next + i) % BUFFERS];
      if (!buffer->is_out) found = buffer;
    }
    if (found != NULL) {
      found->is_out = 1;
      next = (int)(found - buffers + 1) % BUFFERS;
    }
    pthread_mutex_unlock(&lock);
    if (found == NULL) usleep(1000);
  }
  return found;
}

/* Each error gives the buffer back. */
static void check_errors(rsshm_writer *writer) {
  rsshm_fd plane = RSSHM_FD_INIT;
  int calls = 0;
  plane.size = SIZE;
#define ERROR(planes, count, status, words)                                                                          \
  do {                                                                                                               \
    EXPECT_ERROR(rsshm_writer_write_fds(writer, planes, count, NULL, count_release, &released_others), status, words); \
    CHECK(released_others == ++calls);                                                                               \
  } while (0)
  ERROR(NULL, 1, RSSHM_E_ARGUMENT, "NULL");
  ERROR(&plane, 0, RSSHM_E_ARGUMENT, "0 planes");
  ERROR(&plane, 5, RSSHM_E_ARGUMENT, "5 planes");
  ERROR(&plane, 1, RSSHM_E_ARGUMENT, "descriptor of plane 0 is -1");
  plane.fd = buffers[0].fd;
  plane.size = SIZE - 1;
  ERROR(&plane, 1, RSSHM_E_CAPS, "of these caps");
  plane.size = SIZE;
  plane.stride = 64;
  ERROR(&plane, 1, RSSHM_E_CAPS, "2 planes");
  plane.stride = INT64_MAX;
  ERROR(&plane, 1, RSSHM_E_CAPS, "stride of plane 0");
  plane.stride = 0;
  plane.offset = UINT64_MAX;
  ERROR(&plane, 1, RSSHM_E_SYSTEM, "not inside its object");
  plane.offset = 0;
  plane.fd = open("/proc/self/exe", O_RDONLY);
  CHECK(plane.fd >= 0);
  ERROR(&plane, 1, RSSHM_E_SYSTEM, "memfd");
  close(plane.fd);
  plane.fd = buffers[0].fd;
  plane.struct_size = 4;
  ERROR(&plane, 1, RSSHM_E_ARGUMENT, "struct_size");
  rsshm_writer *none = NULL;
  EXPECT_ERROR(rsshm_writer_write_fds(none, &plane, 1, NULL, count_release, &released_others), RSSHM_E_HANDLE, "NULL");
  CHECK(released_others == ++calls);
  /* A writer of descriptors has no slots for bytes. */
  static uint8_t bytes[SIZE];
  EXPECT(rsshm_writer_write_bytes(writer, bytes, sizeof bytes, NULL) < 0, 1);
}

int main(int argc, char **argv) {
  rsshm_writer_options options = RSSHM_WRITER_OPTIONS_INIT;
  rsshm_writer *writer;
  CHECK(argc == 3);
  options.flags = RSSHM_FDS;
  options.spare_buffers = SPARE;
  EXPECT(rsshm_writer_open(argv[1], &options, &writer), RSSHM_OK);
  EXPECT(rsshm_writer_video(writer, "NV12", 64, 32, 30, 1), RSSHM_OK);
  for (int i = 0; i < BUFFERS; i++) {
    buffers[i].fd = memfd_create("rsshm-test", MFD_CLOEXEC);
    CHECK(buffers[i].fd >= 0 && ftruncate(buffers[i].fd, OFFSET + SIZE) == 0);
    buffers[i].memory = mmap(NULL, OFFSET + SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, buffers[i].fd, 0);
    CHECK(buffers[i].memory != MAP_FAILED);
  }
  check_errors(writer);
  EXPECT(rsshm_writer_wait_for_reader(writer, 20 * SECOND), RSSHM_OK);
  int files = 0;
  for (uint32_t number = 0, count = (uint32_t)atoi(argv[2]); number < count; number++) {
    struct buffer *buffer = take();
    frame_fill(buffer->memory + OFFSET, SIZE, ~number);
    frame_fill(buffer->memory + OFFSET, SIZE, number);
    rsshm_fd planes[2] = {RSSHM_FD_INIT, RSSHM_FD_INIT};
    planes[0].fd = planes[1].fd = buffer->fd;
    planes[0].stride = planes[1].stride = 64;
    planes[0].offset = OFFSET;
    planes[0].size = LUMA;
    planes[1].offset = OFFSET + LUMA;
    planes[1].size = SIZE - LUMA;
    uint64_t seq = 0;
    rsshm_publish_info info = RSSHM_PUBLISH_INFO_INIT;
    info.seq = &seq;
    EXPECT(rsshm_writer_write_fds(writer, planes, 2, &info, give_back, buffer), RSSHM_OK);
    CHECK(seq == number + 1);
    CHECK(count_out() <= SPARE + 1);
    usleep(2000);
    if (number == 50) files = count_files();
  }
  EXPECT(rsshm_writer_end_of_stream(writer), RSSHM_OK);
  for (int tries = 0; rsshm_writer_readers(writer) > 0; tries++) {
    CHECK(tries < 20000);
    usleep(1000);
  }
  CHECK(count_files() <= files + 1);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  CHECK(count_out() == 0);
  puts("ok");
  return 0;
}
