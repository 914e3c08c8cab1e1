// SPDX-License-Identifier: MIT OR Apache-2.0

//! GStreamer elements that share the frames of one pipeline with any number of other programs.
//!
//! `rsshmsink` publishes frames, with their caps, on a named channel in POSIX shared memory. `rsshmsrc` reads these
//! frames in any number of unrelated pipelines. The crate `rsshm-channel` defines the format and the protocol of the
//! channel.

// Nothing that a peer, a user or the system does may end the program (docs/STYLE.md).
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)
)]
#![allow(missing_docs)] // plugin_define! makes public items without documentation
#![allow(unused_doc_comments)] // some doc comments are for GStreamer's documentation tool, not for rustdoc

/**
 * plugin-rsshm:
 *
 * Shares the frames of one pipeline with any number of other programs through POSIX shared memory.
 *
 * Since: 0.1
 */
use gst::glib;

mod caps;
mod codec;
mod devices;
mod dmabuf;
mod element;
mod error;
mod events;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod left_out;
mod library;
mod memory;
mod metas;
mod pipeline;
mod planes;
mod shmsink;
mod shmsrc;
mod sync;
mod time;
mod uri;

fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    shmsink::register(plugin)?;
    shmsrc::register(plugin)?;
    devices::register(plugin)
}

gst::plugin_define!(
    rsshm,
    env!("CARGO_PKG_DESCRIPTION"),
    plugin_init,
    concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
    "MIT/X11",
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_NAME"),
    env!("CARGO_PKG_REPOSITORY"),
    env!("BUILD_REL_DATE")
);
