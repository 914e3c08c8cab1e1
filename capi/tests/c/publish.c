// SPDX-License-Identifier: MIT OR Apache-2.0
/* publish CHANNEL: what a writer can say about a frame, what happens without a free slot, and the writer's counts. */
#include "common.h"

#define WIDTH 61
#define HEIGHT 4
#define ALIGN 128
#define READERS 64

static rsshm_reader *reader;
static rsshm_writer *writer;

static rsshm_frame *next(rsshm_frame_info *info) {
  rsshm_frame *frame;
  EXPECT(rsshm_reader_next(reader, 20 * SECOND, &frame), RSSHM_OK);
  *info = (rsshm_frame_info)RSSHM_FRAME_INFO_INIT;
  EXPECT(rsshm_frame_get(frame, info), RSSHM_OK);
  return frame;
}

static rsshm_writer_stats stats(void) {
  rsshm_writer_stats stats = RSSHM_WRITER_STATS_INIT;
  EXPECT(rsshm_writer_get_stats(writer, &stats), RSSHM_OK);
  return stats;
}

static void open_writer(const char *name, uint32_t flags, int64_t max_wait_ns) {
  rsshm_writer_options options = RSSHM_WRITER_OPTIONS_INIT;
  options.flags = flags;
  options.max_slots = 4;
  options.stride_align = ALIGN;
  options.max_wait_ns = max_wait_ns;
  EXPECT(rsshm_writer_open(name, &options, &writer), RSSHM_OK);
  EXPECT(rsshm_writer_video(writer, "GRAY8", WIDTH, HEIGHT, 30, 1), RSSHM_OK);
}

static void check_aligned(const rsshm_frame_info *info) {
  CHECK(info->plane_count == 1 && info->planes[0].stride == ALIGN && info->planes[0].row_bytes == WIDTH);
  CHECK(info->size == ALIGN * HEIGHT);
}

/* Each way of publishing stores the seq, keeps the values, and describes the aligned planes. */
static void publishes_with_values(void) {
  static uint8_t picture[ALIGN * HEIGHT];
  rsshm_plane plane = {picture, ALIGN, 0, 0};
  for (int way = 0; way < 3; way++) {
    uint64_t seq = 77;
    rsshm_publish_info publish = RSSHM_PUBLISH_INFO_INIT;
    publish.pts_ns = 1000;
    publish.dts_ns = 900;
    publish.duration_ns = 33;
    publish.offset = 5;
    publish.offset_end = 6;
    publish.buffer_flags = 1u << 14;
    publish.flags = RSSHM_HEADER;
    publish.seq = &seq;
    if (way == 0) {
      rsshm_slot *slot;
      rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
      EXPECT(rsshm_writer_claim(writer, 0, &slot, &info), RSSHM_OK);
      CHECK(info.planes[0].stride == ALIGN && info.size == ALIGN * HEIGHT);
      EXPECT(rsshm_slot_publish(slot, &publish), RSSHM_OK);
    } else if (way == 1) {
      EXPECT(rsshm_writer_write(writer, &plane, 1, &publish), RSSHM_OK);
    } else {
      EXPECT(rsshm_writer_write_bytes(writer, picture, sizeof picture, &publish), RSSHM_OK);
    }
    rsshm_frame_info info;
    rsshm_frame *frame = next(&info);
    CHECK(info.seq == seq && seq == (uint64_t)way + 1);
    CHECK(info.pts_ns == 1000 && info.dts_ns == 900 && info.duration_ns == 33);
    CHECK(info.offset == 5 && info.offset_end == 6);
    CHECK(info.buffer_flags == (1u << 14 | 1u << 10) && (info.flags & RSSHM_FRAME_HEADER) != 0);
    CHECK((info.flags & RSSHM_FRAME_KEYFRAME) != 0);
    check_aligned(&info);
    EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  }
}

/* With RSSHM_KEEP, the bytes stay as they are until the release, whatever is published afterwards. */
static void kept_slot_stays_readable(void) {
  rsshm_slot *slot;
  rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
  rsshm_publish_info publish = RSSHM_PUBLISH_INFO_INIT;
  uint64_t seq = 0;
  publish.flags = RSSHM_KEEP;
  publish.seq = &seq;
  EXPECT(rsshm_writer_claim(writer, 0, &slot, &info), RSSHM_OK);
  memset(info.data, 9, info.size);
  EXPECT(rsshm_slot_publish(slot, &publish), RSSHM_OK);
  CHECK(seq == 4);
  EXPECT_ERROR(rsshm_slot_publish(slot, &publish), RSSHM_E_STATE, "already published");
  CHECK(seq == 0);
  static uint8_t picture[ALIGN * HEIGHT];
  for (int i = 0; i < 20; i++) {
    EXPECT(rsshm_writer_write_bytes(writer, picture, sizeof picture, NULL), RSSHM_OK);
    for (size_t at = 0; at < info.size; at++) CHECK(info.data[at] == 9);
  }
  EXPECT(rsshm_slot_release(slot), RSSHM_OK);
  EXPECT(rsshm_slot_release(slot), RSSHM_E_HANDLE);
  EXPECT_ERROR(rsshm_writer_write_bytes(writer, picture, sizeof picture, &publish), RSSHM_E_ARGUMENT, "flags");
}

