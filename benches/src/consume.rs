// SPDX-License-Identifier: MIT OR Apache-2.0

//! A consumer that is a GStreamer pipeline. It checks every frame and measures the frame's latency.

use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;

use crate::{
    check::{FrameChecker, Progress},
    frame, ipc,
    job::{Job, Sabotage},
    pace::now_ns,
    pipeline::{counts, wait_for_end},
};

/// The reason why the consumer failed.
type FailureReason = Arc<Mutex<Option<String>>>;

pub fn run(job: &Job) -> Result<(), String> {
    let source = job.transport.source(&job.endpoint, &job.caps());
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
    let pad = pipeline
        .by_name("end")
        .and_then(|end| end.static_pad("sink"))
        .ok_or("the fakesink has no pad")?;
    pad.add_probe(gst::PadProbeType::BUFFER, probe(job, &pipeline, &bus, &failure));
    let started = pipeline.set_state(gst::State::Playing);
    let outcome = wait_for_end(&bus, started.is_ok());
    let _ = pipeline.set_state(gst::State::Null);
    match failure.lock().unwrap_or_else(PoisonError::into_inner).take() {
        Some(failure) => Err(failure),
        None => outcome,
    }
}

/// The pad probe that checks each frame.
fn probe(
    job: &Job,
    pipeline: &gst::Pipeline,
    bus: &gst::Bus,
    failure: &FailureReason,
) -> impl Fn(&gst::Pad, &mut gst::PadProbeInfo) -> gst::PadProbeReturn + use<> {
    let checker = Mutex::new(Some(FrameChecker::new(job)));
    let (size, hangs) = (job.case.size.bytes(), job.sabotage == Some(Sabotage::Hang));
    let (pipeline, bus, failure) = (pipeline.downgrade(), bus.clone(), Arc::clone(failure));
    move |_, info| {
        let now_ns = now_ns();
        let mut checker = checker.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(buffer), Some(current)) = (info.buffer(), checker.as_mut()) else {
            return gst::PadProbeReturn::Ok;
        };
        let progress = buffer
            .map_readable()
            .map_err(|_| "a frame is not readable".to_owned())
            .and_then(|map| frame::read_mark(&map, size))
            .and_then(|mark| current.receive(mark, now_ns));
        match progress {
            Ok(Progress::First) => ipc::send(ipc::FIRST),
            Ok(Progress::Continue) => {}
            Ok(Progress::Complete(_)) if hangs => {}
            Ok(Progress::Complete(mut report)) => {
                *checker = None;
                report.counts = pipeline.upgrade().as_ref().map(counts).unwrap_or_default();
                if let Err(error) = ipc::send_result(&report) {
                    fail(&bus, &failure, error);
                }
            }
            Err(error) => {
                *checker = None;
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
