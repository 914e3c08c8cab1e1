// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * rsshm.h - frames in shared memory: one writer, any number of readers, in unrelated programs.
 *
 * Build:  cc program.c $(pkg-config --cflags --libs rsshm)
 *
 * A channel is a name, such as "cam0". Its writer may be this library, the GStreamer element rsshmsink, or a program in
 * Rust or Python; so may its readers. docs/C.md is the introduction.
 *
 * Rules that hold for all functions:
 *
 * - A function that returns rsshm_status returns RSSHM_OK (0), another result (> 0), or an error (< 0). After an error,
 *   rsshm_error() has a text that says what to do.
 * - Handles (rsshm_reader *, rsshm_frame *, ...) are not addresses. A handle that is NULL, closed, invented or of
 *   another type is the error RSSHM_E_HANDLE. A handle that a forked child has inherited is RSSHM_E_FORKED.
 * - A structure begins with struct_size. Initialise it with its _INIT macro; programs then work with older and newer
 *   versions of the library.
 * - All functions may be called from any thread. One thread at a time calls rsshm_reader_next with a reader; the other
 *   functions of this reader may be called meanwhile.
 * - Times are nanoseconds of CLOCK_MONOTONIC, which all programs of a machine share. Texts are UTF-8.
 * - No function may be called in a signal handler.
 */
#ifndef RSSHM_H
#define RSSHM_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Results --------------------------------------------------------------------------------------------------- */

/* What a function returns: RSSHM_OK, one of the other results, or one of the errors. */
typedef int32_t rsshm_status;

/* Results. They are no errors, and leave rsshm_error() as it was. */
#define RSSHM_OK 0
#define RSSHM_TIMEOUT 1   /* The time has passed. */
#define RSSHM_EOS 2       /* The stream ended after the last frame. Another stream may follow. */
#define RSSHM_NO_WRITER 3 /* The channel has no writer, or lost it. The next call waits for another writer. */
#define RSSHM_WOKEN 4     /* rsshm_reader_wake or rsshm_writer_wake was called. */
#define RSSHM_DROPPED 5   /* Readers hold all slots, so this frame is lost. Readers will see that it is missing. */
#define RSSHM_EVICTED 6   /* This reader held more slots than it may. Frames that it still holds may change. */
#define RSSHM_NOTHING 7   /* There is no such item, or no frame yet. */
#define RSSHM_EVENT 8     /* An event comes before the next frame; see rsshm_reader_get_event. */

/* Errors. */
#define RSSHM_E_ARGUMENT (-1)   /* A value is not allowed. */
#define RSSHM_E_HANDLE (-2)     /* A handle is NULL, closed, released, invented or of another type. */
#define RSSHM_E_FORKED (-3)     /* A handle belongs to the parent process. */
#define RSSHM_E_STATE (-4)      /* The call is not possible now, for example because another thread uses the reader. */
#define RSSHM_E_BUSY (-5)       /* The channel already has a writer. */
#define RSSHM_E_DENIED (-6)     /* The permissions of the channel's files forbid it. */
#define RSSHM_E_NO_SPACE (-7)   /* The shared memory file system or a memory limit is too small. */
#define RSSHM_E_NO_MEMORY (-8)  /* The process has no memory for a copy. */
#define RSSHM_E_DAMAGED (-9)    /* The segment has another version of the protocol, or it is damaged. */
#define RSSHM_E_CLOSED (-10)    /* Another thread has closed the reader or the writer. */
#define RSSHM_E_SYSTEM (-11)    /* A system call failed, or /dev/shm or the directory of RSSHM_DIR is not usable. */
#define RSSHM_E_INTERNAL (-12)  /* A fault of the library. */
#define RSSHM_E_NAME (-13)      /* The name is not valid for a channel. */
#define RSSHM_E_CAPS (-14)      /* Caps, a format or the size of a frame are not valid, or not those of the channel. */
#define RSSHM_E_FOREIGN (-15)   /* A file with the channel's name belongs to another user, or is not a channel. */

/* The text of this thread's last error. It is never NULL, and it is valid until the next error of this thread. */
const char *rsshm_error(void);

/* The name of a status, such as "RSSHM_EOS". The text is valid for ever. */
const char *rsshm_status_name(rsshm_status status);

/* The number of the interface that the library has. It is at least RSSHM_ABI of the header it came with. */
uint32_t rsshm_abi(void);
#define RSSHM_ABI 1

/* The version of the library, such as "0.1.0". The text is valid for ever. */
const char *rsshm_version(void);

/* The time now, in nanoseconds of CLOCK_MONOTONIC. */
uint64_t rsshm_now(void);

/* "No time", "no duration" or "no count". */
#define RSSHM_TIME_NONE UINT64_MAX
/* In rsshm_publish_info: the time of the publish. */
#define RSSHM_TIME_NOW (UINT64_MAX - 1)
/* As timeout_ns: no limit. */
#define RSSHM_FOREVER INT64_C(-1)

