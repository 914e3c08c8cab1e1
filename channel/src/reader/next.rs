// SPDX-License-Identifier: MIT OR Apache-2.0

//! The steps of [`Reader::next`]: attach, take a snapshot of the segment's status, and deliver the next item or wait.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    CopyTarget, Next, ReadLimits, Reader, SegmentInfo, attachment::Attachment, connection::LIVENESS_INTERVAL,
    copy_target::TakeFailure, events::EventQueue, frames::MAX_SEQ,
};
use crate::{
    Error,
    protocol::{layout::reader_state, status::Snapshot},
    sys::clock,
};

/// How often a reader looks for a segment while no segment has the channel's name.
const NAME_POLL_INTERVAL: Duration = Duration::from_millis(20);

impl Reader {
    /// Waits for the next frame or event, at most for `timeout` (`None` means forever). A frame that has to be copied
    /// is copied into `target`.
    ///
    /// # Errors
    /// [`Error::Denied`] if this user may not read the channel, [`Error::Damaged`] if its segment is invalid,
    /// [`Error::NoMemory`] if `target` has no memory.
    pub fn next(
        &mut self,
        target: &mut dyn CopyTarget,
        limits: ReadLimits,
        timeout: Option<Duration>,
    ) -> Result<Next, Error> {
        // The clock is read only if there is nothing to deliver, because frames of a burst follow each other at once.
        let mut began = None;
        // A time-out that ends after all times is none.
        let mut deadline = || timeout.and_then(|timeout| began.get_or_insert_with(Instant::now).checked_add(timeout));
        let mut has_waited = false;
        loop {
            if self.connection.waiter().is_interrupted() {
                return Ok(Next::Interrupted);
            }
            let Some(attachment) = self.connection.attachment().map(Arc::clone) else {
                match self.connect(deadline())? {
                    Some(next) => return Ok(next),
                    None => continue,
                }
            };
            let snapshot = attachment.snapshot(self.end_of_stream.delivered);
            self.info.latency_ns = snapshot.latency_ns;
            if let Some(next) = self.deliver(&attachment, &snapshot, target, limits)? {
                return Ok(next);
            }
            if let Some(next) = self.wait(&attachment, &snapshot, deadline(), &mut has_waited) {
                return Ok(next);
            }
        }
    }

    /// Attaches, or sleeps until it is time to look for a segment again. Returns `None` if the loop in `next` has to
    /// continue.
    fn connect(&mut self, deadline: Option<Instant>) -> Result<Option<Next>, Error> {
        let seen = self.connection.former_word();
        if self.connection.may_attach() {
            match self.attach() {
                Ok(true) => return Ok(None),
                Ok(false) => {
                    self.waiting_since.get_or_insert_with(clock::monotonic_ns);
                }
                Err(error) => {
                    self.connection.leave_former(reader_state::LEFT);
                    return Err(error);
                }
            }
        }
        if self.connection.has_move_timed_out() {
            self.connection.leave_former(reader_state::LEFT);
            return Ok(Some(Next::Lost));
        }
        let Some(timeout) = remaining(deadline, NAME_POLL_INTERVAL) else {
            return Ok(Some(Next::TimedOut));
        };
        if self.connection.wait_for_segment(seen, timeout) {
            self.slow_down();
        }
        Ok(None)
    }

    /// Attaches to the segment that has the channel's name now. Returns `false` if there is no segment.
    fn attach(&mut self) -> Result<bool, Error> {
        let followed_to = self.connection.is_moving().then_some(self.frames.seq());
        let Some((attachment, observer_reason)) = self.connection.open(&self.name, self.options, followed_to)? else {
            return Ok(false);
        };
        // The reader brings its count along. Whether it wants only the newest frame is known with its next read.
        attachment.set_missed(self.stats.missed, false);
        let segment = &attachment.segment;
        let is_following = followed_to.is_some_and(|seq| segment.header.first_seq > seq);
        if self.info.segment_id.is_some_and(|former| former != segment.file_id) {
            self.stats.reconnects += 1;
        }
        if is_following {
            // Each segment counts its ends of the stream from 0.
            self.end_of_stream.delivered = 0;
            if self.info.caps != segment.caps || self.stats.writer_pid != segment.header.writer_pid {
                self.frames.keyframes.begin_stream();
            }
            self.frames.follow();
        } else {
            self.begin_stream(&attachment);
        }
        self.waiting_since = None;
        self.frames.keyframes.reset_request();
        if !is_following || !self.events.follow(&attachment) {
            self.events = EventQueue::of_newcomer(&attachment);
        }
        self.stats.writer_pid = segment.header.writer_pid;
        self.info = SegmentInfo::new(segment, observer_reason);
        self.connection.complete_attach(attachment);
        Ok(true)
    }

    /// Starts the first stream, or a new one under the channel's name.
    ///
    /// A reader that joins late starts with the newest frame. A reader that has waited since before the segment was
    /// made is not late: it starts with the first frame, because a writer may publish a whole burst before a waiting
    /// reader finds the segment. Of a lossless channel, it takes only the frames that the writer keeps for it.
    fn begin_stream(&mut self, attachment: &Attachment) {
        let header = &attachment.segment.header;
        let before_first = header.first_seq.saturating_sub(1);
        let has_waited = self.waiting_since.is_some_and(|since| since < header.created_ns);
        if has_waited {
            self.frames.begin_after(before_first.max(attachment.protected_after));
            self.end_of_stream.delivered = 0;
        } else {
            let before_newest = attachment.initial.head.saturating_sub(1);
            self.frames.begin_after(before_newest.max(before_first));
            self.end_of_stream.delivered = attachment.initial.eos_count;
        }
    }

