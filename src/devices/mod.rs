// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lists the channels of this machine as devices, for programs that let the user choose a camera.

use std::sync::LazyLock;

use gst::{glib, prelude::*};

mod device;
mod provider;

static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rsshmdeviceprovider",
        gst::DebugColorFlags::empty(),
        Some("Shared memory channels as devices"),
    )
});

glib::wrapper! {
    /// The device that stands for a channel with a writer.
    pub struct RsShmDevice(ObjectSubclass<device::RsShmDevice>) @extends gst::Device, gst::Object;
}

glib::wrapper! {
    /// Lists the channels that have a writer.
    pub struct RsShmDeviceProvider(ObjectSubclass<provider::RsShmDeviceProvider>) @extends gst::DeviceProvider, gst::Object;
}

pub(crate) fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    // The provider ranks below the providers of real cameras, because a real camera should be the default device.
    gst::DeviceProvider::register(
        Some(plugin),
        "rsshmdeviceprovider",
        gst::Rank::MARGINAL,
        RsShmDeviceProvider::static_type(),
    )
}
