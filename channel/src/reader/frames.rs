//! Which frame comes next, and how it is got.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{CopyTarget, Frame, FrameData, Next, ReadLimits, Reader};
use crate::{
    Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::RING_LENGTH,
    },
    reader::attachment::{Attachment, FrameInfo, FrameLocation},
};

/// A number that no frame ever gets to.
const MAX_SEQ: u64 = u64::MAX >> 8;
/// More frames than anybody misses at once: a year of a thousand a second.
const MOST_MISSED: u64 = 1 << 35;
/// How long a frame that can be decoded alone is waited for before the writer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Where a compressed stream can be gone into.
#[derive(Debug, Default)]
pub(super) struct KeyframeSync {
    /// What came last is not there to decode the next frame with.
    lost: bool,
    /// Frames that were given up since the last one given.
    skipped: u64,
    /// Some of these were there, and could not be decoded.
    undecodable: bool,
    /// When the writer was asked for a frame that can be decoded alone.
    asked: Option<Instant>,
}

impl KeyframeSync {
    /// What comes next is another stream, though the numbers run on.
    pub(super) fn begins_anew(&mut self) {
        self.lost = true;
    }

    /// Whoever was asked before, or where, may never hear of it.
    pub(super) fn ask_at_once(&mut self) {
        self.asked = None;
    }
}

/// What a reader found when it looked into the segment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Snapshot {
    /// Number of the newest frame that may be given.
    pub(super) newest: u64,
    /// Number of the newest event.
    pub(super) event_head: u64,
    /// The stream ends behind the newest frame.
    pub(super) ends: bool,
    /// How many times it has ended, with that end.
    pub(super) eos_count: u32,
}

/// Which frames are wanted.
#[derive(Clone, Copy, Debug)]
struct FrameRange {
    /// The first.
    first: u64,
    /// Where that cannot be decoded, one behind this may come in its place.
    behind: u64,
}

/// A target of which one wants to know whether it had no room.
struct CheckedTarget<'a> {
    target: &'a mut dyn CopyTarget,
    failed: Option<usize>,
}

impl CopyTarget for CheckedTarget<'_> {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        let room = self.target.prepare(size).filter(|room| room.len() == size);
        if room.is_none() {
            self.failed = Some(size);
        }
        room
    }
}

impl Reader {
    /// Takes what comes next: the oldest frame that is wanted and there, and before it the events from before it. No event
    /// from behind an end of the stream that has not been told.
    pub(super) fn take(
        &mut self,
        attachment: &Arc<Attachment>,
        look: Snapshot,
        target: &mut dyn CopyTarget,
        limits: ReadLimits,
    ) -> Result<Option<Next>, Error> {
        // The ring has the lower 56 bits of a number: only a damaged head has more.
        let newest = look.newest.min(MAX_SEQ);
        // A position beyond the head can only come of a damaged head: it is given up.
        if self.cursor > newest && newest != 0 && !look.ends {
            self.want_newest = true;
            self.cursor = newest - 1;
        }
        let eos_count = look.eos_count.wrapping_sub(look.ends.into());
        loop {
            let events_missed = self.events.look(attachment, look.event_head);
            self.stats.events_missed = self.stats.events_missed.saturating_add(events_missed);
            let wanted = self.wanted(attachment, newest, limits);
            let event = self.events.next_after(eos_count);
            // One that came after the newest frame was looked at may be of a later frame.
            if event.is_some_and(|after| wanted.map_or(after <= newest, |wanted| after < wanted.first)) {
                return Ok(self.events.take().map(Next::Event));
            }
            let Some(wanted) = wanted else {
                if std::mem::take(&mut self.sync.undecodable) {
                    self.ask_for_keyframe(attachment);
                }
                return Ok(None);
            };
            // Frames behind the event come after it.
            let last = event.map_or(newest, |after| after.min(newest));
            // Without a frame this is over at the next turn, or the one after the next event.
            if let Some(frame) = self.take_up_to(attachment, wanted, last, target, limits)? {
                return Ok(Some(Next::Frame(frame)));
            }
        }
    }

    /// Which of the frames up to `newest` are wanted, as far as the limits say. `None`: none is left.
    fn wanted(&self, attachment: &Attachment, newest: u64, limits: ReadLimits) -> Option<FrameRange> {
        if newest <= self.cursor {
            return None;
        }
        // Whoever comes begins with an older frame than the newest if need be, but not with one that is gone before it has
        // taken the next.
        let had = if self.newly_attached {
            attachment.kept_after
        } else {
            self.cursor
        };
        let behind = had.max(newest.saturating_sub(limits.reach()));
        let first = if self.want_newest {
            newest_key(attachment, behind, newest).unwrap_or(newest)
        } else {
            self.cursor.max(behind) + 1
        };
        Some(FrameRange { first, behind })
    }

