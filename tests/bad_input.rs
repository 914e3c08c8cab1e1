//! Names, options, caps, buffers and files that make no sense: an error that says what is wrong, and nothing worse.

mod common;
mod numbered;

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use common::{Channel, Pipeline, eventually, launch};
use gst::prelude::*;
use numbered::kind;

/// An element of either kind, in a pipeline of its own.
fn pipeline_of(element: &str) -> Pipeline {
    match element {
        "rsshmsink" => Pipeline::new("videotestsrc ! rsshmsink name=it"),
        _ => Pipeline::new("rsshmsrc name=it ! fakesink"),
    }
}

/// Starts it and yields the error that comes of it: its kind and its text.
#[track_caller]
fn error_of(pipeline: &Pipeline) -> (String, String) {
    let _ = pipeline.0.set_state(gst::State::Playing);
    let error = pipeline.wait_error();
    (kind(&error), error.message().to_owned())
}

#[test]
fn wrong_names() {
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
            let (kind, text) = error_of(&pipeline);
            assert_eq!(kind, "ResourceError::Settings", "{element} {name:?}: {text}");
            assert!(text.contains(reason), "{element} {name:?}: {text}");
        }
    }
}

#[test]
fn wrong_options() {
    for (property, value) in [
        ("max-slots", 1u32),
        ("max-slots", 2),
        ("perms", 0o100),
        ("perms", 0o400),
        ("perms", 0o066),
    ] {
        let channel = Channel::new();
        let pipeline = pipeline_of("rsshmsink");
        pipeline.element("it").set_property("channel", &channel.0);
        pipeline.element("it").set_property(property, value);
        let (kind, text) = error_of(&pipeline);
        assert_eq!(kind, "ResourceError::Settings", "{property} {value:o}: {text}");
        assert!(text.contains(property), "{property} {value:o}: {text}");
        channel.assert_gone();
    }
}

#[test]
fn a_second_writer_is_refused() {
    let channel = Channel::new();
    let writer = format!("videotestsrc is-live=true ! video/x-raw,framerate=30/1 ! rsshmsink name={channel}");
    let mut first = launch(&writer);
    eventually("it is there", || channel.exists());
    let started = Instant::now();
    let second = Pipeline::new(&writer);
    let (kind, text) = error_of(&second);
    assert_eq!(kind, "ResourceError::Busy", "{text}");
    assert!(text.contains(&format!("process {}", first.pid())), "{text}");
    // A process that was killed needs a moment to die: two seconds are given to it, and not many more.
    let waited = started.elapsed();
    assert!(
        (Duration::from_millis(1900)..Duration::from_secs(6)).contains(&waited),
        "{waited:?}"
    );
    drop(second);
    assert!(first.is_running() && channel.exists());
    first.interrupt();
    channel.assert_gone();
}

/// A sink behind an appsrc of `caps`.
fn sink_of(channel: &Channel, caps: &str, options: &str) -> Pipeline {
    let pipeline = Pipeline::new(&format!(
        "appsrc name=source format=time ! rsshmsink name={channel} sync=false {options}"
    ));
    let caps: gst::Caps = caps.parse().unwrap();
    pipeline.element("source").set_property("caps", caps);
    pipeline
}

fn push(pipeline: &Pipeline, buffer: &gst::Buffer) -> gst::FlowReturn {
    pipeline.element("source").emit_by_name("push-buffer", &[buffer])
}

#[test]
fn memory_that_is_not_the_systems_is_refused_by_name() {
    let channel = Channel::new();
    let caps = "video/x-raw(memory:GLMemory),format=RGBA,width=64,height=64,framerate=30/1";
    let pipeline = sink_of(&channel, caps, "");
    let _ = push(&pipeline, &gst::Buffer::with_size(64 * 64 * 4).unwrap());
    let _ = pipeline.0.set_state(gst::State::Playing);
    // Before upstream's error, which says no more than that there was no agreement.
    let message = pipeline.message(&[gst::MessageType::Warning, gst::MessageType::Error]);
    let text = match message.view() {
        gst::MessageView::Error(error) => error.error().message().to_owned(),
        other => panic!("{other:?}"),
    };
    assert!(
        text.contains("memory:GLMemory") && text.contains("gldownload"),
        "{text}"
    );
    pipeline.wait_error();
    drop(pipeline);
    channel.assert_gone();
}

const CAPS: &str = "video/x-raw,format=NV12,width=320,height=240,framerate=30/1";

