// SPDX-License-Identifier: MIT OR Apache-2.0
/* bad_arguments CHANNEL: calls each function with wrong handles and values. Each gives an error with a text. */
#include "common.h"

#include <sys/stat.h>
#include <unistd.h>

#define HANDLE_ERRORS(type, call_with)                                                  \
  do {                                                                                  \
    type *h = NULL;                                                                     \
    EXPECT_ERROR(call_with, RSSHM_E_HANDLE, "is NULL");                                 \
    h = (type *)&argc;                                                                  \
    EXPECT_ERROR(call_with, RSSHM_E_HANDLE, "not a handle");                            \
    h = (type *)(uintptr_t)0x5a10000000000000u;                                         \
    if ((void *)h != NULL) EXPECT(call_with, RSSHM_E_HANDLE);                           \
    h = (type *)(uintptr_t)UINTPTR_MAX;                                                 \
    EXPECT_ERROR(call_with, RSSHM_E_HANDLE, "not a handle");                            \
    h = (type *)other;                                                                  \
    EXPECT_ERROR(call_with, RSSHM_E_HANDLE, "this is the handle of a");                 \
    h = (type *)((uintptr_t)old_##type + 0);                                            \
    EXPECT_ERROR(call_with, RSSHM_E_HANDLE, "already closed or released");              \
    h = (type *)((uintptr_t)old_##type + 77);                                           \
    EXPECT_ERROR(call_with, RSSHM_E_HANDLE, "already closed or released");              \
  } while (0)

int main(int argc, char **argv) {
  const char *name = argv[1];
  rsshm_reader *reader = NULL;
  rsshm_writer *writer = NULL;
  rsshm_frame *frame = NULL;
  rsshm_slot *slot = NULL;
  rsshm_observer *observer = NULL;
  rsshm_frame_info frame_info = RSSHM_FRAME_INFO_INIT;
  rsshm_slot_info slot_info = RSSHM_SLOT_INFO_INIT;
  rsshm_channel_info channel_info = RSSHM_CHANNEL_INFO_INIT;
  rsshm_reader_stats stats = RSSHM_READER_STATS_INIT;
  rsshm_event event = RSSHM_EVENT_INIT;
  rsshm_metadata metadata = RSSHM_METADATA_INIT;
  rsshm_region region = RSSHM_REGION_INIT;
  rsshm_time_code time_code = RSSHM_TIME_CODE_INIT;
  rsshm_plane plane = RSSHM_PLANE_INIT;
  static uint8_t picture[64 * 64];

  CHECK(argc == 2);
  CHECK(rsshm_error()[0] == '\0');
  CHECK(rsshm_abi() == RSSHM_ABI);
  CHECK(strlen(rsshm_version()) >= 5);
  CHECK(rsshm_now() > 0);
  CHECK(strcmp(rsshm_status_name(RSSHM_E_BUSY), "RSSHM_E_BUSY") == 0);
  CHECK(strcmp(rsshm_status_name(12345), "unknown status") == 0);

  /* Names, options and results. */
  EXPECT_ERROR(rsshm_reader_open(NULL, NULL, &reader), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_reader_open("", NULL, &reader), RSSHM_E_NAME, "empty");
  EXPECT_ERROR(rsshm_reader_open("a/b", NULL, &reader), RSSHM_E_NAME, "slash");
  EXPECT_ERROR(rsshm_reader_open("\xff\xfe", NULL, &reader), RSSHM_E_ARGUMENT, "UTF-8");
  EXPECT_ERROR(rsshm_reader_open(name, NULL, NULL), RSSHM_E_ARGUMENT, "result is NULL");
  CHECK(reader == NULL);
  rsshm_reader_options reader_options = {0, 0, 0, 0};
  EXPECT_ERROR(rsshm_reader_open(name, &reader_options, &reader), RSSHM_E_ARGUMENT, "struct_size");
  reader_options.struct_size = sizeof reader_options - 1;
  EXPECT_ERROR(rsshm_reader_open(name, &reader_options, &reader), RSSHM_E_ARGUMENT, "struct_size");
  reader_options.struct_size = UINT32_MAX;
  EXPECT_ERROR(rsshm_reader_open(name, &reader_options, &reader), RSSHM_E_ARGUMENT, "struct_size");
  reader_options.struct_size = sizeof reader_options;
  reader_options.flags = 0x80;
  EXPECT_ERROR(rsshm_reader_open(name, &reader_options, &reader), RSSHM_E_ARGUMENT, "flags");
  /* A program of a later version: unknown fields that are 0 are accepted, others are not. */
  struct {
    rsshm_reader_options known;
    uint64_t later;
  } newer = {RSSHM_READER_OPTIONS_INIT, 0};
  newer.known.struct_size = sizeof newer;
  EXPECT(rsshm_reader_open(name, &newer.known, &reader), RSSHM_OK);
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  newer.later = 1;
  EXPECT_ERROR(rsshm_reader_open(name, &newer.known, &reader), RSSHM_E_ARGUMENT, "does not have");
  EXPECT_ERROR(rsshm_writer_open(NULL, NULL, &writer), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_writer_open(name, NULL, NULL), RSSHM_E_ARGUMENT, "result is NULL");
  rsshm_writer_options writer_options = RSSHM_WRITER_OPTIONS_INIT;
  writer_options.max_slots = 2;
  EXPECT_ERROR(rsshm_writer_open(name, &writer_options, &writer), RSSHM_E_ARGUMENT, "max-slots");
  writer_options.max_slots = 0;
  writer_options.perms = 01777;
  EXPECT_ERROR(rsshm_writer_open(name, &writer_options, &writer), RSSHM_E_ARGUMENT, "perms");
  writer_options.perms = 0;
  writer_options.flags = 0x80;
  EXPECT_ERROR(rsshm_writer_open(name, &writer_options, &writer), RSSHM_E_ARGUMENT, "flags");
  writer_options.flags = 0;
  for (int i = 0; i < 4; i++) {
    writer_options.stride_align = (uint32_t[]){1, 2, 12, 8192}[i];
    EXPECT_ERROR(rsshm_writer_open(name, &writer_options, &writer), RSSHM_E_ARGUMENT, "stride_align");
  }
  writer_options.stride_align = 0;
  writer_options.max_wait_ns = -1;
  EXPECT_ERROR(rsshm_writer_open(name, &writer_options, &writer), RSSHM_E_ARGUMENT, "max_wait_ns");
  writer_options.max_wait_ns = 0;
  writer_options.spare_buffers = 1;
  EXPECT_ERROR(rsshm_writer_open(name, &writer_options, &writer), RSSHM_E_ARGUMENT, "spare_buffers");
  writer_options.spare_buffers = 0;
  writer_options.flags = RSSHM_FDS | RSSHM_LOSSLESS;
  EXPECT_ERROR(rsshm_writer_open(name, &writer_options, &writer), RSSHM_E_ARGUMENT, "RSSHM_LOSSLESS");
  writer_options.flags = 0;
  /* Files that are in the way. */
  char path[300];
  snprintf(path, sizeof path, "/dev/shm/%s", name);
  CHECK(mkdir(path, 0700) == 0);
  EXPECT_ERROR(rsshm_writer_open(name, NULL, &writer), RSSHM_E_FOREIGN, "is a directory");
  CHECK(rmdir(path) == 0);
  FILE *garbage = fopen(path, "w");
  CHECK(garbage != NULL && fputs("garbage", garbage) >= 0 && fclose(garbage) == 0);
  EXPECT_ERROR(rsshm_writer_open(name, NULL, &writer), RSSHM_E_DAMAGED, "in the way");
  CHECK(unlink(path) == 0);
  EXPECT_ERROR(rsshm_observer_open(NULL, &observer), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_observer_open(name, NULL), RSSHM_E_ARGUMENT, "result is NULL");
  EXPECT(rsshm_observer_open(name, &observer), RSSHM_NO_WRITER);
  EXPECT_ERROR(rsshm_channels(NULL, 5, NULL), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_channels(NULL, 0, NULL), RSSHM_E_ARGUMENT, "NULL");

  /* A writer, step by step. */
  EXPECT(rsshm_writer_open(name, NULL, &writer), RSSHM_OK);
  rsshm_writer *second;
  EXPECT_ERROR(rsshm_writer_open(name, NULL, &second), RSSHM_E_BUSY, "already has a writer");
  CHECK(second == NULL);
  EXPECT_ERROR(rsshm_writer_claim(writer, 0, &slot, &slot_info), RSSHM_E_STATE, "no caps");
  EXPECT_ERROR(rsshm_writer_write_bytes(writer, picture, sizeof picture, NULL), RSSHM_E_STATE, "no caps");
  EXPECT_ERROR(rsshm_writer_wait_for_reader(writer, 0), RSSHM_E_STATE, "no caps");
  EXPECT_ERROR(rsshm_writer_video(writer, NULL, 64, 64, 30, 1), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_writer_video(writer, "PINK", 64, 64, 30, 1), RSSHM_E_CAPS, "PINK");
  EXPECT_ERROR(rsshm_writer_video(writer, "GRAY8", -64, 64, 30, 1), RSSHM_E_CAPS, "width");
  EXPECT(rsshm_writer_video(writer, "GRAY8", 0, 64, 30, 1), RSSHM_E_CAPS);
  EXPECT(rsshm_writer_video(writer, "GRAY8", INT32_MAX, INT32_MAX, 30, 1), RSSHM_E_CAPS);
  EXPECT(rsshm_writer_video(writer, "GRAY8", 64, 64, 30, 0), RSSHM_E_CAPS);
  EXPECT(rsshm_writer_video(writer, "GRAY8", 64, 64, -1, 1), RSSHM_E_CAPS);
  EXPECT_ERROR(rsshm_writer_caps(writer, NULL, 0), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_writer_caps(writer, "video/x-raw,width=[1,5]", 0), RSSHM_E_CAPS, "at byte 18 there is");
  EXPECT_ERROR(rsshm_writer_caps(writer, "video/x-raw,format=GRAY8,width=64,height=64,framerate=30/1", 100),
               RSSHM_E_CAPS, "frame size");
  EXPECT(rsshm_writer_caps(writer, "application/x-huge", SIZE_MAX), RSSHM_OK);
  CHECK(rsshm_writer_claim(writer, 0, &slot, &slot_info) < 0);
  EXPECT(rsshm_writer_video(writer, "GRAY8", 64, 64, 30, 1), RSSHM_OK);
  EXPECT_ERROR(rsshm_writer_claim(writer, 5, &slot, &slot_info), RSSHM_E_CAPS, "4096");
  EXPECT_ERROR(rsshm_writer_claim(writer, 0, NULL, &slot_info), RSSHM_E_ARGUMENT, "result is NULL");
  EXPECT_ERROR(rsshm_writer_claim(writer, 0, &slot, NULL), RSSHM_E_ARGUMENT, "rsshm_slot_info is NULL");
  slot_info.struct_size = 3;
  EXPECT_ERROR(rsshm_writer_claim(writer, 0, &slot, &slot_info), RSSHM_E_ARGUMENT, "struct_size");
  slot_info.struct_size = sizeof slot_info;
  EXPECT_ERROR(rsshm_writer_write(writer, NULL, 1, NULL), RSSHM_E_ARGUMENT, "no planes");
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 0, NULL), RSSHM_E_ARGUMENT, "no planes");
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1000, NULL), RSSHM_E_ARGUMENT, "at most 4");
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_E_ARGUMENT, "plane 0 is NULL");
  plane.data = picture;
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_E_ARGUMENT, "stride");
  plane.stride = INT64_MIN;
  plane.row_bytes = 63;
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_E_ARGUMENT, "row_bytes");
  plane.row_bytes = 0;
  plane.rows = 65;
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_E_ARGUMENT, "rows of plane 0");
  plane.rows = 64;
  plane.stride = 64;
  EXPECT_ERROR(rsshm_writer_write_bytes(writer, NULL, sizeof picture, NULL), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_writer_write_bytes(writer, picture, 10, NULL), RSSHM_E_CAPS, "4096");
  EXPECT_ERROR(rsshm_writer_write_bytes(writer, picture, 0, NULL), RSSHM_E_CAPS, "no bytes");
  rsshm_publish_info publish_info = RSSHM_PUBLISH_INFO_INIT;
  publish_info.flags = 0x40;
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, &publish_info), RSSHM_E_ARGUMENT, "flags");
  publish_info.flags = RSSHM_KEEP;
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, &publish_info), RSSHM_E_ARGUMENT, "flags");
  publish_info.flags = 0;
  publish_info.reserved = 1;
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, &publish_info), RSSHM_E_ARGUMENT, "reserved");
  publish_info.reserved = 0;
  publish_info.metadata_size = 3841;
  publish_info.metadata = picture;
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, &publish_info), RSSHM_E_ARGUMENT, "metadata");
  publish_info.metadata_size = 10;
  publish_info.metadata = NULL;
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, &publish_info), RSSHM_E_ARGUMENT, "metadata is NULL");
  publish_info.struct_size = 0;
  EXPECT_ERROR(rsshm_writer_write(writer, &plane, 1, &publish_info), RSSHM_E_ARGUMENT, "struct_size");

  /* A slot ends with its publish, also after an error. */
  EXPECT(rsshm_writer_claim(writer, 0, &slot, &slot_info), RSSHM_OK);
  EXPECT_ERROR(rsshm_slot_publish(slot, &publish_info), RSSHM_E_ARGUMENT, "struct_size");
  EXPECT_ERROR(rsshm_slot_publish(slot, NULL), RSSHM_E_HANDLE, "already closed or released");
  publish_info = (rsshm_publish_info)RSSHM_PUBLISH_INFO_INIT;
  publish_info.size = sizeof picture + 1;
  EXPECT(rsshm_writer_claim(writer, 0, &slot, &slot_info), RSSHM_OK);
  EXPECT_ERROR(rsshm_slot_publish(slot, &publish_info), RSSHM_E_CAPS, "its claim");
  rsshm_slot *old_rsshm_slot = slot;
  /* The caps change after the claim. */
  EXPECT(rsshm_writer_claim(writer, 0, &slot, &slot_info), RSSHM_OK);
  EXPECT(rsshm_writer_video(writer, "GRAY8", 64, 32, 30, 1), RSSHM_OK);
  EXPECT(rsshm_slot_publish(slot, NULL), RSSHM_E_STATE);
  EXPECT(rsshm_writer_video(writer, "GRAY8", 64, 64, 30, 1), RSSHM_OK);

  /* A frame, whose handles are used wrongly. */
  EXPECT(rsshm_reader_open(name, NULL, &reader), RSSHM_OK);
  EXPECT_ERROR(rsshm_reader_next(reader, 0, NULL), RSSHM_E_ARGUMENT, "result is NULL");
  EXPECT_ERROR(rsshm_reader_next_info(reader, 0, &frame, NULL), RSSHM_E_ARGUMENT, "rsshm_frame_info is NULL");
  EXPECT(rsshm_reader_next(reader, 0, &frame), RSSHM_TIMEOUT);
  CHECK(frame == NULL);
  memset(picture, 7, sizeof picture);
  EXPECT(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_OK);
  EXPECT(rsshm_reader_next(reader, 20 * SECOND, &frame), RSSHM_OK);
  EXPECT_ERROR(rsshm_frame_get(frame, NULL), RSSHM_E_ARGUMENT, "NULL");
  frame_info.struct_size = 8;
  EXPECT_ERROR(rsshm_frame_get(frame, &frame_info), RSSHM_E_ARGUMENT, "struct_size");
  frame_info.struct_size = sizeof frame_info;
  EXPECT(rsshm_frame_get(frame, &frame_info), RSSHM_OK);
  CHECK(frame_info.struct_size == sizeof frame_info && frame_info.size == 4096 && frame_info.data[4095] == 7);
  EXPECT_ERROR(rsshm_frame_metadata(frame, 0, NULL), RSSHM_E_ARGUMENT, "NULL");
  EXPECT(rsshm_frame_metadata(frame, 0, &metadata), RSSHM_NOTHING);
  EXPECT(rsshm_frame_region(frame, UINT32_MAX, &region), RSSHM_NOTHING);
  EXPECT(rsshm_frame_time_code(frame, 0, &time_code), RSSHM_NOTHING);
  CHECK(rsshm_frame_ref(frame) == frame);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  EXPECT(rsshm_frame_get(frame, &frame_info), RSSHM_OK);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  EXPECT_ERROR(rsshm_frame_release(frame), RSSHM_E_HANDLE, "already closed or released");
  CHECK(rsshm_frame_ref(frame) == NULL);
  CHECK(rsshm_frame_ref(NULL) == NULL);
  rsshm_frame *old_rsshm_frame = frame;
  EXPECT_ERROR(rsshm_reader_get_stats(reader, NULL), RSSHM_E_ARGUMENT, "NULL");
  EXPECT(rsshm_reader_get_stats(reader, &stats), RSSHM_OK);
  CHECK(stats.received == 1 && stats.connected == 1);
  memset(picture, 8, sizeof picture);
  EXPECT(rsshm_writer_write(writer, &plane, 1, NULL), RSSHM_OK);
  EXPECT(rsshm_reader_next_info(reader, 20 * SECOND, &frame, &frame_info), RSSHM_OK);
  CHECK(frame_info.seq == 2 && frame_info.size == 4096 && frame_info.data[4095] == 8);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  frame_info.seq = 0;
  EXPECT(rsshm_reader_next_info(reader, 0, &frame, &frame_info), RSSHM_TIMEOUT);
  CHECK(frame == NULL && frame_info.seq == 0);
  rsshm_writer_stats writer_stats = RSSHM_WRITER_STATS_INIT;
  EXPECT_ERROR(rsshm_writer_get_stats(writer, NULL), RSSHM_E_ARGUMENT, "NULL");
  writer_stats.struct_size = 4;
  EXPECT_ERROR(rsshm_writer_get_stats(writer, &writer_stats), RSSHM_E_ARGUMENT, "struct_size");
  writer_stats.struct_size = sizeof writer_stats;

  /* An observer. */
  EXPECT(rsshm_observer_open(name, &observer), RSSHM_OK);
  EXPECT_ERROR(rsshm_observer_get(observer, NULL), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_observer_newest(observer, NULL), RSSHM_E_ARGUMENT, "result is NULL");
  EXPECT(rsshm_observer_get(observer, &channel_info), RSSHM_OK);
  CHECK(channel_info.current == 1 && channel_info.width == 64 && channel_info.head == 2);
  EXPECT(rsshm_observer_newest(observer, &frame), RSSHM_OK);
  EXPECT(rsshm_observer_close(observer), RSSHM_OK);
  EXPECT(rsshm_frame_get(frame, &frame_info), RSSHM_OK);
  CHECK(frame_info.data[0] == 8 && frame_info.data[4095] == 8 && frame_info.seq == 2);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
  rsshm_observer *old_rsshm_observer = observer;

  /* The names of channels. */
  char names[1 << 16];
  size_t needed = 0;
  EXPECT(rsshm_channels(NULL, 0, &needed), RSSHM_OK);
  CHECK(needed > strlen(name));
  EXPECT_ERROR(rsshm_channels(names, 1, &needed), RSSHM_E_ARGUMENT, "need");
  CHECK(names[0] == '\0');
  EXPECT(rsshm_channels(names, sizeof names, &needed), RSSHM_OK);
  int found = 0;
  for (const char *next = names; *next != '\0'; next += strlen(next) + 1) found |= strcmp(next, name) == 0;
  CHECK(found);

  /* Closed handles, and handles of another type, in each function. */
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  rsshm_reader *old_rsshm_reader = reader;
  rsshm_writer *old_rsshm_writer = writer;
  rsshm_writer *another;
  EXPECT(rsshm_writer_open(name, NULL, &another), RSSHM_OK);
  rsshm_reader *extra;
  EXPECT(rsshm_reader_open(name, NULL, &extra), RSSHM_OK);
  void *other = another;
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_next(h, 0, &frame));
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_next_info(h, 0, &frame, &frame_info));
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_wake(h));
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_fd(h));
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_request_keyframe(h, RSSHM_TIME_NONE));
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_get_stats(h, &stats));
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_observing(h) == NULL ? RSSHM_E_HANDLE : RSSHM_OK);
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_get_event(h, &event));
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_send_message(h, "a", 1));
  HANDLE_ERRORS(rsshm_reader, rsshm_reader_close(h));
  HANDLE_ERRORS(rsshm_frame, rsshm_frame_get(h, &frame_info));
  HANDLE_ERRORS(rsshm_frame, rsshm_frame_convert(h, "BGR", picture, 0));
  HANDLE_ERRORS(rsshm_frame, rsshm_frame_metadata(h, 0, &metadata));
  HANDLE_ERRORS(rsshm_frame, rsshm_frame_region(h, 0, &region));
  rsshm_fd fd = RSSHM_FD_INIT;
  HANDLE_ERRORS(rsshm_frame, rsshm_frame_fd(h, 0, &fd));
  HANDLE_ERRORS(rsshm_frame, rsshm_frame_time_code(h, 0, &time_code));
  HANDLE_ERRORS(rsshm_frame, rsshm_frame_release(h));
  publish_info.flags = RSSHM_KEEP;
  HANDLE_ERRORS(rsshm_slot, rsshm_slot_publish(h, &publish_info));
  HANDLE_ERRORS(rsshm_slot, rsshm_slot_publish(h, NULL));
  HANDLE_ERRORS(rsshm_slot, rsshm_slot_release(h));
  HANDLE_ERRORS(rsshm_observer, rsshm_observer_get(h, &channel_info));
  HANDLE_ERRORS(rsshm_observer, rsshm_observer_newest(h, &frame));
  HANDLE_ERRORS(rsshm_observer, rsshm_observer_close(h));
  other = extra;
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_video(h, "GRAY8", 64, 64, 30, 1));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_caps(h, "application/x-test", 0));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_claim(h, 0, &slot, &slot_info));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_write(h, &plane, 1, NULL));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_write_bytes(h, picture, sizeof picture, NULL));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_end_of_stream(h));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_readers(h));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_wait_for_reader(h, 0));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_keyframe_wanted(h));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_get_stats(h, &writer_stats));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_event(h, &event, -1));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_next_message(h, names, sizeof names, &needed));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_set_latency(h, 0));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_wake(h));
  HANDLE_ERRORS(rsshm_writer, rsshm_writer_close(h));
  EXPECT(rsshm_reader_close(extra), RSSHM_OK);
  EXPECT(rsshm_writer_close(another), RSSHM_OK);
  puts("ok");
  return 0;
}
