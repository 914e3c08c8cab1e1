// SPDX-License-Identifier: MIT OR Apache-2.0

//! Lines of text that fit the columns of a terminal.

use unicode_width::UnicodeWidthChar;

/// The beginning of a line that fills at most `width` columns. Escape sequences for colours have no width, and the
/// characters of some languages fill two columns.
pub(super) fn cut(line: &str, width: usize) -> String {
    let (mut text, mut used, mut is_escape) = (String::new(), 0, false);
    for character in line.chars() {
        if character == '\x1b' {
            is_escape = true;
        } else if !is_escape {
            used += character.width().unwrap_or(0);
            if used > width {
                // Only the colours of the rest count.
                used = width + 1;
                continue;
            }
        }
        text.push(character);
        is_escape &= character != 'm';
    }
    text
}

/// The text as lines that fill at most `width` columns each.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut used = 0;
    for character in text.chars() {
        let columns = character.width().unwrap_or(0);
        if used + columns > width && used > 0 {
            lines.push(String::new());
            used = 0;
        }
        used += columns;
        if let Some(line) = lines.last_mut() {
            line.push(character);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_is_wrapped() {
        assert_eq!(wrapped("abcde", 2), ["ab", "cd", "e"]);
        assert_eq!(wrapped("a日本", 3), ["a日", "本"]);
        assert_eq!(wrapped("日", 1), ["日"]);
        assert_eq!(wrapped("", 5), [""]);
    }

    #[test]
    fn lines_are_cut_without_their_colours() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("a\x1b[31mbcd\x1b[0m", 2), "a\x1b[31mb\x1b[0m");
        assert_eq!(cut("", 3), "");
    }

    #[test]
    fn wide_characters_fill_two_columns() {
        assert_eq!(cut("日本語x", 4), "日本");
        assert_eq!(cut("日本語x", 5), "日本");
        assert_eq!(cut("a日b", 4), "a日b");
        // A combining mark has no width.
        assert_eq!(cut("e\u{301}fg", 2), "e\u{301}f");
    }
}
