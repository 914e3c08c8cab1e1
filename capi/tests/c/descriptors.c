// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * descriptors CHANNEL [copy] [observe] [unmapped] [hold] [few-files]: prints each frame until the stream ends: the number
 * in its bytes, and each descriptor that it has. hold keeps the first frame by descriptor for ever. With few-files, the
 * program has no descriptor left until it got an error. The writer may be of any language.
 */
#include "common.h"

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_OBJECTS 1000
#define WARM_UP 50

static int fd_of[MAX_OBJECTS];

/* Sets how many files may be open, and returns the former number. */
static rlim_t limit_files(rlim_t most) {
  struct rlimit limit;
  CHECK(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  rlim_t former = limit.rlim_cur;
  limit.rlim_cur = most;
  CHECK(setrlimit(RLIMIT_NOFILE, &limit) == 0);
  return former;
}

/* The number in the bytes that a descriptor has, through a mapping of this program. */
static int64_t look(const rsshm_fd *plane) {
  struct stat status;
  CHECK(fstat(plane->fd, &status) == 0 && (uint64_t)status.st_size == plane->object_size);
  CHECK(plane->offset + plane->size <= plane->object_size);
  uint8_t *memory = mmap(NULL, plane->object_size, PROT_READ, MAP_SHARED, plane->fd, 0);
  CHECK(memory != MAP_FAILED);
  int64_t number = frame_check(memory + plane->offset, plane->size);
  CHECK(munmap(memory, plane->object_size) == 0);
  return number;
}

/* The open files, without the descriptors of the objects that have come so far. A writer may begin to use another one. */
static int count_other_files(void) {
  int objects = 0;
  for (int i = 0; i < MAX_OBJECTS; i++) objects += fd_of[i] != 0;
  return count_files() - objects;
}

int main(int argc, char **argv) {
  rsshm_reader_options options = RSSHM_READER_OPTIONS_INIT;
  rsshm_reader *reader;
  rsshm_frame *frame;
  int hold = 0, files = 0, frames = 0;
  rlim_t former = 0;
  options.max_held = 2;
  for (int i = 2; i < argc; i++) {
    if (strcmp(argv[i], "copy") == 0) options.flags |= RSSHM_COPY;
    if (strcmp(argv[i], "observe") == 0) options.flags |= RSSHM_READ_ONLY;
    if (strcmp(argv[i], "unmapped") == 0) options.flags |= RSSHM_UNMAPPED;
    if (strcmp(argv[i], "hold") == 0) hold = 1;
    if (strcmp(argv[i], "few-files") == 0) former = 1;
  }
  setvbuf(stdout, NULL, _IOLBF, 0);
  EXPECT(rsshm_reader_open(argv[1], &options, &reader), RSSHM_OK);
  puts("ready");
  if (former != 0) {
    /* Attached, so that only the descriptors of frames are missing. */
    while (rsshm_reader_next(reader, SECOND, &frame) != RSSHM_OK) CHECK(frame == NULL);
    EXPECT(rsshm_frame_release(frame), RSSHM_OK);
    former = limit_files(3);
    rsshm_status status;
    do {
      status = rsshm_reader_next(reader, RSSHM_FOREVER, &frame);
      if (status == RSSHM_OK) EXPECT(rsshm_frame_release(frame), RSSHM_OK);
    } while (status == RSSHM_OK);
    EXPECT_ERROR(status, RSSHM_E_SYSTEM, "too many open files");
    limit_files(former);
    puts("too many files");
  }
  for (;;) {
    rsshm_status status = rsshm_reader_next(reader, 20 * SECOND, &frame);
    if (status == RSSHM_EOS) break;
    EXPECT(status, RSSHM_OK);
    rsshm_frame_info info = RSSHM_FRAME_INFO_INIT;
    EXPECT(rsshm_frame_get(frame, &info), RSSHM_OK);
    CHECK(info.size > 0 && (info.data != NULL || (options.flags & RSSHM_UNMAPPED) != 0));
    printf("%" PRId64 " in-place=%u fd=%u planes=%u", info.data != NULL ? frame_check(info.data, info.size) : -1,
           info.flags & RSSHM_FRAME_IN_PLACE, (info.flags & RSSHM_FRAME_FD) != 0, info.plane_count);
    rsshm_fd plane = RSSHM_FD_INIT;
    for (uint32_t i = 0; rsshm_frame_fd(frame, i, &plane) == RSSHM_OK; i++) {
      printf(" %u: %" PRId64 " kind=%u at=%" PRIu64 "+%" PRIu64 " stride=%" PRId64 " drm=%.4s:%" PRIx64, i, look(&plane),
             plane.kind, plane.offset, plane.size, plane.stride,
             plane.drm_format != 0 ? (const char *)&plane.drm_format : "none", plane.drm_modifier);
      /* The same memory has the same descriptor in each frame. */
      CHECK(plane.object < MAX_OBJECTS && plane.fd > 2);
      CHECK(fd_of[plane.object] == 0 || fd_of[plane.object] == plane.fd);
      fd_of[plane.object] = plane.fd;
    }
    EXPECT(rsshm_frame_fd(frame, 99, &plane), RSSHM_NOTHING);
    CHECK(plane.fd == -1 && plane.size == 0);
    puts("");
    if (hold && (info.flags & RSSHM_FRAME_FD) != 0) {
      puts("held");
      for (;;) pause();
    }
    EXPECT(rsshm_frame_release(frame), RSSHM_OK);
    if (++frames == WARM_UP) files = count_other_files();
  }
  /* One connection of the library may be open in neither case, because no frame comes any more. */
  CHECK(frames < WARM_UP || count_other_files() <= files);
  puts("eos");
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  return 0;
}
