// SPDX-License-Identifier: MIT OR Apache-2.0

//! Decides when frames leave the sink (pacing), and which latency the sink announces to readers.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use gst::prelude::*;
use gst_base::prelude::*;

use super::CAT;

/// The values that the user has set for the element's properties `sync` and `ts-offset`. The base class has its own
/// properties with these names, and their values are derived from the user's values.
#[derive(Clone, Copy, Debug)]
pub(super) struct PacingSettings {
    pub(super) sync: bool,
    pub(super) ts_offset: i64,
}

impl Default for PacingSettings {
    fn default() -> Self {
        Self {
            sync: true,
            ts_offset: 0,
        }
    }
}

/// The current pacing of frames.
///
/// All accesses to the atomics are Relaxed, because no other data depends on their values. A frame that arrives
/// during a change may be paced by the old value or by the new one.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    upstream_is_live: AtomicBool,
    /// The delay between the time of a frame's timestamp and the moment at which the frame leaves, in nanoseconds. It
    /// grows when the stream waits for a reader.
    delay_ns: AtomicI64,
    /// Whether a paced frame leaves at its own time, without the latency of the pipeline.
    ignores_latency: AtomicBool,
}

impl Pacing {
    /// Whether upstream is live, so that frames leave at once.
    pub(super) fn upstream_is_live(&self) -> bool {
        self.upstream_is_live.load(Ordering::Relaxed)
    }

    /// The delay between the time of a frame's timestamp and the moment at which the frame leaves, in nanoseconds.
    pub(super) fn delay_ns(&self) -> i64 {
        self.delay_ns.load(Ordering::Relaxed)
    }

    /// Sets the delay, and applies it to the base class.
    pub(super) fn set_delay(&self, sink: &gst_base::BaseSink, settings: PacingSettings, delay_ns: i64) {
        self.delay_ns.store(delay_ns, Ordering::Relaxed);
        self.apply(sink, settings);
    }

    /// Sets whether paced frames leave at their own time, without the latency of the pipeline.
    ///
    /// This is necessary if the pipeline has a source that reads a channel, because that channel may depend on the
    /// frames of this sink. The source then reports at least the latency that this sink announces. If the sink in turn
    /// waited for the latency of the pipeline, the two latencies would grow without limit.
    pub(super) fn set_ignores_latency(&self, ignores_latency: bool) {
        self.ignores_latency.store(ignores_latency, Ordering::Relaxed);
    }

    /// The latency of the pipeline that paced frames wait for, in nanoseconds.
    fn pipeline_latency_ns(&self, sink: &gst_base::BaseSink) -> i128 {
        if self.ignores_latency.load(Ordering::Relaxed) {
            return 0;
        }
        sink.latency().nseconds().into()
    }

    /// Sets the base class's `ts-offset` to the user's `ts-offset` plus the delay. The latency that the base class adds,
    /// and that frames do not wait for, is subtracted.
    pub(super) fn apply(&self, sink: &gst_base::BaseSink, settings: PacingSettings) {
        let unwanted = i128::from(sink.latency().nseconds()) - self.pipeline_latency_ns(sink);
        let offset = i128::from(settings.ts_offset) + i128::from(self.delay_ns()) - unwanted;
        sink.set_ts_offset(offset.clamp(i64::MIN.into(), i64::MAX.into()) as i64);
    }

    /// Decides whether the base class waits for the time of each frame. Returns the latency for readers, that is, how
    /// many nanoseconds after its own time a frame leaves.
    ///
    /// The frames of a live upstream leave at once. With `sync`, the base class would block the streaming thread until
    /// the latency of each frame is over. So the element's `sync` is passed to the base class only if upstream is not
    /// live.
    pub(super) fn update_latency(&self, sink: &gst_base::BaseSink, settings: PacingSettings) -> u64 {
        let mut query = gst::query::Latency::new();
        let (live, min) = if sink.sink_pad().peer_query(&mut query) {
            let (live, min, _) = query.result();
            (live, min)
        } else {
            (false, gst::ClockTime::ZERO)
        };
        self.upstream_is_live.store(live, Ordering::Relaxed);
        sink.set_sync(settings.sync && !live);
        self.apply(sink, settings);
        // The values are read as properties, because the getters of the bindings panic if a user has set the value
        // "none".
        let nanoseconds = |property: &str| sink.property::<u64>(property);
        let latency_ns = if live {
            min.nseconds().saturating_add(nanoseconds("processing-deadline"))
        } else if settings.sync {
            let latency = self.pipeline_latency_ns(sink) + i128::from(settings.ts_offset);
            let latency = latency - i128::from(nanoseconds("render-delay"));
            u64::try_from(latency.max(0)).unwrap_or(u64::MAX)
        } else {
            0
        };
        gst::debug!(
            CAT,
            obj = sink,
            "upstream is live: {live}; frames leave {latency_ns} ns after their time"
        );
        latency_ns
    }
}
