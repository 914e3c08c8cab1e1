// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is known about the readers, the sources and the pipeline, and what to do next.

use std::time::{Duration, Instant};

/// The shortest time between two attempts to close the sources.
const MIN_RETRY_TIME: Duration = Duration::from_secs(1);

/// What the thread has to know. The element and the service thread write it.
///
/// The sources are in one of these states:
///
/// | | `is_closed` | `opening` |
/// |---|---|---|
/// | open | false | `None` |
/// | opened, and the first frame has not arrived yet | false | `Some` |
/// | closed | true | `None` |
#[derive(Debug, Default)]
pub(super) struct Situation {
    /// Whether the sink is in PLAYING. In all other states, the sources stay as they are.
    is_playing: bool,
    readers: u32,
    /// How often the readers have changed.
    reader_changes: u64,
    /// Since when nobody has read; `None` if somebody reads, or if there was no frame yet.
    unwatched_since: Option<Instant>,
    /// Whether the channel has its caps, because there was a frame.
    has_frames: bool,
    has_ended: bool,
    /// An EOS that the application has sent to the pipeline.
    eos: Option<Eos>,
    is_closed: bool,
    /// Whether the thread takes a step that opens or closes the sources.
    is_changing: bool,
    opening: Option<Opening>,
    /// The value of `reader_changes` for which an attempt to open the sources has failed.
    failed_for: Option<u64>,
    /// When the sources may be closed, if they could not be closed before.
    retry_at: Option<Instant>,
    is_over: bool,
}

/// An EOS that the application has sent to the pipeline.
#[derive(Debug)]
enum Eos {
    /// The open source passes it on. If the source is closed before, the thread sends it.
    Passed(gst::Event),
    /// The source was closed or changed its state, so the thread sends it.
    Due(gst::Event),
    /// The thread has sent it to the sink.
    Sent,
}

/// An attempt to open the sources, until their first frame arrives.
#[derive(Debug)]
struct Opening {
    /// The value of `reader_changes` at the begin.
    reader_changes: u64,
    /// Whether the stream has ended before its first frame.
    has_failed: bool,
}

/// What the thread does next.
#[derive(Debug)]
pub(super) enum Step {
    Open,
    Close,
    /// Closes the sources, because they have ended before their first frame.
    GiveUp,
    /// Sends EOS to the sink.
    End(gst::Event),
    Stop,
    /// Waits until something changes, or until this time is over.
    Wait(Option<Duration>),
}

impl Situation {
    /// Updates the idle time after a change.
    pub(super) fn update_unwatched(&mut self, now: Instant) {
        if self.readers > 0 || !self.has_frames {
            self.unwatched_since = None;
        } else if self.unwatched_since.is_none() {
            self.unwatched_since = Some(now);
        }
    }

