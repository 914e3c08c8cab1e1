//! Structures as text, as far as another program's text may be given to GStreamer's own parser.
//!
//! That parser makes whatever type the text names, buffers and samples among them, goes as deep as the text does, and
//! prints critical warnings at ranges and fractions that are none. So only plain values get there: a name, then fields of
//! numbers, booleans, strings, fractions, bit masks, and lists and arrays of these. In caps there are buffers and flags too,
//! as in `codec_data` and `multiview-flags`, and values whose type is left for the parser to find.

/// The longest name of a structure, a field or a kind of region.
pub(crate) const MAX_NAME: usize = 128;

/// Lists in lists, at most.
const MAX_DEPTH: u32 = 4;

/// What may be in a text.
struct Rules {
    /// The types of values.
    types: &'static [&'static str],
    /// Caps features, and values without a type.
    of_caps: bool,
}

/// As GStreamer writes them.
const PLAIN: Rules = Rules {
    types: &[
        "boolean", "int", "uint", "gint64", "guint64", "float", "double", "string", "fraction", "bitmask", "guchar",
    ],
    of_caps: false,
};

/// As GStreamer and people write them.
const CAPS: Rules = Rules {
    types: &[
        "boolean",
        "bool",
        "b",
        "int",
        "i",
        "uint",
        "u",
        "gint64",
        "guint64",
        "float",
        "f",
        "double",
        "d",
        "string",
        "str",
        "s",
        "fraction",
        "bitmask",
        "guchar",
        "buffer",
        "GstBuffer",
        "GstFlagSet",
        "GstVideoMultiviewFlagsSet",
    ],
    of_caps: true,
};

/// Whether `text` is a structure of plain values. `admit` is asked for each name in it.
pub(crate) fn is_plain(text: &str, admit: impl FnMut(&str) -> bool) -> bool {
    follows(text, &PLAIN, admit)
}

/// Whether `text` is caps of one structure, of values that GStreamer's parser may be given.
pub(crate) fn is_plain_caps(text: &str) -> bool {
    follows(text, &CAPS, |_| true)
}

fn follows(text: &str, rules: &'static Rules, mut admit: impl FnMut(&str) -> bool) -> bool {
    let mut rest = Rest(text.as_bytes(), rules);
    let mut next_name = |rest: &mut Rest| {
        let name = rest.word()?;
        (name.len() <= MAX_NAME && name.as_bytes()[..1].iter().all(u8::is_ascii_alphabetic) && admit(name))
            .then_some(())
    };
    let mut structure = || {
        next_name(&mut rest)?;
        if rules.of_caps && rest.skip(b'(') {
            rest.word().filter(|word| is_feature(word))?;
            while rest.skip(b',') {
                rest.word().filter(|word| is_feature(word))?;
            }
            rest.expect(b')')?;
        }
        while rest.skip(b',') {
            next_name(&mut rest)?;
            rest.expect(b'=')?;
            rest.value(None, 0)?;
        }
        rest.skip(b';');
        rest.is_at_end().then_some(())
    };
    structure().is_some()
}

/// What is still to be looked at.
struct Rest<'a>(&'a [u8], &'static Rules);

impl<'a> Rest<'a> {
    fn skip_spaces(&mut self) {
        self.0 = self.0.trim_ascii_start();
    }

    fn is_at_end(&mut self) -> bool {
        self.skip_spaces();
        self.0.is_empty()
    }

    /// Passes over `byte` if it is next.
    fn skip(&mut self, byte: u8) -> bool {
        self.skip_spaces();
        let rest = self.0.strip_prefix(&[byte]);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip(byte).then_some(())
    }

