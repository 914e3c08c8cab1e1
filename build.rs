// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sets the plugin's commit and release date, so that `gst-inspect-1.0` can show them.

fn main() {
    gst_plugin_version_helper::info()
}
