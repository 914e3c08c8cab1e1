// SPDX-License-Identifier: MIT OR Apache-2.0

//! Why a command did not succeed: a text for people, and an exit code for scripts.

use std::{io, process::ExitCode};

use rsshm_channel::{ChannelName, Error, segment_version};

use crate::output;

/// The exit codes beside 0. docs/CLI.md lists them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Code {
    /// The answer is no: there is no such channel, or it is not as wanted.
    No = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The time ran out.
    TimedOut = 3,
    /// The permissions forbid it.
    Denied = 4,
    /// The channel is damaged, or of another version.
    Damaged = 5,
}

/// Why a command did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    code: Option<Code>,
    /// What happened and what to do; empty if the command has said it already.
    text: String,
    /// Command lines to copy, which come after the text.
    lines: Vec<String>,
}

impl Failure {
    /// A failure with this text for stderr.
    pub(crate) fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code: Some(code),
            text: text.into(),
            lines: Vec::new(),
        }
    }

    /// The failure with a command line to copy.
    pub(crate) fn with_line(mut self, line: String) -> Self {
        self.lines.push(line);
        self
    }

    /// A failure about which the command has already printed all.
    pub(crate) fn silent(code: Code) -> Self {
        Self::new(code, "")
    }

    /// The failure of a channel that does not exist.
    pub(crate) fn no_channel(name: &str) -> Self {
        Self::new(
            Code::No,
            format!("there is no channel {name}; `rsshm list` shows all, `rsshm wait {name}` waits for it"),
        )
    }

    /// The failure of an output that cannot be written.
    pub(crate) fn output(error: &io::Error) -> Self {
        // The program that reads the output wants no more, as `head` does. That is no failure.
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self {
                code: None,
                text: String::new(),
                lines: Vec::new(),
            };
        }
        Self::new(Code::No, format!("the output cannot be written: {error}"))
    }

    /// The failure in the words of the channel crate.
    pub(crate) fn of_channel(name: &ChannelName, error: &Error) -> Self {
        let code = match error {
            Error::Denied { .. } => Code::Denied,
            Error::Damaged { .. } | Error::Foreign { .. } => Code::Damaged,
            Error::Name { .. } | Error::Option { .. } | Error::Directory(_) => Code::Usage,
            _ => Code::No,
        };
        let advice = if code == Code::Damaged && is_other_version(name) {
            "; use the rsshm of the same version as its writer"
        } else {
            ""
        };
        Self::new(code, format!("{error}{advice}"))
    }

    pub(crate) fn code(&self) -> Option<Code> {
        self.code
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Prints the text on stderr, and returns the exit code.
    pub(crate) fn report(&self) -> ExitCode {
        if !self.text.is_empty() {
            output::warn(&self.text);
        }
        self.lines.iter().for_each(output::advise);
        self.code.map_or(ExitCode::SUCCESS, |code| ExitCode::from(code as u8))
    }
}

/// Whether the channel's segment has a version that this program cannot read.
pub(crate) fn is_other_version(name: &ChannelName) -> bool {
    segment_version(name).is_some_and(|version| version != rsshm_channel::layout::VERSION)
}
