// SPDX-License-Identifier: MIT OR Apache-2.0
//
// rsshm.hpp - rsshm.h for C++17, header only.
//
//   rsshm::Reader camera{"cam0", rsshm::latest};
//   for (rsshm::Frame &frame : camera) {          // until the stream ends
//     std::cout << frame.seq() << ' ' << frame.format() << ' ' << frame.width() << 'x' << frame.height() << '\n';
//   }
//
// Include <opencv2/core.hpp> before this file, and a frame has mat(): a cv::Mat of the frame's memory, without a copy.
//
// Each class owns its handle, can be moved and not copied, and ends its handle in the destructor. An error of rsshm.h is
// the exception rsshm::Error, whose what() says what to do. rsshm.h documents the functions behind the methods.
#ifndef RSSHM_HPP
#define RSSHM_HPP

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "rsshm.h"

namespace cv {
class Mat;
}

namespace rsshm {

// An error of the library.
class Error : public std::runtime_error {
 public:
  Error(rsshm_status status, const std::string &text) : std::runtime_error(text), status_(status) {}

  // RSSHM_E_...
  rsshm_status status() const noexcept { return status_; }

 private:
  rsshm_status status_;
};

namespace detail {

inline rsshm_status check(rsshm_status status) {
  if (status < 0) throw Error(status, rsshm_error());
  return status;
}

// A handle that is ended in the destructor.
template <class T, rsshm_status (*End)(T *)>
class Owner {
 public:
  Owner() noexcept = default;
  explicit Owner(T *handle) noexcept : handle_(handle) {}
  Owner(Owner &&other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Owner &operator=(Owner &&other) noexcept {
    if (this != &other) {
      reset();
      handle_ = std::exchange(other.handle_, nullptr);
    }
    return *this;
  }
  ~Owner() { reset(); }

  T *get() const noexcept { return handle_; }
  T **out() noexcept {
    reset();
    return &handle_;
  }
  T *take() noexcept { return std::exchange(handle_, nullptr); }
  void reset() noexcept {
    if (handle_ != nullptr) End(std::exchange(handle_, nullptr));
  }

 private:
  T *handle_ = nullptr;
};

inline std::optional<std::chrono::nanoseconds> time(uint64_t time_ns) {
  if (time_ns > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
  return std::chrono::nanoseconds(static_cast<int64_t>(time_ns));
}

template <class Rep, class Period>
int64_t timeout(std::chrono::duration<Rep, Period> duration) {
  const auto longest = std::chrono::hours(24 * 365);
  if (duration >= longest) return RSSHM_FOREVER;
  const auto ns = std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
  return ns < 0 ? 0 : static_cast<int64_t>(ns);
}

}  // namespace detail

// No limit of time.
inline constexpr std::chrono::hours forever = std::chrono::hours(24 * 365);

// A part of the picture, for example a face that a detector found.
struct Region {
  uint32_t x, y, width, height;
  int32_t id, parent_id;
  std::string name;
};

// A plane of a picture. Row r begins at data + r * stride.
using Plane = rsshm_plane;

// A frame. Its memory is valid as long as the value lives, also after its reader is gone. It must not be written.
class Frame {
 public:
  // Takes over a handle of rsshm.h.
  explicit Frame(rsshm_frame *frame) : frame_(frame) { detail::check(rsshm_frame_get(frame, &info_)); }

  // Another owner of the same frame.
  Frame share() const {
    rsshm_frame *frame = rsshm_frame_ref(frame_.get());
    if (frame == nullptr) throw Error(RSSHM_E_HANDLE, rsshm_error());
    return Frame(frame);
  }

