// SPDX-License-Identifier: MIT OR Apache-2.0

//! The element `rsshmsink`.
//!
//! `imp` is the element: it owns the parts below and calls them; none of them knows `imp`.
//!
//! - `properties`: settings, property specifications, signals
//! - `negotiation`: the last answer about caps that upstream received, and the messages that follow from it
//! - `pacing`: when frames leave, and the latency that is announced to readers
//! - `pool`: the buffer pool that upstream draws from
//! - `stream`: the state of the current stream, from which frames and events get their descriptors
//! - `publish`: how a buffer gets into a slot
//! - `service`: the writer's service thread, and the reports on its passes
//! - `stats`: the counters of `channel-stats`

use std::sync::LazyLock;

use gst::{glib, prelude::*};

mod imp;
mod negotiation;
mod pacing;
mod pool;
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
