// SPDX-License-Identifier: MIT OR Apache-2.0

//! Texts of caps, with which the tests of all peers compare their parsers.

/// A text of caps, and what a parser should say about it.
#[derive(Clone, Copy, Debug)]
pub enum CapsText {
    /// The text describes fixed caps.
    Fixed {
        /// The text.
        text: &'static str,
        /// The same caps in the canonical form.
        canonical: &'static str,
    },
    /// The text is refused.
    Refused {
        /// The text.
        text: &'static str,
        /// The offset of the mistake in bytes.
        position: usize,
    },
}

/// The texts in `caps-texts.tsv`.
pub fn caps_texts() -> impl Iterator<Item = CapsText> {
    let lines = include_str!("../caps-texts.tsv")
        .lines()
        .filter(|line| !line.starts_with('#'));
    lines.map(|line| match *line.split('\t').collect::<Vec<_>>() {
        ["fixed", text, canonical] => CapsText::Fixed { text, canonical },
        ["refused", position, text] => CapsText::Refused {
            text,
            position: position.parse().expect("a number"),
        },
        _ => panic!("no text of caps: {line}"),
    })
}
