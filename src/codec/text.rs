// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks whether a text from another program may go to GStreamer's own parser of structures and caps.
//!
//! GStreamer's parser creates values of any type that the text names, even buffers and samples. It recurses once for
//! each level of nesting, and prints critical warnings for invalid ranges and fractions. Therefore, only a name and
//! fields with plain values may reach the parser. Plain values are numbers, booleans, strings, fractions, bit masks,
//! and lists and arrays of these.

/// The maximum length, in bytes, of the name of a structure, of a field, or of a region's type.
pub(crate) const MAX_NAME_SIZE: usize = 128;

/// The maximum nesting of lists.
const MAX_DEPTH: u32 = 4;

/// The names of plain types, as GStreamer writes them.
const TYPES: [&str; 11] = [
    "boolean", "int", "uint", "gint64", "guint64", "float", "double", "string", "fraction", "bitmask", "guchar",
];

/// Further types that values in caps may have. They hold the headers of compressed streams and the flags of 3D video.
const CAPS_TYPES: [&str; 2] = ["buffer", "GstVideoMultiviewFlagsSet"];

/// The prefixes of the names of raw formats in GStreamer 0.10.
const OLD_NAME_PREFIXES: [&str; 2] = ["video/x-raw-", "audio/x-raw-"];

/// A further type that values in the structure of a GstProtectionMeta may have.
const BUFFER_TYPES: [&str; 1] = ["buffer"];

/// Whether `text` is a structure of plain values. For each name in the text, `admit` says whether the name is allowed.
pub(crate) fn is_plain(text: &str, admit: impl FnMut(&str) -> bool) -> bool {
    is_structure(text, false, &[], admit)
}

/// As [`is_plain`], but the values may be buffers too.
pub(crate) fn is_plain_with_buffers(text: &str, admit: impl FnMut(&str) -> bool) -> bool {
    is_structure(text, false, &BUFFER_TYPES, admit)
}

/// Whether `text` describes caps with one structure, whose values are plain or have one of the [`CAPS_TYPES`].
pub(crate) fn is_plain_caps(text: &str) -> bool {
    is_structure(text, true, &CAPS_TYPES, |_| true)
}

fn is_structure(
    text: &str,
    is_caps: bool,
    further_types: &'static [&'static str],
    mut admit: impl FnMut(&str) -> bool,
) -> bool {
    // GStreamer prints warnings for the names that raw formats had in version 0.10.
    let name = text.trim_ascii_start();
    if OLD_NAME_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
        return false;
    }
    let mut rest = Rest {
        bytes: text.as_bytes(),
        is_caps,
        further_types,
    };
    let mut next_name = |rest: &mut Rest| {
        let name = rest.word()?;
        (name.len() <= MAX_NAME_SIZE && name.as_bytes()[..1].iter().all(u8::is_ascii_alphabetic) && admit(name))
            .then_some(())
    };
    let mut structure = || {
        next_name(&mut rest)?;
        if is_caps {
            rest.features()?;
        }
        while rest.skip(b',') {
            next_name(&mut rest)?;
            rest.expect(b'=')?;
            rest.value(None, 0)?;
        }
        rest.skip(b';');
        // Nothing may follow the semicolon, because GStreamer prints warnings for spaces there.
        rest.bytes.is_empty().then_some(())
    };
    structure().is_some()
}

/// The text that has not been checked yet.
struct Rest<'a> {
    bytes: &'a [u8],
    /// Whether the text describes caps.
    is_caps: bool,
    /// The allowed types besides [`TYPES`].
    further_types: &'static [&'static str],
}

impl<'a> Rest<'a> {
    fn skip_spaces(&mut self) {
        self.bytes = self.bytes.trim_ascii_start();
    }

    /// Skips `byte` if it is next. Returns whether it was next.
    fn skip(&mut self, byte: u8) -> bool {
        self.skip_spaces();
        let rest = self.bytes.strip_prefix(&[byte]);
        self.bytes = rest.unwrap_or(self.bytes);
        rest.is_some()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip(byte).then_some(())
    }

