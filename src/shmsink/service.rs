// SPDX-License-Identifier: MIT OR Apache-2.0

//! The writer's service thread. It updates the number of readers, emits the signals, and restores the channel's files,
//! even when no frames flow.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use gst::{glib, prelude::*};
use gst_base::prelude::*;
use rsshm_channel::{Error, ServiceReport, ServiceThread, Writer};

use super::{CAT, keyframes::KeyframeForwarder, on_demand::OnDemand};
use crate::{caps, codec::Names, error, events};

/// The longest time between two service passes.
const SERVICE_INTERVAL: Duration = Duration::from_millis(250);

/// The number of attached readers. All accesses are Relaxed, because no other data depends on its value.
#[derive(Debug, Default)]
pub(super) struct ClientCount(AtomicU32);

impl ClientCount {
    pub(super) fn get(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets the number of readers. If the number has changed, emits a notification of `num-clients` on `sink`.
    pub(super) fn set(&self, sink: &gst_base::BaseSink, count: u32) {
        if self.0.swap(count, Ordering::Relaxed) != count {
            sink.notify("num-clients");
        }
    }
}

/// The parts of the element to which the service thread reports.
pub(super) struct Peers {
    pub(super) clients: Arc<ClientCount>,
    pub(super) on_demand: Arc<OnDemand>,
    pub(super) keyframes: Arc<KeyframeForwarder>,
}

/// Starts the service thread of `writer`. The thread reports to `sink` and its parts.
pub(super) fn start(sink: &gst_base::BaseSink, writer: &Arc<Writer>, peers: Peers) -> std::io::Result<ServiceThread> {
    let mut reporter = Reporter {
        sink: sink.downgrade(),
        peers,
        names: Names::default(),
        last_error: None,
        has_warned_of_missed: false,
    };
    ServiceThread::spawn(Arc::clone(writer), SERVICE_INTERVAL, move |writer, result| {
        if !reporter.report(writer, result) {
            writer.stop_service();
        }
    })
}

/// Reports the results of service passes to the element.
struct Reporter {
    sink: glib::WeakRef<gst_base::BaseSink>,
    peers: Peers,
    /// The names of structures and fields that readers' messages have introduced.
    names: Names,
    /// The error of the last pass; `None` if the pass succeeded.
    last_error: Option<Error>,
    /// Whether a warning about frames that readers missed was posted.
    has_warned_of_missed: bool,
}

impl Reporter {
    /// Reports the result of one pass. Returns whether another pass is useful.
    fn report(&mut self, writer: &Writer, result: Result<ServiceReport, Error>) -> bool {
        let Some(sink) = self.sink.upgrade() else {
            return false;
        };
        match result {
            Ok(report) => {
                self.last_error = None;
                warn(&sink, writer, &report);
                self.warn_of_missed(&sink, writer, &report);
                self.update_clients(&sink, &report);
                self.send_upstream(&sink, &report);
                true
            }
            // Each pass tries again, but an error that repeats is reported only once.
            Err(error) if self.last_error.as_ref() == Some(&error) => true,
            Err(error) => {
                gst::error!(CAT, obj = sink, "{error}");
                sink.post_error_message(error::message(&error, gst::ResourceError::OpenWrite));
                // Another process now owns the channel's names, so this writer needs no more service. Its frames still
                // reach the readers that are attached.
                let is_lost = matches!(error, Error::Busy { .. });
                self.last_error = Some(error);
                !is_lost
            }
        }
    }

    /// Posts a warning when readers miss frames for the first time. In raw video, a reader that misses frames goes on with
    /// the next one, so no warning is needed there.
    fn warn_of_missed(&mut self, sink: &gst_base::BaseSink, writer: &Writer, report: &ServiceReport) {
        let missed = report.missed_by_readers;
        if missed == 0 {
            return;
        }
        gst::debug!(CAT, obj = sink, "readers missed {missed} frames");
        let is_raw = || {
            sink.sink_pad()
                .current_caps()
                .is_some_and(|caps| caps::raw_video(&caps).is_some())
        };
        if !self.has_warned_of_missed && !is_raw() {
            self.has_warned_of_missed = true;
            gst::element_warning!(
                sink,
                gst::ResourceError::Busy,
                (
                    "channel {}: readers were too slow and missed {missed} frames; missed-by-readers in channel-stats \
                     counts them, and lossless=true makes the writer wait",
                    writer.name()
                )
            );
        }
    }

    fn update_clients(&self, sink: &gst_base::BaseSink, report: &ServiceReport) {
        self.peers.clients.set(sink, report.reader_count);
        self.peers
            .on_demand
            .set_readers(report.reader_count, !report.connected.is_empty());
        for entry in &report.disconnected {
            sink.emit_by_name::<()>("client-disconnected", &[entry]);
        }
        for entry in &report.connected {
            sink.emit_by_name::<()>("client-connected", &[entry]);
        }
    }

    /// Sends the readers' keyframe requests and navigation events upstream. Nothing else from readers goes upstream,
    /// because no reader may disturb the writer.
    fn send_upstream(&mut self, sink: &gst_base::BaseSink, report: &ServiceReport) {
        let pad = sink.sink_pad();
        self.peers.keyframes.send_requests(sink, report);
        for message in &report.messages {
            if let Some(event) = events::navigation_event(message, &mut self.names) {
                pad.push_event(event);
            }
        }
    }
}

/// Posts a warning for each fault that another program caused in the channel.
fn warn(sink: &gst_base::BaseSink, writer: &Writer, report: &ServiceReport) {
    let warn = |what: &str| {
        gst::element_warning!(sink, gst::ResourceError::Failed, ("channel {}: {what}", writer.name()));
    };
    for entry in &report.evicted {
        warn(&format!(
            "the reader in entry {entry} held more frames than its quota; its pins no longer count"
        ));
    }
    if let Some(shortage) = &report.shortage {
        warn(&shortage.to_string());
    }
    if report.names_restored {
        warn("its files in shared memory were removed by another program, and were created again");
    }
    if report.repaired {
        warn("another program wrote into its segment; a new segment was created");
    }
    for fault in &report.semaphore_faults {
        warn(&fault.to_string());
    }
}
