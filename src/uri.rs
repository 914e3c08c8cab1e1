//! The name of an element's channel, and `rsshm://NAME`.

use gst::glib;
use rsshm_channel::ChannelName;

/// The protocol of the elements' URIs.
pub(crate) const PROTOCOLS: &[&str] = &["rsshm"];

/// The channel of an element: its `channel` property or, when that is unset, its own name.
pub(crate) fn channel_name(property: Option<&str>, element_name: &str) -> Result<ChannelName, gst::ErrorMessage> {
    ChannelName::new(property.unwrap_or(element_name))
        .map_err(|error| crate::error::message(&error, gst::ResourceError::Settings))
}

/// The URI of the channel `name`.
pub(crate) fn from_name(name: &str) -> String {
    format!("rsshm://{}", glib::uri_escape_string(name, None::<&str>, false))
}

/// The channel that `uri` names.
pub(crate) fn to_name(uri: &str) -> Result<String, glib::Error> {
    let name = uri
        .strip_prefix("rsshm://")
        .map(|name| name.strip_suffix('/').unwrap_or(name))
        .and_then(unescape)
        .ok_or_else(|| {
            glib::Error::new(
                gst::URIError::BadUri,
                &format!("{uri:?} is not of the form rsshm://NAME"),
            )
        })?;
    ChannelName::new(name.as_str())
        .map(|name| name.as_str().to_owned())
        .map_err(|error| glib::Error::new(gst::URIError::BadReference, &error.to_string()))
}

/// `text` without its percent signs; `None` when they, or the bytes they stand for, make no sense. GLib's own function does
/// not look at what comes out, which the bindings then take for UTF-8.
fn unescape(text: &str) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_survive_the_way_through_a_uri() {
        for name in ["cam0", "a b", "50%", "ünï", "a?b#c"] {
            assert_eq!(to_name(&from_name(name)).unwrap(), name);
        }
    }

    #[test]
    fn bad_uris_are_refused() {
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