  uint64_t seq() const noexcept { return info_.seq; }
  uint64_t missed() const noexcept { return info_.missed; }
  std::optional<std::chrono::nanoseconds> pts() const { return detail::time(info_.pts_ns); }
  std::optional<std::chrono::nanoseconds> duration() const { return detail::time(info_.duration_ns); }
  // The time since the capture; 0 if the frame has no time.
  std::chrono::nanoseconds age() const {
    return pts() ? std::chrono::nanoseconds(static_cast<int64_t>(rsshm_now())) - *pts() : std::chrono::nanoseconds(0);
  }
  const uint8_t *data() const noexcept { return info_.data; }
  size_t size() const noexcept { return info_.size; }
  std::string_view caps() const noexcept { return info_.caps; }
  // The raw format, such as "NV12"; empty for other caps.
  std::string_view format() const noexcept { return info_.format; }
  int width() const noexcept { return info_.width; }
  int height() const noexcept { return info_.height; }
  double fps() const noexcept { return info_.fps_d > 0 ? static_cast<double>(info_.fps_n) / info_.fps_d : 0; }
  size_t plane_count() const noexcept { return info_.plane_count; }
  const Plane &plane(size_t index) const {
    if (index >= info_.plane_count) {
      throw Error(RSSHM_E_ARGUMENT, "the frame has " + std::to_string(info_.plane_count) + " planes");
    }
    return info_.planes[index];
  }
  // The memfd or dmabuf of a plane; nothing if the frame is in a slot or a copy. The descriptor ends with the frame.
  std::optional<rsshm_fd> fd(uint32_t index = 0) const {
    rsshm_fd fd = RSSHM_FD_INIT;
    if (detail::check(rsshm_frame_fd(frame_.get(), index, &fd)) != RSSHM_OK) return std::nullopt;
    return fd;
  }
  bool in_place() const noexcept { return (info_.flags & RSSHM_FRAME_IN_PLACE) != 0; }
  bool is_keyframe() const noexcept { return (info_.flags & RSSHM_FRAME_KEYFRAME) != 0; }
  bool has_discontinuity() const noexcept { return (info_.flags & RSSHM_FRAME_DISCONTINUITY) != 0; }
  // All values of rsshm.h.
  const rsshm_frame_info &info() const noexcept { return info_; }

  std::vector<Region> regions() const {
    std::vector<Region> regions;
    rsshm_region region = RSSHM_REGION_INIT;
    for (uint32_t i = 0; detail::check(rsshm_frame_region(frame_.get(), i, &region)) == RSSHM_OK; i++) {
      regions.push_back({region.x, region.y, region.width, region.height, region.id, region.parent_id,
                         std::string(region.name, region.name_size)});
    }
    return regions;
  }

  // The picture as a cv::Mat of the frame's memory, without a copy. It is valid as long as the frame, and MUST NOT be
  // written: the memory is read-only, so a write ends the program. mat().clone() is the program's own.
  //
  // NV12, NV21, I420 and YV12 are one Mat of height * 3 / 2 rows, as cv::cvtColor takes them. Throws Error if the format
  // has no such Mat, or if the planes do not follow each other in memory.
  inline cv::Mat mat() const;

  // The picture as a cv::Mat with the channels blue, green and red, which the program owns. Any raw video that the
  // library knows can be converted; other frames throw Error.
  inline cv::Mat bgr() const;

  // Converts the picture. `order` is "BGR" or "RGB". Row r is stored at out + r * stride and has 3 * width bytes; stride 0
  // means 3 * width.
  void convert(const char *order, uint8_t *out, int64_t stride = 0) const {
    detail::check(rsshm_frame_convert(frame_.get(), order, out, stride));
  }

 private:
  detail::Owner<rsshm_frame, rsshm_frame_release> frame_;
  rsshm_frame_info info_ = RSSHM_FRAME_INFO_INIT;
};

// An event between two frames. rsshm.h has the kinds, and docs/PROTOCOL.md the bytes of each kind.
struct Event {
  uint32_t kind = RSSHM_EVENT_CUSTOM;
  std::optional<std::chrono::nanoseconds> time, duration;
  std::string bytes;  // If they are empty, those of `text` are sent.
  std::string text;
};

// How to read a channel.
struct ReaderOptions {
  uint32_t flags = 0;       // RSSHM_READ_ONLY, RSSHM_COPY, RSSHM_EVENTS, RSSHM_UNMAPPED
  uint32_t max_behind = 0;  // 1: always the newest frame. 0: all frames.
  uint32_t max_held = 0;    // How many frames in place the program holds at most. 0: 4.
};

// Always the newest frame.
inline constexpr ReaderOptions latest{0, 1, 0};

// Reads a channel, which need not exist yet.
class Reader {
 public:
  explicit Reader(const std::string &name, const ReaderOptions &options = {}) {
    rsshm_reader_options c = {sizeof(rsshm_reader_options), options.flags, options.max_behind, options.max_held};
    detail::check(rsshm_reader_open(name.c_str(), &c, reader_.out()));
  }