    /// Reads a word without quotes.
    fn word(&mut self) -> Option<&'a str> {
        self.skip_spaces();
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.:+".contains(byte);
        let end = self
            .bytes
            .iter()
            .position(|byte| !is_part(byte))
            .unwrap_or(self.bytes.len());
        let (word, rest) = self.bytes.split_at(end);
        self.bytes = rest;
        str::from_utf8(word).ok().filter(|word| !word.is_empty())
    }

    /// Skips the optional caps features, such as `(memory:GLMemory, meta:GstVideoMeta)`.
    fn features(&mut self) -> Option<()> {
        let Some(rest) = self.bytes.strip_prefix(b"(") else {
            return Some(());
        };
        let (features, rest) = rest.split_at(rest.iter().position(|byte| *byte == b')')?);
        self.bytes = &rest[1..];
        let mut features = str::from_utf8(features).ok()?.split(',');
        features
            .all(|feature| is_feature(feature.strip_prefix(' ').unwrap_or(feature)))
            .then_some(())
    }

    /// Skips the rest of a text in quotes. The opening quote has been skipped before.
    fn quoted(&mut self) -> Option<()> {
        let mut text = Vec::new();
        loop {
            let (byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            match byte {
                b'"' => return str::from_utf8(&text).is_ok().then_some(()),
                b'\\' => text.push(self.escaped()?),
                b' '..=b'~' => text.push(*byte),
                _ => return None,
            }
        }
    }

    /// Reads the byte after a backslash. The text has its value as three octal digits, or else the byte itself.
    fn escaped(&mut self) -> Option<u8> {
        let (first, rest) = self.bytes.split_first()?;
        if !(b'0'..=b'3').contains(first) {
            self.bytes = rest;
            return Some(*first);
        }
        let (digits, rest) = self.bytes.split_first_chunk::<3>()?;
        self.bytes = rest;
        let byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 8).ok()?;
        (byte != 0).then_some(byte)
    }

    /// Skips a value. `outer` is the type that the enclosing list gives for its values.
    fn value(&mut self, outer: Option<&'a str>, depth: u32) -> Option<()> {
        let mut kind = outer;
        if self.skip(b'(') {
            let further_types = self.further_types;
            let is_known = |word: &&str| TYPES.contains(word) || further_types.contains(word);
            kind = Some(self.word().filter(is_known)?);
            self.expect(b')')?;
        }
        for (open, close) in [(b'{', b'}'), (b'<', b'>')] {
            if !self.skip(open) {
                continue;
            }
            if depth == MAX_DEPTH {
                return None;
            }
            if self.skip(close) {
                return Some(());
            }
            loop {
                self.value(kind, depth + 1)?;
                if !self.skip(b',') {
                    return self.expect(close);
                }
            }
        }
        let kind = match kind {
            Some(kind) => kind,
            // People write caps by hand, so the type may be missing in caps. GStreamer then guesses the type.
            None if self.is_caps => "",
            None => return None,
        };
        match kind {
            "string" if self.skip(b'"') => self.quoted(),
            _ => {
                // The word NULL stands for a missing string. GStreamer prints a critical warning if a list contains it.
                let is_missing_string = |word: &str| depth > 0 && word == "NULL";
                self.word()
                    .filter(|word| is_value(kind, word) && !is_missing_string(word))
                    .map(drop)
            }
        }
    }
}

