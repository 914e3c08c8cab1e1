// SPDX-License-Identifier: MIT OR Apache-2.0

//! The results of [`Reader::next`](crate::Reader::next).

use super::{
    events::Event, object_fetch::ObjectFault, object_frame::ObjectFrame, pinned::PinnedFrame,
    received_object::FramePart,
};
use crate::protocol::layout::FrameDescriptor;

/// The bytes of a frame.
#[derive(Debug)]
#[non_exhaustive]
pub enum FrameData {
    /// The bytes are in shared memory. They do not change until this value is dropped, unless the writer evicts the
    /// reader.
    InPlace(PinnedFrame),
    /// The bytes are in the memory of objects, such as the buffers of a camera. Only a reader that accepts them
    /// ([`ReadLimits::accepts_objects`](crate::ReadLimits::accepts_objects)) gets them.
    Objects(ObjectFrame),
    /// The bytes are in the [`CopyTarget`](crate::CopyTarget).
    Copied,
}

/// A frame of the channel.
///
/// # Examples
///
/// ```no_run
/// use rsshm_channel::{ChannelName, Next, ReadLimits, Reader, ReaderOptions};
///
/// # fn main() -> Result<(), rsshm_channel::Error> {
/// let mut reader = Reader::new(ChannelName::new("cam0")?, ReaderOptions::default());
/// let mut copy = Vec::new();
/// if let Next::Frame(frame) = reader.next(&mut copy, ReadLimits::default(), None)? {
///     let bytes = frame.bytes(&copy);
///     println!("frame {}: {} bytes, {} missed before it", frame.seq, bytes.len(), frame.missed);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub struct Frame {
    /// The sequence number of the frame in the channel. Sequence numbers grow by one from frame to frame, and by more
    /// if the writer dropped frames in between.
    pub seq: u64,
    /// The frame's times, size and planes.
    pub descriptor: FrameDescriptor,
    /// The metadata that the writer added. The channel does not interpret it.
    pub metadata: Vec<u8>,
    /// The bytes.
    pub data: FrameData,
    /// How many frames were lost or skipped since the last delivered frame.
    pub missed: u64,
    /// Whether there is a break between the last delivered frame and this one. There is a break if this is the first
    /// frame, if frames were lost, or if the writer or the caps have changed.
    pub discontinuity: bool,
}

impl Frame {
    /// The parts of a frame of objects; empty for every other frame.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::os::fd::AsRawFd;
    ///
    /// fn describe(frame: &rsshm_channel::Frame) {
    ///     for part in frame.objects() {
    ///         let object = part.object();
    ///         println!("{} bytes at {} of {} {}", part.size(), part.offset(), object.kind(), object.as_raw_fd());
    ///     }
    /// }
    /// ```
    pub fn objects(&self) -> &[FramePart] {
        match &self.data {
            FrameData::Objects(objects) => objects.parts(),
            FrameData::InPlace(_) | FrameData::Copied => &[],
        }
    }

    /// The bytes of the frame; none if they are in the memory of objects. `copy` is the memory that was given to
    /// [`Reader::next`](crate::Reader::next) as the target.
    pub fn bytes<'a>(&'a self, copy: &'a [u8]) -> &'a [u8] {
        match &self.data {
            FrameData::InPlace(pinned) => pinned.as_ref(),
            FrameData::Objects(_) => &[],
            FrameData::Copied => copy.get(..self.descriptor.size as usize).unwrap_or(copy),
        }
    }
}

/// The result of [`Reader::next`](crate::Reader::next).
///
/// # Examples
///
/// ```
/// use rsshm_channel::Next;
///
/// fn describe(next: &Next) -> &'static str {
///     match next {
///         Next::Frame(_) => "a frame",
///         Next::Event(_) => "an event",
///         Next::EndOfStream => "the end of the stream",
///         // `Lost`, `Evicted`, `TimedOut`, `Interrupted`, or a variant of a later version: call `next` again.
///         _ => "no frame",
///     }
/// }
/// # assert_eq!(describe(&Next::Lost), "no frame");
/// ```
#[derive(Debug)]
#[allow(clippy::large_enum_variant)] // nearly always a frame, and never stored: a box would be an allocation for each
#[non_exhaustive]
pub enum Next {
    /// A frame. Its caps are [`Reader::caps`](crate::Reader::caps).
    Frame(Frame),
    /// An event that happens between the last frame and the next.
    Event(Event),
    /// The stream ended after the last frame. Another stream may follow.
    EndOfStream,
    /// The writer is gone, and no further end of the stream was published. Another writer may come.
    Lost,
    /// The reader held more slots than its quota, so the writer ignores the reader's pins. Frames that the program
    /// still holds may change. The next calls attach the reader again.
    Evicted,
    /// Frames were missed, because the reader could not get their memory. The next call goes on with the frames after
    /// them. If the reader misses several frames in a row for one reason, the reason comes once.
    Fault(ObjectFault),
    /// The timeout has passed.
    TimedOut,
    /// [`ReaderHandle::interrupt`](crate::ReaderHandle::interrupt) was called.
    Interrupted,
}