    /// Delivers the next item of the snapshot: an eviction, an event, a frame, an end of the stream, or the loss of the
    /// writer. `None` if the snapshot has nothing left to deliver.
    fn deliver(
        &mut self,
        attachment: &Arc<Attachment>,
        snapshot: &Snapshot,
        target: &mut dyn CopyTarget,
        limits: ReadLimits,
    ) -> Result<Option<Next>, Error> {
        if attachment.is_evicted() {
            self.connection.disconnect_evicted(attachment);
            return Ok(Some(Next::Evicted));
        }
        if let Some(next) = self.take(attachment, snapshot, target, limits)? {
            match next {
                Next::Frame(_) => self.limiter.reset(),
                _ => self.slow_down(),
            }
            return Ok(Some(next));
        }
        if snapshot.has_end() {
            self.end_of_stream.delivered = snapshot.eos_count;
            self.frames.keyframes.begin_stream();
            self.slow_down();
            return Ok(Some(Next::EndOfStream));
        }
        if snapshot.is_closed() {
            self.connection.disconnect(attachment);
            return Ok(Some(Next::Lost));
        }
        Ok(None)
    }

    /// Takes the oldest wanted frame, or an event before it. Events after an end of the stream wait until the end is
    /// delivered.
    fn take(
        &mut self,
        attachment: &Arc<Attachment>,
        snapshot: &Snapshot,
        target: &mut dyn CopyTarget,
        limits: ReadLimits,
    ) -> Result<Option<Next>, Error> {
        // A head that is larger than `MAX_SEQ` is damaged.
        let newest = snapshot.newest().min(MAX_SEQ);
        if !snapshot.has_end() {
            self.frames.repair(newest);
        }
        let eos_count = snapshot.eos_count.wrapping_sub(snapshot.has_end().into());
        loop {
            let events_missed = self.events.load_next(attachment, snapshot.event_head);
            self.stats.events_missed = self.stats.events_missed.saturating_add(events_missed);
            let wanted = self.frames.wanted(attachment, newest, limits);
            let event_after = self.events.next_after(eos_count);
            // An event waits if it comes after a frame that is newer than the loaded head.
            if event_after.is_some_and(|after| wanted.map_or(after <= newest, |wanted| after < wanted.first)) {
                let event = self.events.take();
                if self.options.ignore_events {
                    continue;
                }
                return Ok(event.map(Next::Event));
            }
            let Some(wanted) = wanted else {
                self.frames.keyframes.request_if_needed(attachment);
                return Ok(None);
            };
            // Frames after the next event wait until the event is delivered.
            let last = event_after.map_or(newest, |after| after.min(newest));
            match self
                .frames
                .take_up_to(attachment, wanted, last, target, limits, &mut self.stats)
            {
                Ok(Some(frame)) => return Ok(Some(Next::Frame(frame))),
                // The cursor is at `last` now, so the loop ends, or continues with the event.
                Ok(None) => {}
                Err(TakeFailure::NoTargetMemory(size)) => {
                    return Err(Error::NoMemory {
                        channel: self.name.to_string(),
                        size,
                    });
                }
                Err(TakeFailure::Interrupted) => return Ok(Some(Next::Interrupted)),
                Err(TakeFailure::Denied(error)) => return Err(error),
                Err(TakeFailure::Fault(fault)) => return Ok(Some(Next::Fault(fault))),
            }
        }
    }

    /// Waits for a change after `snapshot`, or starts to move to the next segment. Returns `None` if the loop in `next`
    /// has to continue.
    fn wait(
        &mut self,
        attachment: &Arc<Attachment>,
        snapshot: &Snapshot,
        deadline: Option<Instant>,
        has_waited: &mut bool,
    ) -> Option<Next> {
        if snapshot.is_superseded() {
            self.connection.begin_move(Arc::clone(attachment));
            return None;
        }
        if self.connection.has_lost_writer(attachment, snapshot) {
            self.connection.disconnect(attachment);
            return Some(Next::Lost);
        }
        // A pass is counted only if the wakeup before it brought nothing to deliver, so that no frame is delayed.
        if std::mem::take(has_waited) {
            self.slow_down();
        }
        let Some(timeout) = remaining(deadline, LIVENESS_INTERVAL) else {
            return Some(Next::TimedOut);
        };
        self.connection.wait(attachment, snapshot, timeout);
        *has_waited = true;
        None
    }

    /// Counts a pass without a frame, and sleeps if there were too many of them. Therefore a process that only changes
    /// or wakes the readers' futex word cannot keep this reader busy.
    fn slow_down(&mut self) {
        if let Some(pause) = self.limiter.throttle() {
            self.connection.waiter().sleep(pause);
        }
    }
}

/// How long to wait now, at most `longest`; `None` if the deadline has passed.
fn remaining(deadline: Option<Instant>, longest: Duration) -> Option<Duration> {
    match deadline {
        None => Some(longest),
        Some(deadline) => deadline
            .checked_duration_since(Instant::now())
            .map(|left| left.min(longest))
            .filter(|left| !left.is_zero()),
    }
}
