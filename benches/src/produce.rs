// SPDX-License-Identifier: MIT OR Apache-2.0

//! A producer that is a GStreamer pipeline.

use gst::prelude::*;

use crate::{
    ipc,
    job::Job,
    pace::{Pacer, Usage},
    pipeline::{counts, element_with, wait_for_end},
    results::ProducerReport,
    source::Source,
};

pub fn run(job: &Job) -> Result<(), String> {
    let pipeline = gst::Pipeline::new();
    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    let commands = ipc::receive_commands(|| {});
    let on_end = {
        let pipeline = pipeline.downgrade();
        move |usage: Usage| {
            if let Some(pipeline) = pipeline.upgrade() {
                let report = ProducerReport {
                    usage,
                    core_us: None,
                    counts: counts(&pipeline),
                };
                let _ = ipc::send_result(&report);
            }
        }
    };
    let source = Source::new(job, Pacer::new(job, commands, on_end))?;
    // 16 frames are enough for a few slow readers.
    let shm_size = job.case.size.bytes() * 16 + (1 << 20);
    let sink =
        gst::parse::bin_from_description(&job.transport.sink(job.case.is_paced(), shm_size, &job.endpoint), true)
            .map_err(|error| error.to_string())?;
    pipeline
        .add_many([source.upcast_ref::<gst::Element>(), sink.upcast_ref()])
        .and_then(|()| source.link(&sink))
        .map_err(|error| error.to_string())?;
    let started = pipeline.set_state(gst::State::Playing);
    if started.is_ok() {
        ipc::send(&format!("{} {}", ipc::READY, port(&pipeline)));
    }
    let outcome = wait_for_end(&bus, started.is_ok());
    let stopped = pipeline.set_state(gst::State::Null);
    outcome?;
    stopped.map(|_| ()).map_err(|error| error.to_string())
}

/// The port on which the sink listens. It is 0 if the sink does not listen.
fn port(pipeline: &gst::Pipeline) -> i32 {
    element_with(pipeline, "current-port").map_or(0, |element| element.property("current-port"))
}
