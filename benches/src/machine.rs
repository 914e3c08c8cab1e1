// SPDX-License-Identifier: MIT OR Apache-2.0

//! The machine and the time of a measurement.

use gst::glib;
use serde::{Deserialize, Serialize};

/// The machine, its software, and the time.
#[derive(Default, Serialize, Deserialize)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    pub kernel: String,
    pub gstreamer: String,
    pub rsshm: String,
    /// Load average before the benchmark. A value above 0 means that other programs disturb the measurement.
    pub load: f64,
    pub date: String,
    pub command_line: String,
}

impl Machine {
    pub fn current() -> Self {
        let kernel = nix::sys::utsname::uname().ok();
        let kernel = kernel
            .as_ref()
            .map(|name| name.release().to_string_lossy().into_owned());
        let date = glib::DateTime::now_utc()
            .and_then(|now| now.format("%Y-%m-%dT%H:%M:%SZ"))
            .ok();
        Self {
            processor: processor().unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel.unwrap_or_default(),
            gstreamer: gst::version_string().to_string(),
            rsshm: plugin().unwrap_or_default(),
            load: load().unwrap_or_default(),
            date: date.unwrap_or_default().to_string(),
            command_line: std::env::args().collect::<Vec<_>>().join(" "),
        }
    }
}

fn processor() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn load() -> Option<f64> {
    let text = std::fs::read_to_string("/proc/loadavg").ok()?;
    text.split(' ').next()?.parse().ok()
}

/// Version, release date and path of the plugin.
fn plugin() -> Option<String> {
    let plugin = gst::Registry::get().find_plugin("rsshm")?;
    let file = plugin
        .filename()
        .map(|file| file.display().to_string())
        .unwrap_or_default();
    Some(format!(
        "{} {} {file}",
        plugin.version(),
        plugin.release_date_string().unwrap_or_default()
    ))
}
