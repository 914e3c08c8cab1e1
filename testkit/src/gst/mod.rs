// SPDX-License-Identifier: MIT OR Apache-2.0

//! GStreamer in tests: pipelines in this process and in other processes, sources of buffers, and checks of frames.

pub mod colour;
pub mod newer;
pub mod picture;
mod pipeline;
mod program;
mod recorder;
mod roundtrip;
pub mod sequence;
mod sink;
mod weston;
mod xvfb;

use std::sync::Once;

pub use pipeline::{Pipeline, error_kind};
pub use program::{command, launch, live_writer, plugin, role_command, role_registry, run_to_end};
pub use recorder::{Item, PlaneLayout, RecordedFrame, SourceRecorder, layout};
pub use roundtrip::Roundtrip;
pub use sink::{CopyCounts, LOSSLESS, SinkHarness, custom_event};
pub use weston::{Renderer, Weston};
pub use xvfb::{BARS, Picture, Xvfb};

/// The format that most tests use. Its frames are small, and their rate is 30 a second.
pub const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";

/// [`CAPS`] with the given frame rate.
pub fn caps_at(frames_per_second: u32) -> String {
    CAPS.replace("30/1", &format!("{frames_per_second}/1"))
}

/// Initialises GStreamer in this process and registers the plugin's elements.
///
/// After this call, GLib's warnings end the process.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gst::glib::log_set_always_fatal(gst::glib::LogLevels::LEVEL_CRITICAL | gst::glib::LogLevels::LEVEL_WARNING);
        gstrsshm::plugin_register_static().unwrap();
    });
}
