// SPDX-License-Identifier: MIT OR Apache-2.0

//! The data that the streaming thread shares with other threads.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};

use rsshm_channel::ReaderStats;

use super::{
    convert::{Conversion, Output},
    keyframes::KeyframeRequests,
    properties::Settings,
};
use crate::{metas::Skipped, sync::lock};

/// The state of the streaming thread. Other threads may read it while the streaming thread works.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Status {
    pub(super) connected: bool,
    /// Whether the reader only observes, so that it sends the writer nothing.
    pub(super) observes: bool,
    pub(super) stats: ReaderStats,
    /// The metas that could not be given to buffers since the element was started.
    pub(super) skipped_metas: Skipped,
    /// Events and tags that are not valid or that this program does not know.
    pub(super) events_refused: u64,
    /// Frames that were received and not passed on.
    pub(super) frames_skipped: u64,
    /// Frames that were converted to a format that downstream takes.
    pub(super) converted: u64,
    pub(super) latency_ns: u64,
    pub(super) history: u32,
    pub(super) frame_duration: Option<gst::ClockTime>,
}

// A thread holds each lock for a few lines only, and takes no other lock while it holds one. It holds no lock while it
// calls the base class, posts a message, notifies or waits.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) settings: Mutex<Settings>,
    pub(super) status: Mutex<Status>,
    /// The caps of the channel; `None` until they are known.
    pub(super) caps: Mutex<Option<gst::Caps>>,
    pub(super) keyframes: KeyframeRequests,
    /// What goes downstream for these caps; `None` until the first negotiation. The streaming thread negotiates.
    pub(super) output: Mutex<Option<Output>>,
    /// Whether downstream understands a GstVideoMeta. The streaming thread sets this flag when it negotiates. All
    /// accesses are Relaxed, because no other data depends on the flag.
    downstream_takes_video_meta: AtomicBool,
    /// Whether the caps downstream have the feature memory:DMABuf. The streaming thread sets this flag when it negotiates.
    /// All accesses are Relaxed, because no other data depends on the flag.
    gives_dmabufs: AtomicBool,
    /// Whether the streaming thread must still react to the pipeline's change to PLAYING.
    has_resumed: AtomicBool,
}

impl Shared {
    pub(super) fn count_skipped_metas(&self, skipped: Skipped) {
        let total = &mut lock(&self.status).skipped_metas;
        total.refused += skipped.refused;
        total.unknown += skipped.unknown;
    }

    /// The conversion of the stream; `None` if frames go downstream in the format of the channel.
    pub(super) fn conversion(&self) -> Option<Arc<Conversion>> {
        lock(&self.output).as_ref()?.conversion.clone()
    }

    /// Whether downstream understands a GstVideoMeta.
    pub(super) fn downstream_takes_video_meta(&self) -> bool {
        self.downstream_takes_video_meta.load(Ordering::Relaxed)
    }

    pub(super) fn set_downstream_takes_video_meta(&self, takes_meta: bool) {
        self.downstream_takes_video_meta.store(takes_meta, Ordering::Relaxed);
    }

    /// Whether the caps downstream have the feature memory:DMABuf.
    pub(super) fn gives_dmabufs(&self) -> bool {
        self.gives_dmabufs.load(Ordering::Relaxed)
    }

    pub(super) fn set_gives_dmabufs(&self, gives_dmabufs: bool) {
        self.gives_dmabufs.store(gives_dmabufs, Ordering::Relaxed);
    }

    /// Records that the pipeline goes to PLAYING, so that the next buffer is the newest frame.
    pub(super) fn resume(&self) {
        // Release: pairs with the acquire operations in `take_resumed` and `has_resumed`.
        self.has_resumed.store(true, Ordering::Release);
    }

    /// Whether the pipeline went to PLAYING since the last call of this function.
    pub(super) fn take_resumed(&self) -> bool {
        // Acquire: pairs with the store in `resume`, so that the element's new clock and base time are visible. The load
        // comes first because it costs less, and each frame makes it.
        self.has_resumed() && self.has_resumed.swap(false, Ordering::Acquire)
    }

    /// Whether the pipeline went to PLAYING since the last call of [`Self::take_resumed`]. If it did, its clock may
    /// have changed.
    pub(super) fn has_resumed(&self) -> bool {
        // Acquire: pairs with the store in `resume`.
        self.has_resumed.load(Ordering::Acquire)
    }
}

/// The parts of the element that its streaming thread uses.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) element: &'a gst_base::BaseSrc,
    pub(super) shared: &'a Shared,
    /// Queues a serialized event in the base class, which sends it before the next buffer.
    pub(super) queue_event: &'a dyn Fn(gst::Event),
}
