// SPDX-License-Identifier: MIT OR Apache-2.0

//! Closes the sources upstream of the sink while nobody reads, and opens them when a reader attaches.
//!
//! A thread of its own changes the states of the sources, because neither a streaming thread nor the service thread may
//! wait for that. A closed source is in NULL, and its state is locked, so that state changes of the pipeline leave it
//! closed. Opening a source gives it the clock of the sink, and then the state of its bin.

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

use super::CAT;
use crate::{pipeline, sync::lock};

/// The name of the thread; Linux shows only its first 15 characters.
const THREAD_NAME: &str = "rsshm-on-demand";

/// How often the state of an opened source follows that of its bin, which may change meanwhile.
const MAX_SETTLINGS: u32 = 8;

/// What the thread has to know. The element and the service thread write it.
#[derive(Debug, Default)]
struct Situation {
    /// Whether the sink is in PLAYING. In all other states, the sources stay as they are.
    is_playing: bool,
    readers: u32,
    /// Since when nobody has read; `None` if somebody reads, or if there was no frame yet.
    unwatched_since: Option<Instant>,
    has_frames: bool,
    has_ended: bool,
    /// An EOS that was sent to the pipeline while its source was closed.
    eos: Option<gst::Event>,
    /// Whether an attempt has failed, and nothing has changed since.
    has_failed: bool,
    is_over: bool,
}

impl Situation {
    /// Forgets how the last stream ended, because another one begins.
    fn begin_stream(&mut self) {
        self.has_ended = false;
        self.has_failed = false;
    }

    fn update_unwatched(&mut self) {
        if self.readers > 0 || !self.has_frames {
            self.unwatched_since = None;
        } else if self.unwatched_since.is_none() {
            self.unwatched_since = Some(Instant::now());
        }
    }
}

/// What the thread does next.
enum Step {
    Open,
    Close,
    End(gst::Event),
    Stop,
}

/// What the element and its threads share.
#[derive(Debug, Default)]
pub(super) struct OnDemand {
    situation: Mutex<Situation>,
    changed: Condvar,
    /// Whether a thread runs. Relaxed: a frame that arrives at the start may be missed, but not all frames are.
    is_active: AtomicBool,
    /// Whether the first frame of this start was reported. Relaxed: no other data depends on the flag.
    has_frames: AtomicBool,
    /// Whether the sources are closed. Relaxed: no other data depends on the flag.
    is_closed: AtomicBool,
}

impl OnDemand {
    fn change(&self, change: impl FnOnce(&mut Situation)) {
        if !self.is_active.load(Ordering::Relaxed) {
            return;
        }
        let mut situation = lock(&self.situation);
        change(&mut situation);
        situation.update_unwatched();
        drop(situation);
        self.changed.notify_all();
    }

