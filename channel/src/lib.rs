//! One writer, many readers: frames in a named POSIX shared-memory segment.
//!
//! A *channel* is a name, shared by one [`Writer`] and any number of [`Reader`]s in unrelated processes. The frames lie
//! in the shared memory object `/NAME`, the named semaphore `/NAME` guards what a bystander may look at, and locks on
//! bytes of that semaphore's file say who is alive. Any side may start first, stop, or be killed at any instruction.
//!
//! `docs/PROTOCOL.md` describes the segment field by field, for people who write another peer. This crate knows nothing
//! of GStreamer: a frame is a run of bytes with a [`FrameDescriptor`], and the format is a string.
//!
//! ```no_run
//! use rsshm_channel::{ChannelName, Format, FrameDescriptor, Next, ReadLimits, Reader, Writer, WriterOptions};
//! # fn main() -> Result<(), rsshm_channel::Error> {
//! let name = ChannelName::new("cam0")?;
//! let writer = Writer::open(name.clone(), WriterOptions::default())?;
//! writer.set_format(Format::fixed_size("video/x-raw,format=GRAY8,width=640,height=360,framerate=30/1", 640 * 360));
//! if let Some(mut slot) = writer.claim(640 * 360)? {
//!     slot.as_mut().fill(128);
//!     writer.publish(&slot, FrameDescriptor { size: 640 * 360, ..Default::default() }, &[])?;
//! }
//! let mut reader = Reader::new(name, Default::default());
//! if let Next::Frame(frame) = reader.next(&mut Vec::new(), ReadLimits::default(), None)? {
//!     println!("frame {} has {} bytes", frame.number, frame.descriptor.size);
//! }
//! # Ok(())
//! # }
//! ```
//!
//! System calls and pointers are in the modules `sys`, `map` and `copy`. What they cannot make safe by themselves, a slice of a slot
//! that is pinned or claimed, is used in three places, each with its reason.

mod atomic;
mod pins;
mod points;

#[cfg(rsshm_loom)]
pub use pins::{PinCounts, take_for_writing};

#[cfg(not(rsshm_loom))]
mod attach;
#[cfg(not(rsshm_loom))]
mod copy;
#[cfg(not(rsshm_loom))]
mod error;
#[cfg(not(rsshm_loom))]
mod files;
#[cfg(all(feature = "fuzzing", not(rsshm_loom)))]
#[doc(hidden)]
pub mod fuzzing;
#[cfg(not(rsshm_loom))]
pub mod layout;
#[cfg(not(rsshm_loom))]
mod map;
#[cfg(not(rsshm_loom))]
mod name;
#[cfg(not(rsshm_loom))]
mod reader;
#[cfg(not(rsshm_loom))]
mod record;
#[cfg(not(rsshm_loom))]
mod segment;
#[cfg(not(rsshm_loom))]
mod sem;
#[cfg(not(rsshm_loom))]
mod semaphore;
#[cfg(not(rsshm_loom))]
mod sys;
#[cfg(not(rsshm_loom))]
mod wait;
#[cfg(not(rsshm_loom))]
mod watch;
#[cfg(not(rsshm_loom))]
mod writer;

#[cfg(not(rsshm_loom))]
pub use {
    attach::{Observer, PinnedFrame},
    copy::{CopyFn, copy_to_slot},
    error::Error,
    files::channels,
    layout::{EVENT_ROOM, EXTRA_ROOM, FrameDescriptor, MAIL_ROOM, NONE, STICKY_EVENTS},
    name::ChannelName,
    reader::{CopyTarget, Event, Frame, FrameData, Next, ReadLimits, Reader, ReaderHandle, ReaderOptions, ReaderStats},
    semaphore::SemaphoreTrouble,
    sys::monotonic_ns,
    watch::{Watch, WatchStop},
    writer::{Clients, Format, NewEvent, Slot, Writer, WriterOptions, WriterStats},
};