/* ---- Frames ---------------------------------------------------------------------------------------------------- */

typedef struct rsshm_frame rsshm_frame;

#define RSSHM_MAX_PLANES 4

/* A plane of a raw picture. Row r begins at data + r * stride, and has row_bytes bytes of pixels. */
typedef struct rsshm_plane {
  const uint8_t *data;
  int64_t stride;
  uint32_t row_bytes;
  uint32_t rows;
} rsshm_plane;

/* Bits of rsshm_frame_info.flags. */
#define RSSHM_FRAME_IN_PLACE 1u      /* The bytes are in shared memory. Otherwise they are a copy. */
#define RSSHM_FRAME_KEYFRAME 2u      /* A reader can start with the frame. Every frame of raw video is a keyframe. */
#define RSSHM_FRAME_DISCONTINUITY 4u /* Frames are missing before this one, or the writer or the caps have changed. */
#define RSSHM_FRAME_HEADER 8u        /* The frame is a header of a compressed stream. */
#define RSSHM_FRAME_FD 16u           /* The frame is in memfds or dmabufs; see rsshm_frame_fd. */

/*
 * What a frame has. All pointers are valid until the frame is released. The bytes must not be written. With
 * RSSHM_FRAME_FD and a reader that has RSSHM_UNMAPPED, `data` is NULL and plane_count is 0.
 */
typedef struct rsshm_frame_info {
  uint32_t struct_size;
  uint32_t flags;         /* RSSHM_FRAME_... */
  uint64_t seq;           /* The sequence number of the frame in its channel. */
  uint64_t missed;        /* How many frames were lost or skipped since the last frame of this reader. */
  uint64_t pts_ns;        /* When the frame was captured, or RSSHM_TIME_NONE. */
  uint64_t dts_ns;        /* When the frame is decoded, or RSSHM_TIME_NONE. */
  uint64_t duration_ns;   /* How long the frame lasts, or RSSHM_TIME_NONE. */
  uint64_t offset;        /* The producer's own count at this frame, or RSSHM_TIME_NONE. */
  uint64_t offset_end;    /* The producer's own count after this frame, or RSSHM_TIME_NONE. */
  const uint8_t *data;    /* The bytes of the frame. */
  size_t size;            /* The number of bytes. */
  const uint8_t *metadata; /* The metadata; see rsshm_frame_metadata. */
  size_t metadata_size;
  const char *caps;       /* The format of the frame, as GStreamer writes it. */
  const char *format;     /* The raw format, such as "NV12"; "" if the caps are not raw video that the library knows. */
  int32_t width;          /* The width in pixels; 0 if `format` is "". */
  int32_t height;         /* The height in pixels; 0 if `format` is "". */
  int32_t fps_n;          /* Frames a second, as a fraction; 0/1 if the rate varies or is unknown. */
  int32_t fps_d;
  uint32_t buffer_flags;  /* The flags of the writer's GstBuffer. */
  uint32_t plane_count;   /* 0 if `format` is "", or if the planes are not inside the frame. */
  rsshm_plane planes[RSSHM_MAX_PLANES];
} rsshm_frame_info;
#define RSSHM_PLANE_INIT {NULL, 0, 0, 0}
#define RSSHM_PLANES_INIT {RSSHM_PLANE_INIT, RSSHM_PLANE_INIT, RSSHM_PLANE_INIT, RSSHM_PLANE_INIT}
#define RSSHM_FRAME_INFO_INIT \
  {sizeof(rsshm_frame_info), 0, 0, 0, 0, 0, 0, 0, 0, NULL, 0, NULL, 0, NULL, NULL, 0, 0, 0, 0, 0, 0, RSSHM_PLANES_INIT}

/* Stores what the frame has in *info. RSSHM_E_SYSTEM: the memory of a frame in memfds or dmabufs cannot be mapped. */
rsshm_status rsshm_frame_get(rsshm_frame *frame, rsshm_frame_info *info);

/* Adds a reference, and returns the same handle. Each reference is released once. NULL is an error. */
rsshm_frame *rsshm_frame_ref(rsshm_frame *frame);

/*
 * Releases the frame; with the last reference, its pointers end. A frame may be released after its reader was closed.
 * A frame in place keeps a slot of the writer, so release frames soon.
 */
rsshm_status rsshm_frame_release(rsshm_frame *frame);

/*
 * Converts the frame to a picture for people. `order` is "BGR" or "RGB". Row r is stored at out + r * stride and has
 * 3 * width bytes; stride 0 means 3 * width. The picture has as many rows as the caps' height, or half of them if a
 * frame is a single field. Alpha is ignored. RSSHM_E_CAPS: the frame is not raw video that the library knows.
 */
rsshm_status rsshm_frame_convert(rsshm_frame *frame, const char *order, uint8_t *out, int64_t stride);

