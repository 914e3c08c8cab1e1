// SPDX-License-Identifier: MIT OR Apache-2.0

//! The source's settings and properties.

use std::{sync::LazyLock, time::Duration};

use gst::{glib, prelude::*};
use rsshm_channel::{ReadLimits, ReaderOptions};

use super::OnDisconnect;
use crate::element;

/// The values that a user sets.
#[derive(Clone, Debug, Default)]
pub(super) struct Settings {
    pub(super) channel: Option<String>,
    pub(super) reader: ReaderOptions,
    pub(super) stream: StreamSettings,
}

/// The settings that may change while frames flow. They are copied for each frame, so no setting here may need an
/// allocation.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamSettings {
    pub(super) limits: ReadLimits,
    pub(super) on_disconnect: OnDisconnect,
    pub(super) forward_eos: bool,
    /// The longest wait for a writer. If it is zero, the element waits forever.
    pub(super) connection_timeout: Duration,
    /// Whether raw video is converted if downstream does not take its format.
    pub(super) convert: bool,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            limits: ReadLimits::default().accepts_objects(true),
            on_disconnect: OnDisconnect::default(),
            forward_eos: true,
            connection_timeout: Duration::ZERO,
            convert: true,
        }
    }
}

impl Settings {
    /// Stores the new value of a property. The value always has the type that the property's specification declares.
    pub(super) fn set(&mut self, property: &str, value: &glib::Value) {
        match property {
            "channel" => self.channel = value.get().unwrap_or_default(),
            "max-buffers" => self.stream.limits.max_behind = value.get().unwrap_or_default(),
            "max-held-buffers" => self.stream.limits.max_held = value.get().unwrap_or_default(),
            "on-disconnect" => self.stream.on_disconnect = value.get().unwrap_or_default(),
            "forward-eos" => self.stream.forward_eos = value.get().unwrap_or_default(),
            "connection-timeout" => {
                let seconds: u32 = value.get().unwrap_or_default();
                self.stream.connection_timeout = Duration::from_secs(seconds.into());
            }
            "read-only" => self.reader.read_only = value.get().unwrap_or_default(),
            "convert" => self.stream.convert = value.get().unwrap_or_default(),
            _ => {}
        }
    }

