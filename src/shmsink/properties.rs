// SPDX-License-Identifier: MIT OR Apache-2.0

//! The sink's settings, properties and signals.

use std::{sync::LazyLock, time::Duration};

use gst::{glib, prelude::*};
use rsshm_channel::WriterOptions;

use super::{Descriptors, pacing::PacingSettings};
use crate::element;

/// The values that a user sets.
#[derive(Clone, Debug)]
pub(super) struct Settings {
    pub(super) channel: Option<String>,
    pub(super) writer: WriterOptions,
    pub(super) wait_for_connection: bool,
    pub(super) on_demand: bool,
    pub(super) descriptors: Descriptors,
    idle_timeout_seconds: u32,
    pub(super) pacing: PacingSettings,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            channel: None,
            writer: WriterOptions::default(),
            wait_for_connection: false,
            on_demand: false,
            descriptors: Descriptors::default(),
            idle_timeout_seconds: 5,
            pacing: PacingSettings::default(),
        }
    }
}

/// The time at which a change of a property takes effect.
pub(super) enum Effect {
    /// At the next start.
    AtStart,
    /// At the next frame.
    AtOnce,
    /// At once, after an update of the pacing.
    Pacing,
}

impl Settings {
    /// How long nobody reads before the source is closed.
    pub(super) fn idle_timeout(&self) -> Duration {
        Duration::from_secs(self.idle_timeout_seconds.into())
    }

    /// Stores the new value of a property. The value always has the type that the property's specification declares.
    pub(super) fn set(&mut self, property: &str, value: &glib::Value) -> Effect {
        match property {
            "channel" => self.channel = value.get().unwrap_or_default(),
            "perms" => self.writer.perms = value.get().unwrap_or_default(),
            "max-slots" => self.writer.max_slots = value.get().unwrap_or_default(),
            "lossless" => self.writer.lossless = value.get().unwrap_or_default(),
            "navigation" => self.writer.accept_messages = value.get().unwrap_or_default(),
            "on-demand" => self.on_demand = value.get().unwrap_or_default(),
            "idle-timeout" => self.idle_timeout_seconds = value.get().unwrap_or_default(),
            "descriptors" => {
                self.descriptors = value.get().unwrap_or_default();
                return Effect::AtOnce;
            }
            "wait-for-connection" => {
                self.wait_for_connection = value.get().unwrap_or_default();
                return Effect::AtOnce;
            }
            "sync" => {
                self.pacing.sync = value.get().unwrap_or_default();
                return Effect::Pacing;
            }
            "ts-offset" => {
                self.pacing.ts_offset = value.get().unwrap_or_default();
                return Effect::Pacing;
            }
            _ => {}
        }
        Effect::AtStart
    }

    /// The value of a property that a user can set.
    pub(super) fn get(&self, property: &str) -> Option<glib::Value> {
        Some(match property {
            "channel" => self.channel.to_value(),
            "perms" => self.writer.perms.to_value(),
            "max-slots" => self.writer.max_slots.to_value(),
            "lossless" => self.writer.lossless.to_value(),
            "navigation" => self.writer.accept_messages.to_value(),
            "on-demand" => self.on_demand.to_value(),
            "descriptors" => self.descriptors.to_value(),
            "idle-timeout" => self.idle_timeout_seconds.to_value(),
            "wait-for-connection" => self.wait_for_connection.to_value(),
            "sync" => self.pacing.sync.to_value(),
            "ts-offset" => self.pacing.ts_offset.to_value(),
            _ => return None,
        })
    }
}