  // The next frame. Nothing if the time has passed, the stream has ended, there is an event(), or wake() was called; last()
  // says which. The reader waits through the absence of a writer.
  template <class Rep, class Period>
  std::optional<Frame> next(std::chrono::duration<Rep, Period> timeout) {
    const int64_t limit = detail::timeout(timeout);
    const uint64_t deadline = rsshm_now() + static_cast<uint64_t>(limit < 0 ? 0 : limit);
    for (;;) {
      const uint64_t now = rsshm_now();
      const int64_t left = limit < 0 ? limit : now < deadline ? static_cast<int64_t>(deadline - now) : 0;
      rsshm_frame *frame = nullptr;
      last_ = detail::check(rsshm_reader_next(reader_.get(), left, &frame));
      if (last_ == RSSHM_OK) return Frame(frame);
      if (last_ != RSSHM_NO_WRITER && last_ != RSSHM_EVICTED) return std::nullopt;
    }
  }
  std::optional<Frame> next() { return next(forever); }

  // Why the last next() returned nothing: RSSHM_TIMEOUT, RSSHM_EOS, RSSHM_EVENT or RSSHM_WOKEN.
  rsshm_status last() const noexcept { return last_; }

  // The event because of which the last next() returned nothing.
  std::optional<Event> event() const {
    rsshm_event event = RSSHM_EVENT_INIT;
    if (detail::check(rsshm_reader_get_event(reader_.get(), &event)) != RSSHM_OK) return std::nullopt;
    return Event{event.kind, detail::time(event.time_ns), detail::time(event.duration_ns),
                 std::string(reinterpret_cast<const char *>(event.data), event.size), event.text};
  }
  // Sends the writer a message. Returns false if there is no writer now, or if it accepts no messages.
  bool send_message(std::string_view message) {
    return detail::check(rsshm_reader_send_message(reader_.get(), message.data(), message.size())) == RSSHM_OK;
  }

  // Makes next() return nothing. Any thread may call this method.
  void wake() { detail::check(rsshm_reader_wake(reader_.get())); }
  // A descriptor that is readable as long as next() would return at once.
  int fd() { return detail::check(rsshm_reader_fd(reader_.get())); }
  // Requests a keyframe. Returns false if there is no writer now.
  bool request_keyframe() { return detail::check(rsshm_reader_request_keyframe(reader_.get(), RSSHM_TIME_NONE)) == RSSHM_OK; }
  // Why the reader is an observer, which copies each frame; empty if it is none.
  std::string observing() const {
    const char *text = rsshm_reader_observing(reader_.get());
    if (text == nullptr) throw Error(RSSHM_E_HANDLE, rsshm_error());
    return text;
  }
  rsshm_reader_stats stats() const {
    rsshm_reader_stats stats = RSSHM_READER_STATS_INIT;
    detail::check(rsshm_reader_get_stats(reader_.get(), &stats));
    return stats;
  }

  // The frames until the stream ends or wake() is called, without events.
  class Iterator {
   public:
    using iterator_category = std::input_iterator_tag;
    using value_type = Frame;
    using difference_type = std::ptrdiff_t;
    using pointer = Frame *;
    using reference = Frame &;

    Iterator() = default;
    explicit Iterator(Reader *reader) : reader_(reader) { ++*this; }
    Frame &operator*() { return *frame_; }
    Frame *operator->() { return &*frame_; }
    Iterator &operator++() {
      // The former frame is released first, so that the program holds one frame and not two.
      frame_.reset();
      do {
        frame_ = reader_->next();
      } while (!frame_ && reader_->last() == RSSHM_EVENT);
      if (!frame_) reader_ = nullptr;
      return *this;
    }
    bool operator==(const Iterator &other) const noexcept { return reader_ == other.reader_; }
    bool operator!=(const Iterator &other) const noexcept { return reader_ != other.reader_; }