/* Kinds of memory that a descriptor is open on. */
#define RSSHM_FD_MEMFD 1u  /* A memfd, or another file in memory. */
#define RSSHM_FD_DMABUF 2u /* A dmabuf, which devices can use too. */

/* The memory in which a plane of a frame is. docs/OBJECTS.md explains frames by descriptor. */
typedef struct rsshm_fd {
  uint32_t struct_size;
  int32_t fd;            /* It belongs to the library, and is valid until the frame is released: dup() it to keep it. */
  uint32_t kind;         /* RSSHM_FD_..., or 0 for another kind. */
  uint32_t drm_format;   /* The code in the drm-format of the caps, such as DRM_FORMAT_NV12; 0 if `format` has the format. */
  uint64_t drm_modifier; /* How the pixels lie in the memory; 0 (DRM_FORMAT_MOD_LINEAR): in rows. */
  uint64_t object;       /* The number of the memory. The same memory has the same number until the writer changes. */
  uint64_t object_size;  /* The size of the memory. */
  uint64_t offset;       /* Where the plane begins in the memory. */
  uint64_t size;         /* The bytes of the frame from there on. Other planes may follow in them. */
  int64_t stride;        /* Bytes from one row to the next; 0 if the planes are not known. */
} rsshm_fd;
#define RSSHM_FD_INIT {sizeof(rsshm_fd), -1, 0, 0, 0, 0, 0, 0, 0, 0}

/*
 * Stores the descriptor of plane `plane`, counted from 0. If the planes are not known, each part of the frame counts as
 * one. The descriptor must not be closed, and its memory not be written. A device imports a dmabuf. A processor that maps
 * one itself calls DMA_BUF_IOCTL_SYNC; `data` of rsshm_frame_get needs no such call.
 *
 * RSSHM_NOTHING: the frame has no such plane, or the plane is in a slot or a copy. Then `data` has the bytes.
 * RSSHM_E_STATE: the rows of the plane are in several descriptors. `fd` is -1 in both cases.
 */
rsshm_status rsshm_frame_fd(rsshm_frame *frame, uint32_t plane, rsshm_fd *out);

/* One record of a frame's metadata. docs/PROTOCOL.md, "Metadata of a frame", has the kinds and their bytes. */
typedef struct rsshm_metadata {
  uint32_t struct_size;
  uint32_t kind;
  const uint8_t *data;
  size_t size;
} rsshm_metadata;
#define RSSHM_METADATA_INIT {sizeof(rsshm_metadata), 0, NULL, 0}

/* Stores record `index`, counted from 0. Returns RSSHM_NOTHING if there are not that many. */
rsshm_status rsshm_frame_metadata(rsshm_frame *frame, uint32_t index, rsshm_metadata *out);

/* A region of interest: a part of the picture, for example a face that a detector found. */
typedef struct rsshm_region {
  uint32_t struct_size;
  uint32_t x, y, width, height; /* In pixels. The region need not be inside the picture. */
  int32_t id;                   /* -1 if it has none. */
  int32_t parent_id;            /* The id of the region around this one; -1 if there is none. */
  uint32_t name_size;           /* The bytes of `name`, which does not end with NUL. */
  const char *name;             /* What is in the region, in the writer's words. */
} rsshm_region;
#define RSSHM_REGION_INIT {sizeof(rsshm_region), 0, 0, 0, 0, 0, 0, 0, NULL}

/* Stores region `index`, counted from 0. Returns RSSHM_NOTHING if there are not that many. */
rsshm_status rsshm_frame_region(rsshm_frame *frame, uint32_t index, rsshm_region *out);

/* A time code. Bit 0 of `flags` means drop frame, bit 1 interlaced. */
typedef struct rsshm_time_code {
  uint32_t struct_size;
  uint32_t flags;
  uint32_t fps_n, fps_d;
  uint32_t hours, minutes, seconds, frames;
  uint32_t field_count;
} rsshm_time_code;
#define RSSHM_TIME_CODE_INIT {sizeof(rsshm_time_code), 0, 0, 0, 0, 0, 0, 0, 0}

/* Stores time code `index`, counted from 0. Returns RSSHM_NOTHING if there are not that many. */
rsshm_status rsshm_frame_time_code(rsshm_frame *frame, uint32_t index, rsshm_time_code *out);

/* ---- Readers --------------------------------------------------------------------------------------------------- */

typedef struct rsshm_reader rsshm_reader;

/* Bits of rsshm_reader_options.flags. */
#define RSSHM_READ_ONLY 1u /* An observer: it needs read permission only, writes nothing, and copies each frame. */
#define RSSHM_COPY 2u      /* Each frame is copied, so a frame that the program keeps does not keep a slot. */
#define RSSHM_EVENTS 4u    /* rsshm_reader_next returns events too. */
#define RSSHM_UNMAPPED 8u  /* Frames in memfds or dmabufs have no `data`; see rsshm_frame_fd. For programs that import. */

