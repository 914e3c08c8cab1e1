// SPDX-License-Identifier: MIT OR Apache-2.0

//! Frames in memfds: a reader in C beside a writer in Rust, and the other way round.

use std::{
    fs::File,
    os::{fd::AsFd, unix::fs::FileExt},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use rsshm_channel::{
    Caps, FrameData, FrameDescriptor, Next, Object, ObjectPart, ReadLimits, Reader, ReaderOptions, ServiceThread,
    Writer, WriterOptions, monotonic_ns,
};
use rsshm_testkit::{Channel, Process, eventually, frames};

use crate::support::Program;

const SIZE: usize = 64 * 48;
const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";
/// Where a frame begins in its buffer.
const OFFSET: u64 = 4096;

fn writer(channel: &Channel, caps: Caps) -> (Arc<Writer>, ServiceThread) {
    let writer = Arc::new(Writer::open(channel.0.clone(), WriterOptions::default()).unwrap());
    writer.set_caps(caps).unwrap();
    writer.objects().set_spare(6);
    let service = ServiceThread::spawn(Arc::clone(&writer), Duration::from_millis(20), |_, _| {}).unwrap();
    (writer, service)
}

/// The buffers of a camera, each in a memfd of its own.
struct Pool {
    buffers: Vec<(File, Object)>,
    free: Arc<Mutex<Vec<usize>>>,
}

/// A buffer that is not in its pool. Dropping the value gives it back.
struct Taken {
    index: usize,
    free: Arc<Mutex<Vec<usize>>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.free
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(self.index);
    }
}

impl Pool {
    fn new(writer: &Writer, count: usize) -> Self {
        let buffer = |_| {
            let file = File::from(memfd_create("rsshm-test", MFdFlags::MFD_CLOEXEC).unwrap());
            file.set_len(OFFSET + SIZE as u64).unwrap();
            let object = writer.objects().register(file.as_fd()).unwrap();
            (file, object)
        };
        Self {
            buffers: (0..count).map(buffer).collect(),
            free: Arc::new(Mutex::new((0..count).collect())),
        }
    }

    /// A buffer in which the frame `number` is drawn.
    #[track_caller]
    fn draw(&self, number: u32) -> Taken {
        let mut taken = None;
        eventually("the camera has a buffer", || {
            taken = self.free.lock().unwrap().pop();
            taken.is_some()
        });
        let taken = Taken {
            index: taken.unwrap(),
            free: Arc::clone(&self.free),
        };
        let mut bytes = vec![0; SIZE];
        frames::fill(&mut bytes, !number);
        self.buffers[taken.index].0.write_all_at(&bytes, OFFSET).unwrap();
        frames::fill(&mut bytes, number);
        self.buffers[taken.index].0.write_all_at(&bytes, OFFSET).unwrap();
        taken
    }

    fn object(&self, taken: &Taken) -> &Object {
        &self.buffers[taken.index].1
    }

    /// Publishes the frame `number`, which is one part.
    #[track_caller]
    fn publish(&self, writer: &Writer, number: u32) {
        let taken = self.draw(number);
        let part = ObjectPart::new(self.object(&taken), OFFSET, SIZE as u64);
        let described = FrameDescriptor::default().with_pts(monotonic_ns());
        let published = writer.objects().publish(&[part], described, &[], Box::new(taken));
        assert!(published.unwrap().is_some(), "there is a slot");
    }
}

/// Publishes frames one after another, and returns what the reader said of each.
#[track_caller]
fn read_each(arguments: &[&str], count: u32) -> Vec<String> {
    let program = Program::new("tests/c/descriptors.c");
    let channel = Channel::new();
    let (writer, _service) = writer(&channel, Caps::objects(CAPS));
    let pool = Pool::new(&writer, 8);
    pool.publish(&writer, 0);
    let mut reader = program.converse(&channel, arguments);
    let mut lines = vec![reader.receive()];
    for number in 1..count {
        pool.publish(&writer, number);
        lines.push(reader.receive());
    }
    writer.end_of_stream();
    reader.expect("eos");
    reader.wait_ok();
    lines
}