   private:
    Reader *reader_ = nullptr;
    std::optional<Frame> frame_;
  };
  Iterator begin() { return Iterator(this); }
  Iterator end() { return Iterator(); }

 private:
  detail::Owner<rsshm_reader, rsshm_reader_close> reader_;
  rsshm_status last_ = RSSHM_OK;
};

// A claimed slot. The program draws the next frame into it.
class Slot {
 public:
  Slot(rsshm_slot *slot, const rsshm_slot_info &info) : slot_(slot), info_(info) {}

  uint8_t *data() const noexcept { return info_.data; }
  size_t size() const noexcept { return info_.size; }
  size_t plane_count() const noexcept { return info_.plane_count; }
  // The first byte of row `row` of plane `index`.
  uint8_t *row(size_t index, size_t row) const {
    if (index >= info_.plane_count || row >= info_.planes[index].rows) {
      throw Error(RSSHM_E_ARGUMENT, "the slot has no such row");
    }
    return const_cast<uint8_t *>(info_.planes[index].data) + static_cast<int64_t>(row) * info_.planes[index].stride;
  }
  const Plane &plane(size_t index) const { return info_.planes[index < RSSHM_MAX_PLANES ? index : 0]; }

  // Publishes the frame, captured at pts or now. The slot has no memory any more. Returns the frame's seq; 0 if the frame
  // is lost.
  uint64_t publish(std::optional<std::chrono::nanoseconds> pts = std::nullopt) {
    rsshm_publish_info info = RSSHM_PUBLISH_INFO_INIT;
    if (pts) info.pts_ns = static_cast<uint64_t>(pts->count());
    return publish(info);
  }
  // With RSSHM_KEEP, the slot keeps its memory, which must not be written any more.
  uint64_t publish(rsshm_publish_info info) {
    uint64_t seq = 0;
    if (info.seq == nullptr) info.seq = &seq;
    if ((info.flags & RSSHM_KEEP) != 0) {
      detail::check(rsshm_slot_publish(slot_.get(), &info));
    } else {
      info_ = RSSHM_SLOT_INFO_INIT;
      detail::check(rsshm_slot_publish(slot_.take(), &info));
    }
    return *info.seq;
  }

 private:
  detail::Owner<rsshm_slot, rsshm_slot_release> slot_;
  rsshm_slot_info info_;
};

// How to write a channel.
struct WriterOptions {
  uint32_t flags = 0;                                                   // RSSHM_LOSSLESS, RSSHM_SPARE, RSSHM_MESSAGES, RSSHM_FDS
  uint32_t perms = 0;                                                   // The mode of the channel's file. 0: 0600.
  uint32_t max_slots = 0;                                               // 0: automatic.
  uint32_t stride_align = 0;                                            // Rows begin at multiples of it. 0: GStreamer's 4.
  std::chrono::nanoseconds max_wait = std::chrono::nanoseconds::zero(); // Of a lossless writer in one call. 0: no limit.
  uint32_t spare_buffers = 0;                                           // With RSSHM_FDS: how many may be out. 0: 4.
};

// Writes a channel. The destructor removes the channel.
class Writer {
 public:
  explicit Writer(const std::string &name, const WriterOptions &options = {}) {
    rsshm_writer_options c = RSSHM_WRITER_OPTIONS_INIT;
    c.flags = options.flags;
    c.perms = options.perms;
    c.max_slots = options.max_slots;
    c.stride_align = options.stride_align;
    c.max_wait_ns = options.max_wait.count();
    c.spare_buffers = options.spare_buffers;
    detail::check(rsshm_writer_open(name.c_str(), &c, writer_.out()));
  }

