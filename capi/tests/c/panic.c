// SPDX-License-Identifier: MIT OR Apache-2.0
/* panic CHANNEL: a panic in any function stops at its border, and the library can be used afterwards. */
#include "common.h"

static rsshm_reader *reader;
static rsshm_writer *writer;
static rsshm_frame *frame;
static rsshm_slot *slot;
static rsshm_observer *observer;

/* Calls the function while it panics. It returns RSSHM_E_INTERNAL with a text that names it. */
#define PANICS(function, arguments)                                                     \
  do {                                                                                  \
    setenv("RSSHM_TEST_PANIC", #function, 1);                                           \
    EXPECT_ERROR(function arguments, RSSHM_E_INTERNAL, #function ": an internal error"); \
    CHECK(strstr(rsshm_error(), "RSSHM_TEST_PANIC") != NULL);                           \
    unsetenv("RSSHM_TEST_PANIC");                                                       \
  } while (0)

int main(int argc, char **argv) {
  CHECK(argc == 2);
  const char *name = argv[1];
  char bytes[12];
  size_t needed;
  rsshm_slot_info slot_info = RSSHM_SLOT_INFO_INIT;
  rsshm_frame_info frame_info = RSSHM_FRAME_INFO_INIT;
  rsshm_reader_stats reader_stats = RSSHM_READER_STATS_INIT;
  rsshm_writer_stats writer_stats = RSSHM_WRITER_STATS_INIT;
  rsshm_channel_info channel_info = RSSHM_CHANNEL_INFO_INIT;
  rsshm_event event = RSSHM_EVENT_INIT;
  rsshm_metadata metadata = RSSHM_METADATA_INIT;
  rsshm_region region = RSSHM_REGION_INIT;
  rsshm_time_code code = RSSHM_TIME_CODE_INIT;
  rsshm_layout layout = RSSHM_LAYOUT_INIT;
  rsshm_plane plane = {(const uint8_t *)bytes, 4, 0, 0};

  PANICS(rsshm_channels, (NULL, 0, &needed));
  PANICS(rsshm_caps_parts, ("a/b", NULL, 0, &needed));
  PANICS(rsshm_video_formats, (NULL, 0, &needed));
  PANICS(rsshm_video_layout, ("BGR", 1, 1, 0, &layout));

  /* A function that stores a handle may have stored it before the panic; then the handle is valid. */
  PANICS(rsshm_writer_open, (name, NULL, &writer));
  PANICS(rsshm_writer_video, (writer, "GRAY8", 4, 3, 30, 1));
  PANICS(rsshm_writer_caps, (writer, "video/x-raw,format=GRAY8,width=4,height=3,framerate=30/1", 0));
  PANICS(rsshm_reader_open, (name, NULL, &reader));
  PANICS(rsshm_writer_wait_for_reader, (writer, 0));
  PANICS(rsshm_writer_claim, (writer, 0, &slot, &slot_info));
  memset(slot_info.data, 1, slot_info.size);
  PANICS(rsshm_slot_publish, (slot, NULL));
  PANICS(rsshm_reader_next, (reader, 20 * SECOND, &frame));
  PANICS(rsshm_frame_get, (frame, &frame_info));
  CHECK(frame_info.size == 12 && frame_info.data[11] == 1);
  PANICS(rsshm_frame_convert, (frame, "BGR", (uint8_t[36]){0}, 0));
  PANICS(rsshm_frame_metadata, (frame, 0, &metadata));
  PANICS(rsshm_frame_region, (frame, 0, &region));
  PANICS(rsshm_frame_time_code, (frame, 0, &code));
  PANICS(rsshm_frame_release, (frame));
  memset(bytes, 2, sizeof bytes);
  PANICS(rsshm_writer_write, (writer, &plane, 1, NULL));
  PANICS(rsshm_writer_write_bytes, (writer, bytes, sizeof bytes, NULL));
  PANICS(rsshm_writer_claim, (writer, 0, &slot, &slot_info));
  PANICS(rsshm_slot_release, (slot));
  PANICS(rsshm_writer_end_of_stream, (writer));
  PANICS(rsshm_writer_readers, (writer));
  PANICS(rsshm_writer_keyframe_wanted, (writer));
  PANICS(rsshm_writer_set_latency, (writer, 5));
  PANICS(rsshm_writer_get_stats, (writer, &writer_stats));
  CHECK(writer_stats.published == 3);
  PANICS(rsshm_writer_event, (writer, &event, -1));
  PANICS(rsshm_writer_next_message, (writer, bytes, sizeof bytes, &needed));
  PANICS(rsshm_writer_wake, (writer));
  PANICS(rsshm_reader_wake, (reader));
  PANICS(rsshm_reader_request_keyframe, (reader, RSSHM_TIME_NONE));
  PANICS(rsshm_reader_send_message, (reader, "a", 1));
  PANICS(rsshm_reader_get_event, (reader, &event));
  PANICS(rsshm_reader_get_stats, (reader, &reader_stats));
  PANICS(rsshm_observer_open, (name, &observer));
  PANICS(rsshm_observer_get, (observer, &channel_info));
  PANICS(rsshm_observer_newest, (observer, &frame));
  PANICS(rsshm_frame_release, (frame));
  PANICS(rsshm_observer_close, (observer));
  PANICS(rsshm_reader_fd, (reader));

  /* All of that has worked, so the frames can still be read. */
  EXPECT(rsshm_reader_next(reader, 20 * SECOND, &frame), RSSHM_WOKEN);
  for (int i = 0; i < 2; i++) {
    EXPECT(rsshm_reader_next(reader, 20 * SECOND, &frame), RSSHM_OK);
    EXPECT(rsshm_frame_get(frame, &frame_info), RSSHM_OK);
    CHECK(frame_info.data[11] == 2);
    EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  }
  PANICS(rsshm_reader_close, (reader));
  PANICS(rsshm_writer_close, (writer));
  EXPECT(rsshm_writer_close(writer), RSSHM_E_HANDLE);
  puts("ok");
  return 0;
}
