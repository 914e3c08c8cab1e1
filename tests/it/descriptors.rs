// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of frames by descriptor. The buffers of upstream are memfds (GstFdMemory, or GstDmaBufMemory around a memfd), and
//! readers get the same memory.

use std::{
    collections::BTreeSet,
    fs::File,
    os::{fd::IntoRawFd, unix::fs::FileExt},
    sync::{Arc, Mutex},
};

use gst::prelude::*;
use gst_allocators::{DmaBufAllocator, DmaBufMemory, FdAllocator, FdMemory, FdMemoryFlags, prelude::*};
use gst_video::{VideoFormat, VideoInfo};
use nix::sys::memfd::{MFdFlags, memfd_create};
use rsshm_testkit::{
    Channel, eventually,
    gst::{LOSSLESS, Pipeline, SinkHarness, SourceRecorder, init, picture, role_command},
    need_root,
    role::{Role, say},
};

use crate::permissions::OtherUser;

const READER: &str = "descriptors/reader";

/// The roles of the processes that these tests start.
pub const ROLES: &[(&str, Role)] = &[(READER, |arguments| reader(arguments[0]))];

fn info(format: VideoFormat) -> VideoInfo {
    init();
    VideoInfo::builder(format, 64, 48)
        .fps(gst::Fraction::new(30, 1))
        .build()
        .unwrap()
}