  // Sets the caps to raw video.
  void video(const std::string &format, int width, int height, int fps_n = 30, int fps_d = 1) {
    detail::check(rsshm_writer_video(writer_.get(), format.c_str(), width, height, fps_n, fps_d));
  }
  // Sets the caps to any fixed caps. With frame_size 0, the sizes of the frames differ.
  void caps(const std::string &caps, size_t frame_size = 0) {
    detail::check(rsshm_writer_caps(writer_.get(), caps.c_str(), frame_size));
  }
  // A slot for the next frame; nothing if readers hold all slots (the frame is lost), if max_wait has passed, or if wake()
  // was called. last() says which.
  std::optional<Slot> claim(size_t size = 0) {
    rsshm_slot *slot = nullptr;
    rsshm_slot_info info = RSSHM_SLOT_INFO_INIT;
    last_ = detail::check(rsshm_writer_claim(writer_.get(), size, &slot, &info));
    if (last_ != RSSHM_OK) return std::nullopt;
    return Slot(slot, info);
  }
  // Why the last claim() returned nothing: RSSHM_DROPPED, RSSHM_TIMEOUT or RSSHM_WOKEN.
  rsshm_status last() const noexcept { return last_; }
  // Copies a picture and publishes it. Returns false if the frame is lost, or wake() was called.
  bool write(const std::vector<Plane> &planes, const rsshm_publish_info *info = nullptr) {
    return detail::check(rsshm_writer_write(writer_.get(), planes.data(), static_cast<uint32_t>(planes.size()), info)) ==
           RSSHM_OK;
  }
  bool write(const void *data, size_t size, const rsshm_publish_info *info = nullptr) {
    return detail::check(rsshm_writer_write_bytes(writer_.get(), data, size, info)) == RSSHM_OK;
  }
  // Publishes a frame that stays in the program's memfds or dmabufs; see rsshm_writer_write_fds. release(user) says that its
  // memory is free again. Returns false if the frame is lost.
  bool write(const std::vector<rsshm_fd> &planes, void (*release)(void *), void *user,
             const rsshm_publish_info *info = nullptr) {
    return detail::check(rsshm_writer_write_fds(writer_.get(), planes.data(), static_cast<uint32_t>(planes.size()), info,
                                                release, user)) == RSSHM_OK;
  }
  // Publishes an event. `sticky` is -1, or 0 to 7: readers that come later get the event too.
  void event(const Event &event, int sticky = -1) {
    rsshm_event c = RSSHM_EVENT_INIT;
    c.kind = event.kind;
    if (event.time) c.time_ns = static_cast<uint64_t>(event.time->count());
    if (event.duration) c.duration_ns = static_cast<uint64_t>(event.duration->count());
    c.data = reinterpret_cast<const uint8_t *>(event.bytes.data());
    c.size = event.bytes.size();
    c.text = event.text.c_str();
    detail::check(rsshm_writer_event(writer_.get(), &c, sticky));
  }
  // The oldest message of a reader that the program has not taken yet.
  std::optional<std::string> next_message() {
    std::string message(496, '\0');
    size_t size = 0;
    if (detail::check(rsshm_writer_next_message(writer_.get(), message.data(), message.size(), &size)) != RSSHM_OK) {
      return std::nullopt;
    }
    message.resize(size);
    return message;
  }
  rsshm_writer_stats stats() const {
    rsshm_writer_stats stats = RSSHM_WRITER_STATS_INIT;
    detail::check(rsshm_writer_get_stats(writer_.get(), &stats));
    return stats;
  }
  void end_of_stream() { detail::check(rsshm_writer_end_of_stream(writer_.get())); }
  int readers() const { return detail::check(rsshm_writer_readers(writer_.get())); }
  // Waits for a reader. Returns false if the time has passed or wake() was called.
  template <class Rep, class Period>
  bool wait_for_reader(std::chrono::duration<Rep, Period> timeout) {
    return detail::check(rsshm_writer_wait_for_reader(writer_.get(), detail::timeout(timeout))) == RSSHM_OK;
  }
  bool keyframe_wanted() { return detail::check(rsshm_writer_keyframe_wanted(writer_.get())) == 1; }
  void wake() { detail::check(rsshm_writer_wake(writer_.get())); }

