// SPDX-License-Identifier: MIT OR Apache-2.0

//! One writer, many readers: frames in a named POSIX shared memory segment.
//!
//! A *channel* is a name, shared by one [`Writer`] and any number of [`Reader`]s in unrelated processes. The frames are
//! in the shared memory object `/NAME`. The file of the named semaphore `/NAME` is the *lock file*: locks on its bytes
//! tell which peers are alive. The writer and the readers may start in any order. Each of them may stop, or be killed
//! at any instruction.
//!
//! The crate does not depend on GStreamer. A frame is a run of bytes with a [`FrameDescriptor`], and its caps are a
//! string.
//!
//! # A writer
//!
//! ```no_run
//! use rsshm_channel::{Caps, ChannelName, FrameDescriptor, Writer, WriterOptions, monotonic_ns};
//!
//! # fn main() -> Result<(), rsshm_channel::Error> {
//! let size = 640 * 360;
//! let writer = Writer::open(ChannelName::new("cam0")?, WriterOptions::default())?;
//! writer.set_caps(Caps::fixed_size("video/x-raw,format=GRAY8,width=640,height=360,framerate=30/1", size))?;
//! loop {
//!     if let Some(mut slot) = writer.claim(size)? {
//!         slot.as_mut().fill(128);
//!         writer.publish(&slot, FrameDescriptor::new(size as u64).with_pts(monotonic_ns()), &[])?;
//!     }
//!     writer.service()?;
//!     std::thread::sleep(std::time::Duration::from_millis(33));
//! }
//! # }
//! ```
//!
//! [`Writer::service`] is the regular housekeeping: it counts the readers, sets their quota and checks the channel's
//! files. A program that does not call it regularly must start a [`ServiceThread`], which calls it.
//!
//! # A reader
//!
//! ```no_run
//! use rsshm_channel::{ChannelName, Next, ReadLimits, Reader, ReaderOptions};
//!
//! # fn main() -> Result<(), rsshm_channel::Error> {
//! let mut reader = Reader::new(ChannelName::new("cam0")?, ReaderOptions::default());
//! let mut copy = Vec::new();
//! loop {
//!     match reader.next(&mut copy, ReadLimits::default(), None)? {
//!         Next::Frame(frame) => println!("frame {} has {} bytes", frame.seq, frame.bytes(&copy).len()),
//!         Next::EndOfStream => return Ok(()),
//!         _ => {} // an event, or the writer is gone; the next call waits for another writer
//!     }
//! }
//! # }
//! ```
//!
//! # Modules
//!
//! `docs/PROTOCOL.md` describes the shared memory field by field, for peers in other languages. [`layout`] declares
//! these structures in Rust.
//!
//! [`video`] reads caps of raw video: the planes of a frame, and its conversion to a picture for people.
//!
//! The private modules are layers. `reader` and `writer` use `segment`, which uses `protocol`, which uses `sys`; no
//! layer uses a layer above it. `service` is above `writer`, and `video` uses only `protocol`. `unsafe` code is in
//! `sys` and in `segment/tables.rs`. `protocol/layout.rs` declares which structures may be shared (`unsafe impl
//! Shared`). Two further files borrow the bytes of a slot: `reader/pinned.rs` borrows those of a pinned slot, and
//! `writer/slot.rs` those of a claimed slot.

// Compiles the examples of README.md together with those of the doc comments.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
mod readme {}

mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod protocol;
mod reader;
mod segment;
mod service;
mod sys;
pub mod video;
mod writer;

pub use error::Error;
pub use protocol::{
    caps_text, event_text,
    keyframe::KeyframeRequest,
    layout::{
        self, FrameDescriptor, MAX_EVENT_SIZE, MAX_MESSAGE_SIZE, MAX_METADATA_SIZE, STICKY_EVENT_COUNT, TIME_NONE,
    },
    metadata,
    name::ChannelName,
};
pub use reader::{
    CopyTarget, Event, Frame, FrameData, FramePart, Next, ObjectFault, ObjectFrame, ObservedReader, ObservedStatus,
    Observer, PinnedFrame, ReadLimits, Reader, ReaderHandle, ReaderOptions, ReaderStats, ReceivedObject, SegmentFile,
};
pub use segment::{
    discovery::{channels, possible_channels, segment_version},
    faults::SemaphoreFault,
    lock_query::has_writer,
};
pub use service::ServiceThread;
pub use sys::{
    clock::monotonic_ns,
    copy::Copier,
    directory::{Directory, DirectoryFault},
    object_file::ObjectKind,
    space::{Space, SpaceLimit},
    watch::{Watch, WatchStop},
};
pub use writer::{
    Batch, Caps, Leftover, NewEvent, Object, ObjectPart, Objects, ServiceReport, Shortage, Slot, Upstream, Writer,
    WriterOptions, WriterStats,
};

/// The examples of the README, which `cargo test --doc` compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
