// SPDX-License-Identifier: MIT OR Apache-2.0

//! The media type, the features and the fields of caps.

use super::{canonical_caps, mistake::Mistake, strings::unquote};

/// The media type, the features and the fields of fixed caps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CapsParts {
    /// The media type, such as `video/x-raw`.
    pub media_type: String,
    /// The caps features, such as `memory:DMABuf`.
    pub features: Vec<String>,
    /// The name and the value of each field. A value has neither type nor quotes, but arrays, structures and caps are
    /// in the form of [`canonical_caps`]. As in GStreamer, the last of several fields with the same name counts.
    pub fields: Vec<(String, String)>,
}

/// The parts of the caps that `text` describes.
///
/// # Errors
/// [`Mistake`], as for [`canonical_caps`].
///
/// # Examples
/// ```
/// use rsshm_channel::caps_text::caps_parts;
///
/// let parts = caps_parts("image/jpeg,width=(i)0x40,title=\"a \\\"b\"").unwrap();
/// assert_eq!(parts.media_type, "image/jpeg");
/// let field = |name: &str, value: &str| (name.to_owned(), value.to_owned());
/// assert_eq!(parts.fields, [field("width", "64"), field("title", "a \"b")]);
/// ```
pub fn caps_parts(text: &str) -> Result<CapsParts, Mistake> {
    let canonical = canonical_caps(text)?;
    let parts = CanonicalParts::new(&canonical);
    let value = |value: &str| match typed(value) {
        // A string in the canonical form is always valid.
        ("string", string) if string.starts_with('"') => unquote(string).unwrap_or_default(),
        ("structure" | "GstCaps", _) => value.to_owned(),
        (_, plain) => plain.to_owned(),
    };
    Ok(CapsParts {
        media_type: parts.name.to_owned(),
        features: parts.features().map(str::to_owned).collect(),
        fields: parts
            .fields()
            .map(|(name, text)| (name.to_owned(), value(text)))
            .collect(),
    })
}

/// The parts of caps in the form of [`canonical_caps`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct CanonicalParts<'a> {
    /// The media type, such as `video/x-raw`.
    pub(crate) name: &'a str,
    features: &'a str,
    fields: &'a str,
}

impl<'a> CanonicalParts<'a> {
    /// The parts of `caps`, which are canonical.
    pub(crate) fn new(caps: &'a str) -> Self {
        let (head, fields) = caps.split_at(end_of_part(caps));
        let (name, features) = match head.split_once('(') {
            Some((name, features)) => (name, features.trim_end_matches(')')),
            None => (head, ""),
        };
        Self { name, features, fields }
    }

    /// The caps features, such as `memory:DMABuf`.
    pub(crate) fn features(&self) -> impl Iterator<Item = &'a str> {
        self.features.split(", ").filter(|feature| !feature.is_empty())
    }

    /// The name of each field, and its value with the type.
    fn fields(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let mut rest = self.fields;
        std::iter::from_fn(move || {
            let fields = rest.strip_prefix(", ")?;
            let (field, after) = fields.split_at(end_of_part(fields));
            rest = after;
            field.split_once('=')
        })
    }

    /// The type and the value of a field. As in GStreamer, the last of several fields with the same name counts.
    pub(crate) fn field(&self, name: &str) -> Option<(&'a str, &'a str)> {
        let found = self.fields().filter(|(field, _)| *field == name).last();
        found.map(|(_, value)| typed(value))
    }

    /// The value of a field, if the field has the type `kind`.
    pub(crate) fn value(&self, name: &str, kind: &str) -> Option<&'a str> {
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

    #[test]
    fn fields_are_found_behind_nested_values() {
        let caps = "video/x-raw(memory:DMABuf, meta:GstVideoMeta), odd=\"a, width=(int)3\", list=<[a, width=1], 5>, \
                    width=7, format=NV12, width=9, rate=30/1";
        let caps = canonical_caps(caps).unwrap();
        let parts = CanonicalParts::new(&caps);
        assert_eq!(parts.name, "video/x-raw");
        assert!(parts.features().eq(["memory:DMABuf", "meta:GstVideoMeta"]));
        assert_eq!(parts.field("width"), Some(("int", "9")));
        assert_eq!(parts.value("format", "string"), Some("NV12"));
        assert_eq!(parts.value("format", "int"), None);
        assert_eq!(parts.value("rate", "fraction"), Some("30/1"));
        assert_eq!(parts.field("height"), None);
    }

    #[test]
    fn values_have_neither_type_nor_quotes() {
        let parts = caps_parts(
            "a/b(memory:DMABuf, meta:X), s=\"5 \\\"x\\303\\244\", e=(string)\"\", n=(string)NULL, b=yes, f=(fraction)30, \
             a=<1, \"x, y\">, t=[x, y=(string)\"z, =\"], c=(GstCaps)[a/b, d=1], b=no",
        )
        .unwrap();
        assert_eq!(
            (&*parts.media_type, parts.features),
            ("a/b", vec!["memory:DMABuf".into(), "meta:X".into()])
        );
        let fields: Vec<(&str, &str)> = parts.fields.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            fields,
            [
                ("s", "5 \"xä"),
                ("e", ""),
                ("n", "NULL"),
                ("b", "true"),
                ("f", "30/1"),
                ("a", "< (int)1, (string)\"x\\,\\ y\" >"),
                ("t", "(structure)[x, y=(string)\"z\\,\\ \\=\"]"),
                ("c", "(GstCaps)[a/b, d=(int)1]"),
                ("b", "false"),
            ]
        );
    }

    #[test]
    fn caps_without_fields_have_a_name() {
        let parts = CanonicalParts::new("video/x-raw");
        assert_eq!(
            (parts.name, parts.features().count(), parts.field("a")),
            ("video/x-raw", 0, None)
        );
    }
}
