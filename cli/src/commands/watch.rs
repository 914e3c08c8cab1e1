// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm watch`: the picture of a channel in the terminal.

use std::{
    env,
    io::{IsTerminal, stdin, stdout},
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use rsshm_channel::ChannelName;

use crate::{
    caps::Summary,
    drawing::{self, Depth},
    failure::{Code, Failure},
    follow::{Begin, Follower, Sight},
    names,
    output::Output,
    picture::{Frame, Picture},
    terminal::Screen,
    units,
};

/// The pixels of a character that is drawn by a protocol. A larger picture would only take longer.
const CELL: (usize, usize) = (10, 20);

/// How the picture is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Style {
    /// Half blocks of text, which every terminal with colours can show.
    Blocks,
    /// The graphics protocol of kitty.
    Kitty,
    /// The inline images of iTerm2.
    Iterm,
}

/// Shows the picture of a channel in the terminal, also by ssh.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm watch cam0
  ssh host rsshm watch cam0 --fps 2      for a slow line; with ssh -t

kitty, Ghostty, WezTerm and iTerm2 show the picture itself, and other terminals show half blocks in its colours. Key: q quit.
The command observes, so it takes no frame from any reader.")]
pub(crate) struct Watch {
    /// A name or a URI. The command waits for a channel that does not exist yet.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    channel: ChannelName,
    /// How the picture is drawn; without it, what the terminal can show.
    #[arg(long = "as", value_enum, value_name = "STYLE")]
    style: Option<Style>,
    /// The most pictures a second.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=60))]
    fps: u32,
    /// Ends after this many pictures.
    #[arg(long, short = 'n', value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

impl Watch {
    pub(crate) fn run(&self, _output: &mut Output) -> Result<(), Failure> {
        if !stdin().is_terminal() || !stdout().is_terminal() {
            let text = format!(
                "this is no terminal; for a file: rsshm snapshot {} -o a.png",
                self.channel
            );
            return Err(Failure::new(Code::Usage, text));
        }
        let failure = |error: std::io::Error| Failure::new(Code::No, format!("the terminal: {error}"));
        let style = self.style.unwrap_or_else(terminal_style);
        let interval = Duration::from_secs(1) / self.fps;
        let screen = Screen::new().map_err(failure)?;
        let mut follower = Follower::new(self.channel.clone(), Begin::Newest);
        let mut bytes = Vec::new();
        let mut shown = 0;
        let mut due = Instant::now();
        while self.count.is_none_or(|count| shown < count) {
            // A key ends the wait for the next picture.
            if screen.key(due.saturating_duration_since(Instant::now())) == Some(b'q') {
                break;
            }
            if Instant::now() < due {
                continue;
            }
            due = Instant::now() + interval;
            let sight = match follower.next(interval)? {
                Some(_) => follower.copy_newest(&mut bytes),
                None => None,
            };
            let Some(sight) = sight else {
                if !follower.is_connected() {
                    let text = format!("channel {}: waiting for a writer; q quits", self.channel);
                    screen.show(&[text]).map_err(failure)?;
                }
                continue;
            };
            let frame = Frame {
                channel: self.channel.as_str(),
                caps: follower.caps(),
                descriptor: &sight.descriptor,
                bytes: bytes.get(..sight.descriptor.size as usize).unwrap_or(&bytes),
            };
            let picture = frame.picture()?;
            let status = self.status(follower.caps(), &sight);
            self.draw(&screen, style, &picture, status)?;
            shown += 1;
        }
        Ok(())
    }

    /// Draws the picture with a line below it.
    fn draw(&self, screen: &Screen, style: Style, picture: &Picture, status: String) -> Result<(), Failure> {
        let failure = |error: std::io::Error| Failure::new(Code::No, format!("the terminal: {error}"));
        let encoding = |error: image::ImageError| Failure::new(Code::No, error.to_string());
        let (columns, rows) = screen.size();
        let rows = rows.saturating_sub(1).max(1);
        if style == Style::Blocks {
            let fitted = drawing::fit(picture, columns, rows * 2);
            let mut lines = drawing::half_blocks(&fitted, depth());
            lines.push(status);
            return screen.show(&lines).map_err(failure);
        }
        let fitted = drawing::fit(picture, columns * CELL.0, rows * CELL.1);
        // The picture fills all columns or all rows.
        let scale = (columns as f64 * CELL.0 as f64 / f64::from(picture.width))
            .min(rows as f64 * CELL.1 as f64 / f64::from(picture.height));
        let cells = |pixels: u32, cell: usize| ((f64::from(pixels) * scale / cell as f64).round() as usize).max(1);
        let (columns, rows) = (cells(picture.width, CELL.0), cells(picture.height, CELL.1));
        let drawn = match style {
            Style::Iterm => drawing::iterm(&fitted, columns, rows),
            _ => drawing::kitty(&fitted, columns, rows),
        };
        screen.draw(&drawn.map_err(encoding)?, rows, &status).map_err(failure)
    }

    fn status(&self, caps: &str, sight: &Sight) -> String {
        let summary = Summary::new(caps);
        let age = sight
            .age_ns()
            .and_then(|age| u64::try_from(age).ok())
            .map(units::duration);
        let age = age.map_or_else(String::new, |age| format!(", {age} old"));
        let size = summary.size().unwrap_or_default();
        let status = format!(
            "{}: {} {size}, frame {}{age}; q quits",
            self.channel,
            summary.kind(),
            sight.seq
        );
        status
            .chars()
            .map(|character| if character.is_control() { '?' } else { character })
            .collect()
    }
}

/// What the terminal says about itself.
fn terminal_style() -> Style {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let (terminal, program) = (variable("TERM"), variable("TERM_PROGRAM"));
    // A multiplexer between does not pass pictures on.
    if !variable("TMUX").is_empty() || terminal.starts_with("screen") || terminal.starts_with("tmux") {
        return Style::Blocks;
    }
    match program.as_str() {
        "iTerm.app" => Style::Iterm,
        "WezTerm" | "ghostty" => Style::Kitty,
        _ if terminal.contains("kitty") || terminal.contains("ghostty") => Style::Kitty,
        _ => Style::Blocks,
    }
}

fn depth() -> Depth {
    match env::var("COLORTERM").as_deref() {
        Ok("truecolor" | "24bit") => Depth::True,
        _ => Depth::Indexed,
    }
}
