// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is wrong with a text.

use std::fmt;

/// A place in a text at which GStreamer would not find fixed caps, or at which different versions of GStreamer differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The offset of the mistake, in bytes.
    pub position: usize,
    /// What the text should have at this position.
    pub expected: &'static str,
}

impl Mistake {
    /// The mistake as a sentence, with a part of `text`, in which it is.
    pub fn describe(&self, text: &str) -> String {
        let rest: String = text.get(self.position..).unwrap_or_default().chars().take(24).collect();
        let found = if rest.is_empty() {
            "the end of the text".to_owned()
        } else {
            format!("{rest:?}")
        };
        let Self { position, expected } = self;
        format!("at byte {position} there is {found}, but {expected} is expected")
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at byte {} of the text, {} is expected",
            self.position, self.expected
        )
    }
}
