// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which pictures the terminal can show. The terminal itself says so, also through ssh and tmux; its name is used only if
//! it does not answer.

use std::{
    env,
    io::stdout,
    time::{Duration, Instant},
};

use clap::ValueEnum;
use rustix::termios::tcgetwinsize;

use super::{Input, Screen, pace::ANSWER};

/// How long the terminal may take for its answers.
const TIMEOUT: Duration = Duration::from_secs(1);
/// The queries: whether it knows the protocol of kitty, its name, the size of a character in pixels, and what it is.
/// Every terminal answers the last one, so the answers are complete then.
const QUERIES: &str = "\x1b_Gi=31,s=1,v=1,a=q,t=d,f=24;AAAA\x1b\\\x1b[>0q\x1b[16t\x1b[c";
/// The size of a character in pixels where it is unknown. A picture may be too small then, and not too large.
const CELL: (usize, usize) = (8, 16);

/// How a picture is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Style {
    /// Half blocks of text, which every terminal with colours can show.
    Blocks,
    /// The graphics protocol of kitty.
    Kitty,
    /// Sixels, the graphics of DEC's terminals.
    Sixel,
    /// The inline images of iTerm2.
    Iterm,
}

/// The colours of text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Depth {
    /// Red, green and blue with eight bits each.
    True,
    /// The 256 colours of xterm.
    Indexed,
}

/// Which pictures the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ability {
    pub(crate) style: Style,
    pub(crate) depth: Depth,
    /// The columns and rows of pixels of a character.
    pub(crate) cell: (usize, usize),
}

/// What the terminal says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Answers {
    knows_kitty: bool,
    knows_sixel: bool,
    name: Option<String>,
    cell: Option<(usize, usize)>,
}

impl Ability {
    /// Asks the terminal. Keys that are pressed meanwhile are kept.
    pub(super) fn of(screen: &mut Screen) -> Self {
        screen.painter.paint(QUERIES.as_bytes());
        let deadline = Instant::now() + TIMEOUT;
        let mut answers = Answers::default();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match screen.input(left) {
                Ok(Some(Input::Key(key))) => screen.keys.push_back(key),
                Ok(Some(Input::Answer(answer))) if answers.is_complete_with(&answer) => break,
                Ok(Some(Input::Answer(answer))) if answer == ANSWER => screen.pace.record_answer(),
                Ok(_) if !left.is_zero() => {}
                _ => break,
            }
        }
        let variable = |name: &str| env::var(name).unwrap_or_default();
        Self {
            style: answers.style(&variable),
            depth: answers.depth(&variable),
            cell: cell().or(answers.cell).unwrap_or(CELL),
        }
    }
}

impl Answers {
    /// Adds an answer; `true` if it is that to the last query.
    fn is_complete_with(&mut self, answer: &str) -> bool {
        if let Some(attributes) = answer.strip_prefix("[?").and_then(|rest| rest.strip_suffix('c')) {
            self.knows_sixel = attributes.split(';').skip(1).any(|attribute| attribute == "4");
            return true;
        }
        if answer.starts_with("_Gi=31;OK") {
            self.knows_kitty = true;
        } else if let Some(name) = answer.strip_prefix("P>|") {
            self.name = Some(name.to_owned());
        } else if let Some(size) = answer.strip_prefix("[6;").and_then(|rest| rest.strip_suffix('t')) {
            let size = size.split_once(';');
            let size = size.and_then(|(rows, columns)| Some((columns.parse().ok()?, rows.parse().ok()?)));
            self.cell = size.filter(|(columns, rows)| is_plausible(*columns) && is_plausible(*rows));
        }
        false
    }

    fn style(&self, variable: &dyn Fn(&str) -> String) -> Style {
        let (terminal, program) = (variable("TERM"), variable("TERM_PROGRAM"));
        // A multiplexer between has the variables of the terminal in which it was started, and shows no such pictures.
        let is_between =
            ["screen", "tmux"].iter().any(|name| terminal.starts_with(name)) || !variable("TMUX").is_empty();
        // ssh passes on the variables that begin with LC_.
        let is_iterm = program == "iTerm.app" || variable("LC_TERMINAL") == "iTerm2";
        let is_named_iterm = self.name.as_deref().is_some_and(|name| name.starts_with("iTerm2"));
        let is_silent = *self == Self::default();
        match () {
            () if self.knows_kitty => Style::Kitty,
            () if is_named_iterm || (is_iterm && !is_between) => Style::Iterm,
            () if self.knows_sixel => Style::Sixel,
            () if is_between || !is_silent => Style::Blocks,
            () if matches!(&*program, "WezTerm" | "ghostty") => Style::Kitty,
            () if terminal.contains("kitty") || terminal.contains("ghostty") => Style::Kitty,
            () => Style::Blocks,
        }
    }

