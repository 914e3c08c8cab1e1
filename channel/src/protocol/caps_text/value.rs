// SPDX-License-Identifier: MIT OR Apache-2.0

//! The types of values, and the values that have no parts.
//!
//! Each function follows the function of GStreamer that reads the same type. `Ok(None)` means that GStreamer does not
//! take the text for this type. An error means that GStreamer would take it, but for another value than the text says.

use super::strings::{put_string, unquote};

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A signed integer of so many bits.
    Signed(&'static str, u32),
    /// An unsigned integer of so many bits.
    Unsigned(&'static str, u32),
    Float,
    Double,
    Boolean,
    String,
    Fraction,
    Bitmask,
    /// Flags and the mask of those that matter, of this type.
    FlagSet(&'static str),
    Buffer,
    Structure,
    Caps,
    /// A container whose values do not share a type.
    Array,
    List,
}

/// The integer that GStreamer tries first if a value has no type.
const INT: Kind = Kind::Signed("int", i32::BITS);
/// The flags that GStreamer tries if a value has no type.
const ANY_FLAGS: Kind = Kind::FlagSet("GstFlagSet");
/// The types that GStreamer tries, in this order, if a value has no type.
const GUESSES: [Kind; 5] = [INT, Kind::Double, Kind::Fraction, ANY_FLAGS, Kind::Boolean];

impl Kind {
    /// The type that `name` stands for: one of GStreamer's short names, or the name of the type in GLib.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "int" | "i" | "gint" => INT,
            "gint64" => Self::Signed("gint64", i64::BITS),
            "glong" => Self::Signed("glong", isize::BITS),
            "uint" | "u" | "guint" => Self::Unsigned("uint", u32::BITS),
            "gulong" => Self::Unsigned("gulong", usize::BITS),
            "guint64" => Self::Unsigned("guint64", u64::BITS),
            "guchar" => Self::Unsigned("guchar", u8::BITS),
            "float" | "f" | "gfloat" => Self::Float,
            "double" | "d" | "gdouble" => Self::Double,
            "boolean" | "bool" | "b" | "gboolean" => Self::Boolean,
            "string" | "str" | "s" | "gchararray" => Self::String,
            "fraction" | "GstFraction" => Self::Fraction,
            "bitmask" | "GstBitmask" => Self::Bitmask,
            "flagset" | "GstFlagSet" => ANY_FLAGS,
            "GstVideoMultiviewFlagsSet" => Self::FlagSet("GstVideoMultiviewFlagsSet"),
            "buffer" | "GstBuffer" => Self::Buffer,
            "structure" | "GstStructure" => Self::Structure,
            "caps" | "GstCaps" => Self::Caps,
            "array" | "GstValueArray" => Self::Array,
            "list" | "GstValueList" => Self::List,
            _ => return None,
        })
    }

    /// The name of the type that all versions of GStreamer know.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Signed(name, _) | Self::Unsigned(name, _) | Self::FlagSet(name) => name,
            Self::Float => "float",
            Self::Double => "double",
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Fraction => "fraction",
            Self::Bitmask => "bitmask",
            Self::Buffer => "buffer",
            Self::Structure => "structure",
            Self::Caps => "GstCaps",
            Self::Array => "GstValueArray",
            Self::List => "GstValueList",
        }
    }

    /// Whether a structure that is not part of caps may have such values.
    pub(super) fn is_plain(self) -> bool {
        !matches!(self, Self::FlagSet(_) | Self::Buffer | Self::Structure | Self::Caps)
    }

    /// What a text without quotes should be, to be a value of this type.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::Signed(..) | Self::Unsigned(..) => "an integer that fits its type",
            Self::Float | Self::Double => "a number",
            Self::Boolean => "true or false",
            Self::String => "a string",
            Self::Fraction => "a fraction, such as 30/1,",
            Self::Bitmask => "a bit mask, such as 0x3,",
            Self::FlagSet(_) => "flags with the mask ffffffff, such as 0:ffffffff,",
            Self::Buffer => "an even number of hexadecimal digits",
            Self::Structure => "a structure",
            Self::Caps => "caps",
            Self::Array => "an array in < >",
            Self::List => "a list in { }",
        }
    }
}

