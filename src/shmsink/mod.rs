// SPDX-License-Identifier: MIT OR Apache-2.0

//! The element `rsshmsink`.
//!
//! `imp` is the element, which owns the parts below and calls them. None of the parts uses `imp`.
//!
//! - `properties`: settings, property specifications, signals
//! - `negotiation`: the last answer that upstream received about caps, and the messages that follow from it
//! - `pacing`: the times at which frames leave, and the latency that is announced to readers
//! - `pool`: the buffer pool that upstream draws from
//! - `stream`: the state of the current stream, from which frames and events get their descriptors
//! - `publish`: puts a buffer into a slot and publishes it
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
