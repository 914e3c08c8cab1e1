// SPDX-License-Identifier: MIT OR Apache-2.0

//! Set-up and sample data for the tests of the codec and of the modules that use it.

/// Initialises GStreamer so that a warning of GLib or GStreamer aborts the test, because no input from a peer may cause
/// a warning.
pub(crate) fn init() {
    gst::init().unwrap();
    gst::glib::log_set_always_fatal(gst::glib::LogLevels::LEVEL_CRITICAL | gst::glib::LogLevels::LEVEL_WARNING);
}

/// A structure with a field of each plain type, and with texts that need quotes.
pub(crate) fn plain_structure(name: &str) -> gst::Structure {
    gst::init().unwrap();
    gst::Structure::builder(name)
        .field("bool", true)
        .field("int", i32::MIN)
        .field("uint", u32::MAX)
        .field("int64", i64::MIN)
        .field("uint64", u64::MAX)
        .field("float", 0.1f32)
        .field("double", 1.0f64 / 3.0)
        .field("byte", 200u8)
        .field("text", "a \"quoted\" \\ text; ä=(int)5, x")
        .field("word", "person")
        .field("empty", "")
        .field("none", None::<String>)
        .field("fraction", gst::Fraction::new(-30000, 1001))
        .field("mask", gst::Bitmask::new(0xff00_0000_0000_0001))
        .field("array", gst::Array::new([1i32, -2, 3]))
        .field("list", gst::List::new([0.5f64, 1e300]))
        .field("nested", gst::Array::new([gst::Array::new(["a b", "c"])]))
        .build()
}
