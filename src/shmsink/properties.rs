//! The sink's properties and signals.

use std::sync::LazyLock;

use gst::{glib, prelude::*};
use rsshm_channel::WriterOptions;

/// What a user sets.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) channel: Option<String>,
    pub(super) writer: WriterOptions,
    pub(super) wait_for_connection: bool,
    pub(super) sync: bool,
    pub(super) ts_offset: i64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            channel: None,
            writer: WriterOptions::default(),
            wait_for_connection: false,
            sync: true,
            ts_offset: 0,
        }
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    vec![
        glib::ParamSpecString::builder("channel")
            .nick("Channel")
            .blurb("Name of the channel (unset = the element's own name)")
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("perms")
            .nick("Permissions")
            .blurb(
                "Mode of the segment, in octal when written 0644: read permission lets others observe, \
                 read and write permission lets them attach fully",
            )
            .maximum(0o777)
            .default_value(default.writer.perms)
            .mutable_ready()
            .build(),
        glib::ParamSpecUInt::builder("max-slots")
            .nick("Maximum slots")
            .blurb("Frame slots at most, 3 to 64; each takes memory only when first needed (0 = automatic)")
            .maximum(64)
            .default_value(default.writer.max_slots)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("lossless")
            .nick("Lossless")
            .blurb("Wait for the slowest attached reader rather than let it miss a frame")
            .default_value(default.writer.lossless)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("navigation")
            .nick("Navigation")
            .blurb("Send upstream what users do with mouse and keys in the windows of readers")
            .default_value(default.writer.accept_messages)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("wait-for-connection")
            .nick("Wait for a connection")
            .blurb("Block the stream until a reader is attached")
            .default_value(default.wait_for_connection)
            .mutable_playing()
            .build(),
        glib::ParamSpecOverride::for_class::<gst_base::BaseSink>("sync"),
        glib::ParamSpecOverride::for_class::<gst_base::BaseSink>("ts-offset"),
        glib::ParamSpecUInt::builder("num-clients")
            .nick("Number of clients")
            .blurb("Readers that are attached and alive; observers do not count")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("channel-stats")
            .nick("Channel statistics")
            .blurb(
                "frames-published, frames-in-place, frames-copied (copied-foreign, copied-repeated, copied-no-slot), \
                 frames-dropped, metas-left-out, events-left-out, slots, slots-in-use, bytes, semaphore-timeouts, readers-evicted",
            )
            .read_only()
            .build(),
    ]
});

pub(super) static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
    ["client-connected", "client-disconnected"]
        .into_iter()
        .map(|name| {
            glib::subclass::Signal::builder(name)
                .param_types([u32::static_type()])
                .build()
        })
        .collect()
});