    fn depth(&self, variable: &dyn Fn(&str) -> String) -> Depth {
        let has_true =
            matches!(&*variable("COLORTERM"), "truecolor" | "24bit") || variable("TERM").ends_with("-direct");
        // Terminals that know the query for their name know all colours. ssh does not pass COLORTERM on.
        if has_true || self.name.is_some() {
            Depth::True
        } else {
            Depth::Indexed
        }
    }
}

/// The size of a character, if the terminal has said its size in pixels to the kernel.
fn cell() -> Option<(usize, usize)> {
    let size = tcgetwinsize(stdout()).ok()?;
    let columns = usize::from(size.ws_xpixel).checked_div(size.ws_col.into())?;
    let rows = usize::from(size.ws_ypixel).checked_div(size.ws_row.into())?;
    (is_plausible(columns) && is_plausible(rows)).then_some((columns, rows))
}

fn is_plausible(pixels: usize) -> bool {
    (2..=200).contains(&pixels)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The style and the depth of a terminal with these answers and variables.
    fn found(answers: &[&str], variables: &[(&str, &str)]) -> (Style, Depth) {
        let mut found = Answers::default();
        for answer in answers {
            found.is_complete_with(answer);
        }
        let variable = |name: &str| {
            let value = variables.iter().find(|(known, _)| *known == name);
            value.map_or_else(String::new, |(_, value)| (*value).to_owned())
        };
        (found.style(&variable), found.depth(&variable))
    }

    #[test]
    fn terminals_are_recognised() {
        let xterm = ("TERM", "xterm-256color");
        for (answers, variables, expected) in [
            (
                &["_Gi=31;OK", "P>|kitty(0.32.2)", "[?62;c"][..],
                &[xterm][..],
                (Style::Kitty, Depth::True),
            ),
            (
                &["P>|foot(1.16.2)", "[6;20;10t", "[?62;4;22c"],
                &[xterm],
                (Style::Sixel, Depth::True),
            ),
            (&["P>|iTerm2 3.5.0", "[?64;4c"], &[xterm], (Style::Iterm, Depth::True)),
            (
                &["[?64;4c"],
                &[("LC_TERMINAL", "iTerm2")],
                (Style::Iterm, Depth::Indexed),
            ),
            (
                &["[?1;2c"],
                &[xterm, ("COLORTERM", "truecolor")],
                (Style::Blocks, Depth::True),
            ),
            (
                &["P>|tmux 3.3a", "[?1;2c"],
                &[("LC_TERMINAL", "iTerm2"), ("TMUX", "x")],
                (Style::Blocks, Depth::True),
            ),
            // The first value of the attributes is the kind of the terminal.
            (&["[?4;22c"], &[xterm], (Style::Blocks, Depth::Indexed)),
            (&[], &[("TERM", "xterm-kitty")], (Style::Kitty, Depth::Indexed)),
            (
                &[],
                &[("TERM", "screen-256color"), ("TERM_PROGRAM", "WezTerm")],
                (Style::Blocks, Depth::Indexed),
            ),
            (&[], &[xterm], (Style::Blocks, Depth::Indexed)),
        ] {
            assert_eq!(found(answers, variables), expected, "{answers:?} {variables:?}");
        }
    }

    #[test]
    fn size_of_a_character_is_plausible() {
        for (answer, cell) in [
            ("[6;20;10t", Some((10, 20))),
            ("[6;0;0t", None),
            ("[6;9999999;1t", None),
            ("[6;x;yt", None),
        ] {
            let mut answers = Answers::default();
            assert!(!answers.is_complete_with(answer));
            assert_eq!(answers.cell, cell, "{answer}");
        }
    }
}