/// A value in the form that all versions of GStreamer read alike.
pub(super) type Canonical = Result<Option<String>, &'static str>;

/// Finds the type of a value without a type, and its canonical form. `token` is a word, or a string with its quotes.
pub(super) fn guess(token: &str) -> Result<(Kind, String), &'static str> {
    let is_quoted = token.starts_with('"');
    // GStreamer takes numbers in quotes for numbers too. It warns of that, because a string may have been meant.
    let text = if is_quoted { &token[1..token.len() - 1] } else { token };
    for kind in GUESSES {
        if let Some(value) = canonical(kind, text)? {
            return Ok((kind, value));
        }
    }
    let value = canonical(Kind::String, token)?.ok_or("a value")?;
    Ok((Kind::String, value))
}

/// The canonical form of `token` as a value of the type `kind`. `token` is a word, or a string with its quotes.
pub(super) fn canonical(kind: Kind, token: &str) -> Canonical {
    match kind {
        Kind::Signed(_, bits) => Ok(signed(token, bits).map(|value| value.to_string())),
        Kind::Unsigned(_, bits) => Ok(unsigned(token, bits)?.map(|value| value.to_string())),
        Kind::Double => Ok(double(token)),
        Kind::Float => float(token),
        Kind::Boolean => Ok(boolean(token).map(|value| value.to_string())),
        Kind::String => string(token),
        Kind::Fraction => fraction(token),
        Kind::Bitmask => bitmask(token),
        Kind::FlagSet(name) => flag_set(token, name),
        Kind::Buffer => {
            let is_hexadecimal = token.len() % 2 == 0 && token.bytes().all(|byte| byte.is_ascii_hexdigit());
            Ok(is_hexadecimal.then(|| token.to_owned()))
        }
        Kind::Structure | Kind::Caps | Kind::Array | Kind::List => Ok(None),
    }
}

/// The characters that the functions of C skip before a number.
fn skip_spaces(text: &str) -> &str {
    text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r'])
}

/// An integer at the start of a text, as `strtoull` reads it.
struct Integer<'a> {
    is_negative: bool,
    /// `None` if the integer has more than 64 bits.
    magnitude: Option<u64>,
    rest: &'a str,
}

impl<'a> Integer<'a> {
    /// Reads an integer to the base 10, 16 or 0. With base 0, the prefix `0x` stands for base 16, and `0` for base 8.
    fn read(text: &'a str, base: u32) -> Self {
        let digits = skip_spaces(text);
        let is_negative = digits.starts_with('-');
        let digits = digits.strip_prefix(['-', '+']).unwrap_or(digits);
        let hexadecimal = digits
            .strip_prefix("0x")
            .or_else(|| digits.strip_prefix("0X"))
            .filter(|digits| base != 10 && digits.starts_with(|digit: char| digit.is_ascii_hexdigit()));
        let (base, digits) = match hexadecimal {
            Some(digits) => (16, digits),
            None if base == 0 && digits.starts_with('0') => (8, digits),
            None => (if base == 0 { 10 } else { base }, digits),
        };
        let end = digits.find(|digit: char| !digit.is_digit(base)).unwrap_or(digits.len());
        let (digits, rest) = digits.split_at(end);
        let magnitude = if digits.is_empty() {
            Some(0)
        } else {
            u64::from_str_radix(digits, base).ok()
        };
        Self {
            is_negative,
            magnitude,
            rest: if digits.is_empty() { text } else { rest },
        }
    }

    /// The integer, modulo 2^64; `None` if it has more than 64 bits.
    fn wrapped(&self) -> Option<u64> {
        let magnitude = self.magnitude?;
        Some(if self.is_negative {
            magnitude.wrapping_neg()
        } else {
            magnitude
        })
    }
}

