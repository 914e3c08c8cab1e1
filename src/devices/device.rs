//! One channel as a device.

use std::sync::OnceLock;

use gst::{glib, subclass::prelude::*};

use super::provider::CAT;

#[derive(Default)]
pub struct RsShmDevice {
    channel: OnceLock<String>,
}

impl super::RsShmDevice {
    /// The device of `channel`, whose frames have `caps` and come from the process `writer`.
    pub(super) fn new(channel: &str, caps: &gst::Caps, writer: u32) -> Self {
        let properties = gst::Structure::builder("rsshm-properties")
            .field("device.api", "rsshm")
            .field("rsshm.channel", channel)
            .field("rsshm.writer-pid", writer)
            .build();
        let device: Self = glib::Object::builder()
            .property("display-name", channel)
            .property("device-class", class_of(caps))
            .property("caps", caps)
            .property("properties", properties)
            .build();
        let _ = device.imp().channel.set(channel.to_owned());
        device
    }
}

fn class_of(caps: &gst::Caps) -> &'static str {
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

// Nothing here may panic: these functions are called by C code that a panic would end with the whole program.
impl DeviceImpl for RsShmDevice {
    fn create_element(&self, name: Option<&str>) -> Result<gst::Element, gst::LoggableError> {
        gst::ElementFactory::make("rsshmsrc")
            .name_if_some(name)
            .property("channel", self.channel.get())
            .build()
            .map_err(|error| gst::loggable_error!(CAT, "{error}"))
    }
}