#[test]
fn a_buffer_smaller_than_its_caps_say() {
    for size in [0, 1, 320 * 240, 320 * 240 * 3 / 2 - 1] {
        let channel = Channel::new();
        let pipeline = sink_of(&channel, CAPS, "");
        let _ = push(&pipeline, &gst::Buffer::with_size(size).unwrap());
        let (kind, text) = error_of(&pipeline);
        assert_eq!(kind, "ResourceError::Write", "{size}: {text}");
        drop(pipeline);
        channel.assert_gone();
    }
}

#[test]
fn a_buffer_whose_meta_points_beyond_it() {
    let wrong: [([usize; 2], [i32; 2]); 5] = [
        ([0, 320 * 240 * 2], [320, 320]),
        ([0, 320 * 240], [640, 640]),
        ([0, 320 * 240], [16, 16]),
        ([0, 320 * 240], [-320, 320]),
        ([usize::MAX - 100, 0], [320, 320]),
    ];
    for (offset, stride) in wrong {
        let channel = Channel::new();
        let pipeline = sink_of(&channel, CAPS, "");
        let mut buffer = gst::Buffer::with_size(320 * 240 * 3 / 2).unwrap();
        gst_video::VideoMeta::add_full(
            buffer.get_mut().unwrap(),
            gst_video::VideoFrameFlags::empty(),
            gst_video::VideoFormat::Nv12,
            320,
            240,
            &offset,
            &stride,
        )
        .unwrap();
        let _ = push(&pipeline, &buffer);
        let (kind, text) = error_of(&pipeline);
        assert_eq!(kind, "ResourceError::Write", "{offset:?} {stride:?}: {text}");
        drop(pipeline);
        channel.assert_gone();
    }
}

#[test]
fn memory_that_cannot_be_mapped() {
    for caps in [CAPS, "image/jpeg,width=320,height=240,framerate=30/1"] {
        let channel = Channel::new();
        let pipeline = sink_of(&channel, caps, "");
        let allocator = gst::glib::Object::new::<unmappable::Unmappable>();
        let memory = allocator.alloc(320 * 240 * 3 / 2, None).unwrap();
        assert!(memory.map_readable().is_err());
        let mut buffer = gst::Buffer::new();
        buffer.get_mut().unwrap().append_memory(memory);
        let _ = push(&pipeline, &buffer);
        let (kind, text) = error_of(&pipeline);
        assert_eq!(kind, "ResourceError::Write", "{text}");
        drop(pipeline);
        channel.assert_gone();
    }
}

#[test]
fn an_empty_buffer_is_a_frame_like_others() {
    let channel = Channel::new();
    let caps = "image/jpeg,width=320,height=240,framerate=30/1";
    let reader = Pipeline::playing(&format!("rsshmsrc name={channel} ! fakesink name=check sync=false"));
    let (sender, receiver) = std::sync::mpsc::channel();
    let pad = reader.element("check").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        sender.send(info.buffer().unwrap().size()).unwrap();
        gst::PadProbeReturn::Ok
    });
    let writer = sink_of(&channel, caps, "lossless=true wait-for-connection=true");
    writer.0.set_state(gst::State::Playing).unwrap();
    let sizes = [100, 0, 200];
    for size in sizes {
        assert_eq!(
            push(&writer, &gst::Buffer::with_size(size).unwrap()),
            gst::FlowReturn::Ok
        );
    }
    // One without any memory, too.
    assert_eq!(push(&writer, &gst::Buffer::new()), gst::FlowReturn::Ok);
    for size in sizes.into_iter().chain([0]) {
        assert_eq!(receiver.recv_timeout(common::PATIENCE), Ok(size));
    }
}

/// Memory of a kind that nobody can look into.
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
            // SAFETY: the object is being made, and begins with a GstAllocator.
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

    // SAFETY: `alloc` makes a whole GstMemory, which `free` takes back.
    unsafe impl AllocatorImpl for Imp {
        unsafe fn alloc(&self, size: usize, _params: &gst::AllocationParams) -> *mut ffi::GstMemory {
            // SAFETY: a new, zeroed block of that size, initialised before anybody has it.
            unsafe {
                let memory = glib::ffi::g_malloc0(mem::size_of::<ffi::GstMemory>()).cast::<ffi::GstMemory>();
                let allocator = self.obj().upcast_ref::<gst::Allocator>().as_ptr();
                ffi::gst_memory_init(memory, 0, allocator, ptr::null_mut(), size, 0, 0, size);
                memory
            }
        }

        unsafe fn free(&self, memory: *mut ffi::GstMemory) {
            // SAFETY: made in `alloc`, and nobody has it any more.
            unsafe { glib::ffi::g_free(memory.cast()) };
        }
    }
}