fn is_feature(text: &str) -> bool {
    text.split_once(':').is_some_and(|(kind, name)| {
        !kind.is_empty()
            && kind.bytes().all(|byte| byte.is_ascii_alphabetic())
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

fn has_form_of_fraction(text: &str) -> bool {
    text.contains('/') && text.bytes().all(|byte| byte.is_ascii_digit() || b"+-/".contains(&byte))
}

fn is_hexadecimal(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether GStreamer accepts `text` as a value of the type `kind`. GStreamer must not receive any other value, because
/// GStreamer leaks a list that contains a refused value.
fn is_value(kind: &str, text: &str) -> bool {
    match kind {
        "int" => is_integer::<i32>(text),
        "uint" => is_integer::<u32>(text),
        "gint64" => is_integer::<i64>(text),
        "guint64" => is_integer::<u64>(text),
        "guchar" => is_integer::<u8>(text),
        "boolean" => matches!(text, "true" | "false"),
        "double" => text.parse::<f64>().is_ok(),
        "float" => text
            .parse::<f64>()
            .is_ok_and(|number| number.is_nan() || number.abs() <= f32::MAX.into()),
        "bitmask" => text
            .strip_prefix("0x")
            .is_some_and(|digits| !digits.starts_with('+') && u64::from_str_radix(digits, 16).is_ok()),
        "buffer" => is_hexadecimal(text),
        "fraction" => is_fraction(text),
        // GStreamer guesses a missing type. A text that does not look like a fraction becomes a number or a string.
        "" => !has_form_of_fraction(text) || is_fraction(text),
        _ => true,
    }
}

/// Whether `text` is a decimal number without leading zeros. GStreamer takes a number with leading zeros for an octal
/// number.
fn is_integer<T: std::str::FromStr>(text: &str) -> bool {
    let digits = text.trim_start_matches('-');
    text.parse::<T>().is_ok() && (digits == "0" || !digits.starts_with('0')) && !text.starts_with('+')
}

/// Whether `text` is a fraction that GStreamer accepts: neither number is `i32::MIN`, and the denominator is not 0.
fn is_fraction(text: &str) -> bool {
    let number = |text: &str| text.parse::<i32>().ok().filter(|number| *number != i32::MIN);
    let Some((numerator, denominator)) = text.split_once('/') else {
        return false;
    };
    number(numerator).is_some() && number(denominator).is_some_and(|denominator| denominator != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(text: &str) -> bool {
        is_plain(text, |_| true)
    }

    #[test]
    fn plain_values_are_accepted() {
        for text in [
            "name",
            "roi/qp;",
            "timestamp/x-unix, a=(int)5, b=(string)\"a \\\" \\303\\244;\", c=(fraction)-30/1;",
            "a, b=(int){ (int)1, (int)2 }, c=(int)< 1, 2 >, d=(double)1.5e+10, e={ }",
            "a, b=(int)-2147483648, c=(guint64)18446744073709551615, d=(bitmask)0xffffffffffffffff, e=(float)-0.5",
            "a, b=(boolean){ true, false }, c=(double)inf, d=(guchar)255, e=(gint64)0, f=(string)\"\\\"\\\\\\011\"",
        ] {
            assert!(plain(text), "{text}");
        }
    }

    #[test]
    fn caps_may_have_headers_and_features() {
        for text in [
            "video/x-raw(memory:GLMemory, meta:Thing), format=(string)RGBA",
            "video/x-h264, codec_data=(buffer)0164ff, streamheader=(buffer)< 0102, 03 >, width=(int)64",
            "video/x-raw, width=640, format=NV12, framerate=30/1",
            "video/x-raw, multiview-flags=(GstVideoMultiviewFlagsSet)0:ffffffff:/right-view-first/half-aspect",
        ] {
            assert!(is_plain_caps(text) && !plain(text), "{text}");
        }
        for text in [
            "video/x-h264, codec_data=(buffer)016",
            "video/x-h264, codec_data=(buffer)0xff",
            "video/x-h264, codec_data=(sample)00",
            "video/x-raw(memory:GLMemory",
            "video/x-raw; image/jpeg",
            "video/x-raw, width=\"5\"",
            "video/x-raw(stream)",
            "video/x-raw(memory:0)",
            "video/x-raw(memory:GLMemory )",
            "video/x-raw, framerate=1/0",
            "a/b, c={ NULL }",
            "a/b, c=(string)< x, NULL >",
        ] {
            assert!(!is_plain_caps(text), "{text}");
        }
    }

    #[test]
    fn caps_of_plain_values_are_accepted() {
        for text in [
            "video/x-raw",
            "video/x-raw, format=(string)NV12, width=(int)640, framerate=(fraction)30/1",
            "video/x-raw,format=NV12,width=640,framerate=30/1,interlaced=false, text = (string)\"a b\"",
            "video/x-raw(memory:SystemMemory, format:Interlaced), interlace-mode=(string)alternate;",
            "video/x-h264, codec_data=(buffer)0164001fffe1001967, profile=high, level=(string)3.1",
            "audio/x-flac, streamheader=(buffer)< 7f464c4143, 84000028 >, channel-mask=(bitmask)0x0000000000000003",
            "video/x-raw, multiview-flags=(GstVideoMultiviewFlagsSet)0:ffffffff:/right-view-first/left-flipped",
            "other/tensors, dimensions=(string)\"1:1,2:3\", sizes=(int)< < 1, 2 >, < 3 > >",
        ] {
            assert!(is_plain_caps(text), "{text}");
        }
    }

    #[test]
    fn caps_that_are_not_plain_are_refused() {
        let deep = format!("a/b, c={}1{}", "<".repeat(30_000), ">".repeat(30_000));
        for text in [
            deep.as_str(),
            "ANY; a/b",
            "a/b; c/d",
            "a/b()",
            "a/b(memory)",
            "a/b(memory:X, memory:1)",
            "a/b(memory:X",
            "a/b, c=(structure)[ x, y=(int)1 ]",
            "a/b, c=(structure)\"x\\, y\\=1\"",
            "a/b, c=(GstCaps)\"x/y\"",
            "a/b, c=(GstSample)None",
            "a/b, c=[ 1, 5 ]",
            "a/b, c=1/0",
            "a/b, c=1/-2147483648",
            "a/b, c=\"1/-2147483648\"",
            "a/b, c=\"\\061/-2147483648\"",
            "a/b, c=(buffer)\"00\"",
            "a/b, c=(buffer)000",
            "a/b, c=(GstBuffer)0g",
        ] {
            assert!(!is_plain_caps(text), "{text:.60}");
        }
    }

    #[test]
    fn structures_that_are_not_plain_are_refused() {
        for text in [
            "",
            ";",
            "5name",
            "a, b",
            "a, b=",
            "a, b=5",
            "a, b=(GstBuffer)00",
            "a, b=(structure)\"c\\;\"",
            "a, b=(int)[ 5, 1 ]",
            "a, b=[ (int)5, (int)1 ]",
            "a, b=(fraction)1/0",
            "a, b=(fraction)1/-2147483648",
            "a, b=(fraction)5",
            "a, b=(string)\"c",
            "a, b=(string)\"c\\",
            "a, b=(int){ (int)1",
            "a, b=(int)5; c",
            "a, b=(int){ 1, .2 }",
            "a, b=(int)05",
            "a, b=(int)2147483648",
            "a, b=(guchar)256",
            "a, b=(boolean)maybe",
            "a, b=(double)one",
            "a, b=(float)1e60",
            "a, b=(bitmask)0xg",
            "a, b=(string)\"\\377\"",
            "a, b=(string)\"\\000\"",
            "a, b=(string)\"\\39\"",
            "a(memory:GLMemory), b=(int)5",
            "a, b=(int)5\\",
            "a, b=(int)<<<<<<1>>>>>>",
            "a; ",
            "video/x-raw-rgb",
            " audio/x-raw-int, b=(int)1",
        ] {
            assert!(!plain(text), "{text}");
        }
        assert!(!plain(&"a".repeat(MAX_NAME_SIZE + 1)));
        assert!(!is_plain("a, b=(int)1", |name| name != "b"));
    }
}
