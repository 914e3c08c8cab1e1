// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * write CHANNEL COUNT MODE FORMAT WIDTH HEIGHT: waits for a reader, writes numbered frames to it without loss, and ends
 * the stream. MODE is claim, strides (by copy, with padded rows), upside-down (with negative strides), bytes, or variable
 * (frames of other caps, whose sizes differ).
 */
#include "common.h"

#include <unistd.h>

static void draw(const rsshm_plane *plane, uint32_t number) {
  for (uint32_t row = 0; row < plane->rows; row++) {
    frame_fill((uint8_t *)plane->data + row * plane->stride, plane->row_bytes, number);
  }
}

int main(int argc, char **argv) {
  rsshm_writer_options options = RSSHM_WRITER_OPTIONS_INIT;
  rsshm_writer *writer;
  CHECK(argc == 7);
  uint32_t count = (uint32_t)atoi(argv[2]);
  const char *mode = argv[3];
  options.flags = RSSHM_LOSSLESS;
  EXPECT(rsshm_writer_open(argv[1], &options, &writer), RSSHM_OK);
  int variable = strcmp(mode, "variable") == 0;
  if (variable) {
    EXPECT(rsshm_writer_caps(writer, "application/x-test", 0), RSSHM_OK);
  } else {
    EXPECT(rsshm_writer_video(writer, argv[4], atoi(argv[5]), atoi(argv[6]), 30, 1), RSSHM_OK);
  }
  EXPECT(rsshm_writer_wait_for_reader(writer, 20 * SECOND), RSSHM_OK);
  for (uint32_t number = 0; number < count; number++) {
    if (strcmp(mode, "claim") == 0) {
      rsshm_slot *slot;
      rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
      EXPECT(rsshm_writer_claim(writer, 0, &slot, &info), RSSHM_OK);
      CHECK(info.plane_count > 0);
      for (uint32_t p = 0; p < info.plane_count; p++) draw(&info.planes[p], number);
      EXPECT(rsshm_slot_publish(slot, NULL), RSSHM_OK);
      continue;
    }
    if (variable) {
      size_t size = 100 + number * 37 % 5000;
      uint8_t *bytes = malloc(size);
      CHECK(bytes != NULL);
      frame_fill(bytes, size, number);
      EXPECT(rsshm_writer_write_bytes(writer, bytes, size, NULL), RSSHM_OK);
      free(bytes);
      continue;
    }
    /* The size of each plane comes from a claim that is given up. */
    rsshm_slot *slot;
    rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
    EXPECT(rsshm_writer_claim(writer, 0, &slot, &info), RSSHM_OK);
    EXPECT(rsshm_slot_release(slot), RSSHM_OK);
    if (strcmp(mode, "bytes") == 0) {
      uint8_t *bytes = malloc(info.size);
      CHECK(bytes != NULL);
      for (uint32_t p = 0; p < info.plane_count; p++) {
        rsshm_plane plane = info.planes[p];
        plane.data = bytes + (info.planes[p].data - info.data);
        draw(&plane, number);
      }
      EXPECT(rsshm_writer_write_bytes(writer, bytes, info.size, NULL), RSSHM_OK);
      free(bytes);
      continue;
    }
    rsshm_plane planes[RSSHM_MAX_PLANES];
    uint8_t *memory[RSSHM_MAX_PLANES] = {NULL, NULL, NULL, NULL};
    for (uint32_t p = 0; p < info.plane_count; p++) {
      size_t stride = info.planes[p].row_bytes + 13;
      planes[p] = info.planes[p];
      /* Exactly as large as the rows need, so that a sanitizer finds each byte that is read beyond them. */
      size_t size = (planes[p].rows - 1) * stride + planes[p].row_bytes;
      memory[p] = malloc(size);
      CHECK(memory[p] != NULL);
      planes[p].data = memory[p];
      planes[p].stride = (int64_t)stride;
      if (strcmp(mode, "upside-down") == 0) {
        planes[p].data = memory[p] + (planes[p].rows - 1) * stride;
        planes[p].stride = -(int64_t)stride;
      }
      draw(&planes[p], number);
      planes[p].rows = p == 0 ? 0 : planes[p].rows;
    }
    EXPECT(rsshm_writer_write(writer, planes, info.plane_count, NULL), RSSHM_OK);
    for (uint32_t p = 0; p < info.plane_count; p++) free(memory[p]);
  }
  EXPECT(rsshm_writer_end_of_stream(writer), RSSHM_OK);
  /* A lossless writer keeps its frames until its readers have taken them; readers go after the end of the stream. */
  while (rsshm_writer_readers(writer) > 0) usleep(1000);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  return 0;
}
