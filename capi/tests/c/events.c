// SPDX-License-Identifier: MIT OR Apache-2.0
/* events CHANNEL: events between frames, and messages of readers. */
#include "common.h"

#include <poll.h>
#include <unistd.h>

static rsshm_writer *writer;

static rsshm_reader *open_reader(const char *name, uint32_t flags) {
  rsshm_reader_options options = RSSHM_READER_OPTIONS_INIT;
  rsshm_reader *reader;
  options.flags = flags;
  EXPECT(rsshm_reader_open(name, &options, &reader), RSSHM_OK);
  return reader;
}

static void frame(void) { EXPECT(rsshm_writer_write_bytes(writer, "frame", 5, NULL), RSSHM_OK); }

static void expect_frame(rsshm_reader *reader) {
  rsshm_frame *frame;
  rsshm_event event = RSSHM_EVENT_INIT;
  EXPECT(rsshm_reader_next(reader, 20 * SECOND, &frame), RSSHM_OK);
  EXPECT(rsshm_reader_get_event(reader, &event), RSSHM_NOTHING);
  EXPECT(rsshm_frame_release(frame), RSSHM_OK);
}

static rsshm_event expect_event(rsshm_reader *reader, uint32_t kind, const char *text) {
  rsshm_frame *frame = (rsshm_frame *)&writer;
  rsshm_event event = RSSHM_EVENT_INIT;
  EXPECT(rsshm_reader_next(reader, 20 * SECOND, &frame), RSSHM_EVENT);
  CHECK(frame == NULL);
  EXPECT(rsshm_reader_get_event(reader, &event), RSSHM_OK);
  CHECK(event.kind == kind && strcmp(event.text, text) == 0);
  return event;
}

static void publish(uint32_t kind, const char *text, int32_t sticky) {
  rsshm_event event = RSSHM_EVENT_INIT;
  event.kind = kind;
  event.text = text;
  EXPECT(rsshm_writer_event(writer, &event, sticky), RSSHM_OK);
}

static void messages(rsshm_reader *reader, rsshm_reader *observer) {
  char memory[496];
  size_t needed = 77;
  EXPECT(rsshm_writer_next_message(writer, memory, sizeof memory, &needed), RSSHM_NOTHING);
  CHECK(needed == 0);
  memset(memory, 'm', sizeof memory);
  EXPECT(rsshm_reader_send_message(reader, memory, sizeof memory), RSSHM_OK);
  EXPECT(rsshm_reader_send_message(reader, "click", 5), RSSHM_OK);
  EXPECT(rsshm_reader_send_message(reader, NULL, 0), RSSHM_OK);
  EXPECT(rsshm_reader_send_message(observer, "click", 5), RSSHM_NO_WRITER);
  EXPECT_ERROR(rsshm_reader_send_message(reader, memory, 497), RSSHM_E_ARGUMENT, "497");
  EXPECT_ERROR(rsshm_reader_send_message(reader, NULL, 5), RSSHM_E_ARGUMENT, "NULL");
  rsshm_status status;
  int tries = 0;
  while ((status = rsshm_writer_next_message(writer, memory, 495, &needed)) == RSSHM_NOTHING && tries++ < 2000) {
    usleep(10000);
  }
  EXPECT(status, RSSHM_E_ARGUMENT);
  CHECK(needed == 496);
  EXPECT_ERROR(rsshm_writer_next_message(writer, NULL, 496, &needed), RSSHM_E_ARGUMENT, "has 0");
  EXPECT_ERROR(rsshm_writer_next_message(writer, memory, 496, NULL), RSSHM_E_ARGUMENT, "NULL");
  memset(memory, 0, sizeof memory);
  EXPECT(rsshm_writer_next_message(writer, memory, sizeof memory, &needed), RSSHM_OK);
  for (size_t i = 0; i < sizeof memory; i++) CHECK(memory[i] == 'm');
  while (rsshm_writer_next_message(writer, memory, sizeof memory, &needed) == RSSHM_NOTHING) usleep(1000);
  CHECK(needed == 5 && memcmp(memory, "click", 5) == 0);
  while (rsshm_writer_next_message(writer, memory, sizeof memory, &needed) == RSSHM_NOTHING) usleep(1000);
  CHECK(needed == 0);
}

