// SPDX-License-Identifier: MIT OR Apache-2.0

//! Requests for keyframes, as readers write them into their reader entries.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::{
    layout::{KEYFRAME_RING_LENGTH, KeyframeRecord, ReaderEntry, TIME_NONE},
    seqlock,
};

/// The bit of the details of a request that is set if all headers are wanted.
const ALL_HEADERS: u64 = 1 << 32;

/// A reader's request for a keyframe.
///
/// # Examples
///
/// ```
/// use rsshm_channel::{KeyframeRequest, monotonic_ns};
///
/// // The first frame that is captured two seconds from now, or later.
/// let request = KeyframeRequest::default().at(monotonic_ns() + 2_000_000_000);
/// assert!(!request.is_immediate());
/// assert!(KeyframeRequest::default().is_immediate());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeyframeRequest {
    /// The keyframe is the first frame with this presentation time or a later one, in CLOCK_MONOTONIC nanoseconds.
    /// [`TIME_NONE`] means as soon as possible.
    pub time: u64,
    /// Whether the keyframe must come with all headers of the stream, such as the parameter sets of H.264.
    pub all_headers: bool,
    /// The reader's own count of its requests. The channel does not interpret it.
    pub count: u32,
}

impl Default for KeyframeRequest {
    /// A keyframe as soon as possible, with all headers.
    fn default() -> Self {
        Self {
            time: TIME_NONE,
            all_headers: true,
            count: 0,
        }
    }
}

impl KeyframeRequest {
    /// Sets the time of the keyframe, in CLOCK_MONOTONIC nanoseconds.
    #[must_use]
    pub fn at(mut self, time: u64) -> Self {
        self.time = time;
        self
    }

    /// Sets whether the keyframe must come with all headers.
    #[must_use]
    pub fn all_headers(mut self, all_headers: bool) -> Self {
        self.all_headers = all_headers;
        self
    }

    /// Sets the reader's own count of its requests.
    #[must_use]
    pub fn count(mut self, count: u32) -> Self {
        self.count = count;
        self
    }

    /// Whether the keyframe is wanted as soon as possible.
    pub fn is_immediate(&self) -> bool {
        self.time == TIME_NONE
    }

    /// All values but the time, as one word.
    pub(crate) fn details(&self) -> u64 {
        u64::from(self.count) | if self.all_headers { ALL_HEADERS } else { 0 }
    }

    /// The request with this time and these details, which another process may have written.
    pub(crate) fn from_words(time: u64, details: u64) -> Self {
        Self {
            time,
            all_headers: details & ALL_HEADERS != 0,
            count: details as u32,
        }
    }
}

impl ReaderEntry {
    /// The record of the request `seq`.
    pub(crate) fn keyframe_record(&self, seq: u64) -> &KeyframeRecord {
        &self.keyframes[(seq % KEYFRAME_RING_LENGTH) as usize]
    }
}

impl KeyframeRecord {
    /// Writes the request `seq`.
    pub(crate) fn write(&self, seq: u64, request: KeyframeRequest) {
        seqlock::write(&self.seq, seq, || {
            // Relaxed: the release store of the record's seq publishes the words.
            self.time.store(request.time, Ordering::Relaxed);
            self.details.store(request.details(), Ordering::Relaxed);
        });
    }

    /// The request `seq`; `None` if the record does not have this request.
    pub(crate) fn read(&self, seq: u64) -> Option<KeyframeRequest> {
        // Relaxed: the seq was loaded with acquire order before.
        let load = |word: &AtomicU64| word.load(Ordering::Relaxed);
        let (found, request) = seqlock::read(&self.seq, || {
            KeyframeRequest::from_words(load(&self.time), load(&self.details))
        })?;
        (found == seq).then_some(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_returns_only_the_request_that_it_has() {
        let record = KeyframeRecord {
            seq: AtomicU64::new(0),
            time: AtomicU64::new(7),
            details: AtomicU64::new(7),
        };
        assert_eq!(record.read(0), None);
        for request in [
            KeyframeRequest::default(),
            KeyframeRequest::default().at(5).count(u32::MAX).all_headers(false),
        ] {
            record.write(9, request);
            assert_eq!((record.read(9), record.read(1)), (Some(request), None));
        }
    }
}
