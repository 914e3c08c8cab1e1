//! The source's properties.

use std::{sync::LazyLock, time::Duration};

use gst::{glib, prelude::*};
use rsshm_channel::{ReadLimits, ReaderOptions};

use super::OnDisconnect;

/// What a user sets.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) channel: Option<String>,
    pub(super) reader: ReaderOptions,
    pub(super) stream: StreamSettings,
}

/// Of these, what may change while frames flow. It is looked at with each frame, and so needs no allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamSettings {
    pub(super) limits: ReadLimits,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) forward_eos: bool,
    /// Zero: never.
    pub(super) connection_timeout: Duration,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            limits: ReadLimits::default(),
            on_disconnect: OnDisconnect::default(),
            forward_eos: true,
            connection_timeout: Duration::ZERO,
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
        glib::ParamSpecUInt::builder("max-buffers")
            .nick("Maximum buffers")
            .blurb("Frames that may wait before older ones are skipped (0 = as many as the channel keeps, 1 = always the newest)")
            .default_value(default.stream.limits.max_behind)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("max-held-buffers")
            .nick("Maximum held buffers")
            .blurb("Frames that downstream may hold in place; more are copied, so that a long queue does not starve the writer")
            .default_value(default.stream.limits.max_held)
            .mutable_playing()
            .build(),
        glib::ParamSpecEnum::builder_with_default("on-disconnect", default.stream.on_disconnect)
            .nick("On disconnect")
            .blurb("What to do when the writer goes away without an end of the stream")
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("forward-eos")
            .nick("Forward EOS")
            .blurb("The writer's end of stream, after its last frame, ends this stream too")
            .default_value(default.stream.forward_eos)
            .mutable_playing()
            .build(),
        glib::ParamSpecUInt::builder("connection-timeout")
            .nick("Connection timeout")
            .blurb("Fail when no writer shows up for so many seconds (0 = never)")
            .default_value(default.stream.connection_timeout.as_secs() as u32)
            .mutable_playing()
            .build(),
        glib::ParamSpecBoolean::builder("read-only")
            .nick("Read only")
            .blurb("Observe: needs read permission only and never writes to the segment, but copies each frame")
            .default_value(default.reader.read_only)
            .mutable_ready()
            .build(),
        glib::ParamSpecBoolean::builder("connected")
            .nick("Connected")
            .blurb("Whether the channel has a writer now")
            .read_only()
            .build(),
        glib::ParamSpecBoxed::builder::<gst::Structure>("channel-stats")
            .nick("Channel statistics")
            .blurb("frames-received, frames-in-place, frames-copied, frames-missed, events-missed, writer-pid, reconnects")
            .read_only()
            .build(),
    ]
});
