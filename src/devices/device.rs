// SPDX-License-Identifier: MIT OR Apache-2.0

//! The device that stands for one channel.

use std::sync::OnceLock;

use gst::{glib, subclass::prelude::*};

use super::CAT;

#[derive(Default)]
pub struct RsShmDevice {
    channel: OnceLock<String>,
}

impl super::RsShmDevice {
    /// The device of `channel`, whose frames have `caps` and come from the process `writer_pid`.
    pub(super) fn new(channel: &str, caps: &gst::Caps, writer_pid: u32) -> Self {
        let properties = gst::Structure::builder("rsshm-properties")
            .field("device.api", "rsshm")
            .field("rsshm.channel", channel)
            .field("rsshm.writer-pid", writer_pid)
            .build();
        let device: Self = glib::Object::builder()
            .property("display-name", channel)
            .property("device-class", device_class(caps))
            .property("caps", caps)
            .property("properties", properties)
            .build();
        let _ = device.imp().channel.set(channel.to_owned());
        device
    }
}

/// The device class for the media type of `caps`.
fn device_class(caps: &gst::Caps) -> &'static str {
    let media = caps.structure(0).map_or("", |structure| structure.name().as_str());
    match media.split_once('/') {
        Some(("video" | "image", _)) => "Video/Source",
        Some(("audio", _)) => "Audio/Source",
        _ => "Source",
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RsShmDevice {
    const NAME: &'static str = "GstRsShmDevice";
    type Type = super::RsShmDevice;
    type ParentType = gst::Device;
}

impl ObjectImpl for RsShmDevice {}
impl GstObjectImpl for RsShmDevice {}

// The functions in this block must not panic. C code calls them, so a panic in them aborts the whole program.
impl DeviceImpl for RsShmDevice {
    fn create_element(&self, name: Option<&str>) -> Result<gst::Element, gst::LoggableError> {
        gst::ElementFactory::make("rsshmsrc")
            .name_if_some(name)
            .property("channel", self.channel.get())
            .build()
            .map_err(|error| gst::loggable_error!(CAT, "{error}"))
    }
}
