// SPDX-License-Identifier: MIT OR Apache-2.0

//! Closes the sources upstream of the sink while nobody reads, and opens them when a reader attaches.
//!
//! A thread of its own changes the states of the sources, because neither a streaming thread nor the service thread may
//! wait for that.
//!
//! - `situation`: what is known, and the next step
//! - `sources`: finds, closes and opens the sources

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*};
use gst_base::prelude::*;
use rsshm_channel::Writer;

use self::situation::{Situation, Step};
use super::CAT;
use crate::sync::lock;

mod situation;
mod sources;

/// The name of the thread; Linux shows only its first 15 characters.
const THREAD_NAME: &str = "rsshm-on-demand";

/// What the element and its threads share.
#[derive(Debug, Default)]
pub(super) struct OnDemand {
    situation: Mutex<Situation>,
    changed: Condvar,
    /// Whether a thread runs. Relaxed: a frame that arrives at the start may be missed, but not all frames are.
    is_active: AtomicBool,
    /// Whether the next frame is the first one since the start, or since the sources were opened. Relaxed: sources that
    /// are opened push frames from threads that they start afterwards.
    awaits_frame: AtomicBool,
}

impl OnDemand {
    /// Changes the situation, if a thread runs. Otherwise returns the default value.
    fn change<T: Default>(&self, change: impl FnOnce(&mut Situation) -> T) -> T {
        if !self.is_active.load(Ordering::Relaxed) {
            return T::default();
        }
        let mut situation = lock(&self.situation);
        let changed = change(&mut situation);
        situation.update_unwatched(Instant::now());
        drop(situation);
        self.changed.notify_all();
        changed
    }

    /// Whether the sources are closed.
    pub(super) fn is_closed(&self) -> bool {
        self.is_active.load(Ordering::Relaxed) && lock(&self.situation).is_closed()
    }

    /// Sets the number of attached readers. `has_new` says whether one of them has just attached.
    pub(super) fn set_readers(&self, readers: u32, has_new: bool) {
        // The service thread calls this function several times a second.
        if has_new || lock(&self.situation).readers() != readers {
            self.change(|situation| situation.set_readers(readers));
        }
    }

    /// Records that a frame has arrived. At the start, the sources stay open until then, because the channel has no caps
    /// before.
    pub(super) fn record_frame(&self) {
        if self.awaits_frame.load(Ordering::Relaxed) {
            self.awaits_frame.store(false, Ordering::Relaxed);
            self.change(Situation::receive_frame);
        }
    }

    /// Records a state change of the sink.
    pub(super) fn record_transition(&self, transition: gst::StateChange) {
        match transition {
            gst::StateChange::ReadyToPaused => self.change(Situation::start),
            gst::StateChange::PausedToPlaying => self.change(Situation::play),
            gst::StateChange::PlayingToPaused => self.change(Situation::pause),
            _ => {}
        }
    }

    /// Records that the sink receives EOS, after which readers no longer open the sources. Returns `false` if the sources
    /// have failed before their first frame; then the channel goes on without them, and the sink ignores the EOS.
    pub(super) fn record_end(&self) -> bool {
        self.change(|situation| Some(situation.end_stream())).unwrap_or(true)
    }

    /// Records that a stream begins, or goes on elsewhere.
    pub(super) fn record_begin(&self) {
        self.change(Situation::begin_stream);
    }

    /// Records an EOS that was sent to the pipeline. Returns whether the thread sends it to the sink, because the sources
    /// are closed.
    pub(super) fn record_eos(&self, event: &gst::Event) -> bool {
        self.change(|situation| situation.take_eos(event.clone()))
    }

    /// The next step. Sleeps until there is one.
    fn next_step(&self, idle_timeout: Duration) -> Step {
        let mut situation = lock(&self.situation);
        loop {
            situation = match situation.next_step(Instant::now(), idle_timeout) {
                Step::Wait(None) => self.changed.wait(situation).unwrap_or_else(PoisonError::into_inner),
                Step::Wait(Some(time)) => {
                    let waited = self.changed.wait_timeout(situation, time);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                step => return step,
            };
        }
    }
}

/// The thread. It exists as long as the channel is open.
pub(super) struct OnDemandThread {
    sink: glib::WeakRef<gst_base::BaseSink>,
    shared: Arc<OnDemand>,
    thread: JoinHandle<()>,
}

impl OnDemandThread {
    /// Starts the thread for `sink`, which writes to `writer`. The sources are closed when nobody has read for
    /// `idle_timeout`.
    pub(super) fn start(
        sink: &gst_base::BaseSink,
        writer: &Arc<Writer>,
        shared: &Arc<OnDemand>,
        idle_timeout: Duration,
    ) -> std::io::Result<Self> {
        *lock(&shared.situation) = Situation::default();
        let mut switch = Switch {
            sink: sink.downgrade(),
            writer: Arc::clone(writer),
            shared: Arc::clone(shared),
            sources: Vec::new(),
            was_closed: false,
            has_warned: false,
        };
        let thread = thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || switch.run(idle_timeout))?;
        shared.awaits_frame.store(true, Ordering::Relaxed);
        shared.is_active.store(true, Ordering::Relaxed);
        // An EOS that the application sends to the pipeline reaches each element with this flag. A closed source would
        // not pass it on.
        sink.set_element_flags(gst::ElementFlags::SOURCE);
        Ok(Self {
            sink: sink.downgrade(),
            shared: Arc::clone(shared),
            thread,
        })
    }