 private:
  detail::Owner<rsshm_writer, rsshm_writer_close> writer_;
  rsshm_status last_ = RSSHM_OK;
};

namespace detail {

// The names that `get` stores, each with a NUL, and an empty name at the end.
inline std::vector<std::string> names(rsshm_status (*get)(char *, size_t, size_t *)) {
  for (;;) {
    size_t needed = 0;
    check(get(nullptr, 0, &needed));
    std::vector<char> names(needed + 4096);
    const rsshm_status status = get(names.data(), names.size(), &needed);
    // Channels may have appeared since the first call.
    if (status < 0 && needed > names.size()) continue;
    check(status);
    std::vector<std::string> list;
    for (const char *name = names.data(); *name != '\0'; name += list.back().size() + 1) list.emplace_back(name);
    return list;
  }
}

}  // namespace detail

// The names of all channels.
inline std::vector<std::string> channels() { return detail::names(rsshm_channels); }

// The names of all formats of raw video that the library knows.
inline std::vector<std::string> video_formats() { return detail::names(rsshm_video_formats); }

// The layout of frames of a format. Rows begin at multiples of `align`; 0 means GStreamer's 4.
inline rsshm_layout video_layout(const std::string &format, int width, int height, uint32_t align = 0) {
  rsshm_layout layout = RSSHM_LAYOUT_INIT;
  detail::check(rsshm_video_layout(format.c_str(), width, height, align, &layout));
  return layout;
}

}  // namespace rsshm

#if defined(OPENCV_CORE_HPP) || defined(OPENCV_CORE_MAT_HPP)
inline cv::Mat rsshm::Frame::mat() const {
  const auto refuse = [this](const std::string &why) {
    return Error(RSSHM_E_ARGUMENT, "mat(): a frame in " + std::string(format().empty() ? caps() : format()) + " " + why);
  };
  const auto make = [](int rows, int columns, int type, const Plane &plane) {
    return cv::Mat(rows, columns, type, const_cast<uint8_t *>(plane.data), static_cast<size_t>(plane.stride));
  };
  if (plane_count() == 0) throw refuse("has no planes; only raw video in a known format has a Mat");
  const std::string_view name = format();
  const Plane &first = plane(0);
  const auto is_one_of = [name](std::initializer_list<std::string_view> names) {
    for (std::string_view other : names) {
      if (name == other) return true;
    }
    return false;
  };
  if (is_one_of({"NV12", "NV21"})) {
    if (height() % 2 != 0 || plane(1).stride != first.stride || plane(1).data != first.data + first.stride * height()) {
      throw refuse("has planes that do not follow each other; use plane(0) and plane(1) with cv::cvtColorTwoPlane");
    }
    return make(height() * 3 / 2, width(), CV_8UC1, first);
  }
  if (is_one_of({"I420", "YV12"})) {
    const auto follows = [this](size_t index) {
      const Plane &before = plane(index - 1);
      return plane(index).data == before.data + before.stride * before.rows && plane(index).stride * 2 == width();
    };
    if (height() % 2 != 0 || first.stride != width() || !follows(1) || !follows(2)) {
      throw refuse("has padded planes, which OpenCV does not take; convert it to NV12 or BGR in the writer");
    }
    return make(height() * 3 / 2, width(), CV_8UC1, first);
  }
  if (plane_count() == 1) {
    if (is_one_of({"GRAY8"}) || name.substr(0, 5) == "bayer") return make(height(), width(), CV_8UC1, first);
    if (is_one_of({"GRAY16_LE"})) return make(height(), width(), CV_16UC1, first);
    if (is_one_of({"YUY2", "UYVY", "YVYU", "VYUY"})) return make(height(), width(), CV_8UC2, first);
    if (is_one_of({"BGR", "RGB"})) return make(height(), width(), CV_8UC3, first);
    if (is_one_of({"BGRx", "BGRA", "RGBx", "RGBA", "xRGB", "ARGB", "xBGR", "ABGR"})) {
      return make(height(), width(), CV_8UC4, first);
    }
  }
  throw refuse("has no Mat; use bgr() or plane(), or convert it to BGR or NV12 in the writer");
}

inline cv::Mat rsshm::Frame::bgr() const {
  // Without planes, the call below throws the error that says why.
  const int rows = plane_count() > 0 ? static_cast<int>(plane(0).rows) : 1;
  cv::Mat picture(rows, plane_count() > 0 ? width() : 1, CV_8UC3);
  convert("BGR", picture.data, static_cast<int64_t>(picture.step[0]));
  return picture;
}
#endif

#endif