int main(int argc, char **argv) {
  CHECK(argc == 2);
  const char *name = argv[1];
  rsshm_writer_options options = RSSHM_WRITER_OPTIONS_INIT;
  options.flags = RSSHM_LOSSLESS | RSSHM_MESSAGES;
  EXPECT(rsshm_writer_open(name, &options, &writer), RSSHM_OK);
  EXPECT(rsshm_writer_caps(writer, "application/x-test", 5), RSSHM_OK);
  /* Before there is a segment, only sticky events are kept. */
  publish(RSSHM_EVENT_STREAM, "stream-0", 0);
  publish(RSSHM_EVENT_TAGS, "taglist, title=(string)gone;", 1);
  publish(RSSHM_EVENT_STREAM, "stream-1", 0);
  publish(RSSHM_EVENT_CUSTOM, "too early;", -1);
  frame();

  rsshm_reader *reader = open_reader(name, RSSHM_EVENTS);
  rsshm_reader *deaf = open_reader(name, 0);
  rsshm_reader *observer = open_reader(name, RSSHM_EVENTS | RSSHM_READ_ONLY);
  rsshm_event event = RSSHM_EVENT_INIT;
  EXPECT(rsshm_reader_get_event(reader, &event), RSSHM_NOTHING);
  expect_event(reader, RSSHM_EVENT_STREAM, "stream-1");
  expect_frame(reader);
  expect_event(observer, RSSHM_EVENT_STREAM, "stream-1");
  expect_frame(observer);
  expect_frame(deaf);

  /* Events come in their order between the frames, with all values. */
  publish(RSSHM_EVENT_TAGS, "taglist, title=(string)t;", 1);
  rsshm_event gap = RSSHM_EVENT_INIT;
  gap.kind = RSSHM_EVENT_GAP;
  gap.time_ns = 5;
  gap.duration_ns = 6;
  EXPECT(rsshm_writer_event(writer, &gap, -1), RSSHM_OK);
  frame();
  static uint8_t bytes[4033];
  memset(bytes, 3, sizeof bytes);
  rsshm_event own = RSSHM_EVENT_INIT;
  own.kind = 1000;
  own.data = bytes;
  own.size = 4032;
  EXPECT(rsshm_writer_event(writer, &own, 7), RSSHM_OK);
  frame();
  rsshm_reader *readers[] = {reader, observer};
  for (int i = 0; i < 2; i++) {
    /* The descriptor announces events too. */
    if (i == 0) {
      struct pollfd poll_fd = {rsshm_reader_fd(reader), POLLIN, 0};
      CHECK(poll_fd.fd >= 0 && poll(&poll_fd, 1, 20000) == 1);
    }
    event = expect_event(readers[i], RSSHM_EVENT_TAGS, "taglist, title=(string)t;");
    CHECK(event.time_ns == RSSHM_TIME_NONE && event.size == 4 + 2 + strlen(event.text));
    event = expect_event(readers[i], RSSHM_EVENT_GAP, "");
    CHECK(event.time_ns == 5 && event.duration_ns == 6 && event.size == 0);
    expect_frame(readers[i]);
    event = expect_event(readers[i], 1000, "");
    CHECK(event.size == 4032 && memcmp(event.data, bytes, 4032) == 0);
    expect_frame(readers[i]);
  }
  expect_frame(deaf);
  expect_frame(deaf);

  /* A late reader gets the sticky events only. */
  rsshm_reader *late = open_reader(name, RSSHM_EVENTS);
  expect_event(late, RSSHM_EVENT_STREAM, "stream-1");
  expect_event(late, RSSHM_EVENT_TAGS, "taglist, title=(string)t;");
  expect_event(late, 1000, "");
  expect_frame(late);
  EXPECT(rsshm_reader_close(late), RSSHM_OK);

  messages(deaf, observer);

  /* Bad values. */
  EXPECT_ERROR(rsshm_writer_event(writer, NULL, -1), RSSHM_E_ARGUMENT, "NULL");
  EXPECT_ERROR(rsshm_writer_event(writer, &gap, 8), RSSHM_E_ARGUMENT, "sticky is 8");
  EXPECT_ERROR(rsshm_writer_event(writer, &gap, -2), RSSHM_E_ARGUMENT, "sticky is -2");
  own.size = 4033;
  EXPECT_ERROR(rsshm_writer_event(writer, &own, -1), RSSHM_E_ARGUMENT, "4033");
  own.data = NULL;
  EXPECT_ERROR(rsshm_writer_event(writer, &own, -1), RSSHM_E_ARGUMENT, "data of the event is NULL");
  gap.text = "text";
  EXPECT_ERROR(rsshm_writer_event(writer, &gap, -1), RSSHM_E_ARGUMENT, "no such text");
  gap.struct_size = 8;
  EXPECT_ERROR(rsshm_writer_event(writer, &gap, -1), RSSHM_E_ARGUMENT, "struct_size");
  EXPECT_ERROR(rsshm_reader_get_event(reader, NULL), RSSHM_E_ARGUMENT, "NULL");
  EXPECT(rsshm_reader_close(reader), RSSHM_OK);
  EXPECT(rsshm_reader_close(observer), RSSHM_OK);

  /* A writer without RSSHM_MESSAGES. */
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  EXPECT(rsshm_writer_open(name, NULL, &writer), RSSHM_OK);
  EXPECT(rsshm_writer_caps(writer, "application/x-test", 5), RSSHM_OK);
  EXPECT(rsshm_reader_send_message(deaf, "click", 5), RSSHM_NO_WRITER);
  EXPECT(rsshm_reader_close(deaf), RSSHM_OK);
  EXPECT(rsshm_writer_close(writer), RSSHM_OK);
  puts("ok");
  return 0;
}
