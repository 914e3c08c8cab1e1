// SPDX-License-Identifier: MIT OR Apache-2.0

//! The picture of a channel on the whole screen, for `watch` and `top`.

use std::{
    io,
    time::{Duration, Instant},
};

use rsshm_channel::ChannelName;

use crate::{
    caps::Summary,
    drawing,
    failure::{Code, Failure},
    follow::{Begin, Follower, Sight},
    picture::{Frame, Picture},
    terminal::{Ability, Event, Key, Screen, Style},
    units,
};

/// How long a key may wait while the viewer waits for a frame.
const KEY_INTERVAL: Duration = Duration::from_millis(50);
/// How long the last picture may take to reach the terminal.
const LAST_PICTURE_TIMEOUT: Duration = Duration::from_secs(10);

/// Shows the pictures of a channel until a key ends it.
#[derive(Debug)]
pub(crate) struct Viewer {
    pub(crate) channel: ChannelName,
    /// How the picture is drawn; `None` for the best that the terminal can show.
    pub(crate) style: Option<Style>,
    /// The least time from one picture to the next.
    pub(crate) interval: Duration,
    /// The number of pictures after which the viewer ends.
    pub(crate) count: Option<u64>,
    /// The line below the picture ends with this advice.
    pub(crate) advice: &'static str,
}

impl Viewer {
    /// Shows the pictures. While the terminal has not drawn the last picture, newer ones are skipped.
    ///
    /// # Errors
    /// The channel has no pictures, this user may not read it, or the terminal is gone.
    pub(crate) fn run(&self, screen: &mut Screen) -> Result<(), Failure> {
        let mut ability = screen.ability();
        ability.style = self.style.unwrap_or(ability.style);
        let mut follower = Follower::new(self.channel.clone(), Begin::Newest);
        let mut bytes = Vec::new();
        let (mut shown, mut due, mut last_picture_due) = (0, Instant::now(), None);
        let (mut needs_clear, mut needs_redraw) = (true, false);
        loop {
            match screen.event(due.saturating_duration_since(Instant::now())) {
                Event::Key(Key::Escape | Key::Character('q')) => return Ok(()),
                Event::Redraw => {
                    (needs_clear, needs_redraw) = (true, true);
                    due = Instant::now();
                }
                Event::Closed => return Err(terminal_failure(&io::ErrorKind::UnexpectedEof.into())),
                Event::Key(_) | Event::Ready | Event::TimedOut => {}
            }
            if Instant::now() < due {
                continue;
            }
            let is_ready = screen.is_ready().map_err(|error| terminal_failure(&error))?;
            if last_picture_due.is_some_and(|due| is_ready || Instant::now() > due) {
                return Ok(());
            }
            if !is_ready || last_picture_due.is_some() {
                due = Instant::now() + KEY_INTERVAL;
                continue;
            }
            let is_new = follower.next(self.interval.min(KEY_INTERVAL))?.is_some();
            let sight = if is_new || needs_redraw {
                follower.copy_newest(&mut bytes)
            } else {
                None
            };
            let Some(sight) = sight else {
                // The picture stays on the screen while its channel has no new one.
                if needs_clear || !follower.is_connected() {
                    let awaited = if follower.is_connected() { "frame" } else { "writer" };
                    let text = format!("channel {}: waiting for a {awaited}; {}", self.channel, self.advice);
                    screen.clear();
                    screen.show_text(&text);
                    needs_clear = true;
                    due = Instant::now() + KEY_INTERVAL * 4;
                }
                continue;
            };
            if std::mem::take(&mut needs_clear) {
                screen.clear();
            }
            due = Instant::now() + self.interval;
            needs_redraw = false;
            let frame = Frame {
                channel: self.channel.as_str(),
                caps: follower.caps(),
                descriptor: &sight.descriptor,
                bytes: bytes.get(..sight.descriptor.size as usize).unwrap_or(&bytes),
            };
            draw(
                screen,
                ability,
                &frame.picture()?,
                &self.status(follower.caps(), &sight),
            )?;
            shown += 1;
            if self.count.is_some_and(|count| shown >= count) {
                (last_picture_due, due) = (Some(Instant::now() + LAST_PICTURE_TIMEOUT), Instant::now());
            }
        }
    }

    fn status(&self, caps: &str, sight: &Sight) -> String {
        let summary = Summary::new(caps);
        let age = sight
            .age_ns()
            .and_then(|age| u64::try_from(age).ok())
            .map(units::duration);
        let age = age.map_or_else(String::new, |age| format!(", {age} old"));
        let size = summary.size().unwrap_or_default();
        format!(
            "{}: {} {size}, frame {}{age}; {}",
            self.channel,
            summary.kind(),
            sight.seq,
            self.advice
        )
    }
}

/// The failure of a command whose terminal is gone, or is none.
pub(crate) fn terminal_failure(error: &io::Error) -> Failure {
    Failure::new(Code::No, format!("the terminal: {error}"))
}

/// Draws the picture with a line below it.
fn draw(screen: &mut Screen, ability: Ability, picture: &Picture, status: &str) -> Result<(), Failure> {
    let encoding = |error: image::ImageError| Failure::new(Code::No, error.to_string());
    let (columns, rows) = screen.size();
    let rows = rows.saturating_sub(1).max(1);
    let (cell_width, cell_height) = ability.cell;
    if ability.style == Style::Blocks {
        let lines = drawing::half_blocks(&drawing::fit(picture, columns, rows * 2), ability.depth);
        screen.draw(&lines.join("\r\n"), lines.len(), status);
        return Ok(());
    }
    let fitted = drawing::fit(picture, columns * cell_width, rows * cell_height);
    let cells = |pixels: f64, cell: usize| ((pixels / cell as f64).round() as usize).max(1);
    // Sixels have the size of the terminal's pixels. The other protocols enlarge the picture to all columns or all rows.
    let scale = match ability.style {
        Style::Sixel => 1.0,
        _ => (columns as f64 * cell_width as f64 / f64::from(fitted.width))
            .min(rows as f64 * cell_height as f64 / f64::from(fitted.height)),
    };
    let columns = cells(f64::from(fitted.width) * scale, cell_width).min(columns);
    let used_rows = cells(f64::from(fitted.height) * scale, cell_height).min(rows);
    let drawn = match ability.style {
        Style::Sixel => drawing::sixel(&fitted),
        Style::Iterm => drawing::iterm(&fitted, columns, used_rows).map_err(encoding)?,
        _ => drawing::kitty(&fitted, columns, used_rows).map_err(encoding)?,
    };
    let used_rows = if ability.style == Style::Sixel {
        (fitted.height as usize).div_ceil(cell_height).min(rows)
    } else {
        used_rows
    };
    screen.draw(&drawn, used_rows, status);
    Ok(())
}
