// SPDX-License-Identifier: MIT OR Apache-2.0

//! Pacing, that is, the times at which frames leave the sink, and the latency that is announced to readers.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use gst::prelude::*;
use gst_base::prelude::*;

use super::CAT;

/// The settings of the user, which are the element's own `sync` and `ts-offset`. The properties of the base class with
/// these names are derived from them.
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
/// Accesses to both atomics are Relaxed, because no other data depends on their values. At a change, a frame may be
/// paced by the old or the new value.
#[derive(Debug, Default)]
pub(super) struct Pacing {
    upstream_is_live: AtomicBool,
    /// Nanoseconds by which frames leave after the time of their timestamps, because the stream waited for a reader.
    delay_ns: AtomicI64,
}

impl Pacing {
    /// Whether frames leave at once, because upstream is live.
    pub(super) fn upstream_is_live(&self) -> bool {
        self.upstream_is_live.load(Ordering::Relaxed)
    }

    /// Nanoseconds by which frames leave after the time of their timestamps.
    pub(super) fn delay_ns(&self) -> i64 {
        self.delay_ns.load(Ordering::Relaxed)
    }

    /// Sets the delay, and lets the base class wait accordingly.
    pub(super) fn set_delay(&self, sink: &gst_base::BaseSink, settings: PacingSettings, delay_ns: i64) {
        self.delay_ns.store(delay_ns, Ordering::Relaxed);
        self.apply(sink, settings);
    }

    /// Lets the base class wait according to the settings and the delay.
    pub(super) fn apply(&self, sink: &gst_base::BaseSink, settings: PacingSettings) {
        sink.set_ts_offset(settings.ts_offset.saturating_add(self.delay_ns()));
    }

    /// Decides whether the base class waits for the time of each frame. Returns the latency, in nanoseconds, after
    /// which readers can expect frames.
    ///
    /// The frames of a live upstream leave at once. The base class would hold each frame and the streaming thread until
    /// the latency of the frame is over. So the element's `sync` is passed to the base class only if upstream is not
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
        // The values are read as properties, because the getters of the bindings panic at the value "none", which a
        // user may set.
        let nanoseconds = |property: &str| sink.property::<u64>(property);
        let latency_ns = if live {
            min.nseconds().saturating_add(nanoseconds("processing-deadline"))
        } else if settings.sync {
            let latency = i128::from(sink.latency().nseconds()) + i128::from(settings.ts_offset);
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
