//! The channels of this machine, as devices: for programs that let their user choose a camera.

use gst::{glib, prelude::*};

mod device;
mod provider;

glib::wrapper! {
    /// A channel that has a writer.
    pub struct RsShmDevice(ObjectSubclass<device::RsShmDevice>) @extends gst::Device, gst::Object;
}

glib::wrapper! {
    /// Finds the channels.
    pub struct RsShmDeviceProvider(ObjectSubclass<provider::RsShmDeviceProvider>) @extends gst::DeviceProvider, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    // Behind those of real cameras: it is they who should be the default.
    gst::DeviceProvider::register(
        Some(plugin),
        "rsshmdeviceprovider",
        gst::Rank::MARGINAL,
        RsShmDeviceProvider::static_type(),
    )
}
