// SPDX-License-Identifier: MIT OR Apache-2.0

//! The parser of structures, features, arrays and nested values. It writes the canonical text while it reads.

use super::{
    mistake::Mistake,
    strings::{is_word_byte, quoted_length, unquote},
    value::{self, Kind},
};

/// The maximum length, in bytes, of a name in caps, structures and caps features.
pub const MAX_NAME_SIZE: usize = 128;

/// The maximum nesting of arrays, structures and caps.
const MAX_DEPTH: u32 = 8;

/// What a text describes, and therefore which values it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subject {
    /// Caps with one structure, whose values are fixed.
    Caps,
    /// A structure in caps.
    Structure,
    /// A structure with plain values and lists of them. With `true`, the values may be buffers too.
    PlainStructure(bool),
}

/// Names that stand for caps without a structure.
const SPECIAL_CAPS: [&str; 3] = ["ANY", "EMPTY", "NONE"];

/// The prefixes of the names of raw formats in GStreamer 0.10, of which GStreamer warns.
const OLD_NAME_PREFIXES: [&str; 2] = ["video/x-raw-", "audio/x-raw-"];

/// Parses a whole text. Returns it in the canonical form.
pub(super) fn parse(text: &str, subject: Subject, admit: &mut dyn FnMut(&str) -> bool) -> Result<String, Mistake> {
    let mut out = String::with_capacity(text.len());
    Parser {
        text,
        at: 0,
        places: Places::From(0),
        subject,
        depth: 0,
        out: &mut out,
        admit,
    }
    .subject()?;
    Ok(out)
}

/// Where the bytes of the text are in the text that the user wrote.
#[derive(Clone, Copy, Debug)]
enum Places {
    /// At consecutive positions from this one.
    From(usize),
    /// Inside a string in quotes that begins at this position.
    Within(usize),
}

impl Places {
    /// The position of the byte at this offset.
    fn position(self, offset: usize) -> usize {
        match self {
            Self::From(start) => start + offset,
            Self::Within(start) => start,
        }
    }

    /// The places of the text after this offset.
    fn after(self, offset: usize) -> Self {
        match self {
            Self::From(start) => Self::From(start + offset),
            within @ Self::Within(_) => within,
        }
    }
}

struct Parser<'a, 'b> {
    text: &'a str,
    /// The offset of the next byte of `text`.
    at: usize,
    places: Places,
    subject: Subject,
    /// The number of arrays and structures around the text.
    depth: u32,
    out: &'b mut String,
    admit: &'b mut dyn FnMut(&str) -> bool,
}

