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
//! - `descriptors`: decides which frames go by descriptor
//! - `pool`: the buffer pool that the sink offers to upstream
//! - `keyframes`: sends the readers' requests for keyframes upstream
//! - `stream`: the state of the current stream, which gives frames and events their times and flags
//! - `publish`: publishes a buffer, in place or as a copy in a slot
//! - `service`: the writer's service thread, which reports to the element
//! - `stats`: the counters of `channel-stats`

use std::sync::LazyLock;

use gst::{glib, prelude::*};

mod descriptors;
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

/**
 * GstRsShmDescriptors:
 * @auto: if the memory has a descriptor, and all readers may have it
 * @never: copy such frames
 * @always: fail if a frame has no descriptor
 *
 * Which frames rsshmsink passes on by descriptor.
 *
 * Since: 0.1
 */
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRsShmDescriptors")]
pub enum Descriptors {
    /// If the memory has a descriptor, and all readers may have it.
    #[default]
    #[enum_value(
        name = "Auto: if the memory has a descriptor, and all readers may have it",
        nick = "auto"
    )]
    Auto,
    /// Copy such frames.
    #[enum_value(name = "Never: copy such frames", nick = "never")]
    Never,
    /// Fail if a frame has no descriptor.
    #[enum_value(name = "Always: fail if a frame has no descriptor", nick = "always")]
    Always,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    Descriptors::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "rsshmsink", gst::Rank::NONE, RsShmSink::static_type())
}
