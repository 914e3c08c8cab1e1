// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds out that the stream is about to end while the sink waits for a reader.
//!
//! `gst-launch-1.0 -e` sends EOS to the sources of its pipeline. EOS follows the buffers that wait for the sink. So a sink
//! that waits for a reader would keep the pipeline from ending.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use gst_base::prelude::*;

use crate::{pipeline, shmsrc::RsShmSrc, sync::lock};

/// The interval between two looks at the sources.
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// How long a thread must be busy with a source before it counts as a thread that waits to send EOS. Other events and
/// state changes are handled within this time.
const MIN_BUSY_TIME: Duration = Duration::from_millis(300);

/// Whether the stream is about to end, so that the sink no longer waits for a reader.
#[derive(Debug, Default)]
pub(super) struct Ending(AtomicBool);

impl Ending {
    // All accesses are Relaxed, because no other data depends on the flag.
    pub(super) fn is_near(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn set(&self, is_near: bool) {
        self.0.store(is_near, Ordering::Relaxed);
    }
}

/// A watch on the sources of the pipeline during one wait.
pub(super) struct SourceWatch {
    sources: Vec<gst::Element>,
    state: Mutex<WatchState>,
}

struct WatchState {
    checked: Instant,
    /// Since when a thread has been busy with one of the sources.
    busy_since: Option<Instant>,
}

impl SourceWatch {
    pub(super) fn start(sink: &gst::Element) -> Self {
        Self {
            sources: pipeline::sources(sink),
            state: Mutex::new(WatchState {
                checked: Instant::now(),
                busy_since: None,
            }),
        }
    }

    /// Whether somebody has sent EOS to a source, or waits to do so.
    ///
    /// The end of a file is no reason to end the wait, because the rest of a short film may wait in a queue.
    pub(super) fn has_pending_eos(&self) -> bool {
        let mut state = lock(&self.state);
        let now = Instant::now();
        if now.duration_since(state.checked) < CHECK_INTERVAL {
            return false;
        }
        state.checked = now;
        if self.sources.iter().any(was_ended) {
            return true;
        }
        let is_busy = self
            .sources
            .iter()
            .any(|source| source.is::<gst_base::BaseSrc>() && pipeline::is_in_use(source));
        if !is_busy {
            state.busy_since = None;
            return false;
        }
        let since = *state.busy_since.get_or_insert(now);
        now.duration_since(since) >= MIN_BUSY_TIME
    }
}

/// Whether `source` is an endless live source, such as a camera, and its stream has ended.
fn was_ended(source: &gst::Element) -> bool {
    let is_endless = source
        .downcast_ref::<gst_base::BaseSrc>()
        .is_some_and(|source| source.is_live() && source.property::<i32>("num-buffers") < 0);
    let has_ended = |pad: &gst::Pad| pad.sticky_event::<gst::event::Eos>(0).is_some();
    is_endless && !source.is::<RsShmSrc>() && source.src_pads().iter().any(has_ended)
}