impl<'a> Parser<'a, '_> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    /// Skips `byte` if it is next. Returns whether it was next.
    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn skip_spaces(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    /// Skips spaces between fields, which may have a backslash before them.
    fn skip_spaces_between_fields(&mut self) {
        loop {
            self.skip_spaces();
            match self.rest().as_bytes() {
                [b'\\', byte, ..] if byte.is_ascii_whitespace() => self.at += 2,
                _ => return,
            }
        }
    }

    fn mistake<T>(&self, at: usize, expected: &'static str) -> Result<T, Mistake> {
        Err(Mistake {
            position: self.places.position(at),
            expected,
        })
    }

    fn expect(&mut self, byte: u8, expected: &'static str) -> Result<(), Mistake> {
        if self.skip(byte) {
            Ok(())
        } else {
            self.mistake(self.at, expected)
        }
    }

    /// Reads a word, which may be empty.
    fn word(&mut self, is_part: impl Fn(u8) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.bytes().position(|byte| !is_part(byte)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// Reads the name of a field.
    fn field_name(&mut self) -> Result<(), Mistake> {
        let start = self.at;
        let name = self.word(is_word_byte);
        if name.is_empty() {
            return self.mistake(start, "the name of a field");
        }
        self.put_name(start, name)
    }

    fn put_name(&mut self, start: usize, name: &str) -> Result<(), Mistake> {
        if name.len() > MAX_NAME_SIZE {
            return self.mistake(start, "a name of at most 128 bytes");
        }
        if !(self.admit)(name) {
            return self.mistake(start, "a name that is known, because there are too many new ones,");
        }
        self.out.push_str(name);
        Ok(())
    }

    /// Reads the whole text.
    fn subject(&mut self) -> Result<(), Mistake> {
        if let Some(at) = self.text.find('\0') {
            return self.mistake(at, "a text without the byte 0");
        }
        self.skip_spaces_between_fields();
        self.structure_name()?;
        if self.subject == Subject::Caps && self.skip(b'(') {
            self.features()?;
        }
        self.fields()?;
        self.skip_spaces();
        if self.at < self.text.len() {
            return self.mistake(self.at, "the end of the text, because there can be only one structure,");
        }
        Ok(())
    }

    fn structure_name(&mut self) -> Result<(), Mistake> {
        let start = self.at;
        let is_quoted = self.peek() == Some(b'"');
        // GStreamer does not find the end of a name in quotes if it is in brackets.
        let name = if is_quoted && self.depth == 0 {
            let token = self.token()?;
            let mut characters = token[1..token.len() - 1].chars();
            let unescaped = || match characters.next() {
                Some('\\') => characters.next(),
                other => other,
            };
            std::iter::from_fn(unescaped).collect()
        } else {
            self.word(is_word_byte).to_owned()
        };
        let is_name = name.starts_with(|first: char| first.is_ascii_alphabetic()) && name.bytes().all(is_word_byte);
        if !is_name {
            return self.mistake(start, "a name, such as video/x-raw,");
        }
        if SPECIAL_CAPS.contains(&name.as_str()) {
            return self.mistake(start, "the name of one format");
        }
        if OLD_NAME_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return self.mistake(start, "a name of GStreamer 1.0, such as video/x-raw,");
        }
        self.put_name(start, &name)
    }

    /// Reads features, such as `memory:GLMemory, meta:GstVideoMeta)`. The opening parenthesis has been skipped before.
    fn features(&mut self) -> Result<(), Mistake> {
        let start = self.at;
        let rest = self.rest();
        // GStreamer does not need the closing parenthesis if the text ends there.
        let end = rest.find(')').unwrap_or(rest.len());
        self.at += (end + 1).min(rest.len());
        let features = &rest[..end];
        if features.is_empty() {
            return Ok(());
        }
        if features == "ANY" {
            return self.mistake(start, "the features themselves, because ANY is not fixed,");
        }
        let (mut at, mut opening) = (start, "(");
        for feature in features.split(',') {
            let name = feature.trim_start_matches(' ');
            if !is_feature(name) {
                return self.mistake(at, "a feature, such as memory:SystemMemory,");
            }
            self.out.push_str(opening);
            self.put_name(at, name)?;
            at += feature.len() + 1;
            opening = ", ";
        }
        self.out.push(')');
        Ok(())
    }

    /// Reads the fields of a structure, and the semicolon that may end them.
    fn fields(&mut self) -> Result<(), Mistake> {
        loop {
            self.skip_spaces_between_fields();
            if self.at == self.text.len() || self.skip(b';') {
                return Ok(());
            }
            self.expect(b',', "a comma or the end of the text")?;
            self.skip_spaces_between_fields();
            if self.at == self.text.len() || self.peek() == Some(b';') {
                continue;
            }
            self.out.push_str(", ");
            self.field_name()?;
            self.skip_spaces_between_fields();
            self.expect(b'=', "= and a value")?;
            self.out.push('=');
            self.value(None)?;
        }
    }

    fn is_plain(&self) -> bool {
        matches!(self.subject, Subject::PlainStructure(_))
    }

    /// Reads a value. `outer` is the type that the enclosing container gives for its values.
    fn value(&mut self, outer: Option<Kind>) -> Result<(), Mistake> {
        self.skip_spaces();
        let start = self.at;
        let (mut kind, mut is_set) = (outer, false);
        if self.skip(b'(') {
            (kind, is_set) = self.cast(outer)?;
        }
        let at = self.at;
        match self.peek() {
            Some(b'{') if is_set => {
                self.out.push_str("(/uniquelist)");
                self.elements(b'{', b'}', kind)
            }
            _ if is_set => self.mistake(at, "a list in { }"),
            Some(b'{') if self.is_plain() => self.elements(b'{', b'}', kind),
            Some(b'{') => self.mistake(at, "a single value, because a list is not fixed,"),
            Some(b'<') => self.elements(b'<', b'>', kind),
            Some(b'[') if !self.is_plain() => self.in_brackets(kind),
            Some(b'[') => self.mistake(at, "a value without brackets"),
            _ => self.scalar(kind, start),
        }
    }

    /// Reads a type in parentheses. Returns the type of the value, or of the values of a container, and whether the
    /// value is a set. The opening parenthesis has been skipped before.
    fn cast(&mut self, outer: Option<Kind>) -> Result<(Option<Kind>, bool), Mistake> {
        self.skip_spaces();
        let start = self.at;
        let name = self.word(is_word_byte);
        self.skip_spaces();
        self.expect(b')', "a type, such as (int),")?;
        self.skip_spaces();
        // Newer versions of GStreamer know sets, as in (int/uniquelist){ 1, 2 }.
        let (name, is_set) = match name.strip_suffix("/uniquelist") {
            Some(name) => (name, true),
            None => (name, false),
        };
        if is_set && self.is_plain() {
            return self.mistake(start, "a known type");
        }
        if is_set && name.is_empty() {
            return Ok((outer, true));
        }
        let is_allowed = |kind: &Kind| match self.subject {
            Subject::PlainStructure(has_buffers) => kind.is_plain() || has_buffers && *kind == Kind::Buffer,
            Subject::Caps | Subject::Structure => true,
        };
        match Kind::from_name(name).filter(is_allowed) {
            Some(kind) => Ok((Some(kind), is_set)),
            None => self.mistake(start, "a known type, such as int, string, fraction or buffer,"),
        }
    }

    /// Counts a level of nesting.
    fn deeper(&self) -> Result<u32, Mistake> {
        if self.depth == MAX_DEPTH {
            return self.mistake(self.at, "a value with fewer nested arrays and structures");
        }
        Ok(self.depth + 1)
    }

    /// Reads the values of a container, in which each value may have its own type. As in GStreamer, there may be a
    /// comma before the first value and after the last.
    fn elements(&mut self, open: u8, close: u8, kind: Option<Kind>) -> Result<(), Mistake> {
        let depth = self.depth;
        self.depth = self.deeper()?;
        self.skip(open);
        self.out.push(open.into());
        self.skip_spaces();
        let mut separator = " ";
        while !self.skip(close) {
            if self.skip(b',') {
                self.skip_spaces();
                if self.peek() == Some(b',') {
                    return self.mistake(self.at, "a value");
                }
                continue;
            }
            self.out.push_str(separator);
            separator = ", ";
            self.value(kind)?;
            self.skip_spaces();
            if self.peek() != Some(b',') && self.peek() != Some(close) {
                return self.mistake(self.at, if close == b'>' { "a comma or >" } else { "a comma or }" });
            }
        }
        self.out.extend([' ', close.into()]);
        self.depth = depth;
        Ok(())
    }

    /// Reads a structure or caps in brackets.
    fn in_brackets(&mut self, kind: Option<Kind>) -> Result<(), Mistake> {
        const RANGE: &str = "a single value, because a range is not fixed,";
        let start = self.at;
        let Some(length) = bracket_length(self.rest().as_bytes()) else {
            return self.mistake(start, "a closing bracket");
        };
        let inner = &self.rest()[1..length - 1];
        self.at += length;
        let places = self.places.after(start + 1);
        match kind {
            Some(kind @ (Kind::Structure | Kind::Caps)) => self.nested(kind, inner, places),
            // GStreamer first takes brackets for a range. A structure with fields has an equals sign, caps may have
            // features.
            None if inner.contains(['=', '(']) || !inner.contains(',') => {
                let length = self.out.len();
                let as_structure = self.nested(Kind::Structure, inner, places);
                if as_structure.is_ok() {
                    return as_structure;
                }
                self.out.truncate(length);
                // Caps differ by their features. A mistake further behind is the one that the user made.
                self.nested(Kind::Caps, inner, places)
                    .map_err(|as_caps| match as_structure {
                        Err(mistake) if mistake.position > as_caps.position => mistake,
                        _ => as_caps,
                    })
            }
            _ => self.mistake(start, RANGE),
        }
    }

    /// Appends a value that is a structure or caps. `inner` describes it.
    fn nested(&mut self, kind: Kind, inner: &str, places: Places) -> Result<(), Mistake> {
        self.out.push('(');
        self.out.push_str(kind.name());
        self.out.push_str(")[");
        Parser {
            text: inner,
            at: 0,
            places,
            subject: if kind == Kind::Caps {
                Subject::Caps
            } else {
                Subject::Structure
            },
            depth: self.deeper()?,
            out: self.out,
            admit: self.admit,
        }
        .subject()?;
        self.out.push(']');
        Ok(())
    }

    /// Reads a word, or a string with its quotes.
    fn token(&mut self) -> Result<&'a str, Mistake> {
        if self.peek() != Some(b'"') {
            // Newer versions of GStreamer accept a star in strings without quotes.
            return Ok(self.word(|byte| is_word_byte(byte) || byte == b'*'));
        }
        let Some(length) = quoted_length(self.rest().as_bytes()) else {
            return self.mistake(self.at, "a closing quote");
        };
        let token = &self.rest()[..length];
        self.at += length;
        Ok(token)
    }

    /// Reads a value without parts, or a nested one in quotes. `start` is where its type begins.
    fn scalar(&mut self, kind: Option<Kind>, start: usize) -> Result<(), Mistake> {
        let at = self.at;
        let token = self.token()?;
        if token.is_empty() {
            return self.mistake(at, "a value");
        }
        if let Some(kind @ (Kind::Structure | Kind::Caps)) = kind {
            let places = self.places.after(at);
            if !token.starts_with('"') {
                return self.nested(kind, token, places);
            }
            return match unquote(token) {
                Ok(inner) => self.nested(kind, &inner, Places::Within(places.position(0))),
                Err(expected) => self.mistake(at, expected),
            };
        }
        let found = match kind {
            None => value::guess(token),
            Some(kind) => {
                value::canonical(kind, token).and_then(|value| value.map(|value| (kind, value)).ok_or(kind.expected()))
            }
        };
        match found {
            // GStreamer prints a critical warning if a container has a missing string.
            Ok((Kind::String, value)) if value == "NULL" && self.depth > 0 => {
                self.mistake(start, "a string, not NULL,")
            }
            Ok((kind, value)) => {
                self.out.push('(');
                self.out.push_str(kind.name());
                self.out.push(')');
                self.out.push_str(&value);
                Ok(())
            }
            Err(expected) => self.mistake(at, expected),
        }
    }
}

/// The length of the text in brackets at the start of `text`. As in GStreamer, brackets in quotes count too.
fn bracket_length(text: &[u8]) -> Option<usize> {
    let mut depth = 0;
    for (at, byte) in text.iter().enumerate() {
        match byte {
            b'[' => depth += 1,
            b']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some(at + 1);
        }
    }
    None
}

fn is_feature(text: &str) -> bool {
    text.split_once(':').is_some_and(|(kind, name)| {
        kind.bytes().all(|byte| byte.is_ascii_alphabetic())
            && name.starts_with(|first: char| first.is_ascii_alphabetic())
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}
