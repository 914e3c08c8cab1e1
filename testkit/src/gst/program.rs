// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs GStreamer's own programs with the plugin that was built with the tests.

use std::{fmt::Display, path::PathBuf, process::Command, sync::Once};

use super::CAPS;
use crate::{Process, role};

/// The plugin in the directory of the test program.
///
/// `cargo test` rebuilds this plugin. It does not rebuild the plugin in `target/debug`.
pub fn plugin() -> PathBuf {
    let directory = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    let plugin = directory.join("libgstrsshm.so");
    assert!(plugin.exists(), "{} is missing", plugin.display());
    plugin
}

/// The command of a program whose GStreamer loads the plugin. GLib's warnings end the program.
pub fn command(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("GST_REGISTRY", plugin_directory().join("registry.bin"))
        .env("GST_REGISTRY_FORK", "no")
        .env("GST_PLUGIN_PATH", plugin_directory())
        .env("G_DEBUG", "fatal_warnings");
    command
}

/// Starts `gst-launch-1.0 PIPELINE`.
#[track_caller]
pub fn launch(pipeline: &str) -> Process {
    let mut command = command("gst-launch-1.0");
    command.arg("-q").args(pipeline.split_whitespace());
    Process::start(command)
}

/// Starts a program that publishes live frames in the format [`CAPS`].
#[track_caller]
pub fn live_writer(channel: impl Display) -> Process {
    launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
    ))
}

/// Runs `gst-launch-1.0 PIPELINE` to its end, and returns its output. The program must end without an error.
#[track_caller]
pub fn run_to_end(pipeline: &str) -> String {
    launch(pipeline).wait_ok()
}

/// The GStreamer registry of the roles' programs. They contain the plugin, so they do not share the registry of
/// [`command`].
pub fn role_registry() -> PathBuf {
    std::env::temp_dir().join("rsshm-test-registry-static.bin")
}

/// The command for a role that makes pipelines. GLib's warnings end the role's process.
pub fn role_command(role: &str, arguments: &[&str]) -> Command {
    let mut command = role::command(role, arguments);
    command
        .env("GST_REGISTRY", role_registry())
        .env("GST_REGISTRY_FORK", "no")
        .env("G_DEBUG", "fatal_warnings");
    command
}

/// A directory that contains only the plugin.
///
/// GStreamer searches the directories in GST_PLUGIN_PATH and their subdirectories. The directory of the test program
/// also contains other libraries.
fn plugin_directory() -> PathBuf {
    static ONCE: Once = Once::new();
    // The directory is below target/, so that each checkout of the repository has its own directory. The tests of two
    // checkouts may run at the same time.
    let directory = plugin().parent().unwrap().with_file_name("rsshm-test-plugin");
    ONCE.call_once(|| {
        std::fs::create_dir_all(&directory).unwrap();
        let link = directory.join("libgstrsshm.so");
        if std::fs::read_link(&link).ok() != Some(plugin()) {
            // The link is created under another name and then renamed, so that other tests never find an incomplete
            // or missing link.
            let staging = directory.join(format!(".{}", std::process::id()));
            let _ = std::fs::remove_file(&staging);
            std::os::unix::fs::symlink(plugin(), &staging).unwrap();
            std::fs::rename(&staging, &link).unwrap();
        }
    });
    directory
}