    pub(super) fn readers(&self) -> u32 {
        self.readers
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    pub(super) fn set_readers(&mut self, readers: u32) {
        self.readers = readers;
        self.reader_changes += 1;
    }

    /// The pipeline starts.
    pub(super) fn start(&mut self) {
        self.begin_stream();
        self.eos = None;
        self.opening = None;
        self.retry_at = None;
    }

    pub(super) fn play(&mut self) {
        self.is_playing = true;
        // The idle time of the last start does not count.
        self.unwatched_since = None;
    }

    pub(super) fn pause(&mut self) {
        self.is_playing = false;
    }

    /// The stream begins, or goes on elsewhere. The sources make such events too when they are closed or opened, and these
    /// events do not concern an EOS that the thread has to send.
    pub(super) fn begin_stream(&mut self) {
        self.has_ended = false;
        self.failed_for = None;
        let is_due = match self.eos {
            Some(Eos::Due(_)) => true,
            Some(Eos::Passed(_)) => self.is_closed || self.is_changing,
            Some(Eos::Sent) | None => false,
        };
        if !is_due {
            self.eos = None;
        }
    }

    /// The first frame has arrived since the start, or since the sources were opened.
    pub(super) fn receive_frame(&mut self) {
        self.has_frames = true;
        self.opening = None;
    }

    /// EOS arrives at the sink. Returns whether the stream has ended. Otherwise the sources have failed before their first
    /// frame, or while they are closed, and the channel goes on without them.
    pub(super) fn end_stream(&mut self) -> bool {
        // The sources would not end before their first frame, unless the application wants that.
        if self.eos.take().is_none() {
            if let Some(opening) = &mut self.opening {
                opening.has_failed = true;
                return false;
            }
            if self.is_closed {
                return false;
            }
        }
        self.opening = None;
        self.has_ended = true;
        true
    }

    /// The application has sent EOS to the pipeline. Returns whether the thread sends it to the sink, because the sources
    /// may not pass it on.
    pub(super) fn take_eos(&mut self, event: gst::Event) -> bool {
        let is_due = self.is_closed || self.is_changing;
        self.eos = Some(if is_due { Eos::Due(event) } else { Eos::Passed(event) });
        is_due
    }

    /// The thread begins to open the sources.
    pub(super) fn begin_opening(&mut self) {
        self.is_closed = false;
        self.opening = Some(Opening {
            reader_changes: self.reader_changes,
            has_failed: false,
        });
    }

    /// An attempt to open the sources is over. Returns the value of `reader_changes` at its begin, or `None` if there was
    /// no attempt.
    pub(super) fn end_opening(&mut self) -> Option<u64> {
        self.opening.take().map(|opening| opening.reader_changes)
    }

    /// The thread begins to close the sources. If it was opening them, this attempt has failed:
    /// [`fail_for`](Self::fail_for) then gets the returned value.
    pub(super) fn begin_closing(&mut self) -> Option<u64> {
        self.is_closed = true;
        self.retry_at = None;
        self.end_opening()
    }

    /// An attempt to open the sources has failed. The next change of the readers is a reason for another one.
    pub(super) fn fail_for(&mut self, reader_changes: u64) {
        self.failed_for = Some(reader_changes);
    }

    /// The sources cannot be closed now.
    pub(super) fn refuse_closing(&mut self, now: Instant, idle_timeout: Duration) {
        self.retry_at = now.checked_add(idle_timeout.max(MIN_RETRY_TIME));
    }

    /// The pipeline has its sources again, because the sink stops.
    pub(super) fn give_back(&mut self) {
        self.is_closed = false;
    }

    pub(super) fn stop(&mut self) {
        self.is_over = true;
    }

    /// The next step of the thread.
    pub(super) fn next_step(&mut self, now: Instant, idle_timeout: Duration) -> Step {
        self.is_changing = false;
        if self.is_over {
            return Step::Stop;
        }
        match self.eos.take() {
            Some(Eos::Due(event)) => return self.send_eos(event),
            Some(Eos::Passed(event)) if self.is_closed => return self.send_eos(event),
            eos => self.eos = eos,
        }
        let step = self.next_change(now, idle_timeout);
        self.is_changing = !matches!(step, Step::Wait(_));
        step
    }

    fn send_eos(&mut self, event: gst::Event) -> Step {
        self.eos = Some(Eos::Sent);
        Step::End(event)
    }

    fn next_change(&self, now: Instant, idle_timeout: Duration) -> Step {
        if !self.is_playing || self.has_ended {
            return Step::Wait(None);
        }
        if self.opening.as_ref().is_some_and(|opening| opening.has_failed) {
            return Step::GiveUp;
        }
        if self.is_closed {
            let is_wanted = self.readers > 0 && self.failed_for != Some(self.reader_changes);
            return if is_wanted { Step::Open } else { Step::Wait(None) };
        }
        let Some(since) = self.unwatched_since else {
            return Step::Wait(None);
        };
        let retry_time = self.retry_at.map(|at| at.saturating_duration_since(now));
        let left = idle_timeout.saturating_sub(now.saturating_duration_since(since));
        match left.max(retry_time.unwrap_or_default()) {
            Duration::ZERO => Step::Close,
            left => Step::Wait(Some(left)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE_TIMEOUT: Duration = Duration::from_secs(5);

    /// A situation, and the time in it.
    struct Story {
        situation: Situation,
        now: Instant,
    }

    impl Story {
        /// The pipeline plays, and the first frame has arrived.
        fn playing() -> Self {
            gst::init().unwrap();
            let mut story = Self {
                situation: Situation::default(),
                now: Instant::now(),
            };
            story.change(Situation::start);
            story.change(Situation::play);
            story.change(Situation::receive_frame);
            story
        }

        /// The sources are closed, because nobody reads.
        fn closed() -> Self {
            let mut story = Self::playing();
            story.wait(IDLE_TIMEOUT);
            assert!(matches!(story.step(), Step::Close));
            assert_eq!(story.situation.begin_closing(), None);
            assert!(matches!(story.step(), Step::Wait(None)));
            story
        }

        /// The sources have been opened for a reader.
        fn opening() -> Self {
            let mut story = Self::closed();
            story.change(|situation| situation.set_readers(1));
            assert!(matches!(story.step(), Step::Open));
            story.change(Situation::begin_opening);
            story
        }

        fn change<T>(&mut self, change: impl FnOnce(&mut Situation) -> T) -> T {
            let changed = change(&mut self.situation);
            self.situation.update_unwatched(self.now);
            changed
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
        }

        fn step(&mut self) -> Step {
            self.situation.next_step(self.now, IDLE_TIMEOUT)
        }
    }

    #[test]
    fn sources_are_closed_after_the_idle_time() {
        let mut story = Story::playing();
        assert!(matches!(story.step(), Step::Wait(Some(left)) if left == IDLE_TIMEOUT));
        story.change(|situation| situation.set_readers(1));
        story.wait(IDLE_TIMEOUT);
        assert!(matches!(story.step(), Step::Wait(None)));
        story.change(|situation| situation.set_readers(0));
        story.wait(IDLE_TIMEOUT);
        assert!(matches!(story.step(), Step::Close));
    }

    #[test]
    fn idle_time_of_the_last_start_does_not_count() {
        let mut story = Story::playing();
        story.change(Situation::pause);
        story.wait(IDLE_TIMEOUT);
        story.change(Situation::start);
        story.change(Situation::play);
        assert!(matches!(story.step(), Step::Wait(Some(left)) if left == IDLE_TIMEOUT));
    }

    #[test]
    fn refused_closing_is_tried_again() {
        let mut story = Story::playing();
        story.wait(IDLE_TIMEOUT);
        assert!(matches!(story.step(), Step::Close));
        let now = story.now;
        story.change(|situation| situation.refuse_closing(now, Duration::ZERO));
        assert!(matches!(story.step(), Step::Wait(Some(left)) if left == MIN_RETRY_TIME));
        story.wait(MIN_RETRY_TIME);
        assert!(matches!(story.step(), Step::Close));
    }

    #[test]
    fn reader_that_leaves_before_the_first_frame_lets_the_sources_be_closed() {
        let mut story = Story::opening();
        story.change(|situation| situation.set_readers(0));
        assert!(matches!(story.step(), Step::Wait(Some(_))));
        story.wait(IDLE_TIMEOUT);
        assert!(matches!(story.step(), Step::Close));
    }

    #[test]
    fn end_before_the_first_frame_is_a_failed_attempt() {
        let mut story = Story::opening();
        assert!(!story.change(Situation::end_stream));
        assert!(matches!(story.step(), Step::GiveUp));
        let failed_for = story.change(Situation::begin_closing);
        // The flush of closed sources is no reason for another attempt.
        story.change(Situation::begin_stream);
        story.change(|situation| situation.fail_for(failed_for.unwrap()));
        assert!(matches!(story.step(), Step::Wait(None)));
        story.change(|situation| situation.set_readers(2));
        assert!(matches!(story.step(), Step::Open));
        story.change(Situation::begin_opening);
        story.change(Situation::receive_frame);
        assert!(story.change(Situation::end_stream), "this is the end of the stream");
        assert!(matches!(story.step(), Step::Wait(None)));
    }

    #[test]
    fn reader_that_comes_during_a_failing_attempt_is_a_reason_for_another_one() {
        let mut story = Story::opening();
        story.change(|situation| situation.set_readers(2));
        let failed_for = story.change(Situation::begin_closing);
        story.change(|situation| situation.fail_for(failed_for.unwrap()));
        assert!(matches!(story.step(), Step::Open));
    }

    #[test]
    fn eos_of_the_application_ends_the_stream_in_every_state() {
        type Begin = fn() -> Story;
        type Change = fn(&mut Situation);
        let nothing: Change = |_| {};
        let close: Change = |situation| {
            situation.begin_closing();
            situation.begin_stream();
        };
        // When the EOS comes, what happens then, and whether the thread has to send the EOS.
        let cases: [(Begin, Change, bool); 6] = [
            (Story::playing, nothing, false),
            (Story::playing, close, true),
            (Story::closed, nothing, true),
            (Story::closed, Situation::begin_opening, true),
            (Story::opening, nothing, true),
            (Story::opening, close, true),
        ];
        for (index, (begin, change, is_sent)) in cases.into_iter().enumerate() {
            let mut story = begin();
            story.change(|situation| situation.take_eos(gst::event::Eos::new()));
            story.change(change);
            assert_eq!(matches!(story.step(), Step::End(_)), is_sent, "{index}");
            assert!(story.change(Situation::end_stream), "{index}");
            assert!(matches!(story.step(), Step::Wait(None)), "{index}");
        }
    }

    #[test]
    fn flush_of_the_application_drops_its_eos() {
        let mut story = Story::playing();
        story.change(|situation| situation.take_eos(gst::event::Eos::new()));
        story.change(Situation::begin_stream);
        story.wait(IDLE_TIMEOUT);
        assert!(matches!(story.step(), Step::Close));
        story.change(Situation::begin_closing);
        assert!(matches!(story.step(), Step::Wait(None)));
    }
}
