// SPDX-License-Identifier: MIT OR Apache-2.0
/* What the test programs share: checks, and frames whose bytes identify them (as in testkit/src/frames.rs). */
#ifndef COMMON_H
#define COMMON_H

#define _GNU_SOURCE

#include <dirent.h>
#include <inttypes.h>
#include <rsshm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND INT64_C(1000000000)

/* Ends the program with a message if the condition does not hold. */
#define CHECK(condition)                                                                               \
  do {                                                                                                 \
    if (!(condition)) {                                                                                \
      fprintf(stderr, "%s:%d: %s does not hold; %s\n", __FILE__, __LINE__, #condition, rsshm_error()); \
      exit(1);                                                                                         \
    }                                                                                                  \
  } while (0)

/* Ends the program with a message unless the call returns the status. */
#define EXPECT(call, status) expect_(__FILE__, __LINE__, #call, (call), (status))

static inline void expect_(const char *file, int line, const char *call, rsshm_status found, rsshm_status wanted) {
  if (found != wanted) {
    fprintf(stderr, "%s:%d: %s is %s, not %s; %s\n", file, line, call, rsshm_status_name(found),
            rsshm_status_name(wanted), rsshm_error());
    exit(1);
  }
}

/* The number of files that this program has open. The directory that is read for it counts too. */
static inline int count_files(void) {
  int count = 0;
  DIR *directory = opendir("/proc/self/fd");
  CHECK(directory != NULL);
  while (readdir(directory) != NULL) count++;
  closedir(directory);
  return count;
}

/* Checks that a call fails with this status and with a text that contains `words`. */
#define EXPECT_ERROR(call, status, words) \
  do {                                    \
    EXPECT(call, status);                 \
    expect_text_(__FILE__, __LINE__, words); \
  } while (0)

static inline void expect_text_(const char *file, int line, const char *words) {
  if (strstr(rsshm_error(), words) == NULL) {
    fprintf(stderr, "%s:%d: the error text is \"%s\", it should contain \"%s\"\n", file, line, rsshm_error(), words);
    exit(1);
  }
}

static inline uint64_t frame_word(uint32_t number) { return number | (uint64_t)(uint32_t)~number << 32; }

/* Draws the frame `number`: it repeats eight bytes that contain the number. */
static inline void frame_fill(uint8_t *bytes, size_t size, uint32_t number) {
  uint64_t word = frame_word(number);
  for (size_t i = 0; i < size; i++) bytes[i] = ((const uint8_t *)&word)[i % 8];
}

/* The number that was drawn into the bytes; -1 if the frame is torn. */
static inline int64_t frame_check(const uint8_t *bytes, size_t size) {
  uint64_t word;
  if (size < 8) return -1;
  memcpy(&word, bytes, 8);
  if (word != frame_word((uint32_t)word)) return -1;
  return memcmp(bytes, bytes + 8, size - 8) == 0 ? (int64_t)(uint32_t)word : -1;
}

#endif
