// SPDX-License-Identifier: MIT OR Apache-2.0

//! A consumer that is a GStreamer pipeline. It checks every buffer and measures when the buffer arrives.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use gst::prelude::*;

use crate::{
    check::FrameChecker,
    frame, ipc,
    job::{Job, Sabotage},
    pace::now_ns,
    pipeline::{counts, wait_for_end},
    results::{ConsumerReport, Counts, FirstFrame},
};

/// The progress of a consumer after a buffer. `R` is its report.
pub enum Progress<R> {
    /// This was the first buffer. It was sent at this time of CLOCK_MONOTONIC.
    First {
        sent_ns: u64,
    },
    Continue,
    /// All buffers that count have been sent.
    Complete(R),
}

/// The report of a consumer.
pub trait ConsumerResult: serde::Serialize {
    /// Adds the counts of the transport's source.
    fn set_counts(&mut self, counts: Counts);
}

impl ConsumerResult for ConsumerReport {
    fn set_counts(&mut self, counts: Counts) {
        self.counts = counts;
    }
}

/// The reason why the consumer failed.
type FailureReason = Arc<Mutex<Option<String>>>;

pub fn run(job: &Job) -> Result<(), String> {
    let mut checker = FrameChecker::new(job);
    let (size, reading) = (job.case.size.bytes(), job.case.reading);
    receive_all(
        &job.transport.source(job.case.is_paced(), &job.endpoint, &job.caps()),
        job.sabotage == Some(Sabotage::Hang),
        move |bytes, now_ns| checker.receive(frame::read(bytes, size, reading)?, now_ns),
    )
}

/// Runs a pipeline that begins with the elements `source`, until the parent process requests the end. `check` gets the
/// bytes of each buffer and the time of its arrival. If `hangs` is set, the consumer does not send its report.
pub fn receive_all<R: ConsumerResult + 'static>(
    source: &str,
    hangs: bool,
    check: impl FnMut(&[u8], u64) -> Result<Progress<R>, String> + Send + 'static,
) -> Result<(), String> {
    let description = format!("{source} ! fakesink name=end sync=false async=false enable-last-sample=false");
    let pipeline = gst::parse::launch(&description)
        .map_err(|error| error.to_string())?
        .downcast::<gst::Pipeline>()
        .map_err(|_| "the description is not a pipeline")?;
    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    ipc::receive_commands({
        let bus = bus.clone();
        move || {
            let _ = bus.post(gst::message::Application::new(gst::Structure::new_empty("stop")));
        }
    });
    let failure = FailureReason::default();
    let began_ns = Arc::new(AtomicU64::new(0));
    let pad = pipeline
        .by_name("end")
        .and_then(|end| end.static_pad("sink"))
        .ok_or("the fakesink has no pad")?;
    pad.add_probe(
        gst::PadProbeType::BUFFER,
        probe(hangs, check, &began_ns, &pipeline, &bus, &failure),
    );
    let started = pipeline.set_state(gst::State::Playing);
    // Partner: the load in `probe`.
    began_ns.store(now_ns(), Ordering::Relaxed);
    let outcome = wait_for_end(&bus, started.is_ok());
    let _ = pipeline.set_state(gst::State::Null);
    match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(failure) => Err(failure),
        None => outcome,
    }
}

/// The pad probe that checks each buffer.
fn probe<R: ConsumerResult, F: FnMut(&[u8], u64) -> Result<Progress<R>, String> + Send + 'static>(
    hangs: bool,
    check: F,
    began_ns: &Arc<AtomicU64>,
    pipeline: &gst::Pipeline,
    bus: &gst::Bus,
    failure: &FailureReason,
) -> impl Fn(&gst::Pad, &mut gst::PadProbeInfo) -> gst::PadProbeReturn + Send + Sync + use<R, F> {
    let began_ns = Arc::clone(began_ns);
    // `None` after the report and after a failure.
    let check = Mutex::new(Some(check));
    let (pipeline, bus, failure) = (pipeline.downgrade(), bus.clone(), Arc::clone(failure));
    move |_, info| {
        let now_ns = now_ns();
        let mut check = check.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(buffer), Some(current)) = (info.buffer(), check.as_mut()) else {
            return gst::PadProbeReturn::Ok;
        };
        let progress = buffer
            .map_readable()
            .map_err(|_| "a buffer is not readable".to_owned())
            .and_then(|map| current(&map, now_ns));
        match progress {
            Ok(Progress::First { sent_ns }) => ipc::send_first(FirstFrame {
                // Relaxed: no other data depends on the time. If the pipeline has not begun yet, the frame arrives
                // at the beginning.
                began_ns: match began_ns.load(Ordering::Relaxed) {
                    0 => now_ns,
                    began_ns => began_ns,
                },
                sent_ns,
                arrived_ns: now_ns,
            }),
            Ok(Progress::Continue) => {}
            Ok(Progress::Complete(_)) if hangs => {}
            Ok(Progress::Complete(mut report)) => {
                *check = None;
                report.set_counts(pipeline.upgrade().as_ref().map(counts).unwrap_or_default());
                if let Err(error) = ipc::send_result(&report) {
                    fail(&bus, &failure, error);
                }
            }
            Err(error) => {
                *check = None;
                fail(&bus, &failure, error);
            }
        }
        gst::PadProbeReturn::Ok
    }
}

/// Stores `reason`, and makes the consumer's pipeline end.
fn fail(bus: &gst::Bus, failure: &FailureReason, reason: String) {
    *failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason);
    let message = gst::message::Application::builder(gst::Structure::new_empty("failed"));
    let _ = bus.post(message.build());
}
