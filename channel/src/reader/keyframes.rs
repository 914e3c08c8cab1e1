// SPDX-License-Identifier: MIT OR Apache-2.0

//! Keyframe synchronisation: whether the next frame can be decoded, and if not, with which keyframe the reader
//! continues.

use std::time::{Duration, Instant};

use super::attachment::Attachment;
use crate::protocol::keyframe::KeyframeRequest;

/// How long a reader waits for a keyframe before it requests one again.
const KEYFRAME_REQUEST_INTERVAL: Duration = Duration::from_secs(1);

/// Whether the next frame of a compressed stream can be decoded, and when a keyframe was requested.
#[derive(Debug, Default)]
pub(super) struct KeyframeSync {
    /// Whether frames on which the next frame depends were not delivered.
    pub(super) is_lost: bool,
    /// How many frames were given up since the last delivered one.
    pub(super) skipped: u64,
    /// Whether at least one of the skipped frames existed but could not be decoded.
    pub(super) has_undecodable: bool,
    /// When this reader last asked the writer for a keyframe.
    requested_at: Option<Instant>,
}

impl KeyframeSync {
    /// Records that the next frame belongs to another stream, although the seqs continue.
    pub(super) fn begin_stream(&mut self) {
        self.is_lost = true;
    }

    /// Allows the next request at once. The writer may not have received the last request, or it went to another
    /// writer.
    pub(super) fn reset_request(&mut self) {
        self.requested_at = None;
    }

    /// Requests a keyframe if frames could not be decoded, at most once in each [`KEYFRAME_REQUEST_INTERVAL`].
    pub(super) fn request_if_needed(&mut self, attachment: &Attachment) {
        if std::mem::take(&mut self.has_undecodable)
            && self
                .requested_at
                .is_none_or(|time| time.elapsed() >= KEYFRAME_REQUEST_INTERVAL)
            && attachment.request_keyframe(KeyframeRequest::default())
        {
            self.requested_at = Some(Instant::now());
        }
    }
}
