// SPDX-License-Identifier: MIT OR Apache-2.0

//! A pool of buffers in memfds, as a camera has it.

use std::{
    collections::VecDeque,
    fs::File,
    os::{
        fd::{AsFd, AsRawFd},
        unix::fs::FileExt,
    },
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nix::sys::memfd::{MFdFlags, memfd_create};
use rsshm_channel::{Caps, Error, Object, ObjectPart, Writer, WriterOptions};

use rsshm_testkit::{PATIENCE, eventually};

use crate::support::{CAPS, SIZE, descriptor, try_open_writer};

/// A memfd of `size` bytes.
pub fn memfd(size: usize) -> File {
    let file = File::from(memfd_create("rsshm-test", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(size as u64).unwrap();
    file
}

/// How many files the process `pid` has open.
pub fn open_files(pid: impl std::fmt::Display) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// How many mappings of memfds of these tests the process `pid` has.
pub fn mappings(pid: impl std::fmt::Display) -> usize {
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    maps.lines().filter(|line| line.contains("memfd:rsshm-test")).count()
}

/// Opens a writer of frames of objects, in the process of a role.
pub fn object_writer(channel: &str, options: WriterOptions, spare: u32) -> Arc<Writer> {
    let writer = try_open_writer(channel, options).unwrap();
    writer.set_caps(Caps::objects(CAPS)).unwrap();
    writer.objects().set_spare(spare);
    Arc::new(writer)
}

/// The buffers of a camera.
pub struct Pool {
    buffers: Vec<(File, Object)>,
    free: Arc<Mutex<VecDeque<usize>>>,
}

/// A buffer that is not in its pool. Dropping the value gives it back.
pub struct Taken {
    index: usize,
    free: Arc<Mutex<VecDeque<usize>>>,
}

impl Drop for Taken {
    fn drop(&mut self) {
        self.free.lock().unwrap().push_back(self.index);
    }
}

impl Pool {
    /// A pool of `count` buffers.
    pub fn new(writer: &Writer, count: usize) -> Self {
        let buffers = (0..count)
            .map(|_| {
                let file = memfd(SIZE);
                let object = writer.objects().register(file.as_fd()).unwrap();
                (file, object)
            })
            .collect();
        Self {
            buffers,
            free: Arc::new(Mutex::new((0..count).collect())),
        }
    }

    /// How many buffers the camera has.
    pub fn free(&self) -> usize {
        self.free.lock().unwrap().len()
    }

    /// The buffer that was given back first, or `None` if the camera has none.
    fn take(&self) -> Option<Taken> {
        let index = self.free.lock().unwrap().pop_front()?;
        Some(Taken {
            index,
            free: Arc::clone(&self.free),
        })
    }

    /// Publishes a frame each of whose bytes is the lowest byte of `value`. Returns `false` if the camera has no
    /// buffer, or if there is no slot.
    #[track_caller]
    pub fn publish(&self, writer: &Writer, value: u64) -> bool {
        self.try_publish(writer, value).unwrap()
    }

    pub fn try_publish(&self, writer: &Writer, value: u64) -> Result<bool, Error> {
        let began = Instant::now();
        let taken = loop {
            if let Some(taken) = self.take() {
                break taken;
            }
            if began.elapsed() > PATIENCE {
                return Ok(false);
            }
            // The service may be giving a buffer back at this moment.
            std::thread::sleep(Duration::from_millis(1));
        };
        let (file, object) = &self.buffers[taken.index];
        // A camera writes into its buffer for as long as it likes. A reader that still used the buffer would see this.
        file.write_all_at(&vec![!(value as u8); SIZE], 0).unwrap();
        file.write_all_at(&vec![value as u8; SIZE], 0).unwrap();
        let part = ObjectPart::new(object, 0, SIZE as u64);
        let published = writer
            .objects()
            .publish(&[part], descriptor(SIZE, value), &[], Box::new(taken))?;
        Ok(published.is_some())
    }
}

/// Checks that at most `spare` frames are out. One more may be out for a moment, while the service gives it back.
#[track_caller]
pub fn assert_out(writer: &Writer, spare: u32) {
    eventually("upstream has its buffers", || writer.objects().frames_out() <= spare);
}

/// The file that a descriptor is open on, as /proc names it.
pub fn name_of(file: &impl AsRawFd) -> String {
    let link = std::fs::read_link(Path::new("/proc/self/fd").join(file.as_raw_fd().to_string())).unwrap();
    link.to_string_lossy().into_owned()
}
