// SPDX-License-Identifier: MIT OR Apache-2.0

//! Invalid names, properties, caps, buffers and files cause an error that names the cause. They do no other harm.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gst::prelude::*;
use rsshm_testkit::{
    Channel, PATIENCE, eventually,
    gst::{LOSSLESS, Pipeline, SinkHarness, error_kind, init, launch, picture, sequence},
};

/// A pipeline with one of the two elements, named `it`.
fn pipeline_of(element: &str) -> Pipeline {
    match element {
        "rsshmsink" => Pipeline::new("videotestsrc ! rsshmsink name=it"),
        _ => Pipeline::new("rsshmsrc name=it ! fakesink"),
    }
}

/// Starts the pipeline, which must fail at once. Returns the kind and the text of its error.
#[track_caller]
fn error_at_start(pipeline: &Pipeline) -> (String, String) {
    assert!(pipeline.set_state(gst::State::Playing).is_err());
    posted_error(pipeline)
}

/// Starts the pipeline, which must fail at once or later. Returns the kind and the text of its error.
#[track_caller]
fn error_of(pipeline: &Pipeline) -> (String, String) {
    let _ = pipeline.set_state(gst::State::Playing);
    posted_error(pipeline)
}

#[track_caller]
fn posted_error(pipeline: &Pipeline) -> (String, String) {
    let error = pipeline.wait_error();
    (error_kind(&error), error.message().to_owned())
}

#[test]
fn elements_refuse_invalid_channel_names() {
    for (name, reason) in [
        ("", "empty"),
        ("a/b", "slash"),
        (&*"x".repeat(251), "250"),
        ("sem.x", "sem."),
        ("..", "directory"),
    ] {
        for element in ["rsshmsink", "rsshmsrc"] {
            let pipeline = pipeline_of(element);
            pipeline.element("it").set_property("channel", name);
            let (kind, text) = error_at_start(&pipeline);
            assert_eq!(kind, "ResourceError::Settings", "{element} {name:?}: {text}");
            assert!(text.contains(reason), "{element} {name:?}: {text}");
        }
    }
}

#[test]
fn sink_refuses_invalid_properties() {
    for (property, value) in [
        ("max-slots", 1u32),
        ("max-slots", 2),
        ("perms", 0o100),
        ("perms", 0o400),
        ("perms", 0o066),
    ] {
        let channel = Channel::new();
        let pipeline = pipeline_of("rsshmsink");
        pipeline.element("it").set_property("channel", channel.as_str());
        pipeline.element("it").set_property(property, value);
        let (kind, text) = error_at_start(&pipeline);
        assert_eq!(kind, "ResourceError::Settings", "{property} {value:o}: {text}");
        assert!(text.contains(property), "{property} {value:o}: {text}");
        channel.assert_removed();
    }
}

#[test]
fn second_writer_is_refused_after_two_seconds() {
    let channel = Channel::new();
    let writer = format!("videotestsrc is-live=true ! video/x-raw,framerate=30/1 ! rsshmsink name={channel}");
    let mut first = launch(&writer);
    eventually("the channel exists", || channel.exists());
    let started = Instant::now();
    let second = Pipeline::new(&writer);
    let (kind, text) = error_at_start(&second);
    assert_eq!(kind, "ResourceError::Busy", "{text}");
    assert!(text.contains(&format!("process {}", first.pid())), "{text}");
    // The other writer may have been killed, and a killed process needs some time to exit. The sink therefore waits two
    // seconds before it fails.
    let waited = started.elapsed();
    assert!(waited >= Duration::from_millis(1900), "{waited:?}");
    drop(second);
    assert!(first.is_running() && channel.exists());
    first.interrupt();
    channel.assert_removed();
}

/// A sink that receives `buffer` with these caps when its pipeline starts.
fn sink_with(channel: &Channel, caps: &str, buffer: &gst::Buffer) -> SinkHarness {
    let writer = SinkHarness::new(channel, "sync=false");
    writer.set_caps(caps);
    let _ = writer.try_push(buffer);
    writer
}

