//! What readers ask the writer for: a frame that can be decoded alone, and letters, where it takes any.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{ServiceReport, State};
use crate::protocol::layout::{MAX_READERS, MESSAGE_RING_LENGTH, reader_state};

/// A wish for a frame that can be decoded alone is told once in so long: each costs an encoder bits, and all readers have
/// the same one.
const KEY_UNIT_INTERVAL: Duration = Duration::from_secs(1);

/// What a seat's owner has asked for so far, in one segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct RequestCounts {
    generation: u32,
    keyframe_requests: u32,
    messages: u64,
}

/// Frames that can be decoded alone, and the wish for one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyframeRequests {
    /// Number of the newest.
    pub(super) newest: u64,
    /// Somebody has wanted one since the frame of this number.
    wanted_since: Option<u64>,
    reported: Option<Instant>,
}

impl KeyframeRequests {
    /// Whether upstream is to be told now.
    fn tell(&mut self) -> bool {
        let Some(since) = self.wanted_since else {
            return false;
        };
        if self.newest > since {
            self.wanted_since = None;
            return false;
        }
        let due = self
            .reported
            .is_none_or(|reported| reported.elapsed() >= KEY_UNIT_INTERVAL);
        if due {
            self.wanted_since = None;
            self.reported = Some(Instant::now());
        }
        due
    }
}

impl State {
    /// Looks what the readers have asked for since the last time.
    pub(super) fn poll_requests(&mut self, report: &mut ServiceReport) {
        let Some(current) = &mut self.current else {
            return;
        };
        let tables = &current.segment.segment.tables;
        for entry in 0..MAX_READERS {
            let shared = tables.entry(entry);
            let Some(generation) = self.readers[entry].generation else {
                continue;
            };
            // Acquire: pairs with the release store of an owner that sits down; its counts begin at 0 before.
            if shared.state.load(Ordering::Acquire) != reader_state::ATTACHED
                || shared.generation.load(Ordering::Acquire) != generation
            {
                continue;
            }
            let seen_requests = &mut current.seen_requests[entry];
            if seen_requests.generation != generation {
                *seen_requests = RequestCounts {
                    generation,
                    ..RequestCounts::default()
                };
            }
            // Relaxed: a count of its own.
            let keyframe_requests = shared.keyframe_requests.load(Ordering::Relaxed);
            if keyframe_requests != seen_requests.keyframe_requests {
                seen_requests.keyframe_requests = keyframe_requests;
                self.keyframes.wanted_since.get_or_insert(self.head);
            }
            if current.segment.segment.header.message_count == 0 {
                continue;
            }
            // Acquire: pairs with the release store after the letter was written.
            let newest = shared.message_head.load(Ordering::Acquire);
            let first = (seen_requests.messages.saturating_add(1)).max(newest.saturating_sub(MESSAGE_RING_LENGTH - 1));
            let messages = (first..=newest).filter_map(|seq| tables.messages(entry, seq)?.read(seq));
            report.messages.extend(messages);
            seen_requests.messages = newest;
        }
        report.keyframe_wanted = self.keyframes.tell();
    }
}
