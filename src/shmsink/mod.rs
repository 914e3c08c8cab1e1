// SPDX-License-Identifier: MIT OR Apache-2.0

//! The element `rsshmsink`.
//!
//! The module `imp` has the element, which owns the parts in the modules below and calls them. None of these modules
//! uses `imp`.
//!
//! - `properties`: settings, property specifications, signals
//! - `negotiation`: decides which messages the sink posts about caps that it cannot carry
//! - `pacing`: decides when frames leave the sink, and which latency the sink announces to readers
//! - `on_demand`: closes the sources while nobody reads
//! - `pool`: the buffer pool that the sink offers to upstream
//! - `keyframes`: sends the readers' requests for keyframes upstream
//! - `stream`: the state of the current stream, which gives frames and events their times and flags
//! - `publish`: publishes a buffer, in place or as a copy in a slot
//! - `service`: the writer's service thread, which reports to the element
//! - `stats`: the counters of `channel-stats`

use std::sync::LazyLock;

use gst::{glib, prelude::*};

mod ending;
mod imp;
mod keyframes;
mod negotiation;
mod on_demand;
mod pacing;
mod pool;
mod preroll;
mod properties;
mod publish;
mod service;
mod stats;
mod stream;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rsshmsink",
        gst::DebugColorFlags::empty(),
        Some("Shared memory channel sink"),
    )
});

glib::wrapper! {
    /// Publishes the frames of a pipeline to any number of other programs.
    pub struct RsShmSink(ObjectSubclass<imp::RsShmSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object, @implements gst::URIHandler;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "rsshmsink", gst::Rank::NONE, RsShmSink::static_type())
}