/// A memory in a new memfd of `size` bytes, and a descriptor of it that is open for writing.
fn memory(size: usize) -> (gst::Memory, File) {
    let file = File::from(memfd_create("rsshm-test", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(size as u64).unwrap();
    let descriptor = file.try_clone().unwrap().into_raw_fd();
    // SAFETY: the allocator owns the descriptor, which has this size.
    let memory = unsafe { FdAllocator::new().alloc_fd(descriptor, size, FdMemoryFlags::KEEP_MAPPED) };
    (memory.unwrap(), file)
}

/// The memory that `memory` is a part of; `memory` itself if it is whole.
fn whole(memory: &gst::MemoryRef) -> gst::Memory {
    // SAFETY: the memory is alive, and keeps the memory that it is a part of. The new value has a reference of its own.
    unsafe {
        let parent = (*memory.as_ptr()).parent;
        let whole = if parent.is_null() { memory.as_mut_ptr() } else { parent };
        gst::glib::translate::from_glib_none(whole)
    }
}

/// Whether no buffer has the memory.
fn is_unused(memory: &gst::Memory) -> bool {
    // SAFETY: the memory is alive. The count is read without a lock, so it may be one of a moment ago.
    unsafe { (*memory.as_ptr()).mini_object.refcount == 1 }
}

/// A frame in a memfd of its own.
fn frame(info: &VideoInfo, number: u8) -> gst::Buffer {
    let bytes = picture::packed(info, number);
    let (memory, file) = memory(bytes.len());
    file.write_all_at(&bytes, 0).unwrap();
    let mut buffer = gst::Buffer::new();
    buffer.get_mut().unwrap().append_memory(memory);
    buffer
}

/// A sink that waits for its reader, and a reader that has got no frame yet.
struct Pair {
    writer: SinkHarness,
    reader: SourceRecorder,
    channel: Channel,
}

fn start_writer(channel: &Channel, info: &VideoInfo, options: &str) -> SinkHarness {
    let writer = SinkHarness::new(channel, &format!("{LOSSLESS} {options}"));
    writer.source().set_property("caps", info.to_caps().unwrap());
    writer.pipeline.play();
    writer
}

impl Pair {
    #[track_caller]
    fn new(info: &VideoInfo, options: &str, downstream: &str) -> Self {
        let channel = Channel::new();
        let reader = SourceRecorder::playing(&format!("rsshmsrc channel={channel} ! {downstream}"));
        let writer = start_writer(&channel, info, options);
        Self {
            writer,
            reader,
            channel,
        }
    }

    /// Stops the writer, and starts another one.
    fn restart_writer(&mut self, info: &VideoInfo) {
        self.writer.pipeline.set_state(gst::State::Null).unwrap();
        self.writer = start_writer(&self.channel, info, "");
    }

    /// Sends a buffer, and checks the picture of the frame that arrives.
    #[track_caller]
    fn send(&self, buffer: gst::Buffer, info: &VideoInfo, number: u8) {
        let count = self.reader.frame_count();
        self.writer.push(&buffer);
        // The channel has the only reference, so it decides when the buffer goes back.
        drop(buffer);
        eventually("the frame", || self.reader.frame_count() > count);
        picture::assert_picture(&self.reader.last_frame().unwrap(), info, number);
    }

    /// Checks how many frames went by descriptor, in slots, and were copied.
    #[track_caller]
    fn assert_counts(&self, expected: [u64; 3]) {
        let fields = ["frames-by-descriptor", "frames-in-place", "frames-copied"];
        let counts = || fields.map(|field| self.writer.pipeline.stat("rsshmsink", field));
        // A frame is counted when it is published, and may arrive before.
        eventually("all frames are counted", || {
            counts().iter().sum::<u64>() == expected.iter().sum::<u64>()
        });
        assert_eq!(counts(), expected);
    }
}

#[test]
fn frames_in_memfds_are_not_copied() {
    for format in [
        VideoFormat::I420,
        VideoFormat::Nv12,
        VideoFormat::Gray8,
        VideoFormat::Rgb,
    ] {
        let info = info(format);
        let pair = Pair::new(&info, "", "fakesink sync=false");
        for number in 0..20 {
            pair.send(frame(&info, number), &info, number);
        }
        pair.assert_counts([20, 0, 0]);
        let stat = |field| pair.reader.stat(field);
        assert!(stat("frames-in-place") >= 18, "{}", stat("frames-in-place"));
        assert_eq!(stat("frames-missed"), 0);
    }
}

/// The reader gives the same memory on, with one descriptor for each buffer of a pool, and each buffer goes back.
#[test]
fn reader_gives_the_descriptors_on() {
    let info = info(VideoFormat::Nv12);
    let pair = Pair::new(
        &info,
        "",
        "identity name=look signal-handoffs=true ! fakesink sync=false",
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let wholes = Arc::new(Mutex::new(Vec::new()));
    pair.reader.pipeline.element("look").connect("handoff", false, {
        let (seen, wholes) = (Arc::clone(&seen), Arc::clone(&wholes));
        move |values| {
            let buffer = values[1].get::<gst::Buffer>().unwrap();
            let memory = buffer.peek_memory(0);
            let with_descriptor = memory.downcast_memory_ref::<FdMemory>();
            let is_dmabuf = memory.downcast_memory_ref::<DmaBufMemory>().is_some();
            seen.lock()
                .unwrap()
                .push((with_descriptor.map(|memory| memory.fd()), is_dmabuf, memory.size()));
            // As long as the test has the memory, no other one can have its address.
            wholes.lock().unwrap().push(whole(memory));
            None
        }
    });
    let bytes = picture::packed(&info, 0).len();
    let pool: Vec<_> = (0..6).map(|_| memory(bytes)).collect();
    for number in 0..60u8 {
        let (memory, file) = &pool[usize::from(number) % 6];
        // Nobody else uses the memory, because the channel has given the buffer back.
        eventually("the buffer is back", || is_unused(memory));
        file.write_all_at(&picture::packed(&info, number), 0).unwrap();
        let mut buffer = gst::Buffer::new();
        buffer.get_mut().unwrap().append_memory(memory.clone());
        pair.send(buffer, &info, number);
    }
    let seen = seen.lock().unwrap();
    let descriptors: BTreeSet<_> = seen.iter().filter_map(|(descriptor, _, _)| *descriptor).collect();
    assert!(
        seen.iter().filter(|(descriptor, _, _)| descriptor.is_some()).count() >= 58,
        "{seen:?}"
    );
    assert_eq!(descriptors.len(), 6, "{seen:?}");
    // The memory is made once for each object, so it is mapped once.
    let wholes = wholes.lock().unwrap();
    let different: BTreeSet<_> = wholes.iter().map(|whole| whole.as_ptr()).collect();
    // Up to two frames may have been copied.
    assert!((6..=8).contains(&different.len()), "{} memories", different.len());
    assert!(seen.iter().all(|(_, is_dmabuf, size)| !is_dmabuf && *size == bytes));
    pair.assert_counts([60, 0, 0]);
}

/// The planes are in two memories, with offsets and padding.
#[test]
fn planes_in_several_memories_keep_their_layout() {
    let info = info(VideoFormat::Nv12);
    let pair = Pair::new(&info, "", "fakesink sync=false");
    for number in 0..10 {
        let (stride, rows) = (96, 48 + 8);
        let offsets = [0, 96 * rows];
        let (first, file) = memory(1000 + 96 * rows);
        let (second, other) = memory(96 * rows / 2);
        let mut bytes = vec![0xee; 96 * rows * 3 / 2];
        picture::draw(&mut bytes, &info, &offsets, &[stride, stride], number);
        file.write_all_at(&bytes[..96 * rows], 1000).unwrap();
        other.write_all_at(&bytes[96 * rows..], 0).unwrap();
        let mut buffer = gst::Buffer::new();
        let target = buffer.get_mut().unwrap();
        target.append_memory(first.share(1000..));
        target.append_memory(second);
        picture::add_video_meta(target, &info, &offsets, &[stride, stride]);
        pair.send(buffer, &info, number);
    }
    pair.assert_counts([10, 0, 0]);
}

/// GstDmaBufMemory around a memfd is a memfd for the channel, because the kernel knows better.
#[test]
fn dmabuf_memory_around_a_memfd_goes_by_descriptor() {
    let info = info(VideoFormat::Gray8);
    let pair = Pair::new(&info, "", "fakesink sync=false");
    for number in 0..5 {
        let bytes = picture::packed(&info, number);
        let (_, file) = memory(bytes.len());
        file.write_all_at(&bytes, 0).unwrap();
        // SAFETY: the allocator owns the descriptor, which has this size.
        let memory = unsafe { DmaBufAllocator::new().alloc_dmabuf(file, bytes.len()) }.unwrap();
        let mut buffer = gst::Buffer::new();
        buffer.get_mut().unwrap().append_memory(memory);
        pair.send(buffer, &info, number);
    }
    pair.assert_counts([5, 0, 0]);
}

#[test]
fn property_decides_which_frames_go_by_descriptor() {
    let info = info(VideoFormat::I420);
    for (options, expected) in [
        ("descriptors=never", [0, 0, 5]),
        ("descriptors=auto", [5, 0, 0]),
        ("descriptors=always", [5, 0, 0]),
        // Users who may only observe could not read the frames.
        ("descriptors=auto perms=420", [0, 0, 5]),
        ("descriptors=always perms=420", [5, 0, 0]),
        ("descriptors=auto perms=432", [5, 0, 0]),
    ] {
        let pair = Pair::new(&info, options, "fakesink sync=false");
        for number in 0..5 {
            pair.send(frame(&info, number), &info, number);
        }
        pair.assert_counts(expected);
    }
    let pair = Pair::new(&info, "descriptors=always", "fakesink sync=false");
    pair.writer.push(&gst::Buffer::from_slice(picture::packed(&info, 0)));
    let error = pair.writer.pipeline.wait_error();
    assert!(error.to_string().contains("descriptors=auto"), "{error}");
}

/// A frame in a GstDmaBufMemory around a memfd, and the caps of such frames.
fn dmabuf_frame(info: &VideoInfo, number: u8) -> gst::Buffer {
    let bytes = picture::packed(info, number);
    let (_, file) = memory(bytes.len());
    file.write_all_at(&bytes, 0).unwrap();
    // SAFETY: the allocator owns the descriptor, which has this size.
    let memory = unsafe { DmaBufAllocator::new().alloc_dmabuf(file, bytes.len()) }.unwrap();
    let mut buffer = gst::Buffer::new();
    buffer.get_mut().unwrap().append_memory(memory);
    buffer
}

/// Downstream that takes dmabufs gets caps that say so, and other downstream gets ordinary caps and a mapping.
#[test]
fn caps_with_dmabufs_reach_readers() {
    let info = info(VideoFormat::Nv12);
    let caps = "video/x-raw(memory:DMABuf),format=NV12,width=64,height=48,framerate=30/1";
    for (downstream, is_dmabuf) in [
        ("fakesink sync=false", true),
        ("capsfilter caps=video/x-raw(memory:DMABuf) ! fakesink sync=false", true),
        ("capsfilter caps=video/x-raw ! fakesink sync=false", false),
        ("videoconvert ! video/x-raw,format=RGB ! fakesink sync=false", false),
    ] {
        let pair = Pair::new(&info, "", downstream);
        pair.writer.set_caps(caps);
        for number in 0..10 {
            pair.send(dmabuf_frame(&info, number), &info, number);
        }
        pair.assert_counts([10, 0, 0]);
        let seen = pair.reader.last_frame().unwrap();
        let features = seen.caps().features(0).unwrap();
        assert_eq!(
            features.contains("memory:DMABuf"),
            is_dmabuf,
            "{downstream}: {features}"
        );
        assert_eq!(pair.reader.stat("frames-skipped"), 0, "{downstream}");
    }
}

/// The pixels of a frame with a modifier are only for devices: they are never copied, and a reader that needs them fails.
#[test]
fn frames_with_modifier_go_by_descriptor_or_fail() {
    let info = info(VideoFormat::Nv12);
    let caps = "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=NV12:0x0100000000000002,width=64,height=48,framerate=30/1";
    let pair = Pair::new(&info, "", "fakesink sync=false");
    pair.writer.set_caps(caps);
    pair.send(dmabuf_frame(&info, 1), &info, 1);
    assert_eq!(
        pair.reader.last_frame().unwrap().caps(),
        &caps.parse::<gst::Caps>().unwrap()
    );
    pair.writer.push(&gst::Buffer::from_slice(picture::packed(&info, 0)));
    let error = pair.writer.pipeline.wait_error();
    assert!(error.to_string().contains("NV12:0x0100000000000002"), "{error}");

    let pair = Pair::new(&info, "", "capsfilter caps=video/x-raw ! fakesink sync=false");
    pair.writer.set_caps(caps);
    pair.writer.push(&dmabuf_frame(&info, 1));
    let error = pair.reader.pipeline.wait_error();
    assert!(error.to_string().contains("NV12:0x0100000000000002"), "{error}");
}

/// A source that sometimes copies its buffers: the channel goes on in slots, and returns to descriptors later.
#[test]
fn other_memory_in_between_is_copied() {
    let info = info(VideoFormat::I420);
    let pair = Pair::new(&info, "", "fakesink sync=false");
    for number in 0..100u8 {
        let buffer = match number {
            10 | 12 => gst::Buffer::from_slice(picture::packed(&info, number)),
            _ => frame(&info, number),
        };
        pair.send(buffer, &info, number);
    }
    assert_eq!(pair.reader.stat("frames-missed"), 0);
    // After the frame 12, 29 frames more are copied, and then the channel returns to descriptors.
    pair.assert_counts([10 + 100 - 42, 0, 32]);
}

/// A queue that holds frames gets its own memory for each, and upstream its buffers when the queue gives them up.
#[test]
fn downstream_may_hold_frames() {
    let channel = Channel::new();
    let info = info(VideoFormat::I420);
    let reader = Pipeline::playing(&format!(
        "rsshmsrc channel={channel} ! queue name=queue ! valve name=valve drop=false ! fakesink name=end sync=false \
         enable-last-sample=true"
    ));
    let writer = SinkHarness::new(&channel, LOSSLESS);
    writer.source().set_property("caps", info.to_caps().unwrap());
    writer.pipeline.play();
    for number in 0..50 {
        writer.push(&frame(&info, number));
    }
    eventually("all frames", || reader.stat("rsshmsrc", "frames-received") == 50);
    eventually("the last frame", || {
        let sample = reader.element("end").property::<Option<gst::Sample>>("last-sample");
        let Some(buffer) = sample.and_then(|sample| sample.buffer_owned()) else {
            return false;
        };
        buffer.map_readable().unwrap().as_slice() == picture::packed(&info, 49)
    });
}

/// Three planes are in one memfd, in another order than in the picture, with gaps. The buffer has one memory for all of
/// them, or one for each.
#[test]
fn planes_in_one_descriptor_keep_their_offsets() {
    let info = info(VideoFormat::I420);
    let (strides, in_file) = ([80, 48, 40], [5000, 100, 2000]);
    let sizes = [80 * 48, 48 * 24, 40 * 24];
    for has_one_memory in [true, false] {
        let pair = Pair::new(&info, "", "fakesink sync=false");
        for number in 0..10 {
            let (whole, file) = memory(16_384);
            let mut bytes = vec![0xee; 16_384];
            picture::draw(&mut bytes, &info, &in_file, &strides, number);
            file.write_all_at(&bytes, 0).unwrap();
            let mut buffer = gst::Buffer::new();
            let target = buffer.get_mut().unwrap();
            let offsets = if has_one_memory {
                target.append_memory(whole);
                in_file
            } else {
                for (offset, size) in in_file.into_iter().zip(sizes) {
                    target.append_memory(whole.share(offset..offset + size));
                }
                [0, sizes[0], sizes[0] + sizes[1]]
            };
            picture::add_video_meta(target, &info, &offsets, &strides);
            pair.send(buffer, &info, number);
        }
        pair.assert_counts([10, 0, 0]);
        assert_eq!(pair.reader.stat("frames-missed"), 0);
    }
}

/// Each plane is in a descriptor of its own, at an offset.
#[test]
fn planes_in_several_descriptors_keep_their_offsets() {
    let info = info(VideoFormat::I420);
    let pair = Pair::new(&info, "", "fakesink sync=false");
    let sizes = [64 * 48, 32 * 24, 32 * 24];
    for number in 0..10 {
        let bytes = picture::packed(&info, number);
        let mut buffer = gst::Buffer::new();
        let mut from = 0;
        for (plane, size) in sizes.into_iter().enumerate() {
            let offset = 1000 * plane + 7;
            let (memory, file) = memory(offset + size + 100);
            file.write_all_at(&bytes[from..from + size], offset as u64).unwrap();
            buffer
                .get_mut()
                .unwrap()
                .append_memory(memory.share(offset..offset + size));
            from += size;
        }
        pair.send(buffer, &info, number);
    }
    pair.assert_counts([10, 0, 0]);
}

/// The caps change while frames go by descriptor, at the change to slots, and at the change back.
#[test]
fn caps_change_with_descriptors_and_slots() {
    let first = info(VideoFormat::I420);
    let pair = Pair::new(&first, "", "fakesink sync=false");
    let set_caps = |info: &VideoInfo| pair.writer.set_caps(&info.to_caps().unwrap().to_string());
    for number in 0..5 {
        pair.send(frame(&first, number), &first, number);
    }
    let second = info(VideoFormat::Nv12);
    set_caps(&second);
    for number in 0..5 {
        pair.send(frame(&second, number), &second, number);
    }
    let third = info(VideoFormat::Gray8);
    set_caps(&third);
    for number in 0..3 {
        let buffer = gst::Buffer::from_slice(picture::packed(&third, number));
        pair.send(buffer, &third, number);
    }
    // 29 frames more are copied, and then the channel returns to descriptors.
    let fourth = info(VideoFormat::Rgb);
    set_caps(&fourth);
    for number in 0..31 {
        pair.send(frame(&fourth, number), &fourth, number);
    }
    pair.assert_counts([5 + 5 + 2, 0, 3 + 29]);
    assert_eq!(pair.reader.stat("frames-missed"), 0);
}

/// Another writer with the same buffers takes over. The reader gets all frames, and no descriptor is left open.
#[test]
fn reader_follows_to_another_writer_with_the_same_buffers() {
    let formats = [
        VideoFormat::I420,
        VideoFormat::Nv12,
        VideoFormat::I420,
        VideoFormat::Gray8,
    ];
    let bytes = picture::packed(&info(VideoFormat::I420), 0).len();
    let pool: Vec<_> = (0..6).map(|_| memory(bytes)).collect();
    let mut pair = Pair::new(&info(formats[0]), "", "fakesink sync=false");
    let open_files = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let mut files_before = None;
    for (round, format) in formats.into_iter().enumerate() {
        let info = info(format);
        if round > 0 {
            pair.restart_writer(&info);
        }
        for number in 0..20u8 {
            let (memory, file) = &pool[usize::from(number) % 6];
            eventually("the buffer is back", || is_unused(memory));
            let bytes = picture::packed(&info, number);
            file.write_all_at(&bytes, 0).unwrap();
            let mut buffer = gst::Buffer::new();
            buffer.get_mut().unwrap().append_memory(memory.share(..bytes.len()));
            pair.send(buffer, &info, number);
        }
        pair.assert_counts([20, 0, 0]);
        let files = *files_before.get_or_insert_with(open_files);
        eventually("no descriptor is left open", || open_files() <= files);
    }
    assert_eq!(pair.reader.stat("frames-missed"), 0);
}

/// 64 sources read the same frames by descriptor.
#[test]
fn sixty_four_sources_get_frames_by_descriptor() {
    const FRAMES: u8 = 10;
    let info = info(VideoFormat::Gray8);
    let channel = Channel::new();
    let writer = start_writer(&channel, &info, "");
    let readers: Vec<_> = (0..64)
        .map(|_| SourceRecorder::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false")))
        .collect();
    // Sources attach when there is a frame.
    writer.push(&frame(&info, 0));
    eventually("all sources are attached", || writer.pipeline.num_clients() == 64);
    for number in 1..FRAMES {
        writer.push(&frame(&info, number));
    }
    for reader in &readers {
        eventually("all frames", || reader.frame_count() == usize::from(FRAMES));
        for (number, frame) in reader.frames().iter().enumerate() {
            picture::assert_picture(frame, &info, number as u8);
        }
        assert_eq!(reader.stat("frames-missed"), 0);
    }
    let in_place: u64 = readers.iter().map(|reader| reader.stat("frames-in-place")).sum();
    assert!(in_place >= 64 * u64::from(FRAMES) * 9 / 10, "{in_place}");
    eventually("all frames are counted", || {
        writer.pipeline.stat("rsshmsink", "frames-by-descriptor") == u64::from(FRAMES)
    });
}

/// A lossless sink waits for the buffers of a source that is behind, so the source does not copy.
#[test]
fn late_source_of_lossless_sink_copies_nothing() {
    const FRAMES: usize = 100;
    let info = info(VideoFormat::Gray8);
    let pair = Pair::new(&info, "", "identity sleep-time=2000 ! fakesink sync=false");
    for number in 0..FRAMES {
        pair.writer.push(&frame(&info, number as u8));
    }
    eventually("all frames", || pair.reader.frame_count() == FRAMES);
    for (number, frame) in pair.reader.frames().iter().enumerate() {
        picture::assert_picture(frame, &info, number as u8);
    }
    pair.assert_counts([FRAMES as u64, 0, 0]);
    let stats = ["frames-copied", "frames-missed"].map(|field| pair.reader.stat(field));
    assert_eq!(stats, [0, 0]);
}

/// How many frames the reader of another user takes.
const FRAMES_OF_OTHER_USER: u8 = 5;

/// Reads frames, checks them, and says how many were in place, or with which error the source has failed.
fn reader(channel: &str) {
    let info = info(VideoFormat::Nv12);
    let reader = SourceRecorder::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let bus = reader.pipeline.bus().unwrap();
    // If the source fails at once, this call may fail too. The error comes as a message.
    let _ = reader.pipeline.set_state(gst::State::Playing);
    for number in 0..FRAMES_OF_OTHER_USER {
        let mut error = None;
        eventually("a frame or an error", || {
            error = bus.pop_filtered(&[gst::MessageType::Error]);
            error.is_some() || reader.frame_count() > usize::from(number)
        });
        if let Some(gst::MessageView::Error(error)) = error.as_ref().map(|error| error.view()) {
            return say(error.error());
        }
        picture::assert_picture(&reader.frames()[usize::from(number)], &info, number);
        say(format!("FRAME {number}"));
    }
    say(format!("IN PLACE {}", reader.stat("frames-in-place")));
}

/// A user who may attach gets the descriptors. A user who may only observe gets copies, or an error that says why.
#[test]
fn other_user_gets_descriptors_if_perms_allow_it() {
    need_root!("starts a process of another user");
    let other_user = OtherUser::new();
    let info = info(VideoFormat::Nv12);
    let start = |options: &str| {
        let channel = Channel::new();
        let writer = SinkHarness::new(&channel, options);
        writer.source().set_property("caps", info.to_caps().unwrap());
        writer.pipeline.play();
        writer.push(&frame(&info, 0));
        eventually("the channel exists", || channel.exists());
        let reader = other_user.start(&role_command(READER, &[channel.as_str()]));
        (channel, writer, reader)
    };
    for (options, by_descriptor, in_place) in [("perms=0666", 5, 4..=5), ("perms=0644", 0, 0..=0)] {
        let (_channel, writer, mut reader) = start(options);
        for number in 1..FRAMES_OF_OTHER_USER {
            let former = format!("FRAME {}\n", number - 1);
            eventually("the former frame", || reader.output().contains(&former));
            writer.push(&frame(&info, number));
        }
        let output = reader.wait_ok();
        let counted = output.lines().find_map(|line| line.strip_prefix("IN PLACE "));
        let counted: u64 = counted.and_then(|count| count.parse().ok()).expect("a count");
        assert!(in_place.contains(&counted), "{options}: {output}");
        assert_eq!(writer.stat("frames-by-descriptor"), by_descriptor, "{options}");
    }
    let (_channel, _writer, mut reader) = start("perms=0644 descriptors=always");
    let output = reader.wait_ok();
    assert!(output.contains("fds.") && output.contains("perms"), "{output}");
}
