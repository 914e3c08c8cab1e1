// SPDX-License-Identifier: MIT OR Apache-2.0

//! The element `rsshmsrc`.
//!
//! The module `imp` has the element, which owns the parts in the modules below and calls them. None of these modules
//! uses `imp`.
//!
//! - `properties`: settings and property specifications
//! - `shared`: the data that the streaming thread shares with other threads
//! - `stream`: the streaming thread, which waits for frames, follows the channel's caps, and makes buffers
//! - `connection`: measures the time without a writer, and decides which action is due
//! - `absence`: fills the time without a writer with silence or GAP events
//! - `timing`, `timeline`: compute the timestamps of buffers
//! - `buffer`: turns frames into buffers
//! - `keyframes`: the requests for keyframes that came from downstream
//! - `convert`: converts raw video that downstream does not take in the channel's format
//! - `events`: passes on the events between frames, in both directions

use std::sync::LazyLock;

use gst::{glib, prelude::*};

mod absence;
mod buffer;
mod connection;
mod convert;
mod events;
mod headers;
mod imp;
mod keyframes;
mod properties;
mod shared;
mod stream;
mod timeline;
mod timing;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rsshmsrc",
        gst::DebugColorFlags::empty(),
        Some("Shared memory channel source"),
    )
});

glib::wrapper! {
    /// Reads the frames that another program publishes.
    pub struct RsShmSrc(ObjectSubclass<imp::RsShmSrc>)
        @extends gst_base::PushSrc, gst_base::BaseSrc, gst::Element, gst::Object, @implements gst::URIHandler;
}

/**
 * GstRsShmOnDisconnect:
 * @none: wait for the next writer
 * @eos: end the stream
 * @error: fail
 *
 * What rsshmsrc does when the writer goes away without an end of stream.
 *
 * Since: 0.1
 */
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, glib::Enum)]
#[enum_type(name = "GstRsShmOnDisconnect")]
pub enum OnDisconnect {
    /// Wait for the next writer.
    #[default]
    #[enum_value(name = "None: wait for the next writer", nick = "none")]
    None,
    /// End the stream.
    #[enum_value(name = "EOS: end the stream", nick = "eos")]
    Eos,
    /// Fail.
    #[enum_value(name = "Error: fail", nick = "error")]
    Error,
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    #[cfg(feature = "doc")]
    OnDisconnect::static_type().mark_as_plugin_api(gst::PluginAPIFlags::empty());
    gst::Element::register(Some(plugin), "rsshmsrc", gst::Rank::NONE, RsShmSrc::static_type())
}