/// The program checks that the number of its open files does not grow.
#[test]
fn c_reader_gets_frames_and_descriptors_of_memfds() {
    let lines = read_each(&[], 300);
    let in_place = |number| {
        format!("{number} in-place=1 fd=1 planes=1 0: {number} kind=1 at={OFFSET}+{SIZE} stride=64 drm=none:0")
    };
    let copied = |number| format!("{number} in-place=0 fd=0 planes=1");
    for (number, line) in lines.iter().enumerate() {
        assert!(*line == in_place(number) || *line == copied(number), "{number}: {line}");
    }
    let count = lines.iter().filter(|line| line.contains("fd=1")).count();
    assert!(count > 280, "{count} frames came in place");
}

#[test]
fn c_reader_gets_descriptors_without_mappings() {
    let lines = read_each(&["unmapped"], 20);
    let expected = format!("-1 in-place=1 fd=1 planes=0 0: 19 kind=1 at={OFFSET}+{SIZE} stride=64 drm=none:0");
    assert_eq!(lines[19], expected);
}

#[test]
fn c_readers_that_copy_have_no_descriptor() {
    for mode in ["copy", "observe"] {
        for (number, line) in read_each(&[mode], 20).iter().enumerate() {
            assert_eq!(*line, format!("{number} in-place=0 fd=0 planes=1"), "{mode}");
        }
    }
}

#[test]
fn frame_in_a_slot_has_no_descriptor() {
    let program = Program::new("tests/c/descriptors.c");
    let channel = Channel::new();
    let (writer, _service) = writer(&channel, Caps::fixed_size(CAPS, SIZE));
    let mut slot = writer.claim(SIZE).unwrap().unwrap();
    frames::fill(slot.as_mut(), 7);
    writer.publish(&slot, FrameDescriptor::new(SIZE as u64), &[]).unwrap();
    let mut reader = program.converse(&channel, &[]);
    assert_eq!(reader.receive(), "7 in-place=1 fd=0 planes=1");
    writer.end_of_stream();
    reader.expect("eos");
    reader.wait_ok();
}

/// A frame whose planes are in two buffers has all bytes at one address only as a copy.
#[test]
fn planes_have_descriptors_of_their_own() {
    let program = Program::new("tests/c/descriptors.c");
    let lossy = "video/x-raw,format=NV12,width=64,height=32,framerate=30/1";
    let tiled = "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=NV12:0x0100000000000002,width=64,height=32";
    for (caps, arguments, expected) in [
        (lossy, &[][..], "5 in-place=0 fd=0 planes=2"),
        (
            lossy,
            &["unmapped"],
            "-1 in-place=1 fd=1 planes=0 0: 5 kind=1 at=4096+2048 stride=64 drm=none:0 \
             1: 5 kind=1 at=5120+1024 stride=64 drm=none:0",
        ),
        (
            tiled,
            &["unmapped"],
            "-1 in-place=1 fd=1 planes=0 0: 5 kind=1 at=4096+2048 stride=64 drm=NV12:100000000000002 \
             1: 5 kind=1 at=5120+1024 stride=64 drm=NV12:100000000000002",
        ),
    ] {
        let channel = Channel::new();
        let (writer, _service) = writer(&channel, Caps::objects(caps));
        let pool = Pool::new(&writer, 4);
        let (luma, chroma) = (pool.draw(5), pool.draw(5));
        let parts = [
            ObjectPart::new(pool.object(&luma), OFFSET, 64 * 32),
            ObjectPart::new(pool.object(&chroma), OFFSET + 1024, 64 * 16),
        ];
        let described = FrameDescriptor::default().with_planes(&[(0, 64), (64 * 32, 64)]);
        let owner = Box::new((luma, chroma));
        writer
            .objects()
            .publish(&parts, described, &[], owner)
            .unwrap()
            .unwrap();
        let mut reader = program.converse(&channel, arguments);
        assert_eq!(reader.receive(), expected, "{caps} {arguments:?}");
        writer.end_of_stream();
        reader.expect("eos");
        reader.wait_ok();
    }
}

#[test]
fn planes_in_one_memfd_have_offsets() {
    let program = Program::new("tests/c/descriptors.c");
    let channel = Channel::new();
    let caps = "video/x-raw,format=NV12,width=64,height=32,framerate=30/1";
    let (writer, _service) = writer(&channel, Caps::objects(caps));
    let pool = Pool::new(&writer, 4);
    pool.publish(&writer, 5);
    let mut reader = program.converse(&channel, &[]);
    let expected = "5 in-place=1 fd=1 planes=2 0: 5 kind=1 at=4096+3072 stride=64 drm=none:0 \
                    1: 5 kind=1 at=6144+1024 stride=64 drm=none:0";
    assert_eq!(reader.receive(), expected);
    writer.end_of_stream();
    reader.expect("eos");
    reader.wait_ok();
}

