// SPDX-License-Identifier: MIT OR Apache-2.0

//! The parts that `rsshmsink` and `rsshmsrc` have in common: properties, the name of the channel, and a pad that takes
//! any caps.

use gst::{glib, prelude::*};
use rsshm_channel::{ChannelName, Directory, Error};

use crate::error;

/// The specification of the `channel` property.
pub(crate) fn channel_property() -> glib::ParamSpec {
    glib::ParamSpecString::builder("channel")
        .nick("Channel")
        .blurb("Name of the channel (unset = the element's own name)")
        .mutable_ready()
        .build()
}

/// The specification of the `channel-stats` property. `blurb` lists the fields of the structure that is the property's
/// value.
pub(crate) fn channel_stats_property(blurb: &str) -> glib::ParamSpec {
    glib::ParamSpecBoxed::builder::<gst::Structure>("channel-stats")
        .nick("Channel statistics")
        .blurb(blurb)
        .read_only()
        .build()
}

/// The name of an element's channel: the `channel` property or, if this property is unset, the element's name. An error
/// says that the name is invalid, or that `RSSHM_DIR` names a directory that no channel can be in.
pub(crate) fn channel_name(property: Option<&str>, element_name: &str) -> Result<ChannelName, gst::ErrorMessage> {
    let name = ChannelName::new(property.unwrap_or(element_name))
        .and_then(|name| Directory::current().require().map(|()| name).map_err(Error::Directory));
    name.map_err(|error| error::message(&error, gst::ResourceError::Settings))
}

/// The template of an element's only pad.
///
/// The template's caps are ANY, because no list can name all caps that the channel takes. Nevertheless, the answer of
/// `rsshmsink` to a CAPS query is never ANY.
pub(crate) fn pad_template(direction: gst::PadDirection) -> Vec<gst::PadTemplate> {
    let name = match direction {
        gst::PadDirection::Sink => "sink",
        _ => "src",
    };
    gst::PadTemplate::new(name, direction, gst::PadPresence::Always, &gst::Caps::new_any())
        .into_iter()
        .collect()
}
