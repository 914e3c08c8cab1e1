//! A producer with GStreamer.

use std::collections::BTreeMap;

use gst::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    order::Order,
    pace::{Pace, Usage},
    source::Source,
    talk,
};

/// What a producer says of the counted frames.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Produced {
    /// Of one frame.
    pub usage: Usage,
    /// The processor time of the one thing that a limit is about, of one frame.
    pub core_us: Option<f64>,
    /// What the element counts, from the first frame on.
    pub counts: Counts,
}

pub type Counts = BTreeMap<String, u64>;

pub fn run(order: &Order) -> Result<(), String> {
    let pipeline = gst::Pipeline::new();
    let bus = pipeline.bus().ok_or("a pipeline without a bus")?;
    let told = talk::listen(|| {});
    let at_end = {
        let pipeline = pipeline.downgrade();
        move |usage: Usage| {
            if let Some(pipeline) = pipeline.upgrade() {
                let produced = Produced {
                    usage,
                    core_us: None,
                    counts: counts(&pipeline),
                };
                let _ = talk::say_result(&produced);
            }
        }
    };
    let source = Source::new(order, Pace::new(order, told, at_end))?;
    let sink = gst::parse::bin_from_description(&order.transport.sink(order.case, &order.place), true)
        .map_err(|error| error.to_string())?;
    pipeline
        .add_many([source.upcast_ref::<gst::Element>(), sink.upcast_ref()])
        .and_then(|()| source.link(&sink))
        .map_err(|error| error.to_string())?;
    let played = pipeline.set_state(gst::State::Playing);
    if played.is_ok() {
        talk::say(&format!("{} {}", talk::READY, port(&pipeline)));
    }
    let outcome = wait_for_end(&bus, played.is_ok());
    let stopped = pipeline.set_state(gst::State::Null);
    outcome?;
    stopped.map(|_| ()).map_err(|error| error.to_string())
}

/// Until the stream's end, an error, or an application's message.
pub fn wait_for_end(bus: &gst::Bus, started: bool) -> Result<(), String> {
    let types = [
        gst::MessageType::Eos,
        gst::MessageType::Error,
        gst::MessageType::Application,
    ];
    let timeout = if started {
        gst::ClockTime::NONE
    } else {
        Some(gst::ClockTime::SECOND)
    };
    let message = bus.timed_pop_filtered(timeout, &types);
    match message.as_ref().map(|message| message.view()) {
        Some(gst::MessageView::Error(error)) => Err(format!(
            "{}: {} ({})",
            error.src().map(|src| src.name()).unwrap_or_default(),
            error.error(),
            error.debug().unwrap_or_default()
        )),
        Some(_) => Ok(()),
        None => Err("the pipeline does not start".into()),
    }
}

/// Where its sink listens, if it does.
fn port(pipeline: &gst::Pipeline) -> i32 {
    pipeline
        .iterate_recurse()
        .into_iter()
        .flatten()
        .find(|element| element.has_property("current-port"))
        .map_or(0, |element| element.property("current-port"))
}

/// What the element that has statistics counts.
pub fn counts(pipeline: &gst::Pipeline) -> Counts {
    let element = pipeline
        .iterate_recurse()
        .into_iter()
        .flatten()
        .find(|element| element.has_property("channel-stats"));
    let Some(stats) = element.and_then(|element| element.property::<Option<gst::Structure>>("channel-stats")) else {
        return Counts::new();
    };
    stats
        .iter()
        .filter_map(|(name, value)| {
            let number = value.get::<u64>().or_else(|_| value.get::<u32>().map(u64::from));
            Some((name.to_string(), number.ok()?))
        })
        .collect()
}