    /// Whether the sources are closed.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Relaxed)
    }

    /// Sets the number of attached readers. `has_new` says whether one of them has just attached.
    pub(super) fn set_readers(&self, readers: u32, has_new: bool) {
        // The service thread calls this function several times a second.
        if !has_new && lock(&self.situation).readers == readers {
            return;
        }
        self.change(|situation| {
            situation.readers = readers;
            situation.has_failed = false;
        });
    }

    /// Records that a frame has arrived. The sources stay open until then, because the channel has no caps before.
    pub(super) fn record_frame(&self) {
        if self.is_active.load(Ordering::Relaxed) && !self.has_frames.swap(true, Ordering::Relaxed) {
            self.change(|situation| situation.has_frames = true);
        }
    }

    /// Lets the sources stay open until their next frame. A source that has just been opened has no caps yet, so it does not
    /// say whether it is live.
    fn await_frame(&self) {
        self.has_frames.store(false, Ordering::Relaxed);
        self.change(|situation| situation.has_frames = false);
    }

    /// Records a state change of the sink.
    pub(super) fn record_transition(&self, transition: gst::StateChange) {
        match transition {
            gst::StateChange::ReadyToPaused => self.change(|situation| {
                situation.begin_stream();
                situation.eos = None;
            }),
            gst::StateChange::PausedToPlaying => self.change(|situation| situation.is_playing = true),
            gst::StateChange::PlayingToPaused => self.change(|situation| situation.is_playing = false),
            _ => {}
        }
    }

    /// Records the end of the stream, after which readers no longer open the sources.
    pub(super) fn record_end(&self) {
        self.change(|situation| situation.has_ended = true);
    }

    /// Records that a stream begins, or goes on elsewhere. An EOS that the thread has not sent yet stays, because `close`
    /// and a source that opens make such events too.
    pub(super) fn record_begin(&self) {
        self.change(Situation::begin_stream);
    }

    /// Takes an EOS that was sent to the pipeline. The closed source cannot send it, so the thread sends it to the sink.
    pub(super) fn take_eos(&self, event: gst::Event) {
        self.change(|situation| situation.eos = Some(event));
    }

    /// The next step. Sleeps until there is one.
    fn next_step(&self, idle_timeout: Duration) -> Step {
        let mut situation = lock(&self.situation);
        loop {
            let is_closed = self.is_closed();
            if situation.is_over {
                return Step::Stop;
            }
            if let Some(event) = situation.eos.take() {
                return Step::End(event);
            }
            let may_act = situation.is_playing && !situation.has_ended && !situation.has_failed;
            let left = match situation.unwatched_since {
                Some(since) if may_act && !is_closed => Some(idle_timeout.saturating_sub(since.elapsed())),
                _ => None,
            };
            situation = match left {
                _ if may_act && is_closed && situation.readers > 0 => return Step::Open,
                Some(left) if left.is_zero() => return Step::Close,
                Some(left) => {
                    let waited = self.changed.wait_timeout(situation, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.changed.wait(situation).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }
}

/// The thread. It exists as long as the channel is open.
pub(super) struct OnDemandThread {
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
        shared.has_frames.store(false, Ordering::Relaxed);
        shared.is_closed.store(false, Ordering::Relaxed);
        shared.is_active.store(true, Ordering::Relaxed);
        let mut switch = Switch {
            sink: sink.downgrade(),
            writer: Arc::clone(writer),
            shared: Arc::clone(shared),
            sources: Vec::new(),
            has_warned: false,
        };
        let thread = thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || switch.run(idle_timeout))?;
        Ok(Self {
            shared: Arc::clone(shared),
            thread,
        })
    }

    /// Ends the thread, and waits for its end. The sources belong to the pipeline again.
    pub(super) fn stop(self) {
        self.shared.change(|situation| situation.is_over = true);
        // The result says only whether the thread panicked, and a panic prints its own message.
        let _ = self.thread.join();
        self.shared.is_active.store(false, Ordering::Relaxed);
    }
}

/// Closes and opens the sources.
struct Switch {
    sink: glib::WeakRef<gst_base::BaseSink>,
    writer: Arc<Writer>,
    shared: Arc<OnDemand>,
    /// The sources that this value has closed.
    sources: Vec<gst::Element>,
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
                Step::Close => self.close(&sink),
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
            }
        }
    }

    /// Closes the sources, if they can be opened again and nobody else needs them.
    fn close(&mut self, sink: &gst_base::BaseSink) {
        let sources = match closable_sources(sink) {
            Ok(sources) => sources,
            Err(reason) => {
                self.refuse(sink, &reason);
                return;
            }
        };
        gst::info!(CAT, obj = sink, "nobody reads: the source is closed");
        self.shared.is_closed.store(true, Ordering::Relaxed);
        // An EOS that the application sends to the pipeline reaches each element with this flag.
        sink.set_element_flags(gst::ElementFlags::SOURCE);
        close(&sources);
        self.sources = sources;
        if let Err(error) = self.writer.begin_idle() {
            gst::element_warning!(sink, gst::ResourceError::Failed, ("{error}"));
        }
        self.post(sink, false);
    }

    /// Opens the sources again.
    fn open(&mut self, sink: &gst_base::BaseSink) {
        gst::info!(CAT, obj = sink, "a reader has attached: the source is opened");
        self.writer.end_idle();
        self.shared.await_frame();
        if open(sink, &self.sources) {
            sink.unset_element_flags(gst::ElementFlags::SOURCE);
            self.shared.is_closed.store(false, Ordering::Relaxed);
            self.sources.clear();
            self.post(sink, true);
            return;
        }
        // The source has posted the error. The next reader is a reason for another attempt.
        close(&self.sources);
        lock(&self.shared.situation).has_failed = true;
        if let Err(error) = self.writer.begin_idle() {
            gst::warning!(CAT, obj = sink, "{error}");
        }
    }

    /// Leaves the sources to the pipeline when the sink stops. If only the sink stops, the pipeline needs its sources.
    fn give_back(&mut self, sink: &gst_base::BaseSink) {
        sink.unset_element_flags(gst::ElementFlags::SOURCE);
        open(sink, &self.sources);
        self.shared.is_closed.store(false, Ordering::Relaxed);
    }

    /// Posts the reason why the sources are not closed.
    fn refuse(&mut self, sink: &gst_base::BaseSink, reason: &str) {
        lock(&self.shared.situation).has_failed = true;
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

/// The sources upstream of `sink`, or the reason why they cannot be closed.
fn closable_sources(sink: &gst_base::BaseSink) -> Result<Vec<gst::Element>, String> {
    let pad = sink.sink_pad().clone();
    let mut latency = gst::query::Latency::new();
    if !pad.peer_query(&mut latency) || !latency.result().0 {
        return Err("the stream is not live, so it would not go on where it stopped".to_owned());
    }
    let upstream = pipeline::linked_elements(&pad);
    let sources: Vec<gst::Element> = upstream
        .into_iter()
        .filter(|element| element.num_sink_pads() == 0)
        .collect();
    if sources.is_empty() {
        return Err("the pipeline has no source that could be closed".to_owned());
    }
    for source in &sources {
        if source.is_locked_state() {
            return Err(format!("the state of {} is locked", source.name()));
        }
        for pad in source.src_pads() {
            if pad
                .pad_template()
                .is_some_and(|template| template.presence() == gst::PadPresence::Sometimes)
            {
                return Err(format!("the pads of {} come and go", source.name()));
            }
            let other = pipeline::linked_elements(&pad)
                .into_iter()
                .find(|element| element.num_src_pads() == 0 && element != sink.upcast_ref::<gst::Element>());
            if let Some(other) = other {
                return Err(format!("{} feeds {} too", source.name(), other.name()));
            }
        }
    }
    Ok(sources)
}

/// Closes `sources`: locks their states, and sets them to NULL.
fn close(sources: &[gst::Element]) {
    let peers: Vec<gst::Pad> = sources
        .iter()
        .flat_map(|source| source.src_pads())
        .filter_map(|pad| pad.peer())
        .collect();
    for source in sources {
        source.set_locked_state(true);
    }
    // A streaming thread may wait in a queue, or in the sink while the pipeline is PAUSED. The flush ends these waits.
    for peer in &peers {
        peer.send_event(gst::event::FlushStart::new());
    }
    for source in sources {
        if let Err(error) = source.set_state(gst::State::Null) {
            gst::warning!(CAT, obj = source, "the source cannot be closed: {error}");
        }
    }
    for peer in &peers {
        // The running time goes on, because the clock of the pipeline does.
        peer.send_event(gst::event::FlushStop::new(false));
    }
}

/// Opens `sources`: gives them the clock of the sink, and the states of their bins. Returns whether
/// this succeeded.
fn open(sink: &gst_base::BaseSink, sources: &[gst::Element]) -> bool {
    sources.iter().all(|source| {
        source.set_locked_state(false);
        // An element in NULL has no clock. It keeps its base time, which bins update even while its state is locked.
        if let Err(error) = source.set_clock(sink.clock().as_ref()) {
            gst::warning!(CAT, obj = source, "{error}");
        }
        settle(source)
    })
}

/// Gives `source` the state of its bin. The state of the bin may change meanwhile, and the bin may have skipped the
/// source while its state was locked. Returns whether the source is in this state.
fn settle(source: &gst::Element) -> bool {
    let target = || {
        let bin = source.parent().and_downcast::<gst::Element>()?;
        let pending = bin.pending_state();
        Some(if pending == gst::State::VoidPending {
            bin.current_state()
        } else {
            pending
        })
    };
    for _ in 0..MAX_SETTLINGS {
        let Some(state) = target() else {
            return true;
        };
        if let Err(error) = source.set_state(state) {
            gst::warning!(CAT, obj = source, "the source cannot be opened: {error}");
            return false;
        }
        if target() == Some(state) {
            return true;
        }
    }
    true
}