    /// Ends the thread, and waits for its end. The sources belong to the pipeline again.
    pub(super) fn stop(self) {
        self.shared.change(Situation::stop);
        // The result says only whether the thread panicked, and a panic prints its own message.
        let _ = self.thread.join();
        self.shared.is_active.store(false, Ordering::Relaxed);
        self.shared.awaits_frame.store(false, Ordering::Relaxed);
        if let Some(sink) = self.sink.upgrade() {
            sink.unset_element_flags(gst::ElementFlags::SOURCE);
        }
    }
}

/// Closes and opens the sources.
struct Switch {
    sink: glib::WeakRef<gst_base::BaseSink>,
    writer: Arc<Writer>,
    shared: Arc<OnDemand>,
    /// The sources that this value has closed.
    sources: Vec<gst::Element>,
    /// Whether this value has closed the sources before, so they are live.
    was_closed: bool,
    /// Whether a warning was posted that the sources cannot be closed.
    has_warned: bool,
}

impl Switch {
    fn run(&mut self, idle_timeout: Duration) {
        loop {
            let step = self.shared.next_step(idle_timeout);
            let Some(sink) = self.sink.upgrade() else {
                return;
            };
            match step {
                Step::Open => self.open(&sink),
                Step::Close => self.close(&sink, idle_timeout),
                Step::GiveUp => self.give_up(&sink),
                // The pipeline has no other thread that could push the event. In PAUSED, the event waits in the sink.
                Step::End(event) => {
                    sink.sink_pad().send_event(event);
                }
                Step::Stop => {
                    if self.shared.is_closed() {
                        self.give_back(&sink);
                    }
                    return;
                }
                Step::Wait(_) => {}
            }
        }
    }

    /// Closes the sources, if they can be opened again and nobody else needs them.
    fn close(&mut self, sink: &gst_base::BaseSink, idle_timeout: Duration) {
        match sources::closable(sink, self.was_closed) {
            Ok(Some(sources)) => {
                gst::info!(CAT, obj = sink, "nobody reads: the source is closed");
                self.shut(sink, sources);
                return;
            }
            Ok(None) => {}
            Err(reason) => self.warn(sink, &reason),
        }
        self.shared
            .change(|situation| situation.refuse_closing(Instant::now(), idle_timeout));
    }

    /// Opens the sources again.
    fn open(&mut self, sink: &gst_base::BaseSink) {
        gst::info!(CAT, obj = sink, "a reader has attached: the source is opened");
        self.writer.end_idle();
        self.shared.change(Situation::begin_opening);
        self.shared.awaits_frame.store(true, Ordering::Relaxed);
        let sources = std::mem::take(&mut self.sources);
        if sources::open(sink, &sources) {
            self.post(sink, true);
        } else {
            // The source has posted the error.
            self.shut(sink, sources);
        }
    }

    /// Closes sources that have failed before their first frame. The source has posted the error.
    fn give_up(&mut self, sink: &gst_base::BaseSink) {
        match sources::separable(sink) {
            Ok(sources) => self.shut(sink, sources),
            Err(reason) => {
                self.warn(sink, &reason);
                // The sources stay as they are.
                self.shared.change(Situation::end_opening);
            }
        }
    }

    /// Closes `sources`. If they were being opened, this attempt has failed.
    fn shut(&mut self, sink: &gst_base::BaseSink, sources: Vec<gst::Element>) {
        let failed_for = self.shared.change(Situation::begin_closing);
        sources::close(&sources);
        if let Some(reader_changes) = failed_for {
            self.shared.change(|situation| situation.fail_for(reader_changes));
        }
        self.sources = sources;
        self.was_closed = true;
        if let Err(error) = self.writer.begin_idle() {
            gst::element_warning!(sink, gst::ResourceError::Failed, ("{error}"));
        }
        self.post(sink, false);
    }

    /// Leaves the sources to the pipeline when the sink stops. If only the sink stops, the pipeline needs its sources.
    fn give_back(&mut self, sink: &gst_base::BaseSink) {
        sources::open(sink, &self.sources);
        self.shared.change(Situation::give_back);
    }

    /// Posts the reason why the sources are not closed.
    fn warn(&mut self, sink: &gst_base::BaseSink, reason: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            let name = self.writer.name();
            gst::element_warning!(
                sink,
                gst::ResourceError::Settings,
                ("channel {name}: on-demand has no effect, because {reason}")
            );
        }
    }

    /// Tells the application whether the sources are open.
    fn post(&self, sink: &gst_base::BaseSink, is_active: bool) {
        let structure = gst::Structure::builder("rsshm-on-demand")
            .field("channel", self.writer.name().as_str())
            .field("active", is_active)
            .build();
        let message = gst::message::Element::builder(structure).src(sink).build();
        // A message fails only if the element has no bus, so nobody waits for it.
        let _ = sink.post_message(message);
    }
}