typedef struct rsshm_reader_options {
  uint32_t struct_size;
  uint32_t flags;      /* RSSHM_READ_ONLY, RSSHM_COPY, RSSHM_EVENTS, RSSHM_UNMAPPED */
  uint32_t max_behind; /* How many frames may wait for this reader; it skips older ones. 1: always the newest. 0: all. */
  uint32_t max_held;   /* How many frames in place the program holds at most; further ones are copied. 0: 4. */
} rsshm_reader_options;
#define RSSHM_READER_OPTIONS_INIT {sizeof(rsshm_reader_options), 0, 0, 0}

/*
 * Opens a reader of the channel `name`. The channel need not exist yet; this call never waits for it. `options` may be
 * NULL. The reader is stored in *reader, or NULL after an error.
 */
rsshm_status rsshm_reader_open(const char *name, const rsshm_reader_options *options, rsshm_reader **reader);

/*
 * Waits for the next frame, at most for timeout_ns (RSSHM_FOREVER: no limit; 0: not at all). The reader follows the
 * channel from one writer to the next, whose caps may differ.
 *
 * RSSHM_OK: *frame is the frame, which the caller releases. In all other cases it is NULL.
 * RSSHM_TIMEOUT, RSSHM_EOS, RSSHM_NO_WRITER, RSSHM_WOKEN, RSSHM_EVICTED: call again, or stop.
 * RSSHM_EVENT: only with RSSHM_EVENTS. rsshm_reader_get_event has the event; then call again.
 * RSSHM_E_DENIED, RSSHM_E_DAMAGED, RSSHM_E_NO_MEMORY, RSSHM_E_SYSTEM: the channel cannot be read now. RSSHM_E_SYSTEM
 * also means that frames by descriptor were missed because their memory could not be got. This process may have too many
 * open files, for example. The status comes once for each reason; the program may call again.
 */
rsshm_status rsshm_reader_next(rsshm_reader *reader, int64_t timeout_ns, rsshm_frame **frame);

/*
 * The same as rsshm_reader_next and, if it returns RSSHM_OK, rsshm_frame_get in one call. This is for languages in which
 * a call of C is slow.
 */
rsshm_status rsshm_reader_next_info(rsshm_reader *reader, int64_t timeout_ns, rsshm_frame **frame,
                                    rsshm_frame_info *info);

/*
 * Makes rsshm_reader_next return RSSHM_WOKEN: the call that waits now, or else the next call. Any thread may call this
 * function.
 */
rsshm_status rsshm_reader_wake(rsshm_reader *reader);

/*
 * A descriptor for poll, epoll, GLib, Qt or asio. It is readable as long as rsshm_reader_next would return at once.
 * When it is readable, call rsshm_reader_next with timeout 0. Do not read, write or close the descriptor; it ends with
 * the reader. The first call starts a thread, which ends with the reader. Returns an error (< 0) otherwise.
 */
int rsshm_reader_fd(rsshm_reader *reader);

/*
 * Requests a keyframe from the writer: as soon as possible (RSSHM_TIME_NONE), or the first frame captured at at_ns or
 * later. Returns RSSHM_NO_WRITER if there is no writer now, or if the reader is an observer.
 */
rsshm_status rsshm_reader_request_keyframe(rsshm_reader *reader, uint64_t at_ns);

/*
 * Sends the writer a message of at most 496 bytes. RSSHM_NO_WRITER: there is no writer now, it accepts no messages, or
 * the reader is an observer. The writer gets only the newest four messages if they come faster than it reads them.
 * GStreamer's elements send a navigation event as the text of its structure.
 */
rsshm_status rsshm_reader_send_message(rsshm_reader *reader, const void *data, size_t size);

/* Kinds of events. Programs may use others, and ignore those that they do not know. */
#define RSSHM_EVENT_STREAM 1u        /* A stream begins. `text` is the id of the stream. */
#define RSSHM_EVENT_TAGS 2u          /* Tags. `text` is a tag list, as GStreamer writes it. */
#define RSSHM_EVENT_GAP 3u           /* No frame comes for duration_ns from time_ns on. */
#define RSSHM_EVENT_CUSTOM 4u        /* Any other event. `text` is its structure, as GStreamer writes it. */
#define RSSHM_EVENT_CUSTOM_STICKY 5u /* The same, and readers that come later get it too. */

/* An event, which happens between two frames. docs/PROTOCOL.md, "Events", has the bytes of each kind. */
typedef struct rsshm_event {
  uint32_t struct_size;
  uint32_t kind;        /* RSSHM_EVENT_... */
  uint64_t time_ns;     /* When the event happens, or RSSHM_TIME_NONE. */
  uint64_t duration_ns; /* How long it lasts, or RSSHM_TIME_NONE. */
  const uint8_t *data;  /* The bytes of the event. */
  size_t size;          /* The number of bytes, at most 4032. */
  const char *text;     /* The text in the bytes; "" if the kind has none. rsshm_writer_event takes it if size is 0. */
} rsshm_event;
#define RSSHM_EVENT_INIT {sizeof(rsshm_event), 0, RSSHM_TIME_NONE, RSSHM_TIME_NONE, NULL, 0, NULL}

