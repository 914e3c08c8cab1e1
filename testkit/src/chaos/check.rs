// SPDX-License-Identifier: MIT OR Apache-2.0

//! The checks that every reader makes on every frame.

use std::sync::atomic::Ordering::Relaxed;

use rsshm_channel::monotonic_ns;

use super::{
    assignment::{ProcessContext, was_stopped_since},
    content::{COUNTED_FRAME, EVENT, FRAME, Tag, caps_id_in},
};

/// A frame as a reader received it.
pub struct ReceivedFrame<'a> {
    pub bytes: &'a [u8],
    pub caps: &'a str,
    /// The seq of the frame. `None` in a pipeline, because a pipeline does not know the seq.
    pub seq: Option<u64>,
    pub offset: u64,
    /// The number of frames that the reader missed since the last frame it received.
    pub missed: u64,
    /// The number of frames that rsshmsrc received and skipped since then, because they are from before the start of its
    /// pipeline. 0 for other readers.
    pub skipped: u64,
}

/// The state of a reader's checks.
#[derive(Default)]
pub struct FrameChecker {
    last: Option<Tag>,
    last_seq: u64,
    /// The incarnation of the last frame's writer, and the difference between the frame's seq and its serial.
    ahead: Option<(u32, u64)>,
    /// Whether, since the last frame, the reader has lost its writer or another reader has replaced it.
    is_interrupted: bool,
    /// Whether, since the last frame, the reader has missed frames because it could not get their memory.
    has_fault: bool,
    /// The tag of the last event. The next frame must have been published after this event.
    after: Option<Tag>,
}

impl FrameChecker {
    /// Records that the next frame need not directly follow the last one. If another reader has replaced this one
    /// (`is_new_reader`), it may receive the last frame again.
    pub fn interrupt(&mut self, is_new_reader: bool) {
        self.is_interrupted = true;
        if is_new_reader {
            self.after = None;
            if let Some(last) = &mut self.last {
                last.serial = last.serial.saturating_sub(1);
                self.last_seq = self.last_seq.saturating_sub(1);
            }
        }
    }

    /// Records that the reader misses frames, because the writer was dead or stopped when the reader needed their memory.
    pub fn fault(&mut self) {
        self.has_fault = true;
    }

    /// Checks a frame that has arrived. Returns `None` if it is torn.
    pub fn frame(&mut self, context: &ProcessContext, frame: &ReceivedFrame) -> Option<Tag> {
        let counters = context.counters;
        let now = monotonic_ns();
        counters.frames.fetch_add(1, Relaxed);
        counters.last_at.store(now, Relaxed);
        counters.missed.fetch_add(frame.missed, Relaxed);
        let tag = match Tag::read(frame.bytes) {
            Ok(tag) if matches!(tag.kind, FRAME | COUNTED_FRAME) => tag,
            other => {
                let seq = frame.seq;
                context.found(&counters.torn, &format!("frame {seq:?} is torn: {other:?}"));
                return None;
            }
        };
        self.check_description(context, frame, tag);
        self.check_order(context, frame, tag);
        self.check_seq(context, frame, tag);
        self.record_recovery(context, tag, now);
        self.last = Some(tag);
        self.last_seq = frame.seq.unwrap_or(0);
        self.is_interrupted = false;
        self.has_fault = false;
        self.after = None;
        Some(tag)
    }

    /// Checks that the caps and the offset of the frame match its tag.
    fn check_description(&self, context: &ProcessContext, frame: &ReceivedFrame, tag: Tag) {
        let found = |what: String| context.found_other(&format!("{what}: {tag:?}, after {:?}", self.last));
        if caps_id_in(frame.caps) != Some(&tag.caps_id()) {
            found(format!("the caps are {:?}", caps_id_in(frame.caps)));
        }
        if frame.offset != tag.serial {
            found(format!("the offset is {}", frame.offset));
        }
    }

    fn found_order(&self, context: &ProcessContext, tag: Tag, text: &str) {
        context.found(
            &context.counters.order,
            &format!("{text}: {tag:?} after {:?}", self.last),
        );
    }

