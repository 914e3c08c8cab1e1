// SPDX-License-Identifier: MIT OR Apache-2.0

//! Decides whether the sink prerolls, that is, whether the pipeline waits in PAUSED for the sink's first frame.

use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;
use gst_base::prelude::*;

use super::CAT;

/// The preroll of the sink. In a pipeline with a live source, the sink does not preroll.
///
/// A live pipeline plays without preroll, but a bin lets no sink play before all its sinks have prerolled. If frames
/// reach another sink of the pipeline only after this sink has published some, neither of the two sinks would play.
///
/// In all other pipelines, preroll is useful: running time begins with the first frame, and begins again after a seek.
///
/// All accesses are Relaxed, because no other data depends on the flag.
#[derive(Debug, Default)]
pub(super) struct Preroll {
    /// Whether `async` of the base class is off, although the user left it on.
    is_off: AtomicBool,
}

impl Preroll {
    /// Decides whether the sink prerolls in a pipeline with these sources. Call this while the sink's streaming thread
    /// does not run, because `async` can be set only while no frame is rendered.
    ///
    /// With `is_on_demand`, the sink never prerolls, because the flush that closes the source must not make the pipeline
    /// wait for another frame.
    pub(super) fn start(&self, sink: &gst_base::BaseSink, sources: &[gst::Element], is_on_demand: bool) {
        let is_live = sources.iter().any(|source| {
            source
                .downcast_ref::<gst_base::BaseSrc>()
                .is_some_and(BaseSrcExt::is_live)
        });
        if (is_live || is_on_demand) && sink.is_async() {
            gst::debug!(
                CAT,
                obj = sink,
                "no preroll: the pipeline has a live source, or the sink is on demand"
            );
            sink.set_async(false);
            self.is_off.store(true, Ordering::Relaxed);
        }
    }

    /// Restores the user's value of `async`. The same rule as for [`Self::start`] applies.
    pub(super) fn stop(&self, sink: &gst_base::BaseSink) {
        if self.is_off.swap(false, Ordering::Relaxed) {
            sink.set_async(true);
        }
    }
}
