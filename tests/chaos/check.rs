//! What every reader does with every frame.

use std::sync::atomic::Ordering::Relaxed;

use rsshm_channel::monotonic_ns;

use crate::{
    content::{COUNTED_FRAME, EVENT, FRAME, Tag, format_in},
    role::{Context, was_stopped_since},
};

/// A frame as a reader has it.
pub struct Arrived<'a> {
    pub bytes: &'a [u8],
    pub caps: &'a str,
    /// Its number in the channel, where the reader is told.
    pub seq: Option<u64>,
    /// What its descriptor says that its writer calls it.
    pub offset: u64,
    /// Frames between the last one and this.
    pub missed: u64,
}

/// What a process knows of the frames it has had.
#[derive(Default)]
pub struct Checker {
    last: Option<Tag>,
    last_seq: u64,
    /// How far the numbers of the last frame's writer are ahead of its own count.
    ahead: Option<(u32, u64)>,
    /// Since the last frame the writer was lost, or the reader is another.
    interrupted: bool,
    /// The last event said that it comes after this one.
    after: Option<Tag>,
}

impl Checker {
    /// The next frame need not follow on the last; it may also be the last one again if the reader is `another`.
    pub fn interrupted(&mut self, another: bool) {
        self.interrupted = true;
        if another {
            self.after = None;
            if let Some(last) = &mut self.last {
                last.serial = last.serial.saturating_sub(1);
                self.last_seq = self.last_seq.saturating_sub(1);
            }
        }
    }

    /// Checks a frame that came; `None` where it is torn.
    pub fn frame(&mut self, context: &Context, frame: &Arrived) -> Option<Tag> {
        let cell = context.cell;
        let now = monotonic_ns();
        cell.frames.fetch_add(1, Relaxed);
        cell.last_at.store(now, Relaxed);
        cell.missed.fetch_add(frame.missed, Relaxed);
        let tag = match Tag::read(frame.bytes) {
            Ok(tag) if matches!(tag.kind, FRAME | COUNTED_FRAME) => tag,
            other => {
                let number = frame.seq;
                context.found(&cell.torn, &format!("frame {number:?} is torn: {other:?}"));
                return None;
            }
        };
        let strange = |what: &str| context.found(&cell.others, &format!("{what}: {tag:?}, after {:?}", self.last));
        if format_in(frame.caps) != Some(&tag.format()) {
            strange(&format!("the caps are {:?}", format_in(frame.caps)));
        }
        if frame.offset != tag.serial {
            strange(&format!("the descriptor calls it {}", frame.offset));
        }
        let in_order = |text: String| {
            context.found(&cell.order, &format!("{text}: {tag:?} after {:?}", self.last));
        };
        if self.after.is_some_and(|after| after.key() >= tag.key()) {
            in_order(format!("an event said that it comes after {:?}", self.after));
        }
        if let Some(last) = self.last {
            if tag.key() <= last.key() || tag.epoch < last.epoch {
                in_order("wrong order".to_owned());
            }
            if let Some(number) = frame.seq
                && tag.epoch == last.epoch
                && number <= self.last_seq
            {
                in_order(format!("number {number} after {}", self.last_seq));
            }
            self.check_missed(context, frame, tag, last);
        }
        if let Some(number) = frame.seq
            && tag.kind == COUNTED_FRAME
        {
            let ahead = number.wrapping_sub(tag.serial);
            match self.ahead {
                Some((incarnation, before)) if incarnation == tag.incarnation && before != ahead => {
                    in_order(format!("number {number} was to be {}", tag.serial.wrapping_add(before)));
                }
                _ => self.ahead = Some((tag.incarnation, ahead)),
            }
        }
        let is_new_writer = self.last.is_some_and(|last| last.incarnation != tag.incarnation);
        if is_new_writer
            && let Some(died) = context.board.death_before(tag.incarnation)
            && !was_stopped_since(died)
        {
            context.board.note_recovery(now - died);
        }
        self.last = Some(tag);
        self.last_seq = frame.seq.unwrap_or(0);
        self.interrupted = false;
        self.after = None;
        Some(tag)
    }

    /// A lossless writer's reader misses nothing while writer and reader live.
    fn check_missed(&self, context: &Context, frame: &Arrived, tag: Tag, last: Tag) {
        let orders = &context.orders;
        if !orders.lossless || !orders.role.misses_nothing() {
            return;
        }
        let same_writer = tag.incarnation == last.incarnation;
        let gap = same_writer && tag.kind == COUNTED_FRAME && tag.serial != last.serial + 1;
        if frame.missed > 0 || gap && !self.interrupted {
            context.found(
                &context.cell.others,
                &format!("missed {} of a lossless channel: {tag:?} after {last:?}", frame.missed),
            );
        }
    }

    /// Checks a frame once more, before it is let go.
    pub fn again(context: &Context, tag: Tag, bytes: &[u8]) {
        context.cell.again.fetch_add(1, Relaxed);
        let now = Tag::read(bytes);
        if now != Ok(tag) {
            context.found(
                &context.cell.torn,
                &format!("a frame has changed while it was held: {now:?}, it was {tag:?}"),
            );
        }
    }

    /// Checks what goes with a frame.
    pub fn metadata(context: &Context, tag: Tag, bytes: &[u8]) {
        let read = Tag::read(bytes);
        if read != Ok(tag) {
            context.found(&context.cell.torn, &format!("what goes with {tag:?} is {read:?}"));
        }
    }

    /// Checks an event: it says after which frame of its writer it comes.
    pub fn event(&mut self, context: &Context, bytes: &[u8]) {
        context.cell.events.fetch_add(1, Relaxed);
        match Tag::read(bytes) {
            Ok(tag) if tag.kind == EVENT => {
                if let Some(last) = self.last
                    && last.key() > tag.key()
                    && !self.interrupted
                {
                    let text = format!("an event comes late: {tag:?} after frame {last:?}");
                    context.found(&context.cell.order, &text);
                }
                // A newcomer is told at once of all that lasts, also of what was told after its first frame.
                if self.last.is_some() && !self.interrupted {
                    self.after = Some(tag);
                }
            }
            other => context.found(&context.cell.torn, &format!("an event is torn: {other:?}")),
        }
    }
}