#[test]
fn sink_names_unsupported_memory_before_upstream_errors() {
    init();
    let channel = Channel::new();
    let caps = "video/x-raw(memory:GLMemory),format=RGBA,width=64,height=64,framerate=30/1";
    let writer = sink_with(&channel, caps, &gst::Buffer::with_size(64 * 64 * 4).unwrap());
    let _ = writer.pipeline.set_state(gst::State::Playing);
    // The sink posts its error before the source does, because the source's error only says that negotiation failed.
    let message = writer
        .pipeline
        .message(&[gst::MessageType::Warning, gst::MessageType::Error]);
    let text = match message.view() {
        gst::MessageView::Error(error) => error.error().message().to_owned(),
        other => panic!("{other:?}"),
    };
    assert!(
        text.contains("memory:GLMemory") && text.contains("gldownload"),
        "{text}"
    );
    writer.pipeline.wait_error();
    drop(writer);
    channel.assert_removed();
}

const NV12: &str = "video/x-raw,format=NV12,width=320,height=240,framerate=30/1";

#[test]
fn sink_refuses_buffer_smaller_than_caps() {
    init();
    for size in [0, 1, 320 * 240, 320 * 240 * 3 / 2 - 1] {
        let channel = Channel::new();
        let writer = sink_with(&channel, NV12, &gst::Buffer::with_size(size).unwrap());
        let (kind, text) = error_of(&writer.pipeline);
        assert_eq!(kind, "ResourceError::Write", "{size}: {text}");
        drop(writer);
        channel.assert_removed();
    }
}

#[test]
fn sink_refuses_video_meta_beyond_buffer() {
    init();
    let wrong: [([usize; 2], [i32; 2]); 5] = [
        ([0, 320 * 240 * 2], [320, 320]),
        ([0, 320 * 240], [640, 640]),
        ([0, 320 * 240], [16, 16]),
        ([0, 320 * 240], [-320, 320]),
        ([usize::MAX - 100, 0], [320, 320]),
    ];
    for (offset, stride) in wrong {
        let channel = Channel::new();
        let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Nv12, 320, 240)
            .build()
            .unwrap();
        let mut buffer = gst::Buffer::with_size(info.size()).unwrap();
        picture::add_video_meta(buffer.get_mut().unwrap(), &info, &offset, &stride);
        let writer = sink_with(&channel, NV12, &buffer);
        let (kind, text) = error_of(&writer.pipeline);
        assert_eq!(kind, "ResourceError::Write", "{offset:?} {stride:?}: {text}");
        drop(writer);
        channel.assert_removed();
    }
}

#[test]
fn sink_refuses_memory_it_cannot_map() {
    init();
    for caps in [NV12, "image/jpeg,width=320,height=240,framerate=30/1"] {
        let channel = Channel::new();
        let allocator = gst::glib::Object::new::<unmappable::Unmappable>();
        let memory = allocator.alloc(320 * 240 * 3 / 2, None).unwrap();
        assert!(memory.map_readable().is_err());
        let mut buffer = gst::Buffer::new();
        buffer.get_mut().unwrap().append_memory(memory);
        let writer = sink_with(&channel, caps, &buffer);
        let (kind, text) = error_of(&writer.pipeline);
        assert_eq!(kind, "ResourceError::Write", "{text}");
        drop(writer);
        channel.assert_removed();
    }
}

#[test]
fn empty_buffer_arrives_as_frame() {
    let channel = Channel::new();
    let caps = "image/jpeg,width=320,height=240,framerate=30/1";
    let reader = Pipeline::playing(&format!("rsshmsrc name={channel} ! fakesink name=check sync=false"));
    let (sender, receiver) = std::sync::mpsc::channel();
    let pad = reader.element("check").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        sender.send(info.buffer().unwrap().size()).unwrap();
        gst::PadProbeReturn::Ok
    });
    let writer = SinkHarness::new(&channel, LOSSLESS);
    writer.set_caps(caps);
    writer.pipeline.play();
    let sizes = [100, 0, 200];
    for size in sizes {
        writer.push(&gst::Buffer::with_size(size).unwrap());
    }
    // This buffer has no memory.
    writer.push(&gst::Buffer::new());
    for size in sizes.into_iter().chain([0]) {
        assert_eq!(receiver.recv_timeout(PATIENCE), Ok(size));
    }
}

