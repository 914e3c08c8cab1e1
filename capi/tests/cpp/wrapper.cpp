// SPDX-License-Identifier: MIT OR Apache-2.0
// wrapper CHANNEL: checks the classes of rsshm.hpp without OpenCV.
#include <rsshm.hpp>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <type_traits>

#include "check.hpp"

using namespace std::chrono_literals;

template <class T>
constexpr bool moves_only = std::is_move_constructible_v<T> && std::is_move_assignable_v<T> &&
                            !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T>;
static_assert(moves_only<rsshm::Reader> && moves_only<rsshm::Writer> && moves_only<rsshm::Frame> &&
              moves_only<rsshm::Slot>);

template <class Call>
static rsshm_status status_of(Call call, const char *words) {
  try {
    call();
  } catch (const rsshm::Error &error) {
    CHECK(std::strstr(error.what(), words) != nullptr);
    return error.status();
  }
  return RSSHM_OK;
}

static bool takes_part(const rsshm::Reader &reader) { return reader.observing().empty(); }

int main(int argc, char **argv) {
  CHECK(argc == 2);
  const std::string name = argv[1];
  CHECK(status_of([] { rsshm::Reader{"a/b"}; }, "slash") == RSSHM_E_NAME);
  std::optional<rsshm::Frame> kept;
  {
    rsshm::WriterOptions options;
    options.flags = RSSHM_LOSSLESS | RSSHM_MESSAGES;
    rsshm::Writer writer{name, options};
    writer.caps("application/x-test");
    writer.event({RSSHM_EVENT_STREAM, std::nullopt, std::nullopt, "", "stream-1"}, 0);
    CHECK(writer.write("a", 1));
    rsshm::ReaderOptions with_events;
    with_events.flags = RSSHM_EVENTS;
    rsshm::Reader reader{name, with_events};
    CHECK(!reader.next(20s) && reader.last() == RSSHM_EVENT);
    CHECK(reader.event() && reader.event()->kind == RSSHM_EVENT_STREAM && reader.event()->text == "stream-1");
    CHECK(reader.next(20s) && !reader.event());
    writer.event({1000, 5ns, 6ns, std::string("a\0b", 3), ""});
    CHECK(!reader.next(20s) && reader.event()->bytes == std::string("a\0b", 3));
    CHECK(reader.event()->time == 5ns && reader.event()->duration == 6ns);
    writer.event({RSSHM_EVENT_CUSTOM, std::nullopt, std::nullopt, "", "lamp;"});
    CHECK(writer.write("b", 1));
    writer.end_of_stream();
    int count = 0;
    for (rsshm::Frame &frame : reader) count += frame.data()[0] == 'b';
    CHECK(count == 1 && reader.send_message("click"));
    std::optional<std::string> message;
    while (!(message = writer.next_message())) std::this_thread::sleep_for(1ms);
    CHECK(*message == "click" && !writer.next_message());

    // A slot that is kept stays readable.
    std::optional<rsshm::Slot> slot = writer.claim(3);
    CHECK(slot);
    std::memcpy(slot->data(), "abc", 3);
    rsshm_publish_info info = RSSHM_PUBLISH_INFO_INIT;
    info.flags = RSSHM_KEEP;
    CHECK(slot->publish(info) == 3 && std::memcmp(slot->data(), "abc", 3) == 0);
    CHECK(status_of([&] { slot->publish(info); }, "already published") == RSSHM_E_STATE);
  }
  {
    rsshm::Writer writer{name, {RSSHM_LOSSLESS, 0600, 8, 32, 20s}};
    CHECK(status_of([&] { rsshm::Writer{name}; }, "already has a writer") == RSSHM_E_BUSY);
    CHECK(status_of([&] { writer.claim(); }, "no caps") == RSSHM_E_STATE);
    writer.video("GRAY8", 64, 48, 25, 1);
    CHECK(!writer.wait_for_reader(1ms) && writer.readers() == 0);
    rsshm::Reader reader{name};
    CHECK(!reader.next(0s) && reader.last() == RSSHM_TIMEOUT);
    CHECK(!reader.next(10ms) && reader.last() == RSSHM_TIMEOUT);
    CHECK(writer.wait_for_reader(20s) && !writer.keyframe_wanted());
    const std::vector<std::string> names = rsshm::channels();
    CHECK(std::find(names.begin(), names.end(), name) != names.end());

    std::thread drawing([&] {
      for (int i = 0; i < 100; i++) {
        std::optional<rsshm::Slot> slot = writer.claim();
        CHECK(slot && slot->size() == 64 * 48 && slot->plane_count() == 1);
        std::memset(slot->data(), i, slot->size());
        slot->publish(std::chrono::nanoseconds(1000 + i));
      }
      writer.end_of_stream();
    });
    int count = 0;
    for (rsshm::Frame &frame : reader) {
      CHECK(frame.data()[0] == count && frame.data()[frame.size() - 1] == count && frame.fps() == 25);
      CHECK(frame.seq() == static_cast<uint64_t>(count + 1) && frame.missed() == 0 && frame.is_keyframe());
      CHECK(frame.pts() == std::chrono::nanoseconds(1000 + count) && !frame.duration());
      CHECK(frame.plane(0).rows == 48 && frame.regions().empty());
      CHECK(status_of([&] { frame.plane(1); }, "1 planes") == RSSHM_E_ARGUMENT);
      if (count == 50) kept = frame.share();
      count++;
    }
    drawing.join();
    CHECK(count == 100 && reader.last() == RSSHM_EOS && reader.stats().received == 100);

    const rsshm_layout layout = rsshm::video_layout("NV12", 62, 46, 32);
    CHECK(layout.plane_count == 2 && layout.planes[1].stride == 64 && layout.planes[1].pixel_bytes == 2);
    CHECK(status_of([] { rsshm::video_layout("PINK", 1, 1); }, "PINK") == RSSHM_E_CAPS);
    CHECK(rsshm::video_formats().size() > 100);
    CHECK(writer.stats().published == 100 && takes_part(reader));

    // A wake ends the wait of next().
    std::thread waking([&] {
      std::this_thread::sleep_for(50ms);
      reader.wake();
    });
    CHECK(!reader.next() && reader.last() == RSSHM_WOKEN);
    waking.join();
    CHECK(reader.fd() >= 0);
    rsshm::Reader moved = std::move(reader);
    CHECK(!moved.next(0s));
    CHECK(status_of([&] { reader.wake(); }, "NULL") == RSSHM_E_HANDLE);

    // A slot that is dropped publishes nothing.
    CHECK(writer.claim());
    std::vector<uint8_t> picture(64 * 48, 7);
    CHECK(writer.write({{picture.data(), 64, 0, 0}}));
    const std::optional<rsshm::Frame> frame = moved.next(20s);
    CHECK(frame && frame->data()[0] == 7);
    std::vector<uint8_t> converted(3 * 64 * 48);
    frame->convert("BGR", converted.data());
    CHECK(converted.front() == 7 && converted.back() == 7);
    CHECK(status_of([&] { frame->convert("ABC", converted.data()); }, "ABC") == RSSHM_E_ARGUMENT);
  }
  // The frame outlives its reader and its writer.
  CHECK(kept && kept->data()[0] == 50 && kept->data()[kept->size() - 1] == 50 && kept->format() == "GRAY8");
  std::puts("ok");
}
