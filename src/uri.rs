// SPDX-License-Identifier: MIT OR Apache-2.0

//! The URIs of channels, which have the form `rsshm://NAME`.

use gst::{glib, prelude::*};
use rsshm_channel::ChannelName;

/// The URI protocols of both elements.
pub(crate) const PROTOCOLS: &[&str] = &["rsshm"];

/// The URI of the channel that the `channel` property of `element` names; `None` if the property is unset.
pub(crate) fn of_element(element: &impl IsA<gst::Element>) -> Option<String> {
    element.property::<Option<String>>("channel").as_deref().map(from_name)
}

/// Sets the `channel` property of `element` to the channel that `uri` names.
pub(crate) fn set_on_element(element: &impl IsA<gst::Element>, uri: &str) -> Result<(), glib::Error> {
    element.set_property("channel", to_name(uri)?);
    Ok(())
}

/// The URI of the channel `name`.
fn from_name(name: &str) -> String {
    format!("rsshm://{}", glib::uri_escape_string(name, None::<&str>, false))
}

/// The name of the channel that `uri` names.
fn to_name(uri: &str) -> Result<String, glib::Error> {
    // GLib's own function may return text that is not UTF-8, but the function's Rust binding assumes UTF-8.
    let name = ChannelName::text_of_uri(uri).ok_or_else(|| {
        glib::Error::new(
            gst::URIError::BadUri,
            &format!("{uri:?} is not of the form rsshm://NAME"),
        )
    })?;
    ChannelName::new(name.as_str())
        .map(|name| name.as_str().to_owned())
        .map_err(|error| glib::Error::new(gst::URIError::BadReference, &error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_round_trips_through_uri() {
        for name in ["cam0", "a b", "50%", "ünï", "a?b#c"] {
            assert_eq!(to_name(&from_name(name)).unwrap(), name);
        }
    }

    #[test]
    fn bad_uri_is_refused() {
        for uri in [
            "rsshm:cam0",
            "rsshm://",
            "shm://cam0",
            "rsshm://a%2Fb",
            "rsshm://sem.x",
            "rsshm://%ff",
            "rsshm://a%c3",
            "rsshm://a%00",
            "rsshm://a%zz",
            "rsshm://a%+1",
            "rsshm://a%4",
        ] {
            assert!(to_name(uri).is_err(), "{uri}");
        }
    }
}
