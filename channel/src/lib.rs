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

mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod protocol;
mod reader;
mod segment;
mod service;
mod sys;
mod writer;

pub use error::Error;
pub use protocol::{
    layout::{
        self, FrameDescriptor, MAX_EVENT_SIZE, MAX_MESSAGE_SIZE, MAX_METADATA_SIZE, STICKY_EVENT_COUNT, TIME_NONE,
    },
    name::ChannelName,
};
pub use reader::{
    CopyTarget, Event, Frame, FrameData, Next, Observer, PinnedFrame, ReadLimits, Reader, ReaderHandle, ReaderOptions,
    ReaderStats,
};
pub use segment::{discovery::channels, faults::SemaphoreFault};
pub use service::ServiceThread;
pub use sys::{
    clock::monotonic_ns,
    copy::{CopyFn, copy_to_slot},
    watch::{Watch, WatchStop},
};
pub use writer::{Caps, NewEvent, ServiceReport, Slot, Upstream, Writer, WriterOptions, WriterStats};