/*
 * Stores the event for which the last call of rsshm_reader_next returned RSSHM_EVENT. Its pointers are valid until the
 * next call of rsshm_reader_next or rsshm_reader_close. Returns RSSHM_NOTHING if that call returned something else.
 */
rsshm_status rsshm_reader_get_event(rsshm_reader *reader, rsshm_event *event);

/*
 * Why the reader is an observer, which copies each frame: its flags, the permissions of the channel, or 64 other
 * readers. "" if it is no observer. NULL is an error. The text is valid until this thread's next call of this function.
 */
const char *rsshm_reader_observing(rsshm_reader *reader);

/* The counts of a reader, as of its last call of rsshm_reader_next. */
typedef struct rsshm_reader_stats {
  uint32_t struct_size;
  uint32_t connected;   /* 1 if the reader is attached to a living writer. */
  uint64_t received;    /* Frames delivered. */
  uint64_t in_place;    /* Of these, in place. */
  uint64_t copied;      /* Of these, as a copy. */
  uint64_t missed;      /* Frames not delivered. */
  uint64_t reconnects;  /* How many times the reader went on to another segment; the caps may have changed. */
  uint32_t writer_pid;  /* The process id of the writer; 0 before the first. */
  uint32_t observes;    /* 1 if the reader is an observer; see rsshm_reader_observing. */
  uint64_t latency_ns;  /* The time from a frame's pts until the frame leaves the writer. */
} rsshm_reader_stats;
#define RSSHM_READER_STATS_INIT {sizeof(rsshm_reader_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* Stores the counts in *stats. */
rsshm_status rsshm_reader_get_stats(rsshm_reader *reader, rsshm_reader_stats *stats);

/*
 * Closes the reader. A thread that waits in rsshm_reader_next gets RSSHM_E_CLOSED. Frames stay valid until they are
 * released.
 */
rsshm_status rsshm_reader_close(rsshm_reader *reader);

/* ---- Writers --------------------------------------------------------------------------------------------------- */

typedef struct rsshm_writer rsshm_writer;
typedef struct rsshm_slot rsshm_slot;

/* Bits of rsshm_writer_options.flags. */
#define RSSHM_LOSSLESS 1u /* The writer waits for its slowest reader, so that no reader misses a frame. */
#define RSSHM_SPARE 2u    /* Without a free slot, a claim gets other memory, and the publish copies it to a slot. */
#define RSSHM_MESSAGES 4u /* Readers may send messages; see rsshm_writer_next_message. */
#define RSSHM_FDS 8u      /* Frames stay in the program's memfds or dmabufs; see rsshm_writer_write_fds. */

typedef struct rsshm_writer_options {
  uint32_t struct_size;
  uint32_t flags;        /* RSSHM_LOSSLESS, RSSHM_SPARE, RSSHM_MESSAGES, RSSHM_FDS */
  uint32_t perms;        /* The mode of the channel's file. 0: 0600. With 0644, others observe; with 0660, the group reads. */
  uint32_t max_slots;    /* 3 to 64 slots. 0: automatic. */
  uint32_t stride_align; /* Rows of raw video begin at multiples of this power of 2, 4 to 4096. 0: GStreamer's 4. */
  uint32_t spare_buffers; /* With RSSHM_FDS: how many buffers may be out. With less than 3, readers copy. 0: 4. */
  int64_t max_wait_ns;   /* How long a lossless writer waits in one call, before RSSHM_TIMEOUT. 0: no limit. */
} rsshm_writer_options;
#define RSSHM_WRITER_OPTIONS_INIT {sizeof(rsshm_writer_options), 0, 0, 0, 0, 0, 0}

/*
 * Becomes the writer of the channel `name`. `options` may be NULL. The writer is stored in *writer, or NULL after an
 * error. RSSHM_E_BUSY: another program writes this channel. The call starts a thread, which ends with the writer.
 */
rsshm_status rsshm_writer_open(const char *name, const rsshm_writer_options *options, rsshm_writer **writer);

/*
 * Sets the caps of all further frames to raw video. `format` has GStreamer's name, such as "NV12", "BGR" or "GRAY8".
 * fps_n may be 0 (with fps_d 1) if the rate varies.
 */
rsshm_status rsshm_writer_video(rsshm_writer *writer, const char *format, int32_t width, int32_t height, int32_t fps_n,
                                int32_t fps_d);

/*
 * Sets the caps of all further frames to any fixed caps, as GStreamer writes them, such as
 * "video/x-h264,stream-format=byte-stream,alignment=au". frame_size is the size of each frame. With 0, the sizes differ,
 * or are those of the raw video in the caps.
 */