/// The value of the words that stand for an integer with these limits.
fn named_integer(text: &str, min: i64, max: u64) -> Option<i128> {
    const LITTLE_ENDIAN: i128 = 1234;
    const BIG_ENDIAN: i128 = 4321;
    match text.to_ascii_lowercase().as_str() {
        "little_endian" => Some(LITTLE_ENDIAN),
        "big_endian" => Some(BIG_ENDIAN),
        "byte_order" => Some(if cfg!(target_endian = "big") {
            BIG_ENDIAN
        } else {
            LITTLE_ENDIAN
        }),
        "min" => Some(min.into()),
        "max" => Some(max.into()),
        _ => None,
    }
}

/// GStreamer takes a positive number for a negative one if only the sign bit does not fit: 0xffffffff is -1.
fn signed(text: &str, bits: u32) -> Option<i64> {
    let unused = 64 - bits;
    let read = Integer::read(text, 0);
    if !read.rest.is_empty() {
        read.magnitude?;
        let (min, max) = (i64::MIN >> unused, i64::MAX >> unused);
        return named_integer(text, min, max as u64).and_then(|value| value.try_into().ok());
    }
    let value = read.wrapped()? as i64;
    let shortened = value << unused >> unused;
    let fits = shortened == value || (value >= 0 && value as u64 <= u64::MAX >> unused);
    fits.then_some(shortened)
}

fn unsigned(text: &str, bits: u32) -> Result<Option<u64>, &'static str> {
    let max = u64::MAX >> (64 - bits);
    let read = Integer::read(text, 0);
    let (Some(magnitude), Some(wrapped)) = (read.magnitude, read.wrapped()) else {
        return Ok(None);
    };
    if !read.rest.is_empty() {
        let value = named_integer(text, 0, max).and_then(|value| u64::try_from(value).ok());
        // GStreamer cuts off the bits that do not fit.
        return Ok(value.filter(|value| *value <= max));
    }
    if magnitude > max {
        return Err("an integer that fits its type");
    }
    Ok(Some(wrapped & max))
}

/// The number that `text` is, in decimal notation, and the canonical form.
fn decimal(text: &str) -> Option<(f64, String)> {
    let text = skip_spaces(text);
    let number: f64 = text.parse().ok()?;
    Some((number, text.to_owned()))
}

fn double(text: &str) -> Option<String> {
    if let Some((_, text)) = decimal(text) {
        return Some(text);
    }
    let lower = text.to_ascii_lowercase();
    if matches!(lower.as_str(), "min" | "max") {
        return Some(lower);
    }
    Some(skip_spaces(&lower))
        .filter(|text| is_hexadecimal_number(text))
        .map(str::to_owned)
}

/// Whether `text` is a number such as `0x1.8p3`.
fn is_hexadecimal_number(text: &str) -> bool {
    let text = text.strip_prefix(['-', '+']).unwrap_or(text);
    let Some(digits) = text.strip_prefix("0x") else {
        return false;
    };
    let (digits, exponent) = digits.split_once('p').unwrap_or((digits, "0"));
    let exponent = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
    !(whole.is_empty() && part.is_empty())
        && [whole, part]
            .iter()
            .all(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
        && !exponent.is_empty()
        && exponent.bytes().all(|byte| byte.is_ascii_digit())
}

fn float(text: &str) -> Canonical {
    match decimal(text) {
        Some((number, _)) if number.abs() > f32::MAX.into() => Ok(None),
        Some((_, text)) => Ok(Some(text)),
        None if is_hexadecimal_number(skip_spaces(&text.to_ascii_lowercase())) => Err("a decimal number"),
        None => Ok(double(text)),
    }
}

fn boolean(text: &str) -> Option<bool> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "yes" | "t" | "1" => Some(true),
        "false" | "no" | "f" | "0" => Some(false),
        _ => None,
    }
}

fn string(token: &str) -> Canonical {
    if token == "NULL" {
        return Ok(Some(token.to_owned()));
    }
    let mut value = String::new();
    if token.starts_with('"') {
        put_string(&mut value, &unquote(token)?);
    } else {
        put_string(&mut value, token);
    }
    Ok(Some(value))
}

