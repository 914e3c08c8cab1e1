// SPDX-License-Identifier: MIT OR Apache-2.0

//! What arrives from a terminal: keys, and the terminal's answers to queries.

/// The longest answer that is kept. A longer one is no answer to a query of this program.
const MAX_ANSWER_SIZE: usize = 1024;

/// A key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    /// A key that writes a character.
    Character(char),
}

/// What the terminal sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input {
    Key(Key),
    /// The answer to a query, without the escape character before it: `[0n`, `[?62;4c`, `P>|kitty(0.32)`.
    Answer(String),
}

/// Divides the bytes from a terminal into keys and answers.
#[derive(Debug, Default)]
pub(super) struct Parser {
    bytes: Vec<u8>,
}

impl Parser {
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Whether bytes wait for further ones.
    pub(super) fn is_incomplete(&self) -> bool {
        !self.bytes.is_empty()
    }

    /// The next key or answer. If `is_complete`, no byte follows at once, so that an escape character is a key of its
    /// own, and not the beginning of a sequence.
    pub(super) fn next(&mut self, is_complete: bool) -> Option<Input> {
        loop {
            let (input, length) = match *self.bytes.as_slice() {
                [] => return None,
                [0x1b, ..] => match sequence(&self.bytes) {
                    Some(found) => found,
                    // A terminal that stops in the middle of an answer does not keep the Escape key from working.
                    None if is_complete || self.bytes.len() > MAX_ANSWER_SIZE => (Some(Input::Key(Key::Escape)), 1),
                    None => return None,
                },
                [b'\r' | b'\n', ..] => (Some(Input::Key(Key::Enter)), 1),
                [byte, ..] => {
                    let character = char::from(byte);
                    let is_known = byte.is_ascii_graphic() || byte == b' ';
                    (is_known.then_some(Input::Key(Key::Character(character))), 1)
                }
            };
            self.bytes.drain(..length);
            if input.is_some() {
                return input;
            }
        }
    }
}

/// The sequence at the beginning of `bytes`, which is `None` if it means nothing, and its length. `None` if the sequence
/// is not complete yet.
fn sequence(bytes: &[u8]) -> Option<(Option<Input>, usize)> {
    let answer = |end: usize| Input::Answer(String::from_utf8_lossy(&bytes[1..end]).into_owned());
    match *bytes.get(1)? {
        b'[' => {
            let last = 2 + bytes[2..].iter().position(|byte| (0x40..=0x7e).contains(byte))?;
            let key = match (&bytes[2..last], bytes[last]) {
                ([] | [b'1', ..], b'A') => Some(Key::Up),
                ([] | [b'1', ..], b'B') => Some(Key::Down),
                ([] | [b'1', ..], b'H') | (b"1" | b"7", b'~') => Some(Key::Home),
                ([] | [b'1', ..], b'F') | (b"4" | b"8", b'~') => Some(Key::End),
                (b"5", b'~') => Some(Key::PageUp),
                (b"6", b'~') => Some(Key::PageDown),
                _ => None,
            };
            let is_answer = matches!(bytes[last], b'n' | b'c' | b't');
            let input = match key {
                Some(key) => Some(Input::Key(key)),
                None => is_answer.then(|| answer(last + 1)),
            };
            Some((input, last + 1))
        }
        b'O' => {
            let key = match *bytes.get(2)? {
                b'A' => Some(Key::Up),
                b'B' => Some(Key::Down),
                b'H' => Some(Key::Home),
                b'F' => Some(Key::End),
                b'M' => Some(Key::Enter),
                _ => None,
            };
            Some((key.map(Input::Key), 3))
        }
        // A string up to the string terminator, ESC and a backslash.
        b'_' | b'P' | b']' => {
            let end = bytes.windows(2).skip(2).position(|pair| pair == b"\x1b\\")? + 2;
            Some((Some(answer(end)), end + 2))
        }
        0x1b => Some((Some(Input::Key(Key::Escape)), 1)),
        // A key with Alt.
        _ => Some((None, 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Vec<Input> {
        let mut parser = Parser::default();
        parser.push(bytes);
        std::iter::from_fn(|| parser.next(true)).collect()
    }

    fn keys(keys: &[Key]) -> Vec<Input> {
        keys.iter().copied().map(Input::Key).collect()
    }

    #[test]
    fn keys_are_recognised() {
        let expected = keys(&[
            Key::Character('q'),
            Key::Up,
            Key::Down,
            Key::PageDown,
            Key::Home,
            Key::Enter,
        ]);
        assert_eq!(parse(b"q\x1b[A\x1bOB\x1b[6~\x1b[1~\r"), expected);
        assert_eq!(parse(b"\x1b"), keys(&[Key::Escape]));
        assert_eq!(parse(b"\x1b\x1b[A"), keys(&[Key::Escape, Key::Up]));
        // Control characters, characters beyond ASCII, Alt and function keys mean nothing.
        assert_eq!(parse(b"\x01\xc3\xa9\x1bx\x1b[15~z"), keys(&[Key::Character('z')]));
    }

    #[test]
    fn answers_are_no_keys() {
        let answers: Vec<_> = ["[0n", "[?62;4;22c", "_Gi=31;OK", "P>|XTerm(379)", "[6;20;10t"]
            .iter()
            .map(|text| Input::Answer((*text).to_owned()))
            .collect();
        let bytes = b"\x1b[0n\x1b[?62;4;22c\x1b_Gi=31;OK\x1b\\\x1bP>|XTerm(379)\x1b\\\x1b[6;20;10t";
        assert_eq!(parse(bytes), answers);
    }

    #[test]
    fn sequence_waits_for_its_end() {
        let mut parser = Parser::default();
        for part in [&b"\x1b"[..], b"[", b"1;5"] {
            parser.push(part);
            assert_eq!(parser.next(false), None);
        }
        parser.push(b"A");
        assert_eq!(parser.next(false), Some(Input::Key(Key::Up)));
        assert!(!parser.is_incomplete());
    }

    #[test]
    fn endless_answer_is_given_up() {
        let mut parser = Parser::default();
        parser.push(b"\x1b_");
        parser.push(&[b'x'; MAX_ANSWER_SIZE]);
        assert_eq!(parser.next(false), Some(Input::Key(Key::Escape)));
    }
}
