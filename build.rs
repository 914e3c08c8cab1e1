//! Sets the commit and the release date of the plugin, which `gst-inspect-1.0` shows.

fn main() {
    gst_plugin_version_helper::info()
}
