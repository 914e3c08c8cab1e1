// SPDX-License-Identifier: MIT OR Apache-2.0

//! Decides which frame comes next, and whether it is delivered in place or copied.

use std::sync::Arc;

use super::{
    attachment::{Attachment, FrameInfo},
    copy_target::{CheckedTarget, CopyTarget, TakeFailure},
    frame::{Frame, FrameData},
    keyframes::KeyframeSync,
    object_fetch::ObjectFault,
    object_take::take_objects,
    options::ReadLimits,
    pinned::{PinnedFrame, Refused},
    runs::{self, Delivered, FrameLocation},
    stats::ReaderStats,
};
use crate::protocol::failpoint::{Failpoint, failpoint};

/// The largest possible seq of a frame. The ring stores only the lower 56 bits of a seq.
pub(super) const MAX_SEQ: u64 = u64::MAX >> 8;
/// The largest plausible count of frames missed at once: about one year at 1000 frames a second.
const MAX_MISSED: u64 = 1 << 35;

/// Where slots have runs, frames of at most this size are copied although a pin is free. A pin would keep the slot with
/// all its frames, and costs more than the copy.
const MAX_COPIED_SIZE: usize = 8 * 1024;

/// How far a reader is in the sequence of frames.
#[derive(Debug)]
pub(super) struct FrameCursor {
    /// The seq of the last frame that was delivered or skipped.
    seq: u64,
    /// The frame that was delivered last in the present segment, from which the next frame is found.
    delivered: Option<Delivered>,
    /// Whether the next frame to deliver is the newest one, whatever its seq is.
    wants_newest: bool,
    /// Whether no frame of this stream has been delivered yet.
    is_newcomer: bool,
    has_discontinuity: bool,
    pub(super) keyframes: KeyframeSync,
    /// Why the last frames were given up, if their memory could not be got. It is reported once until a frame comes.
    fault: Option<ObjectFault>,
}

/// The range of frames that a reader wants, within the limits of the read.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameRange {
    /// The seq of the first frame.
    pub(super) first: u64,
    /// If the first frame cannot be decoded, a keyframe may replace it. The seq of that keyframe must be larger than
    /// this value.
    after: u64,
    /// The seq of a frame with which the reader can start: a keyframe, or a header before one.
    start: Option<u64>,
}

impl FrameCursor {
    pub(super) fn new() -> Self {
        Self {
            seq: 0,
            delivered: None,
            wants_newest: false,
            is_newcomer: true,
            has_discontinuity: true,
            keyframes: KeyframeSync::default(),
            fault: None,
        }
    }

    pub(super) fn seq(&self) -> u64 {
        self.seq
    }

    /// Starts another stream after the frame `seq`.
    pub(super) fn begin_after(&mut self, seq: u64) {
        self.seq = seq;
        self.delivered = None;
        self.wants_newest = false;
        self.is_newcomer = true;
        self.has_discontinuity = true;
    }

    /// Continues in the next segment.
    pub(super) fn follow(&mut self) {
        self.delivered = None;
        self.has_discontinuity = true;
    }

    /// Makes the reader continue with the newest frame.
    pub(super) fn seek_newest(&mut self) {
        self.wants_newest = true;
    }

    /// Moves the cursor back if it is beyond the newest frame. Only a damaged head can have moved it there.
    #[inline]
    pub(super) fn repair(&mut self, newest: u64) {
        if self.seq > newest && newest != 0 {
            self.wants_newest = true;
            self.seq = newest - 1;
        }
    }

    /// The wanted frames up to the frame `newest`; `None` if there are none.
    #[inline]
    pub(super) fn wanted(&self, attachment: &Attachment, newest: u64, limits: ReadLimits) -> Option<FrameRange> {
        if newest <= self.seq {
            return None;
        }
        // A newcomer that needs a keyframe may start before the newest frame. In lossless mode, it starts only with a
        // frame that the writer keeps for it, because older frames may be overwritten.
        let taken_up_to = if self.is_newcomer {
            attachment.protected_after
        } else {
            self.seq
        };
        let after = taken_up_to.max(newest.saturating_sub(limits.reach()));
        let start = if self.wants_newest {
            attachment.runs().newest_start(after, newest)
        } else {
            None
        };
        let first = match start {
            Some(start) => start,
            None if self.wants_newest => newest,
            None => self.seq.max(after) + 1,
        };
        Some(FrameRange { first, after, start })
    }

