// SPDX-License-Identifier: MIT OR Apache-2.0

//! Words, and strings in quotes.

/// Whether `byte` may be part of a name or of a string without quotes.
pub(super) fn is_word_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"/-_.:+".contains(&byte)
}

/// Appends `text` as a value of the type string. A text that is not a word gets quotes.
pub(super) fn put_string(to: &mut String, text: &str) {
    // The word NULL stands for a missing string.
    if !text.is_empty() && text.bytes().all(is_word_byte) && text != "NULL" {
        to.push_str(text);
        return;
    }
    to.push('"');
    for byte in text.bytes() {
        match byte {
            _ if is_word_byte(byte) => to.push(byte.into()),
            // GStreamer finds the end of a nested structure by counting brackets, even in quotes.
            b'[' | b']' => to.push_str(&format!("\\{byte:03o}")),
            b' '..=b'~' => to.extend(['\\', byte.into()]),
            _ => to.push_str(&format!("\\{byte:03o}")),
        }
    }
    to.push('"');
}

/// The string that `quoted` stands for. `quoted` has the outer quotes. After a backslash, three octal digits stand for
/// a byte, and any other character for itself.
pub(super) fn unquote(quoted: &str) -> Result<String, &'static str> {
    let inner = &quoted.as_bytes()[1..quoted.len() - 1];
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.iter();
    while let Some(byte) = rest.next() {
        if *byte != b'\\' {
            bytes.push(*byte);
            continue;
        }
        match rest.as_slice() {
            [first @ b'0'..=b'3', second @ b'0'..=b'7', third @ b'0'..=b'7', ..] => {
                bytes.push((first - b'0') << 6 | (second - b'0') << 3 | (third - b'0'));
                rest = rest.as_slice()[3..].iter();
            }
            [b'0'..=b'3', ..] => return Err("a string whose octal escapes have three digits"),
            _ => bytes.extend(rest.next()),
        }
    }
    if bytes.contains(&0) {
        return Err("a string without the byte 0");
    }
    String::from_utf8(bytes).map_err(|_| "a string of UTF-8 text")
}

/// The length of the string in quotes at the start of `text`, with the quotes. `None` if the closing quote is missing.
pub(super) fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        match text.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}
