// SPDX-License-Identifier: MIT OR Apache-2.0
/* convert CHANNEL: frames become pictures, and what cannot become one is an error. */
#include "common.h"

static rsshm_reader *reader;
static rsshm_writer *writer;

static rsshm_frame *sent(const void *bytes, size_t size) {
  rsshm_frame *frame;
  EXPECT(rsshm_writer_write_bytes(writer, bytes, size, NULL), RSSHM_OK);
  EXPECT(rsshm_reader_next(reader, 20 * SECOND, &frame), RSSHM_OK);
  return frame;
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  EXPECT(rsshm_reader_open(argv[1], NULL, &reader), RSSHM_OK);
  EXPECT(rsshm_writer_open(argv[1], NULL, &writer), RSSHM_OK);

  /* Two pixels of a row, whose rows have padding, in both orders. */
  EXPECT(rsshm_writer_video(writer, "xRGB", 2, 2, 30, 1), RSSHM_OK);
  static const uint8_t pixels[] = {0, 1, 2, 3, 0, 4, 5, 6, 0, 7, 8, 9, 0, 10, 11, 12};
  static const uint8_t rgb[] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12};
  static const uint8_t bgr[] = {3, 2, 1, 6, 5, 4, 9, 9, 9, 8, 7, 12, 11, 10};
  rsshm_frame *frame = sent(pixels, sizeof pixels);
  uint8_t *out = malloc(sizeof rgb); /* exactly as large, so that sanitizers find each byte that is written beyond it */
  EXPECT(rsshm_frame_convert(frame, "RGB", out, 0), RSSHM_OK);
  CHECK(memcmp(out, rgb, sizeof rgb) == 0);
  free(out);
  out = malloc(sizeof bgr);
  memset(out, 9, sizeof bgr);
  EXPECT(rsshm_frame_convert(frame, "BGR", out, 8), RSSHM_OK);
  CHECK(memcmp(out, bgr, 8) == 0 && memcmp(out + 8, bgr + 8, 6) == 0);
  EXPECT_ERROR(rsshm_frame_convert(frame, NULL, out, 0), RSSHM_E_ARGUMENT, "order is NULL");
  EXPECT_ERROR(rsshm_frame_convert(frame, "RGBA", out, 0), RSSHM_E_ARGUMENT, "RGBA");
  EXPECT_ERROR(rsshm_frame_convert(frame, "BGR", NULL, 0), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_frame_convert(frame, "BGR", out, 5), RSSHM_E_ARGUMENT, "the stride is 5, but a row");
  EXPECT_ERROR(rsshm_frame_convert(frame, "BGR", out, -6), RSSHM_E_ARGUMENT, "-6");
  EXPECT_ERROR(rsshm_frame_convert(frame, "BGR", out, INT64_MAX), RSSHM_E_ARGUMENT, "do not fit");
  EXPECT_ERROR(rsshm_frame_convert(NULL, "BGR", out, 0), RSSHM_E_HANDLE, "NULL");
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  EXPECT(rsshm_frame_convert(frame, "BGR", out, 0), RSSHM_E_HANDLE);
  free(out);

  /* Luma and chroma. */
  EXPECT(rsshm_writer_video(writer, "NV12", 2, 2, 30, 1), RSSHM_OK);
  static const uint8_t red[] = {81, 81, 0, 0, 81, 81, 0, 0, 90, 240, 0, 0};
  frame = sent(red, sizeof red);
  uint8_t picture[12];
  EXPECT(rsshm_frame_convert(frame, "BGR", picture, 0), RSSHM_OK);
  for (int i = 0; i < 12; i += 3) CHECK(picture[i] <= 1 && picture[i + 1] <= 1 && picture[i + 2] >= 253);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);

  /* A single field has half of the rows. */
  EXPECT(rsshm_writer_caps(writer,
                           "video/x-raw(format:Interlaced),format=GRAY8,width=4,height=4,interlace-mode=alternate,"
                           "framerate=30/1", 0), RSSHM_OK);
  frame = sent("abcdefgh", 8);
  uint8_t field[2 * 12 + 1] = {0};
  EXPECT(rsshm_frame_convert(frame, "RGB", field, 0), RSSHM_OK);
  CHECK(field[0] == 'a' && field[23] == 'h' && field[24] == 0);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);

  /* Frames without a picture. */
  EXPECT(rsshm_writer_caps(writer, "image/jpeg,width=2,height=2", 0), RSSHM_OK);
  frame = sent("xyz", 3);
  EXPECT_ERROR(rsshm_frame_convert(frame, "RGB", picture, 0), RSSHM_E_CAPS, "image/jpeg");
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  puts("ok");
  return 0;
}