fn fraction(text: &str) -> Canonical {
    // GStreamer cuts off the bits that do not fit, and prints a critical warning for the smallest integer.
    let limited = |read: &Integer| {
        let magnitude = read.magnitude.and_then(|magnitude| i32::try_from(magnitude).ok());
        let value = magnitude.map(|magnitude| if read.is_negative { -magnitude } else { magnitude });
        value.ok_or("a fraction whose numbers have at most 31 bits")
    };
    let has_digits = |read: &Integer, text: &str| read.rest.len() < text.len();
    let numerator = Integer::read(text, 10);
    if has_digits(&numerator, text) {
        let Some(below) = numerator.rest.strip_prefix('/') else {
            let is_integer = numerator.rest.is_empty();
            return Ok(if is_integer {
                Some(format!("{}/1", limited(&numerator)?))
            } else {
                None
            });
        };
        let denominator = Integer::read(below, 10);
        if has_digits(&denominator, below) && denominator.rest.is_empty() && denominator.magnitude != Some(0) {
            return Ok(Some(format!("{}/{}", limited(&numerator)?, limited(&denominator)?)));
        }
    }
    Ok(match text.to_ascii_lowercase().as_str() {
        "1/max" => Some(format!("1/{}", i32::MAX)),
        "min" => Some(format!("{}/1", -i32::MAX)),
        "max" => Some(format!("{}/1", i32::MAX)),
        _ => None,
    })
}

fn bitmask(text: &str) -> Canonical {
    let read = Integer::read(text, 16);
    // The versions of GStreamer differ about 0b11. None of them notices characters that are not digits.
    let is_binary = text.starts_with("0b") || text.starts_with("0B");
    if is_binary || (read.rest.len() < text.len() && !read.rest.is_empty()) {
        return Err("a bit mask in hexadecimal digits");
    }
    let value = read.wrapped().filter(|_| read.rest.is_empty() && !text.is_empty());
    Ok(value.map(|value| format!("0x{value:016x}")))
}

/// Flags have the form `FLAGS:MASK` or `FLAGS:MASK:+NAME/NAME`, with hexadecimal numbers. GStreamer does not need the
/// first colon. They are fixed only if the mask has all bits.
fn flag_set(text: &str, name: &'static str) -> Canonical {
    const MAX_DIGITS: usize = 8;
    let flags = Integer::read(text, 16);
    if flags.rest.len() == text.len() {
        return Ok(None);
    }
    let at_mask = flags.rest.strip_prefix(':').unwrap_or(flags.rest);
    let mask = Integer::read(at_mask, 16);
    if mask.rest.len() == at_mask.len() {
        return Ok(None);
    }
    if !mask.rest.is_empty() {
        let Some(names) = mask.rest.strip_prefix(':') else {
            return Ok(None);
        };
        if name == "GstFlagSet" && !are_flag_names(names) {
            return Ok(None);
        }
    }
    let prefix = if at_mask.starts_with("0x") || at_mask.starts_with("0X") {
        2
    } else {
        0
    };
    let digits = at_mask.len() - mask.rest.len() - prefix;
    let (Some(flags), Some(mask)) = (flags.wrapped(), mask.wrapped()) else {
        return Err("flags and a mask of at most 8 digits");
    };
    // The versions of GStreamer differ about longer masks.
    if digits > MAX_DIGITS || u32::try_from(flags).is_err() {
        return Err("flags and a mask of at most 8 digits");
    }
    #[expect(clippy::cast_possible_truncation, reason = "GStreamer cuts off the sign bits")]
    if mask as u32 != u32::MAX {
        return Err("flags with the mask ffffffff, which alone are fixed, or (string)");
    }
    Ok(Some(format!("{flags:x}:ffffffff")))
}

/// Whether `text` has the form `+this/that`.
fn are_flag_names(text: &str) -> bool {
    let mut names = text.split(['+', '/']);
    let is_name = |name: &str| {
        !name.is_empty()
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    };
    names.next() == Some("") && names.clone().next().is_some() && names.all(is_name)
}