rsshm_status rsshm_writer_caps(rsshm_writer *writer, const char *caps, size_t frame_size);

/* A claimed slot, into which the program draws the next frame. */
typedef struct rsshm_slot_info {
  uint32_t struct_size;
  uint32_t plane_count; /* 0 if the caps are not raw video. */
  uint8_t *data;        /* The first byte. The memory has old content. */
  size_t size;
  rsshm_plane planes[RSSHM_MAX_PLANES]; /* Inside `data`. Write with (uint8_t *)planes[i].data. */
} rsshm_slot_info;
#define RSSHM_SLOT_INFO_INIT {sizeof(rsshm_slot_info), 0, NULL, 0, RSSHM_PLANES_INIT}

/*
 * Claims a slot for the next frame. `size` is its size in bytes; 0 means the size that the caps have.
 *
 * RSSHM_OK: *slot and *info are the slot. Call rsshm_slot_publish or rsshm_slot_release.
 * RSSHM_DROPPED: readers hold all slots. A lossless writer waits for a slot instead. The wait ends early if max_wait_ns
 * has passed (RSSHM_TIMEOUT), or if rsshm_writer_wake is called (RSSHM_WOKEN); the frame is not lost then. A writer with
 * RSSHM_SPARE gets memory that is not a slot instead.
 */
rsshm_status rsshm_writer_claim(rsshm_writer *writer, size_t size, rsshm_slot **slot, rsshm_slot_info *info);

/* Bits of rsshm_publish_info.flags. */
#define RSSHM_DELTA 1u  /* The frame needs the frames before it: it is not a keyframe. */
#define RSSHM_HEADER 2u /* The frame is a header of a compressed stream. */
#define RSSHM_KEEP 4u   /* The slot does not end with the publish. Its bytes stay as they are until rsshm_slot_release. */

typedef struct rsshm_publish_info {
  uint32_t struct_size;
  uint32_t flags;          /* RSSHM_DELTA, RSSHM_HEADER; RSSHM_KEEP only for rsshm_slot_publish */
  uint64_t pts_ns;         /* When the frame was captured, RSSHM_TIME_NOW, or RSSHM_TIME_NONE. */
  uint64_t dts_ns;         /* RSSHM_TIME_NONE if it is the pts. */
  uint64_t duration_ns;    /* Or RSSHM_TIME_NONE. */
  uint64_t offset;         /* The program's own count, or RSSHM_TIME_NONE. */
  size_t size;             /* The bytes of the claim that the frame has; 0 means all. Only for rsshm_slot_publish. */
  const uint8_t *metadata; /* Metadata records, at most 3840 bytes; see docs/PROTOCOL.md. */
  size_t metadata_size;
  uint64_t offset_end;     /* The program's own count after the frame, or RSSHM_TIME_NONE. */
  uint64_t *seq;           /* Where the frame's seq is stored, or 0 if it is not published. NULL: nowhere. */
  uint32_t buffer_flags;   /* Further flags of the GstBuffer that readers get. */
  uint32_t reserved;       /* 0 */
} rsshm_publish_info;
#define RSSHM_PUBLISH_INFO_INIT                                                                                    \
  {sizeof(rsshm_publish_info), 0, RSSHM_TIME_NOW, RSSHM_TIME_NONE, RSSHM_TIME_NONE, RSSHM_TIME_NONE, 0, NULL, 0, \
   RSSHM_TIME_NONE, NULL, 0, 0}

/*
 * Publishes the frame in the slot. The slot ends with this call, also after an error, unless info has RSSHM_KEEP; then
 * it must not be written any more. `info` may be NULL: the frame was captured now. RSSHM_E_STATE: the caps have changed
 * since the claim, or the slot is already published. RSSHM_DROPPED, RSSHM_TIMEOUT and RSSHM_WOKEN: the frame has to be
 * copied to another slot, and there was none. It is lost, or with RSSHM_KEEP the call may be repeated.
 */
rsshm_status rsshm_slot_publish(rsshm_slot *slot, const rsshm_publish_info *info);

/* Gives up the slot. If its frame was not published, readers notice nothing. */
rsshm_status rsshm_slot_release(rsshm_slot *slot);

/*
 * Copies a picture and publishes it. The planes may have any strides, also negative ones. row_bytes and rows may be 0;
 * otherwise they must be those of the caps. `info` may be NULL. The results are those of rsshm_writer_claim.
 */
rsshm_status rsshm_writer_write(rsshm_writer *writer, const rsshm_plane *planes, uint32_t plane_count,
                                const rsshm_publish_info *info);

/* Copies a frame of any caps and publishes it. `info` may be NULL. The results are those of rsshm_writer_claim. */
rsshm_status rsshm_writer_write_bytes(rsshm_writer *writer, const void *data, size_t size,
                                      const rsshm_publish_info *info);