/// A segment whose writer was killed.
fn abandoned(channel: &Channel) {
    let mut writer = launch(&format!(
        "videotestsrc is-live=true ! video/x-raw,width=64,height=64,framerate=30/1 ! rsshmsink name={channel}"
    ));
    eventually("it is there", || channel.exists());
    writer.kill();
}

fn overwrite(path: &Path, bytes: &[u8], offset: u64) {
    let file = OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// What may lie under the name, and what an error says of it: the magic, the version, the size.
const DAMAGE: [(&[u8], u64, &str); 3] = [
    (b"nonsense", 0, "begins with"),
    (&[99, 0, 0, 0], 8, "version is 99"),
    (&[255, 255, 0, 0, 0, 0, 0, 0], 128, "slot_size"),
];

#[test]
fn damaged_segments_with_their_semaphore_are_replaced() {
    for (bytes, offset, field) in DAMAGE {
        let channel = Channel::new();
        abandoned(&channel);
        overwrite(&channel.files()[0], bytes, offset);
        let reader = Pipeline::new(&format!("rsshmsrc name={channel} ! fakesink"));
        let (kind, text) = error_of(&reader);
        assert_eq!(kind, "StreamError::WrongType", "{text}");
        assert!(text.contains(field), "{field}: {text}");
        let writer = numbered::writer(
            &channel,
            "num-buffers=3",
            "format=GRAY8,width=64,height=64",
            "sync=false",
        );
        writer.0.set_state(gst::State::Playing).unwrap();
        writer.wait_eos();
        drop(writer);
        channel.assert_gone();
    }
}

#[test]
fn strange_files_without_a_semaphore_are_refused() {
    for (bytes, offset, field) in DAMAGE {
        let channel = Channel::new();
        abandoned(&channel);
        let [segment, semaphore] = channel.files();
        std::fs::remove_file(semaphore).unwrap();
        overwrite(&segment, bytes, offset);
        let before = std::fs::read(&segment).unwrap();
        let writer = numbered::writer(
            &channel,
            "num-buffers=3",
            "format=GRAY8,width=64,height=64",
            "sync=false",
        );
        let (kind, text) = error_of(&writer);
        assert_eq!(kind, "StreamError::WrongType", "{text}");
        assert!(
            text.contains(field) && text.contains(segment.to_str().unwrap()),
            "{field}: {text}"
        );
        drop(writer);
        assert!(std::fs::read(&segment).unwrap() == before, "it is left as it was");
        assert!(!channel.files()[1].exists());
    }
}

#[test]
fn short_files() {
    for size in [0, 8, 255, 4096, 100_000] {
        let channel = Channel::new();
        abandoned(&channel);
        let file = OpenOptions::new().write(true).open(&channel.files()[0]).unwrap();
        file.set_len(size).unwrap();
        let reader = Pipeline::new(&format!("rsshmsrc name={channel} ! fakesink"));
        if size < 100_000 {
            let (kind, text) = error_of(&reader);
            assert_eq!(kind, "StreamError::WrongType", "{size}: {text}");
        } else {
            // The frames are missing alone: the writer is dead, and that is all that a reader sees.
            reader.0.set_state(gst::State::Playing).unwrap();
            std::thread::sleep(Duration::from_millis(300));
        }
        drop(reader);
        let writer = numbered::writer(
            &channel,
            "num-buffers=3",
            "format=GRAY8,width=64,height=64",
            "sync=false",
        );
        writer.0.set_state(gst::State::Playing).unwrap();
        writer.wait_eos();
        drop(writer);
        channel.assert_gone();
    }
}

#[test]
fn a_semaphore_of_no_size_is_mended() {
    let channel = Channel::new();
    std::fs::write(&channel.files()[1], b"").unwrap();
    let writer = numbered::writer(
        &channel,
        "num-buffers=3",
        "format=GRAY8,width=64,height=64",
        "sync=false",
    );
    writer.0.set_state(gst::State::Playing).unwrap();
    writer.wait_eos();
    drop(writer);
    channel.assert_gone();
}

/// Removes what is no file, at the end.
struct Obstacle(std::path::PathBuf);

impl Drop for Obstacle {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Makes something under a path.
type Make = fn(&Path);

#[test]
fn what_is_no_plain_file_is_refused_and_left_alone() {
    let kinds: [(&str, Make); 3] = [
        ("folder", |path| std::fs::create_dir(path).unwrap()),
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
            let writer = numbered::writer(&channel, "num-buffers=3", "format=GRAY8,width=64,height=64", "");
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
