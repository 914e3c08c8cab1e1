//! GStreamer elements that share the frames of one pipeline with any number of other programs.
//!
//! `rsshmsink` publishes frames, with their caps, into a named POSIX shared-memory segment; `rsshmsrc` reads them in any
//! number of unrelated pipelines. What travels between the two, and how, is in the crate `rsshm-channel`.

#![allow(missing_docs)] // plugin_define! makes public items without any
#![allow(unused_doc_comments)] // the blocks that the documentation tool reads stand where rustdoc has no place for them

/**
 * plugin-rsshm:
 *
 * One camera, many programs: frames in a named POSIX shared-memory segment.
 *
 * Since: plugins-rs-0.1
 */
use gst::glib;

mod caps;
mod codec;
mod devices;
mod error;
mod events;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod memory;
mod metas;
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