    /// Checks that the frame comes after the last one, and after the last event.
    fn check_order(&self, context: &ProcessContext, frame: &ReceivedFrame, tag: Tag) {
        if self.after.is_some_and(|after| after.key() >= tag.key()) {
            self.found_order(context, tag, &format!("an event should follow it: {:?}", self.after));
        }
        let Some(last) = self.last else {
            return;
        };
        if tag.key() <= last.key() || tag.epoch < last.epoch {
            self.found_order(context, tag, "wrong order");
        }
        // If the files of a dead writer were removed, the seqs of the next writer begin again.
        let assignment = &context.assignment;
        let may_begin_again = assignment.clean && !assignment.kind.keeps_entry();
        let continues = tag.epoch == last.epoch && (tag.incarnation == last.incarnation || !may_begin_again);
        if let Some(seq) = frame.seq
            && continues
            && seq <= self.last_seq
        {
            self.found_order(context, tag, &format!("seq {seq} after {}", self.last_seq));
        }
        self.check_missed(context, frame, tag, last);
    }

    /// Checks that the difference between seq and serial is equal for all frames of a writer.
    fn check_seq(&mut self, context: &ProcessContext, frame: &ReceivedFrame, tag: Tag) {
        let Some(seq) = frame.seq.filter(|_| tag.kind == COUNTED_FRAME) else {
            return;
        };
        let ahead = seq.wrapping_sub(tag.serial);
        match self.ahead {
            Some((incarnation, before)) if incarnation == tag.incarnation && before != ahead => {
                let expected = tag.serial.wrapping_add(before);
                self.found_order(context, tag, &format!("seq {seq} instead of {expected}"));
            }
            _ => self.ahead = Some((tag.incarnation, ahead)),
        }
    }

    /// If this is the first frame from a new writer, records the time since the death of the previous writer. The run
    /// forgets the death if the new writer was stopped meanwhile.
    fn record_recovery(&self, context: &ProcessContext, tag: Tag, now: u64) {
        let is_new_writer = self.last.is_some_and(|last| last.incarnation != tag.incarnation);
        if is_new_writer
            && let Some(died) = context.board.death_before(tag.incarnation)
            && !was_stopped_since(died)
        {
            context.board.record_recovery(now - died);
        }
    }

    /// Checks that a reader of a lossless writer misses no frame while the reader and the writer live.
    fn check_missed(&self, context: &ProcessContext, frame: &ReceivedFrame, tag: Tag, last: Tag) {
        let assignment = &context.assignment;
        if !assignment.lossless || !assignment.kind.misses_nothing() || self.has_fault {
            return;
        }
        let same_writer = tag.incarnation == last.incarnation;
        let gap = same_writer && tag.kind == COUNTED_FRAME && tag.serial != last.serial + 1 + frame.skipped;
        // The memory of objects goes with its writer, so readers may miss the last frames of a dead one.
        let is_excused = assignment.objects && !same_writer;
        if frame.missed > 0 && !is_excused || gap && !self.is_interrupted {
            context.found_other(&format!(
                "missed {} of a lossless channel and skipped {}: {tag:?} after {last:?}",
                frame.missed, frame.skipped
            ));
        }
    }

    /// Checks a frame again before it is released.
    pub fn again(context: &ProcessContext, tag: Tag, bytes: &[u8]) {
        context.counters.again.fetch_add(1, Relaxed);
        let now = Tag::read(bytes);
        if now != Ok(tag) {
            context.found(
                &context.counters.torn,
                &format!("a frame has changed while it was held: {now:?}, it was {tag:?}"),
            );
        }
    }

    /// Checks that the metadata of a frame has the frame's tag.
    pub fn metadata(context: &ProcessContext, tag: Tag, bytes: &[u8]) {
        let read = Tag::read(bytes);
        if read != Ok(tag) {
            context.found(&context.counters.torn, &format!("the metadata of {tag:?} is {read:?}"));
        }
    }

    /// Checks an event. An event contains the tag of the last frame that the writer published before the event.
    pub fn event(&mut self, context: &ProcessContext, bytes: &[u8]) {
        context.counters.events.fetch_add(1, Relaxed);
        match Tag::read(bytes) {
            Ok(tag) if tag.kind == EVENT => {
                if let Some(last) = self.last
                    && last.key() > tag.key()
                    && !self.is_interrupted
                {
                    let text = format!("an event is late: {tag:?} after frame {last:?}");
                    context.found(&context.counters.order, &text);
                }
                // A reader that joins receives all sticky events at once, even events that were published after its
                // first frame.
                if self.last.is_some() && !self.is_interrupted {
                    self.after = Some(tag);
                }
            }
            other => context.found(&context.counters.torn, &format!("an event is torn: {other:?}")),
        }
    }
}