    /// Takes the first wanted frame up to `last` that is there, and can be decoded with what came before it.
    fn take_up_to(
        &mut self,
        attachment: &Arc<Attachment>,
        wanted: FrameRange,
        last: u64,
        target: &mut dyn CopyTarget,
        limits: ReadLimits,
    ) -> Result<Option<Frame>, Error> {
        let FrameRange {
            first: mut seq,
            mut behind,
        } = wanted;
        while seq <= last {
            let Some(location) = attachment.find(seq) else {
                seq += 1;
                continue;
            };
            let continues = seq == self.cursor + 1 && !self.newly_attached && !self.want_newest && !self.sync.lost;
            if !continues && attachment.is_delta(location) {
                let Some(key) = newest_key(attachment, behind, last) else {
                    self.sync.undecodable = true;
                    break;
                };
                (seq, behind) = (key, key);
                continue;
            }
            let Some((FrameInfo { descriptor, metadata }, data)) = self.get(attachment, location, target, limits)?
            else {
                seq += 1;
                continue;
            };
            let skipped = self.missed_up_to(seq - 1).saturating_add(self.sync.skipped);
            self.newly_attached = false;
            self.sync = KeyframeSync::default();
            self.cursor = seq;
            failpoint(Failpoint::CursorDue);
            attachment.set_cursor(seq);
            self.stats.received += 1;
            match data {
                FrameData::InPlace(_) => self.stats.in_place += 1,
                FrameData::Copied => self.stats.copied += 1,
            }
            return Ok(Some(Frame {
                seq,
                descriptor,
                metadata,
                data,
                missed: skipped,
                discontinuity: std::mem::take(&mut self.discontinuity) | std::mem::take(&mut self.want_newest),
            }));
        }
        // All were overwritten meanwhile, or are damaged, or cannot be decoded: a frame that is announced is never readable
        // only later.
        self.sync.skipped = self.sync.skipped.saturating_add(self.missed_up_to(last));
        self.sync.lost = true;
        self.discontinuity = true;
        self.cursor = last;
        attachment.set_cursor(last);
        Ok(None)
    }

    /// Counts the frames behind the last one given, up to `seq`, as missed. What was there before this reader came, or was
    /// told to look at the newest, is not.
    fn missed_up_to(&mut self, seq: u64) -> u64 {
        if self.want_newest || self.newly_attached {
            return 0;
        }
        let missed = seq.saturating_sub(self.cursor);
        // A damaged head may be any number: what is no count of frames is not counted.
        let missed = if missed > MOST_MISSED { 0 } else { missed };
        self.stats.missed = self.stats.missed.saturating_add(missed);
        missed
    }

    fn ask_for_keyframe(&mut self, attachment: &Attachment) {
        if self.sync.asked.is_none_or(|asked| asked.elapsed() >= ASK_AGAIN) && attachment.request_keyframe() {
            self.sync.asked = Some(Instant::now());
        }
    }

    /// Gets one frame: in place where this reader may hold one more, under a pin and copied where it may not, and
    /// without a pin where it may have none.
    fn get(
        &self,
        attachment: &Arc<Attachment>,
        location: FrameLocation,
        target: &mut dyn CopyTarget,
        limits: ReadLimits,
    ) -> Result<Option<(FrameInfo, FrameData)>, Error> {
        let quota = attachment.quota();
        let held = attachment.held();
        if held < limits.max_held && held + 1 >= quota {
            attachment.ask_for_more(quota);
        }
        // The last pin of the allowance is for copying.
        let pinned = (held < quota).then(|| attachment.pin(location));
        // Lowered meanwhile: then the pin was not this reader's to take, and is given back.
        let pinned = pinned.filter(|_| attachment.held() <= attachment.quota());
        let mut target = CheckedTarget { target, failed: None };
        let got = match pinned {
            Some(None) => None,
            Some(Some((frame, described))) if held < limits.max_held.min(quota - 1) => {
                Some((described, FrameData::InPlace(frame)))
            }
            Some(Some((frame, described))) => target.prepare(frame.as_ref().len()).map(|room| {
                copy_in_halves(frame.as_ref(), room);
                (described, FrameData::Copied)
            }),
            None => attachment
                .copy_unpinned(location, &mut target)
                .map(|described| (described, FrameData::Copied)),
        };
        match target.failed {
            // Not the frame's fault: it would be missed without a word.
            Some(size) => Err(Error::NoRoom {
                channel: self.name.to_string(),
                size,
            }),
            None => Ok(got),
        }
    }
}

/// Copies a frame that is pinned; in halves, so that a test can stop it in the middle.
fn copy_in_halves(from: &[u8], to: &mut [u8]) {
    let half = from.len() / 2;
    to[..half].copy_from_slice(&from[..half]);
    failpoint(Failpoint::CopyHalf);
    to[half..].copy_from_slice(&from[half..]);
}

/// Number of the newest frame behind `behind`, up to `last`, that can be decoded without those before it, if all frames
/// from it on are there.
fn newest_key(attachment: &Attachment, behind: u64, last: u64) -> Option<u64> {
    let oldest = (behind + 1).max(last.saturating_sub(RING_LENGTH - 1));
    for seq in (oldest..=last).rev() {
        let location = attachment.find(seq)?;
        if !attachment.is_delta(location) {
            return Some(seq);
        }
    }
    None
}