    /// What stands there without quotes.
    fn word(&mut self) -> Option<&'a str> {
        self.skip_spaces();
        let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || b"/-_.:+".contains(byte);
        let end = self.0.iter().position(|byte| !is_part(byte)).unwrap_or(self.0.len());
        let (word, rest) = self.0.split_at(end);
        self.0 = rest;
        str::from_utf8(word).ok().filter(|word| !word.is_empty())
    }

    /// A text in quotes, of which the first is passed already.
    fn quoted(&mut self) -> Option<()> {
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            match byte {
                b'"' => return Some(()),
                b'\\' => self.0 = self.0.split_first()?.1,
                b' '..=b'~' => {}
                _ => return None,
            }
        }
    }

    /// A value. `outer` is the type that was said of the list it is in.
    fn value(&mut self, outer: Option<&'a str>, depth: u32) -> Option<()> {
        let mut kind = outer;
        if self.skip(b'(') {
            kind = Some(self.word().filter(|word| self.1.types.contains(word))?);
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
        match kind {
            Some("string" | "str" | "s") if self.skip(b'"') => self.quoted(),
            Some("fraction") => self.word().filter(|word| is_fraction(word)).map(drop),
            Some("buffer" | "GstBuffer") => self.word().filter(|word| is_hexadecimal(word)).map(drop),
            Some(_) => self.word().map(drop),
            None if self.1.of_caps => self.untyped(),
            None => None,
        }
    }

    /// A value whose type is left open: the parser tries numbers and fractions first, of quoted texts too.
    fn untyped(&mut self) -> Option<()> {
        if self.skip(b'"') {
            self.0.first().filter(|byte| byte.is_ascii_alphabetic())?;
            return self.quoted();
        }
        let word = self.word()?;
        (!word.contains('/') || word.as_bytes()[0].is_ascii_alphabetic() || is_fraction(word)).then_some(())
    }
}

/// Whether it is bytes as GStreamer writes them.
fn is_hexadecimal(text: &str) -> bool {
    text.len().is_multiple_of(2) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether it is the name of a caps feature, as GStreamer has them.
fn is_feature(text: &str) -> bool {
    let Some((namespace, name)) = text.split_once(':') else {
        return false;
    };
    namespace.bytes().all(|byte| byte.is_ascii_alphabetic())
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// Whether it is a fraction that GStreamer has: neither its lowest number, nor a denominator of 0.
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
    fn plain_values_pass() {
        for text in [
            "name",
            "roi/qp;",
            "timestamp/x-unix, a=(int)5, b=(string)\"a \\\" \\303\\244;\", c=(fraction)-30/1;",
            "a, b=(int){ (int)1, (int)2 }, c=(int)< 1, 2 >, d=(double)1.5e+10, e={ }",
        ] {
            assert!(plain(text), "{text}");
        }
    }

    #[test]
    fn caps_of_plain_values_pass() {
        for text in [
            "video/x-raw",
            "video/x-raw, format=(string)NV12, width=(int)640, framerate=(fraction)30/1",
            "video/x-raw,format=NV12,width=640,framerate=30/1,interlaced=false, text = \"a b\"",
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
    fn all_else_is_refused_in_caps() {
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
    fn all_else_is_refused() {
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
            "a(memory:GLMemory), b=(int)5",
            "a, b=(int)5\\",
            "a, b=(int)<<<<<<1>>>>>>",
        ] {
            assert!(!plain(text), "{text}");
        }
        assert!(!plain(&"a".repeat(MAX_NAME + 1)));
        assert!(!is_plain("a, b=(int)1", |name| name != "b"));
    }

    #[test]
    fn caps_have_headers_and_features_too() {
        for text in [
            "video/x-raw(memory:GLMemory, meta:Thing), format=(string)RGBA",
            "video/x-h264, codec_data=(buffer)0164ff, streamheader=(buffer)< 0102, 03 >, width=(int)64",
            "video/x-raw, width=640, format=NV12, framerate=30/1, name=\"a b\"",
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
            "video/x-raw(stream)",
            "video/x-raw, framerate=1/0",
        ] {
            assert!(!is_plain_caps(text), "{text}");
        }
    }
}