    /// Takes the first wanted frame up to `last` that exists and can be decoded. If no frame up to `last` can be taken,
    /// the reader gives up all of them, and the result is `None`. If the memory of a frame cannot be got, the reader
    /// gives up the frames up to this one; the error says why, once until a frame can be taken or there is another
    /// reason.
    #[inline]
    pub(super) fn take_up_to(
        &mut self,
        attachment: &Arc<Attachment>,
        wanted: FrameRange,
        last: u64,
        target: &mut dyn CopyTarget,
        limits: ReadLimits,
        stats: &mut ReaderStats,
    ) -> Result<Option<Frame>, TakeFailure> {
        let FrameRange {
            first: mut seq,
            mut after,
            mut start,
        } = wanted;
        while let Some(location) = attachment.runs().find(seq, self.delivered.as_ref()) {
            seq = location.seq();
            if seq > last {
                break;
            }
            let continues = seq == self.seq + 1 && !self.is_newcomer && !self.wants_newest && !self.keyframes.is_lost;
            if !continues && start != Some(seq) && !attachment.runs().is_keyframe(location) {
                let Some(found) = attachment.runs().newest_start(after, last) else {
                    self.keyframes.has_undecodable = true;
                    break;
                };
                (seq, after, start) = (found, found, Some(found));
                continue;
            }
            let taken = match get_frame(attachment, location, target, limits) {
                Err(TakeFailure::Fault(fault)) if self.fault.as_ref() == Some(&fault) => None,
                Err(TakeFailure::Fault(fault)) => {
                    self.give_up(attachment, seq, limits, stats);
                    self.fault = Some(fault.clone());
                    return Err(TakeFailure::Fault(fault));
                }
                taken => taken?,
            };
            let Some((info, data)) = taken else {
                // The slot was overwritten, or is damaged. In both cases, the whole run is lost.
                seq = location.last_of_run().saturating_add(1);
                continue;
            };
            self.delivered = runs::end_of(location.position, &info.descriptor).map(|end| Delivered { location, end });
            return Ok(Some(self.accept(attachment, seq, info, data, limits, stats)));
        }
        // Each wanted frame up to `last` was overwritten, is damaged, or cannot be decoded. Waiting does not help,
        // because the writer completes each frame before it stores the head.
        self.give_up(attachment, last, limits, stats);
        Ok(None)
    }

    /// Moves the cursor to `last`, and counts the frames up to there as missed.
    fn give_up(&mut self, attachment: &Attachment, last: u64, limits: ReadLimits, stats: &mut ReaderStats) {
        let missed = self.count_missed(last, stats);
        self.keyframes.skipped = self.keyframes.skipped.saturating_add(missed);
        self.keyframes.is_lost = true;
        self.has_discontinuity = true;
        self.seq = last;
        attachment.set_missed(stats.missed, limits.wants_only_newest());
        attachment.set_cursor(last);
    }

    /// Moves the cursor to the taken frame, and counts this frame.
    #[inline]
    fn accept(
        &mut self,
        attachment: &Attachment,
        seq: u64,
        info: FrameInfo,
        data: FrameData,
        limits: ReadLimits,
        stats: &mut ReaderStats,
    ) -> Frame {
        let missed = self.count_missed(seq - 1, stats).saturating_add(self.keyframes.skipped);
        self.is_newcomer = false;
        self.keyframes = KeyframeSync::default();
        self.fault = None;
        self.seq = seq;
        failpoint(Failpoint::CursorDue);
        attachment.set_missed(stats.missed, limits.wants_only_newest());
        attachment.set_cursor(seq);
        stats.received += 1;
        match data {
            FrameData::InPlace(_) | FrameData::Objects(_) => stats.in_place += 1,
            FrameData::Copied => stats.copied += 1,
        }
        Frame {
            seq,
            descriptor: info.descriptor,
            metadata: info.metadata,
            data,
            missed,
            discontinuity: std::mem::take(&mut self.has_discontinuity) | std::mem::take(&mut self.wants_newest),
        }
    }

    /// Counts the frames after the cursor, up to `seq`, as missed. Frames before a newcomer's first frame, or before a
    /// jump to the newest frame, do not count.
    #[inline]
    fn count_missed(&self, seq: u64, stats: &mut ReaderStats) -> u64 {
        if self.wants_newest || self.is_newcomer {
            return 0;
        }
        let missed = seq.saturating_sub(self.seq);
        // A damaged head may have any value, so an implausible count of missed frames is ignored.
        let missed = if missed > MAX_MISSED { 0 } else { missed };
        stats.missed = stats.missed.saturating_add(missed);
        missed
    }
}

/// Gets one frame. It is delivered in place if the reader may hold one more. Otherwise it is copied: under a pin, or
/// without a pin if no quota is left. The result is `None` if the frame was overwritten or is damaged.
fn get_frame(
    attachment: &Arc<Attachment>,
    location: FrameLocation,
    target: &mut dyn CopyTarget,
    limits: ReadLimits,
) -> Result<Option<(FrameInfo, FrameData)>, TakeFailure> {
    if let Some(objects) = &attachment.objects {
        return take_objects(attachment, objects, location, target, limits);
    }
    let (pinned, may_hold) = PinnedFrame::pin_within_quota(attachment, location, limits);
    let mut target = CheckedTarget::new(target);
    let is_small = |frame: &PinnedFrame| attachment.segment.has_runs() && frame.as_ref().len() <= MAX_COPIED_SIZE;
    let result = match pinned {
        Ok(None) => None,
        Ok(Some((frame, info))) if may_hold && !is_small(&frame) => Some((info, FrameData::InPlace(frame))),
        Ok(Some((frame, info))) => target.prepare(frame.as_ref().len()).map(|memory| {
            copy_in_halves(frame.as_ref(), memory);
            (info, FrameData::Copied)
        }),
        Err(Refused) => attachment
            .copy_unpinned(location, &mut target)
            .map(|info| (info, FrameData::Copied)),
    };
    match target.failed_size {
        // Without this error, the reader would skip an intact frame and nobody would notice.
        Some(size) => Err(TakeFailure::NoTargetMemory(size)),
        None => Ok(result),
    }
}

/// Copies a pinned frame in two halves, so that a test can stop the copy in the middle.
fn copy_in_halves(from: &[u8], to: &mut [u8]) {
    let half = from.len() / 2;
    to[..half].copy_from_slice(&from[..half]);
    failpoint(Failpoint::CopyHalf);
    to[half..].copy_from_slice(&from[half..]);
}
