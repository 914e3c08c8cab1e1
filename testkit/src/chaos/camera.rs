// SPDX-License-Identifier: MIT OR Apache-2.0

//! The camera of a run with frames of objects: a few buffers in memfds, which a writer publishes by descriptor.

use std::{
    collections::VecDeque,
    fs::File,
    os::{fd::AsFd, unix::fs::FileExt},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use rsshm_channel::{Error, FrameDescriptor, Object, ObjectPart, Writer};

use super::content::Tag;
use crate::{Random, on_this_machine};

/// The name of the memfds, by which a process counts its mappings of them.
const NAME: &str = "rsshm-chaos";
/// The size of each buffer. The largest frame and the largest distance from the begin of the buffer fit.
pub const BUFFER_SIZE: usize = 1200 << 10;
/// The largest distance of a frame from the begin of its buffer.
const MAX_OFFSET: u64 = 9000;
/// How long the camera may be without a buffer, because the service gives one back at this moment.
const MAX_WAIT: Duration = Duration::from_millis(500);

/// A memfd for frames.
pub fn memory(size: usize) -> File {
    let file = File::from(memfd_create(NAME, MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(size as u64).unwrap();
    file
}

/// The files that this process has open, and its mappings of the memory of cameras.
pub fn open_files_and_mappings() -> (usize, usize) {
    let files = std::fs::read_dir("/proc/self/fd").unwrap().count();
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let mapped = format!("memfd:{NAME}");
    (files, maps.lines().filter(|line| line.contains(&mapped)).count())
}

type Free = Arc<Mutex<VecDeque<usize>>>;

/// The buffers of one camera.
pub struct Camera {
    buffers: Vec<(File, Object)>,
    free: Free,
}

/// A buffer that the camera does not have. Dropping the value gives it back.
struct Taken {
    index: usize,
    free: Free,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.free.lock().unwrap().push_back(self.index);
    }
}

impl Camera {
    /// A camera that can spare `spare` buffers, and has one more, into which it writes.
    pub fn new(writer: &Writer, spare: u32) -> Result<Self, Error> {
        writer.objects().set_spare(spare);
        let buffers = (0..=spare)
            .map(|_| {
                let file = memory(BUFFER_SIZE);
                let object = writer.objects().register(file.as_fd())?;
                Ok((file, object))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let free = Arc::new(Mutex::new((0..buffers.len()).collect()));
        Ok(Self { buffers, free })
    }

    /// How many buffers the camera does not have.
    pub fn missing(&self) -> usize {
        self.buffers.len() - self.free.lock().unwrap().len()
    }

    fn take(&self) -> Option<Taken> {
        let index = self.free.lock().unwrap().pop_front()?;
        let free = Arc::clone(&self.free);
        Some(Taken { index, free })
    }

    /// A frame in the next buffer, in one or two parts. `None` if the camera has no buffer, which must not happen.
    pub fn draw(&self, tag: &Tag, size: usize, random: &mut Random) -> Option<Drawn<'_>> {
        let began = Instant::now();
        let taken = loop {
            match self.take() {
                Some(taken) => break taken,
                None if began.elapsed() > on_this_machine(MAX_WAIT) => return None,
                None => std::thread::sleep(Duration::from_millis(1)),
            }
        };
        let (file, object) = &self.buffers[taken.index];
        let offset = random.within(0..MAX_OFFSET);
        // With two parts, there are bytes between them that do not belong to the frame.
        let first = if random.permille(300) {
            random.within(1..size as u64)
        } else {
            size as u64
        };
        let bytes = tag.bytes(size);
        let (one, two) = bytes.split_at(first as usize);
        let mut parts = vec![ObjectPart::new(object, offset, first)];
        file.write_all_at(one, offset).unwrap();
        if !two.is_empty() {
            let behind = offset + first + random.within(0..MAX_OFFSET);
            file.write_all_at(two, behind).unwrap();
            parts.push(ObjectPart::new(object, behind, two.len() as u64));
        }
        Some(Drawn { parts, taken })
    }
}

/// A frame that is drawn, and not published.
pub struct Drawn<'a> {
    parts: Vec<ObjectPart<'a>>,
    taken: Taken,
}

impl Drawn<'_> {
    /// Publishes the frame. The result is `None` if there is no slot.
    pub fn publish(self, writer: &Writer, descriptor: FrameDescriptor, metadata: &[u8]) -> Result<Option<u64>, Error> {
        writer
            .objects()
            .publish(&self.parts, descriptor, metadata, Box::new(self.taken))
    }
}
