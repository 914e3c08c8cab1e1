// SPDX-License-Identifier: MIT OR Apache-2.0

//! A channel that belongs to one test.

use std::{
    collections::HashMap,
    fmt,
    ops::Deref,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::unistd::Pid;
use rsshm_channel::{ChannelName, ObservedReader, Observer, layout::reader_state};

use crate::eventually;

/// A unique channel name. Dropping the value removes the channel's files. The files are therefore removed even if the
/// test fails.
#[derive(Debug)]
pub struct Channel(pub ChannelName);

impl Channel {
    /// Makes a name that no other test in this process or in another process uses.
    #[expect(clippy::new_without_default, reason = "each value is another one")]
    pub fn new() -> Self {
        // Relaxed, because the values only have to differ from each other.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = ChannelName::new(format!("rsshm-test-{}-{count}", std::process::id()));
        Self(name.expect("a valid name"))
    }

    /// The path of the segment.
    pub fn segment(&self) -> PathBuf {
        self.0.segment_path().into()
    }

    /// The path of the lock file.
    pub fn lock_file(&self) -> PathBuf {
        self.0.lock_file_path().into()
    }

    /// The path of the socket, which only a channel with objects has.
    pub fn socket(&self) -> PathBuf {
        self.0.socket_path().into()
    }

    /// The paths of the segment and of the lock file.
    pub fn files(&self) -> [PathBuf; 2] {
        [self.segment(), self.lock_file()]
    }

    /// Whether the segment and the lock file exist.
    pub fn exists(&self) -> bool {
        self.files().iter().all(|file| file.exists())
    }

    /// How many frames this process has published, as the segment of the channel says. `None` if the segment belongs to
    /// another process.
    pub fn frames_of(&self, writer: Pid) -> Option<u64> {
        let observer = self.observe(writer)?;
        Some((observer.head() + 1).saturating_sub(observer.header().first_seq))
    }

    /// Waits until this process has published a frame.
    #[track_caller]
    pub fn wait_for_frame_of(&self, writer: Pid) {
        eventually("the writer publishes a frame", || {
            self.frames_of(writer).is_some_and(|frames| frames > 0)
        });
    }

    /// Waits until this many readers have taken frames of this process.
    #[track_caller]
    pub fn wait_for_readers_of(&self, writer: Pid, count: usize) {
        let mut starts = HashMap::new();
        eventually(&format!("{count} readers take frames"), || {
            let Some(observer) = self.observe(writer) else {
                return false;
            };
            let readers = observer.readers();
            let attached = readers.iter().filter(|reader| reader.state == reader_state::ATTACHED);
            let mut takes = |reader: &ObservedReader| {
                let start = *starts.entry((reader.entry, reader.pid)).or_insert(reader.cursor);
                reader.cursor > start
            };
            attached.filter(|reader| takes(reader)).count() >= count
        });
    }

    /// An observer of the segment of this process.
    fn observe(&self, writer: Pid) -> Option<Observer> {
        let observer = Observer::open(self).ok().flatten()?;
        (observer.header().writer_pid as i32 == writer.as_raw()).then_some(observer)
    }

    /// Removes the segment, the lock file and the socket, if they exist.
    pub fn remove_files(&self) {
        for file in self.files().into_iter().chain([self.socket()]) {
            let _ = std::fs::remove_file(file);
        }
    }

    /// Checks that the channel's writer has left neither the segment nor the lock file nor a socket.
    #[track_caller]
    pub fn assert_removed(&self) {
        for file in self.files().into_iter().chain([self.socket()]) {
            assert!(!file.exists(), "{} is left", file.display());
        }
    }
}

impl Deref for Channel {
    type Target = ChannelName;

    fn deref(&self) -> &ChannelName {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        self.remove_files();
    }
}