/* Claims all slots, and returns how many there are. */
static int claim_all(rsshm_slot **slots, rsshm_status end) {
  rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
  int count = 0;
  for (;;) {
    rsshm_status status = rsshm_writer_claim(writer, 0, &slots[count], &info);
    if (status == end) return count;
    EXPECT(status, RSSHM_OK);
    CHECK(++count <= 8);
  }
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  const char *name = argv[1];
  rsshm_slot *slots[9];

  CHECK(rsshm_reader_observing(NULL) == NULL);
  EXPECT(rsshm_reader_open(name, NULL, &reader), RSSHM_OK);
  CHECK(strcmp(rsshm_reader_observing(reader), "") == 0);
  open_writer(name, RSSHM_SPARE, 0);
  publishes_with_values();
  kept_slot_stays_readable();
  rsshm_writer_stats counts = stats();
  CHECK(counts.published == 24 && counts.head == 24 && counts.dropped == 0 && counts.segments == 1);
  CHECK(counts.slots >= 3 && counts.max_slots == 4 && counts.bytes > 0 && counts.lossless == 0);

  /* Without a free slot, the claim has other memory. Its publish is lost, or copies if a slot is free by then. */
  rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
  int count = 0;
  while (count < 9) {
    EXPECT(rsshm_writer_claim(writer, 0, &slots[count++], &info), RSSHM_OK);
    memset(info.data, 33, info.size);
  }
  rsshm_publish_info publish = RSSHM_PUBLISH_INFO_INIT;
  uint64_t seq = 77;
  publish.seq = &seq;
  EXPECT(rsshm_slot_publish(slots[8], &publish), RSSHM_DROPPED);
  CHECK(seq == 0 && stats().dropped == 1 && stats().published == 24);
  /* The former frames of the reader are skipped. */
  EXPECT(rsshm_slot_release(slots[0]), RSSHM_OK);
  publish.flags = RSSHM_KEEP;
  EXPECT(rsshm_slot_publish(slots[7], &publish), RSSHM_OK);
  CHECK(seq == 26 && stats().head == 26);
  EXPECT_ERROR(rsshm_slot_publish(slots[7], &publish), RSSHM_E_STATE, "already published");
  for (count = 1; count < 8; count++) EXPECT(rsshm_slot_release(slots[count]), RSSHM_OK);
  rsshm_frame_info frame_info;
  do {
    EXPECT(rsshm_frame_release(next(&frame_info)), RSSHM_OK);
  } while (frame_info.seq < 26);
  CHECK(frame_info.seq == 26 && frame_info.missed > 0);

  /* A slot whose caps have changed, both in the channel and in other memory. */
  for (count = 0; count < 9; count++) EXPECT(rsshm_writer_claim(writer, 0, &slots[count], &info), RSSHM_OK);
  EXPECT(rsshm_writer_video(writer, "GRAY8", WIDTH, HEIGHT + 1, 30, 1), RSSHM_OK);
  for (count = 0; count < 9; count++) EXPECT(rsshm_slot_publish(slots[count], NULL), RSSHM_E_STATE);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);

  /* A lossless writer waits for the given time, and loses nothing. */
  rsshm_reader *held;
  open_writer(name, RSSHM_LOSSLESS, SECOND / 20);
  EXPECT(rsshm_reader_open(name, NULL, &held), RSSHM_OK);
  static uint8_t picture[ALIGN * HEIGHT];
  rsshm_frame *frame;
  EXPECT(rsshm_writer_write_bytes(writer, picture, sizeof picture, NULL), RSSHM_OK);
  EXPECT(rsshm_reader_next(held, 20 * SECOND, &frame), RSSHM_OK);
  uint64_t before = rsshm_now();
  count = claim_all(slots, RSSHM_TIMEOUT);
  CHECK(count < 4 && rsshm_now() - before >= (uint64_t)SECOND / 20 && rsshm_now() - before < 10 * (uint64_t)SECOND);
  while (count > 0) EXPECT(rsshm_slot_release(slots[--count]), RSSHM_OK);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  while (rsshm_writer_write_bytes(writer, picture, sizeof picture, NULL) == RSSHM_OK) continue;
  CHECK(stats().dropped == 0 && stats().lossless == 1);
  EXPECT(rsshm_reader_next(held, 20 * SECOND, &frame), RSSHM_OK);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  EXPECT(rsshm_reader_close(held), RSSHM_OK);

  /* Why a reader observes. */
  EXPECT(rsshm_writer_write_bytes(writer, picture, sizeof picture, NULL), RSSHM_OK);
  rsshm_reader_options read_only = RSSHM_READER_OPTIONS_INIT;
  read_only.flags = RSSHM_READ_ONLY;
  EXPECT(rsshm_reader_open(name, &read_only, &reader), RSSHM_OK);
  EXPECT(rsshm_frame_release(next(&frame_info)), RSSHM_OK);
  CHECK(strstr(rsshm_reader_observing(reader), "read-only access was requested") != NULL);
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  rsshm_reader *readers[READERS + 1];
  for (count = 0; count <= READERS; count++) {
    EXPECT(rsshm_reader_open(name, NULL, &readers[count]), RSSHM_OK);
    reader = readers[count];
    EXPECT(rsshm_frame_release(next(&frame_info)), RSSHM_OK);
    CHECK((*rsshm_reader_observing(reader) != '\0') == (count == READERS));
  }
  CHECK(strstr(rsshm_reader_observing(reader), "64 reader entries") != NULL);
  while (count > 0) EXPECT(rsshm_reader_close(readers[--count]), RSSHM_OK);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  puts("ok");
  return 0;
}