    /// The value of a property that a user can set.
    pub(super) fn get(&self, property: &str) -> Option<glib::Value> {
        Some(match property {
            "channel" => self.channel.to_value(),
            "max-buffers" => self.stream.limits.max_behind.to_value(),
            "max-held-buffers" => self.stream.limits.max_held.to_value(),
            "on-disconnect" => self.stream.on_disconnect.to_value(),
            "forward-eos" => self.stream.forward_eos.to_value(),
            "connection-timeout" => (self.stream.connection_timeout.as_secs() as u32).to_value(),
            "read-only" => self.reader.read_only.to_value(),
            "convert" => self.stream.convert.to_value(),
            _ => return None,
        })
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    vec![
        /**
         * GstRsShmSrc:channel:
         *
         * The name of the channel. It has 1 to 250 bytes, contains no slash, and does not begin with "sem." or "fds.". If this
         * property is unset, the element's name is used.
         *
         * Since: 0.1
         */
        element::channel_property(),
        /**
         * GstRsShmSrc:max-buffers:
         *
         * The maximum number of frames that may wait. If more frames wait, the oldest are skipped. With 1, each buffer
         * is the newest frame. With 0, the limit is the number of frames that the channel keeps.
         *
         * Since: 0.1
         */
        glib::ParamSpecUInt::builder("max-buffers")
            .nick("Maximum buffers")
            .blurb("Frames that may wait before older ones are skipped (0 = as many as the channel keeps, 1 = always the newest)")
            .default_value(default.stream.limits.max_behind)
            .mutable_playing()
            .build(),
        /**
         * GstRsShmSrc:max-held-buffers:
         *
         * The maximum number of frames that downstream may hold in shared memory. Further frames are copied, so that a
         * long queue does not take all slots from the writer.
         *
         * Since: 0.1
         */
        glib::ParamSpecUInt::builder("max-held-buffers")
            .nick("Maximum held buffers")
            .blurb("Frames that downstream may hold in place; more are copied, so that a long queue does not starve the writer")
            .default_value(default.stream.limits.max_held)
            .mutable_playing()
            .build(),
        /**
         * GstRsShmSrc:on-disconnect:
         *
         * The reaction to a writer that goes away without an end of stream.
         *
         * Since: 0.1
         */
        glib::ParamSpecEnum::builder_with_default("on-disconnect", default.stream.on_disconnect)
            .nick("On disconnect")
            .blurb("What to do when the writer goes away without an end of stream")
            .mutable_playing()
            .build(),
        /**
         * GstRsShmSrc:forward-eos:
         *
         * Whether the element ends its stream after the last frame of the writer's stream. If this property is false,
         * the element waits for the next stream on the channel.
         *
         * Since: 0.1
         */
        glib::ParamSpecBoolean::builder("forward-eos")
            .nick("Forward EOS")
            .blurb("End this stream too when the writer's stream has ended, after its last frame")
            .default_value(default.stream.forward_eos)
            .mutable_playing()
            .build(),
        /**
         * GstRsShmSrc:connection-timeout:
         *
         * The number of seconds to wait for a writer before the element fails. With 0, the element waits forever.
         *
         * After 3 seconds without a writer, one INFO message lists the channels that exist.
         *
         * Since: 0.1
         */
        glib::ParamSpecUInt::builder("connection-timeout")
            .nick("Connection timeout")
            .blurb("Seconds to wait for a writer before failing (0 = wait forever)")
            .default_value(default.stream.connection_timeout.as_secs() as u32)
            .mutable_playing()
            .build(),
        /**
         * GstRsShmSrc:read-only:
         *
         * Whether the element only observes. An observer needs only read permission and writes nothing to the segment,
         * but it copies each frame. The writer neither waits for an observer nor counts it.
         *
         * If the permissions allow only reading, the element observes even if this property is false, and posts an INFO
         * message about it.
         *
         * Since: 0.1
         */
        glib::ParamSpecBoolean::builder("read-only")
            .nick("Read only")
            .blurb("Observe: read permission is enough and nothing is ever written, but each frame is copied")
            .default_value(default.reader.read_only)
            .mutable_ready()
            .build(),
        /**
         * GstRsShmSrc:convert:
         *
         * Whether raw video is converted if downstream does not take its format, but takes another raw format of the
         * same size. An INFO message says once that frames are converted. Nothing is converted if downstream takes the
         * format of the channel.
         *
         * Since: 0.1
         */
        glib::ParamSpecBoolean::builder("convert")
            .nick("Convert")
            .blurb("Convert raw video if downstream does not take its format, but takes another of the same size")
            .default_value(default.stream.convert)
            .mutable_playing()
            .build(),
        /**
         * GstRsShmSrc:connected:
         *
         * Whether the channel has a writer. The element emits a notification at each change.
         *
         * Since: 0.1
         */
        glib::ParamSpecBoolean::builder("connected")
            .nick("Connected")
            .blurb("Whether the channel has a writer")
            .read_only()
            .build(),
        /**
         * GstRsShmSrc:channel-stats:
         *
         * Counters since the element was started, in a structure with these fields:
         *
         * - `frames-received`: all frames received
         * - `frames-in-place`: frames that were passed on in shared memory, without a copy
         * - `frames-copied`: frames that were copied out of shared memory
         * - `frames-converted`: frames that were converted to a format that downstream takes
         * - `frames-missed`: frames that were skipped or were overwritten before this reader took them
         * - `events-missed`: events that were overwritten before this reader took them
         * - `writer-pid`: the process ID of the writer; 0 before the first writer
         * - `reconnects`: the number of times that the reader moved to another segment, whether of the same writer or
         *   of another writer
         * - `metas-refused`: metas that were not given to buffers, because what another program wrote is not valid
         * - `metas-unknown`: metas that were not given to buffers, because this program or its GStreamer does not know
         *   them
         *
         * Since: 0.1
         */
        element::channel_stats_property(
            "Counters: frames-received, frames-in-place, frames-copied, frames-converted, frames-missed, events-missed, \
             writer-pid, reconnects, metas-refused, metas-unknown",
        ),
    ]
});