/// An allocator whose memory cannot be mapped.
mod unmappable {
    use std::{mem, ptr};

    use gst::{ffi, glib, prelude::*, subclass::prelude::*};

    glib::wrapper! {
        pub struct Unmappable(ObjectSubclass<Imp>) @extends gst::Allocator, gst::Object;
    }

    #[derive(Default)]
    pub struct Imp;

    #[glib::object_subclass]
    impl ObjectSubclass for Imp {
        const NAME: &'static str = "RsShmTestUnmappable";
        type Type = Unmappable;
        type ParentType = gst::Allocator;

        fn instance_init(object: &glib::subclass::InitializingObject<Self>) {
            unsafe extern "C" fn map(_: *mut ffi::GstMemory, _: usize, _: ffi::GstMapFlags) -> glib::ffi::gpointer {
                ptr::null_mut()
            }
            unsafe extern "C" fn unmap(_: *mut ffi::GstMemory) {}
            // SAFETY: the object is under construction, and its first field is a GstAllocator.
            unsafe {
                let allocator = object.as_ptr().cast::<ffi::GstAllocator>();
                (*allocator).mem_type = c"RsShmTestUnmappable".as_ptr();
                (*allocator).mem_map = Some(map);
                (*allocator).mem_unmap = Some(unmap);
            }
        }
    }

    impl ObjectImpl for Imp {}
    impl GstObjectImpl for Imp {}

    // SAFETY: `alloc` returns a complete GstMemory, and `free` frees what `alloc` returned.
    unsafe impl AllocatorImpl for Imp {
        unsafe fn alloc(&self, size: usize, _params: &gst::AllocationParams) -> *mut ffi::GstMemory {
            // SAFETY: the block is new, zeroed and as large as a GstMemory. It is initialised before it is returned.
            unsafe {
                let memory = glib::ffi::g_malloc0(mem::size_of::<ffi::GstMemory>()).cast::<ffi::GstMemory>();
                let allocator = self.obj().upcast_ref::<gst::Allocator>().as_ptr();
                ffi::gst_memory_init(memory, 0, allocator, ptr::null_mut(), size, 0, 0, size);
                memory
            }
        }

        unsafe fn free(&self, memory: *mut ffi::GstMemory) {
            // SAFETY: `alloc` allocated the block, and the last reference to it is gone.
            unsafe { glib::ffi::g_free(memory.cast()) };
        }
    }
}

/// Leaves the files of a writer that was killed.
fn leave_files_of_killed_writer(channel: &Channel) {
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,width=64,height=64,framerate=30/1 ! rsshmsink name={channel}"
    ));
    eventually("the channel exists", || channel.exists());
    writer.kill();
}

