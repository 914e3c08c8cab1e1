// SPDX-License-Identifier: MIT OR Apache-2.0

//! The parts of caps in the canonical form of [`canonical_caps`](crate::caps_text::canonical_caps).

/// The media type, the features and the fields of caps, also of caps that are not video.
///
/// # Examples
///
/// ```
/// use rsshm_channel::{caps_text::canonical_caps, video::CapsParts};
///
/// let caps = canonical_caps("audio/x-raw,format=S16LE,rate=48000").unwrap();
/// let parts = CapsParts::new(&caps);
/// assert_eq!((parts.name, parts.value("rate", "int")), ("audio/x-raw", Some("48000")));
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CapsParts<'a> {
    /// The media type, such as `video/x-raw`.
    pub name: &'a str,
    features: &'a str,
    fields: &'a str,
}

impl<'a> CapsParts<'a> {
    /// The parts of `caps`, which are in the canonical form. Of any other text, the parts may be wrong.
    pub fn new(caps: &'a str) -> Self {
        let (head, fields) = caps.split_at(end_of_part(caps));
        let (name, features) = match head.split_once('(') {
            Some((name, features)) => (name, features.trim_end_matches(')')),
            None => (head, ""),
        };
        Self { name, features, fields }
    }

    /// The caps features, such as `memory:DMABuf`.
    pub fn features(&self) -> impl Iterator<Item = &'a str> {
        self.features.split(", ").filter(|feature| !feature.is_empty())
    }

    /// The type and the value of a field. As in GStreamer, the last of several fields with the same name counts.
    pub fn field(&self, name: &str) -> Option<(&'a str, &'a str)> {
        let mut rest = self.fields;
        let mut found = None;
        while let Some(fields) = rest.strip_prefix(", ") {
            let (field, after) = fields.split_at(end_of_part(fields));
            rest = after;
            found = match field.split_once('=') {
                Some((field, value)) if field == name => Some(typed(value)),
                _ => found,
            };
        }
        found
    }

    /// The value of a field, if the field has the type `kind`.
    pub fn value(&self, name: &str, kind: &str) -> Option<&'a str> {
        self.field(name)
            .filter(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }
}

/// The type and the value of `(type)value`.
fn typed(value: &str) -> (&str, &str) {
    value
        .strip_prefix('(')
        .and_then(|typed| typed.split_once(')'))
        .unwrap_or(("", value))
}

/// The length of the text up to a comma that is neither in quotes nor in brackets.
fn end_of_part(text: &str) -> usize {
    let (mut depth, mut is_quoted, mut is_escaped) = (0_usize, false, false);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            _ if is_quoted => {}
            b'(' | b'<' | b'{' | b'[' => depth += 1,
            b')' | b'>' | b'}' | b']' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::caps_text::canonical_caps;

    #[test]
    fn fields_are_found_behind_nested_values() {
        let caps = "video/x-raw(memory:DMABuf, meta:GstVideoMeta), odd=\"a, width=(int)3\", list=<[a, width=1], 5>, \
                    width=7, format=NV12, width=9, rate=30/1";
        let caps = canonical_caps(caps).unwrap();
        let parts = CapsParts::new(&caps);
        assert_eq!(parts.name, "video/x-raw");
        assert!(parts.features().eq(["memory:DMABuf", "meta:GstVideoMeta"]));
        assert_eq!(parts.field("width"), Some(("int", "9")));
        assert_eq!(parts.value("format", "string"), Some("NV12"));
        assert_eq!(parts.value("format", "int"), None);
        assert_eq!(parts.value("rate", "fraction"), Some("30/1"));
        assert_eq!(parts.field("height"), None);
    }

    #[test]
    fn caps_without_fields_have_a_name() {
        let parts = CapsParts::new("video/x-raw");
        assert_eq!(
            (parts.name, parts.features().count(), parts.field("a")),
            ("video/x-raw", 0, None)
        );
    }
}
