// SPDX-License-Identifier: MIT OR Apache-2.0

//! Properties that every run sets, by name, on each element that has them.

use gst::prelude::*;

/// Names and values. A value that an element does not take is left out.
///
/// These encode without delay and without a search for the best picture, and make two runs equal.
const PROPERTIES: [(&str, &str); 13] = [
    ("tune", "zerolatency"),
    ("speed-preset", "ultrafast"),
    ("cpu-used", "8"),
    ("deadline", "1"),
    ("lag-in-frames", "0"),
    ("usage-profile", "realtime"),
    ("threads", "1"),
    ("compliance", "experimental"),
    ("strict", "experimental"),
    ("ssrc", "1"),
    ("seqnum-offset", "1"),
    ("serial", "1"),
    ("bitexact", "true"),
];

/// Sets the properties on all elements of a pipeline.
pub fn apply(pipeline: &gst::Pipeline) {
    for element in pipeline.iterate_recurse().into_iter().flatten() {
        for (name, value) in PROPERTIES {
            let Some(spec) = element.find_property(name) else {
                continue;
            };
            if !spec.flags().contains(gst::glib::ParamFlags::WRITABLE) {
                continue;
            }
            if let Ok(value) = gst::glib::Value::deserialize(value, spec.value_type()) {
                element.set_property_from_value(name, &value);
            }
        }
    }
}
