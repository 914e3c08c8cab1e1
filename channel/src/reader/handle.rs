// SPDX-License-Identifier: MIT OR Apache-2.0

//! The handle with which other threads control a reader.

use std::sync::{Arc, Mutex, MutexGuard};

use super::attachment::Attachment;
use crate::{protocol::keyframe::KeyframeRequest, segment::wait::Waiter, sys::sync};

/// The data that a reader shares with its handles.
#[derive(Debug, Default)]
pub(super) struct HandleState {
    pub(super) waiter: Arc<Waiter>,
    /// The attachment to the segment in which requests are stored.
    attachment: Mutex<Option<Arc<Attachment>>>,
}

impl HandleState {
    pub(super) fn attachment(&self) -> MutexGuard<'_, Option<Arc<Attachment>>> {
        sync::lock(&self.attachment)
    }
}

/// A handle with which other threads control a [`Reader`](crate::Reader). It ends the reader's wait, and sends requests
/// to the writer.
///
/// # Examples
///
/// ```
/// use rsshm_channel::{ChannelName, Next, ReadLimits, Reader, ReaderOptions};
///
/// # fn main() -> Result<(), rsshm_channel::Error> {
/// # let name = format!("rsshm-doc-handle-{}", std::process::id());
/// let mut reader = Reader::new(ChannelName::new(name)?, ReaderOptions::default());
/// let handle = reader.handle();
/// // There is no writer, so `next` would wait for ever.
/// let stopper = std::thread::spawn(move || handle.interrupt());
/// let next = reader.next(&mut Vec::new(), ReadLimits::default(), None)?;
/// assert!(matches!(next, Next::Interrupted));
/// # stopper.join().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ReaderHandle(pub(super) Arc<HandleState>);

impl ReaderHandle {
    /// Makes [`Reader::next`](crate::Reader::next) return [`Next::Interrupted`](crate::Next::Interrupted), now and in
    /// later calls, until [`resume`](Self::resume) is called.
    pub fn interrupt(&self) {
        self.0.waiter.interrupt();
    }

    /// Allows the reader to wait again.
    pub fn resume(&self) {
        self.0.waiter.resume();
    }

    /// Requests a keyframe from the writer, as soon as possible. Returns `false` if there is no writer, if the reader
    /// is an observer, or if it has not reached the newest segment yet.
    pub fn request_keyframe(&self) -> bool {
        self.send_keyframe_request(KeyframeRequest::default())
    }

    /// Sends the writer a request for a keyframe, at once or of a later time. It returns `false` in the same cases as
    /// [`request_keyframe`](Self::request_keyframe).
    ///
    /// A request ends with its segment: after [`Reader::segment_changes`](crate::Reader::segment_changes) has changed,
    /// the reader sends a request again whose time has not come yet. If a reader sends more than eight requests for
    /// later times before the writer reads them, the writer receives only the newest eight.
    pub fn send_keyframe_request(&self, request: KeyframeRequest) -> bool {
        self.0
            .attachment()
            .as_ref()
            .is_some_and(|attachment| attachment.request_keyframe(request))
    }

    /// Sends the writer a message of at most [`MAX_MESSAGE_SIZE`](crate::MAX_MESSAGE_SIZE) bytes.
    ///
    /// It returns `false` in the same cases as [`request_keyframe`](Self::request_keyframe), and also if the writer
    /// accepts no messages or the message is too large. If messages come faster than the writer reads them, the writer
    /// receives only the newest ones. The writer does not receive a message if the sending reader has left before the
    /// writer reads.
    pub fn send_message(&self, message: &[u8]) -> bool {
        self.0
            .attachment()
            .as_ref()
            .is_some_and(|attachment| attachment.send_message(message))
    }
}