/*
 * Publishes a frame that stays where it is, in the program's memfds or dmabufs, without a copy. The writer has RSSHM_FDS;
 * it has no slots for bytes, so the other functions that claim or write are errors. The frame is the planes one after
 * another, with fd, offset, size and stride of each; other fields are ignored. If the stride is 0 in all of them, the
 * planes are pieces of a frame in the layout of the caps. One piece may have all of it. The same memory is the same
 * object, however often it comes, and the descriptors may be closed after the call. `info` may be NULL.
 *
 * release(user) is called once, also after an error: from then on, the program may write into the memory. A thread of the
 * library may call it, so it only notes that, and calls no function of the library. The newest frame is out until the next
 * one, or until rsshm_writer_close. NULL: the memory never changes.
 *
 * RSSHM_DROPPED: readers hold all that they may. RSSHM_E_CAPS: the planes do not fit the caps. RSSHM_E_SYSTEM: a file is
 * neither a memfd nor a dmabuf, or a plane is not inside it.
 */
rsshm_status rsshm_writer_write_fds(rsshm_writer *writer, const rsshm_fd *planes, uint32_t plane_count,
                                    const rsshm_publish_info *info, void (*release)(void *user), void *user);

/* Marks the end of the stream after the last frame. Another stream may follow. */
rsshm_status rsshm_writer_end_of_stream(rsshm_writer *writer);

/* The number of readers that are attached now, or an error (< 0). Observers do not count. */
int rsshm_writer_readers(rsshm_writer *writer);

/*
 * Waits until a reader is attached, at most for timeout_ns (RSSHM_FOREVER: no limit). Returns RSSHM_OK, RSSHM_TIMEOUT or
 * RSSHM_WOKEN. Set the caps before.
 */
rsshm_status rsshm_writer_wait_for_reader(rsshm_writer *writer, int64_t timeout_ns);

/* 1 if a reader has requested a keyframe since the last call, 0 if not, or an error (< 0). */
int rsshm_writer_keyframe_wanted(rsshm_writer *writer);

/* The counts of a writer, and the slots and bytes of its present segment. */
typedef struct rsshm_writer_stats {
  uint32_t struct_size;
  uint32_t readers;            /* Readers that are attached; observers do not count. */
  uint64_t published;          /* Frames published. */
  uint64_t dropped;            /* Frames lost because readers held all slots. */
  uint64_t head;               /* The seq of the newest frame; 0 before the first. */
  uint64_t missed_by_readers;  /* Frames that were overwritten before a reader took them, once for each such reader. */
  uint64_t evicted;            /* Readers evicted because they held more slots than they may. */
  uint64_t segments;           /* Segments made. */
  uint64_t semaphore_timeouts; /* How often another program held the semaphore for too long. */
  uint64_t bytes;              /* The size of the segment. */
  uint32_t slots;              /* Slots that have memory. */
  uint32_t max_slots;          /* Slots that the segment may have. */
  uint32_t slots_in_use;       /* Slots that have a frame or are claimed. */
  uint32_t lossless;           /* 1 if the writer waits for its readers. */
} rsshm_writer_stats;
#define RSSHM_WRITER_STATS_INIT {sizeof(rsshm_writer_stats), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* Stores the counts in *stats. */
rsshm_status rsshm_writer_get_stats(rsshm_writer *writer, rsshm_writer_stats *stats);

/*
 * Publishes an event after the last frame and before the next. `sticky` is -1, or 0 to 7: readers that come later get
 * the event too, until another event takes the same number. RSSHM_EVENT_STREAM with sticky 0 ends all sticky events
 * before it.
 */
rsshm_status rsshm_writer_event(rsshm_writer *writer, const rsshm_event *event, int32_t sticky);

/*
 * Stores the oldest message of a reader that the program has not taken yet; *needed is its size. RSSHM_NOTHING: there
 * is none. RSSHM_E_ARGUMENT: `size` is too small, and the message stays; 496 is enough for each. The writer keeps the
 * newest 64 messages. They come from other programs, so they may have any content.
 */
rsshm_status rsshm_writer_next_message(rsshm_writer *writer, void *data, size_t size, size_t *needed);

/* Announces the time from a frame's pts until the frame is published, so that readers can allow for it. */
rsshm_status rsshm_writer_set_latency(rsshm_writer *writer, uint64_t latency_ns);

/* Makes a wait of this writer return RSSHM_WOKEN: the present wait, or else the next. Any thread may call it. */
rsshm_status rsshm_writer_wake(rsshm_writer *writer);

/*
 * Closes the writer, and removes the channel. Readers get RSSHM_NO_WRITER; call rsshm_writer_end_of_stream before, and
 * they get RSSHM_EOS first. A thread that waits for readers gets RSSHM_E_CLOSED.
 */
rsshm_status rsshm_writer_close(rsshm_writer *writer);

/* ---- Tools ----------------------------------------------------------------------------------------------------- */