fn overwrite(path: &Path, bytes: &[u8], offset: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// Damage to a segment: the bytes to write, their offset, and a word of the resulting error. The damaged fields are the
/// magic, the version and the slot size.
const DAMAGE: [(&[u8], u64, &str); 3] = [
    (b"nonsense", 0, "begins with"),
    (&[99, 0, 0, 0], 8, "version is 99"),
    (&[255, 255, 0, 0, 0, 0, 0, 0], 128, "slot_size"),
];

/// A writer of three frames that does not play yet.
fn short_writer(channel: &Channel) -> Pipeline {
    sequence::writer(
        channel,
        "num-buffers=3",
        "format=GRAY8,width=64,height=64",
        "sync=false",
    )
}

/// Publishes three frames. After that, no file of the channel may be left.
#[track_caller]
fn write_three_frames(channel: &Channel) {
    let writer = short_writer(channel);
    writer.play();
    writer.wait_eos();
    drop(writer);
    channel.assert_removed();
}

#[test]
fn writer_replaces_damaged_segment_that_has_lock_file() {
    for (bytes, offset, field) in DAMAGE {
        let channel = Channel::new();
        leave_files_of_killed_writer(&channel);
        overwrite(&channel.files()[0], bytes, offset);
        let reader = Pipeline::new(&format!("rsshmsrc name={channel} ! fakesink"));
        let (kind, text) = error_of(&reader);
        assert_eq!(kind, "StreamError::WrongType", "{text}");
        assert!(text.contains(field), "{field}: {text}");
        write_three_frames(&channel);
    }
}

#[test]
fn writer_refuses_foreign_file_without_lock_file() {
    for (bytes, offset, field) in DAMAGE {
        let channel = Channel::new();
        leave_files_of_killed_writer(&channel);
        let [segment, lock_file] = channel.files();
        std::fs::remove_file(lock_file).unwrap();
        overwrite(&segment, bytes, offset);
        let before = std::fs::read(&segment).unwrap();
        let writer = short_writer(&channel);
        let (kind, text) = error_of(&writer);
        assert_eq!(kind, "StreamError::WrongType", "{text}");
        assert!(
            text.contains(field) && text.contains(segment.to_str().unwrap()),
            "{field}: {text}"
        );
        drop(writer);
        assert!(std::fs::read(&segment).unwrap() == before, "the file has changed");
        assert!(!channel.files()[1].exists());
    }
}

#[test]
fn writer_replaces_truncated_segment() {
    // `None` stands for the size of the whole segment minus one byte.
    for size in [Some(0), Some(8), Some(255), Some(4096), Some(100_000), None] {
        let channel = Channel::new();
        leave_files_of_killed_writer(&channel);
        let file = OpenOptions::new().write(true).open(&channel.files()[0]).unwrap();
        let whole = file.metadata().unwrap().len();
        file.set_len(size.unwrap_or(whole - 1)).unwrap();
        let reader = Pipeline::new(&format!("rsshmsrc name={channel} ! fakesink"));
        if size.is_some() {
            let (kind, text) = error_of(&reader);
            assert_eq!(kind, "StreamError::WrongType", "{size:?}: {text}");
        } else {
            // The file has lost only a part of the frames, so the reader posts no error. It notices that the writer is
            // dead, and waits.
            reader.play();
            std::thread::sleep(Duration::from_millis(300));
            let errors = reader.take_messages(gst::MessageType::Error);
            assert!(errors.is_empty(), "{errors:?}");
        }
        drop(reader);
        write_three_frames(&channel);
    }
}

#[test]
fn writer_repairs_empty_lock_file() {
    let channel = Channel::new();
    std::fs::write(&channel.files()[1], b"").unwrap();
    write_three_frames(&channel);
}

/// An obstacle at a path of the channel: a file that is not a regular file. Dropping the value removes the file.
struct Obstacle(PathBuf);

impl Drop for Obstacle {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A function that makes an obstacle at a path.
type ObstacleMaker = fn(&Path);

#[test]
fn special_files_are_refused_and_kept() {
    let kinds: [(&str, ObstacleMaker); 3] = [
        ("directory", |path| std::fs::create_dir(path).unwrap()),
        ("symbolic link", |path| {
            std::os::unix::fs::symlink("/dev/null", path).unwrap();
        }),
        ("pipe", |path| {
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        }),
    ];
    for (what, make) in kinds {
        for which in [0, 1] {
            let channel = Channel::new();
            let path = channel.files()[which].clone();
            make(&path);
            let obstacle = Obstacle(path.clone());
            let before = std::fs::symlink_metadata(&path).unwrap().file_type();
            let writer = short_writer(&channel);
            let (kind, text) = error_of(&writer);
            assert_eq!(kind, "ResourceError::NotAuthorized", "{what}: {text}");
            assert!(text.contains(path.to_str().unwrap()), "{what}: {text}");
            drop(writer);
            if which == 0 {
                let reader = Pipeline::new(&format!("rsshmsrc name={channel} ! fakesink"));
                let (_, text) = error_of(&reader);
                assert!(text.contains(path.to_str().unwrap()), "{what}: {text}");
            }
            assert_eq!(std::fs::symlink_metadata(&path).unwrap().file_type(), before);
            assert!(!channel.files()[1 - which].exists());
            drop(obstacle);
        }
    }
}