#[test]
fn killed_c_reader_gives_its_buffer_back() {
    let program = Program::new("tests/c/descriptors.c");
    let channel = Channel::new();
    let (writer, _service) = writer(&channel, Caps::objects(CAPS));
    let pool = Pool::new(&writer, 8);
    pool.publish(&writer, 0);
    let mut reader = program.converse(&channel, &["hold"]);
    let mut number = 0;
    while !reader.receive().starts_with("held") {
        number += 1;
        pool.publish(&writer, number);
    }
    for more in number..number + 5 {
        pool.publish(&writer, more);
    }
    assert_eq!(writer.objects().frames_out(), 2, "the held frame and the newest");
    reader.kill();
    eventually("the buffer is back", || writer.objects().frames_out() == 1);
}

#[test]
fn missing_files_are_an_error_and_then_frames_come_again() {
    let program = Program::new("tests/c/descriptors.c");
    let channel = Channel::new();
    let (writer, _service) = writer(&channel, Caps::objects(CAPS));
    // The reader has the descriptor of the first buffer, and then it needs others.
    Pool::new(&writer, 1).publish(&writer, 0);
    let pool = Pool::new(&writer, 8);
    let mut reader = program.converse(&channel, &["few-files"]);
    let mut number = 0;
    let mut publish_until = |wanted: &dyn Fn(&str) -> bool| {
        eventually("the reader says it", || {
            number += 1;
            pool.publish(&writer, number);
            reader.try_receive().is_some_and(|line| wanted(&line))
        });
    };
    publish_until(&|line| line == "too many files");
    publish_until(&|line| line.contains("fd=1"));
}

/// The program checks that each buffer comes back once, and that the number of its open files does not grow.
#[test]
fn c_writer_publishes_its_memfds() {
    let program = Program::new("tests/c/write_descriptors.c");
    for limits in [ReadLimits::default(), ReadLimits::default().accepts_objects(true)] {
        let channel = Channel::new();
        let mut reader = Reader::new(channel.0.clone(), ReaderOptions::default());
        let mut writer = Process::converse(program.command(&[channel.as_str(), "300"]));
        let (mut copy, mut in_place, mut last) = (Vec::new(), 0, None);
        loop {
            match reader.next(&mut copy, limits, Some(Duration::from_secs(20))).unwrap() {
                Next::Frame(frame) => {
                    let number = match &frame.data {
                        FrameData::Objects(objects) => {
                            in_place += 1;
                            assert_eq!((objects.parts().len(), frame.descriptor.planes), (2, 2));
                            frames::check(objects.bytes().unwrap().expect("one range"))
                        }
                        _ => frames::check(frame.bytes(&copy)),
                    };
                    assert!(number > last, "{number:?} after {last:?}");
                    last = number;
                }
                Next::EndOfStream => break,
                Next::TimedOut => panic!("no frame after {last:?}"),
                _ => {}
            }
        }
        assert_eq!(last, Some(299));
        assert_eq!(in_place > 0, limits.accepts_objects, "{in_place} in place");
        drop(reader);
        writer.expect("ok");
        writer.wait_ok();
        channel.assert_removed();
    }
}

#[test]
fn c_reader_gets_descriptors_of_a_c_writer() {
    let (read, write) = (
        Program::new("tests/c/descriptors.c"),
        Program::new("tests/c/write_descriptors.c"),
    );
    let channel = Channel::new();
    let mut reader = read.converse(&channel, &[]);
    let mut writer = Process::converse(write.command(&[channel.as_str(), "300"]));
    // The writer does not wait for the reader, so a late reader misses frames and copies others, but gets the last frame.
    let mut lines = Vec::new();
    while lines.last().is_none_or(|line| line != "eos") {
        lines.push(reader.receive());
    }
    lines.pop();
    assert!(lines.iter().any(|line| line.contains("fd=1")), "{lines:#?}");
    let numbers: Vec<u32> = lines
        .iter()
        .map(|line| line.split(' ').next().unwrap().parse().expect("a whole frame"))
        .collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert_eq!(numbers.last(), Some(&299));
    reader.wait_ok();
    writer.expect("ok");
    writer.wait_ok();
}
