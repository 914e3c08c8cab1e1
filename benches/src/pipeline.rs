// SPDX-License-Identifier: MIT OR Apache-2.0

//! Functions for the producers and consumers that are GStreamer pipelines.

use gst::prelude::*;

use crate::results::Counts;

/// Waits for the end of the stream, an error, or an application message. If `is_started` is false, it waits only a
/// second for the error that explains why.
pub fn wait_for_end(bus: &gst::Bus, is_started: bool) -> Result<(), String> {
    let types = [
        gst::MessageType::Eos,
        gst::MessageType::Error,
        gst::MessageType::Application,
    ];
    let timeout = if is_started {
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

/// The first element in the pipeline that has the property `property`.
pub fn element_with(pipeline: &gst::Pipeline, property: &str) -> Option<gst::Element> {
    pipeline
        .iterate_recurse()
        .into_iter()
        .flatten()
        .find(|element| element.has_property(property))
}

/// The integers in the property `channel-stats` of an element. Empty if no element has this property.
pub fn counts(pipeline: &gst::Pipeline) -> Counts {
    let element = element_with(pipeline, "channel-stats");
    let Some(stats) = element.and_then(|element| element.property::<Option<gst::Structure>>("channel-stats")) else {
        return Counts::new();
    };
    stats
        .iter()
        .filter_map(|(name, value)| {
            let count = value.get::<u64>().or_else(|_| value.get::<u32>().map(u64::from));
            Some((name.to_string(), count.ok()?))
        })
        .collect()
}