/*
 * Stores the names of all channels in `names`, each with a NUL, and an empty name at the end. *needed is how many bytes
 * that takes. With NULL and size 0, only *needed is stored. RSSHM_E_ARGUMENT: `size` is too small. RSSHM_E_SYSTEM: no
 * channel can be in the directory that the environment variable RSSHM_DIR names.
 */
rsshm_status rsshm_channels(char *names, size_t size, size_t *needed);

/*
 * Checks that `caps` is a text that GStreamer takes for fixed caps, and stores its parts, each with a NUL. The parts are
 * the media type, the features ("" if there are none; ", " between two), then name and value of each field. An empty name
 * is the end. A value has neither type nor quotes; arrays and structures are as GStreamer writes them. `parts`, `size`
 * and `needed` are as in rsshm_channels. RSSHM_E_CAPS: the error's text says at which byte the mistake is.
 */
rsshm_status rsshm_caps_parts(const char *caps, char *parts, size_t size, size_t *needed);

/* Stores the names of all formats of raw video that the library knows, as rsshm_channels does. */
rsshm_status rsshm_video_formats(char *names, size_t size, size_t *needed);

/* Where a plane is in the bytes of a frame, and what its rows consist of. */
typedef struct rsshm_plane_layout {
  uint64_t offset;       /* The offset of the first row. */
  int64_t stride;        /* Bytes from one row to the next. */
  uint32_t row_bytes;    /* Bytes of a row that hold pixels. */
  uint32_t rows;
  uint32_t pixel_bytes;  /* Bytes from one pixel of the plane to the next; 0 if pixels are not whole bytes (v210). */
  uint32_t sample_bytes; /* The size of the integers in which the pixels are stored: 1, 2 or 4. */
} rsshm_plane_layout;
#define RSSHM_PLANE_LAYOUT_INIT {0, 0, 0, 0, 0, 0}

/* The layout of raw video. A row has row_bytes / pixel_bytes pixels, each of pixel_bytes / sample_bytes samples. */
typedef struct rsshm_layout {
  uint32_t struct_size;
  uint32_t plane_count;
  uint64_t size;       /* The bytes of a frame. */
  uint32_t bits;       /* The bits of a component that count, such as 10 in P010_10LE. */
  uint32_t big_endian; /* 1 if samples of several bytes begin with the upper one. */
  rsshm_plane_layout planes[RSSHM_MAX_PLANES];
} rsshm_layout;
#define RSSHM_LAYOUT_INIT            \
  {sizeof(rsshm_layout), 0, 0, 0, 0, \
   {RSSHM_PLANE_LAYOUT_INIT, RSSHM_PLANE_LAYOUT_INIT, RSSHM_PLANE_LAYOUT_INIT, RSSHM_PLANE_LAYOUT_INIT}}

/*
 * Stores the layout of frames of a format. Rows begin at multiples of `align`, a power of 2 from 1 to 4096; 0 means
 * GStreamer's 4. RSSHM_E_CAPS: the library does not know the format, or the size is not possible.
 */
rsshm_status rsshm_video_layout(const char *format, int32_t width, int32_t height, uint32_t align, rsshm_layout *layout);

/* A view of a channel that writes nothing and needs read permission only. */
typedef struct rsshm_observer rsshm_observer;

typedef struct rsshm_channel_info {
  uint32_t struct_size;
  uint32_t current;     /* 0 if the writer is gone or has made another segment; then open the observer again. */
  uint64_t head;        /* The seq of the newest frame; 0 before the first. */
  const char *caps;     /* Valid until the observer is closed. */
  const char *format;   /* As in rsshm_frame_info. */
  int32_t width, height, fps_n, fps_d;
  uint32_t writer_pid;
  uint32_t lossless;
  uint32_t slot_count;  /* The most slots that the segment can have. */
  uint32_t history;     /* How many later frames a frame survives at least. */
  uint64_t slot_size;
  uint64_t created_ns;
} rsshm_channel_info;
#define RSSHM_CHANNEL_INFO_INIT {sizeof(rsshm_channel_info), 0, 0, NULL, NULL, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}

/* Opens an observer. RSSHM_NO_WRITER: the channel has no writer. *observer is NULL unless the result is RSSHM_OK. */
rsshm_status rsshm_observer_open(const char *name, rsshm_observer **observer);

/* Stores what the channel is and how far it is in *info. */
rsshm_status rsshm_observer_get(rsshm_observer *observer, rsshm_channel_info *info);

/* Copies the newest frame, without its metadata. RSSHM_NOTHING: there is none, or it was overwritten during the copy. */
rsshm_status rsshm_observer_newest(rsshm_observer *observer, rsshm_frame **frame);

/* Closes the observer. Its frames stay valid until they are released. */
rsshm_status rsshm_observer_close(rsshm_observer *observer);

#ifdef __cplusplus
}
#endif

#endif