pub(super) static PROPERTIES: LazyLock<Vec<glib::ParamSpec>> = LazyLock::new(|| {
    let default = Settings::default();
    vec![
        /**
         * GstRsShmSink:channel:
         *
         * The name of the channel. It has 1 to 250 bytes, contains no slash, and does not begin with "sem." or "fds.". If this
         * property is unset, the element's name is used.
         *
         * The channel "cam0" consists of the shared memory object "/cam0" and the named semaphore "/cam0".
         *
         * Since: 0.1
         */
        element::channel_property(),
        /**
         * GstRsShmSink:perms:
         *
         * The file mode of the segment. A number with a leading zero, such as 0644, is octal.
         *
         * Users with read permission may observe: their programs copy each frame and write nothing. Users with read and
         * write permission may attach as readers. Give write permission only to trusted users, because a program that
         * can write to the segment can corrupt frames.
         *
         * Since: 0.1
         */
        glib::ParamSpecUInt::builder("perms")
            .nick("Permissions")
            .blurb(
                "Mode of the segment, octal if written as 0600 (the default): read permission lets other users observe, \
                 read and write permission lets them attach fully",
            )
            .maximum(0o777)
            .default_value(default.writer.perms)
            .mutable_ready()
            .build(),
        /**
         * GstRsShmSink:max-slots:
         *
         * The maximum number of frame slots, 3 to 64. Each slot takes memory only when it is first needed.
         * With 0, the maximum is the number of slots that fit in half of what /dev/shm and the memory limits of the
         * control group leave.
         *
         * Since: 0.1
         */
        glib::ParamSpecUInt::builder("max-slots")
            .nick("Maximum slots")
            .blurb("Maximum number of frame slots, 3 to 64; each takes memory only when first needed (0 = automatic)")
            .maximum(64)
            .default_value(default.writer.max_slots)
            .mutable_ready()
            .build(),
        /**
         * GstRsShmSink:lossless:
         *
         * Whether the writer waits for the slowest attached reader, so that no attached reader misses a frame. The
         * writer does not wait for observers.
         *
         * If this property is false, the writer never waits for readers, and a slow reader misses frames.
         *
         * Since: 0.1
         */
        glib::ParamSpecBoolean::builder("lossless")
            .nick("Lossless")
            .blurb("Wait for the slowest attached reader, so that it misses no frame")
            .default_value(default.writer.lossless)
            .mutable_ready()
            .build(),
        /**
         * GstRsShmSink:navigation:
         *
         * Whether to send the readers' navigation events upstream. Navigation events are mouse and keyboard input in
         * the readers' windows.
         *
         * Since: 0.1
         */
        glib::ParamSpecBoolean::builder("navigation")
            .nick("Navigation")
            .blurb("Forward navigation events (mouse and keyboard) from the readers' windows upstream")
            .default_value(default.writer.accept_messages)
            .mutable_ready()
            .build(),
        /**
         * GstRsShmSink:wait-for-connection:
         *
         * Whether to block the stream until a reader is attached. Observers do not count.
         *
         * A file that waited for its first reader plays on from the frame at which it waited. The sink publishes this
         * frame and all later ones with a delay.
         *
         * Since: 0.1
         */
        glib::ParamSpecBoolean::builder("wait-for-connection")
            .nick("Wait for a connection")
            .blurb("Block the stream until a reader is attached; observers do not count")
            .default_value(default.wait_for_connection)
            .mutable_playing()
            .build(),
        /**
         * GstRsShmSink:on-demand:
         *
         * Whether the source is open only while somebody reads. When no reader has been attached for `idle-timeout`,
         * the sink sets the live sources upstream of it to NULL: the device is closed, and its light goes out. The
         * channel stays. When a reader attaches, the sink gives the sources the state of the pipeline again. Observers
         * do not count.
         *
         * At the start, the source is open until the first frame has arrived, because the channel has no caps before.
         *
         * When the sources are closed or opened, the sink posts an element message `rsshm-on-demand`, with the fields
         * `channel` (string) and `active` (boolean). If the sources cannot be closed, a warning says why: the stream is
         * not live, a source feeds other sinks too, or the pads of a source come and go.
         *
         * Since: 0.1
         */
        glib::ParamSpecBoolean::builder("on-demand")
            .nick("On demand")
            .blurb("Open the source, for example a camera, only while a reader is attached; observers do not count")
            .default_value(default.on_demand)
            .mutable_ready()
            .build(),
        /**
         * GstRsShmSink:idle-timeout:
         *
         * With `on-demand`, for how many seconds nobody reads before the source is closed.
         *
         * Since: 0.1
         */
        glib::ParamSpecUInt::builder("idle-timeout")
            .nick("Idle timeout")
            .blurb("With on-demand: seconds without a reader until the source is closed")
            .default_value(default.idle_timeout_seconds)
            .mutable_ready()
            .build(),
        /**
         * GstRsShmSink:descriptors:
         *
         * Which frames are passed on by descriptor. Such a frame is not copied: it stays in its dmabuf or memfd, and
         * readers get the descriptor of the memory once. A buffer goes back upstream as soon as nobody reads its frame.
         *
         * With `auto`, frames are copied if `perms` lets users observe who may not attach, because they could not read the
         * memory.
         *
         * Since: 0.1
         */
        glib::ParamSpecEnum::builder_with_default("descriptors", default.descriptors)
            .nick("Descriptors")
            .blurb("Which frames in dmabufs and memfds are passed on by descriptor, without a copy")
            .mutable_playing()
            .build(),
        glib::ParamSpecOverride::for_class::<gst_base::BaseSink>("sync"),
        glib::ParamSpecOverride::for_class::<gst_base::BaseSink>("ts-offset"),
        /**
         * GstRsShmSink:num-clients:
         *
         * The number of attached readers that are alive. Observers do not count. The number is updated within a second
         * after a change, even when no frames flow. A thread of the element emits the notifications of changes.
         *
         * Since: 0.1
         */
        glib::ParamSpecUInt::builder("num-clients")
            .nick("Number of clients")
            .blurb("Number of attached readers that are alive, without observers")
            .read_only()
            .build(),
        /**
         * GstRsShmSink:channel-stats:
         *
         * Counters since the element went to READY, in a structure with these fields:
         *
         * - `frames-published`: all frames published
         * - `frames-in-place`: frames that upstream drew into shared memory
         * - `frames-by-descriptor`: frames that stay in the memory of upstream
         * - `frames-copied`: frames copied into shared memory; the sum of the next three fields
         * - `copied-foreign`: frames copied because upstream allocated the memory itself
         * - `copied-repeated`: frames copied because the same buffer came again
         * - `copied-no-slot`: frames copied because no slot was free when upstream asked for a buffer
         * - `frames-dropped`: frames not published, because readers held every slot
         * - `missed-by-readers`: frames that were overwritten before a reader took them, once for each reader
         * - `metas-left-out`: metas that the channel could not carry
         * - `metas-left-out-by-name`: a structure with a field for each meta that was left out: its name and how often
         * - `events-left-out`: tags and events that the channel could not carry
         * - `slots`: slots that have memory
         * - `slots-in-use`: slots that hold a frame or are being drawn into
         * - `max-slots`: slots that the channel may have; with an automatic number, as many as memory allows
         * - `bytes`: size of the segment's file
         * - `semaphore-timeouts`: the number of publishes that went on without the semaphore, because another process
         *   held it too long
         * - `readers-evicted`: readers whose pins no longer count, because they exceeded their quota
         * - `space-limit`, `space-total`, `space-free`: what limits the memory for slots, such as `/dev/shm` or the memory
         *   limit of a control group; this limit in bytes; and how many bytes it leaves for further slots
         *
         * Since: 0.1
         */
        element::channel_stats_property(
            "Counters: frames-published, frames-in-place, frames-by-descriptor, frames-copied (copied-foreign, copied-repeated, copied-no-slot), \
             frames-dropped, missed-by-readers, metas-left-out, metas-left-out-by-name, events-left-out, slots, slots-in-use, max-slots, bytes, \
             semaphore-timeouts, readers-evicted, space-limit, space-total, space-free",
        ),
    ]
});

pub(super) static SIGNALS: LazyLock<Vec<glib::subclass::Signal>> = LazyLock::new(|| {
    let signal = |name| {
        glib::subclass::Signal::builder(name)
            .param_types([u32::static_type()])
            .build()
    };
    vec![
        /**
         * GstRsShmSink::client-connected:
         * @entry: index of the reader's entry in the reader table
         *
         * Emitted when a reader has attached to the channel. Observers cause no signal.
         *
         * A thread of the element emits the signal. A handler runs in this thread, so it must not change the state of
         * the pipeline itself.
         *
         * Since: 0.1
         */
        signal("client-connected"),
        /**
         * GstRsShmSink::client-disconnected:
         * @entry: index of the reader's entry in the reader table
         *
         * Emitted when a reader has left the channel, or when the process of a reader has ended. A handler of this
         * signal too must not change the state of the pipeline itself.
         *
         * Since: 0.1
         */
        signal("client-disconnected"),
    ]
});
