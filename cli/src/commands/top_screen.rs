// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm top` on the whole screen: the table, its keys, and the picture of a channel.

use std::{
    io,
    time::{Duration, Instant},
};

use rsshm_channel::ChannelName;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{
    top_sample::{Sample, Sampler},
    top_table::{COLUMNS, Order, head, rows},
};
use crate::{
    failure::Failure,
    output::{Cell, Output, printable},
    terminal::{Event, Key, Screen},
    viewer::{Viewer, terminal_failure},
};

/// How soon a terminal that is not ready is asked again.
const READY_INTERVAL: Duration = Duration::from_millis(20);
/// The least time from one picture of a channel to the next.
const PICTURE_INTERVAL: Duration = Duration::from_millis(100);
/// The columns beside the name of a channel. A longer name is cut, so that they stay on the screen.
const OTHER_COLUMNS: usize = 72;
/// The least columns for a name.
const NAME_COLUMNS: usize = 16;
/// The last line of the screen.
const KEYS: &str =
    "up down select  Enter picture  s order: n name f fps w bw r readers b behind m missed c cpu  q quit";

/// The row that the keys move: a channel, or the reader with this entry of it. It keeps its meaning when the order of the
/// rows changes.
type Selection = (String, Option<usize>);

/// The state of the screen.
#[derive(Debug)]
pub(super) struct TopScreen<'a> {
    pub(super) channels: &'a [String],
    pub(super) interval: Duration,
    pub(super) order: Order,
    pub(super) count: Option<u64>,
    pub(super) samples: Vec<Sample>,
    pub(super) sampler: Sampler,
    selected: Option<Selection>,
    first_row: usize,
}

impl<'a> TopScreen<'a> {
    pub(super) fn new(channels: &'a [String], interval: Duration, order: Order, count: Option<u64>) -> Self {
        Self {
            channels,
            interval,
            order,
            count,
            samples: Vec::new(),
            sampler: Sampler::default(),
            selected: None,
            first_row: 0,
        }
    }

    /// Shows the table until a key ends it. The channels are looked at in each interval, however slow the terminal is.
    pub(super) fn run(&mut self, output: &Output) -> Result<(), Failure> {
        let failure = |error: io::Error| terminal_failure(&error);
        // The first look may fail, and then its error belongs on the usual screen.
        self.samples = self.sampler.look(self.channels)?;
        let mut screen = Screen::new().map_err(failure)?;
        let (mut looks, mut is_drawn) = (0, false);
        let mut due = Instant::now() + self.interval;
        loop {
            if Instant::now() >= due {
                // No channel may match a pattern for a while.
                self.samples = self.sampler.look(self.channels).unwrap_or_default();
                due = Instant::now() + self.interval;
                is_drawn = false;
                looks += 1;
                if self.count.is_some_and(|count| looks >= count) {
                    return Ok(());
                }
            }
            if !is_drawn && screen.is_ready().map_err(failure)? {
                self.order.sort(&mut self.samples);
                let lines = self.lines(output, screen.size());
                screen.show(&lines);
                is_drawn = true;
            }
            let mut timeout = due.saturating_duration_since(Instant::now());
            if !is_drawn {
                timeout = timeout.min(READY_INTERVAL);
            }
            match screen.event(timeout) {
                Event::Key(Key::Character('q')) => return Ok(()),
                Event::Key(Key::Enter) => {
                    self.show_picture(&mut screen)?;
                    due = Instant::now();
                }
                Event::Key(Key::Character(' ')) => due = Instant::now(),
                Event::Key(key) => {
                    self.handle(key, screen.size());
                    is_drawn = false;
                }
                Event::Redraw => is_drawn = false,
                Event::Ready | Event::TimedOut => {}
                Event::Closed => return Err(failure(io::ErrorKind::UnexpectedEof.into())),
            }
        }
    }

    fn handle(&mut self, key: Key, (_, height): (usize, usize)) {
        let selections = self.selections();
        let last = selections.len().saturating_sub(1);
        let row = self.selected_row(&selections);
        let page = height.saturating_sub(4).max(1);
        let row = match key {
            Key::Character('s') => {
                self.order = self.order.next();
                return;
            }
            Key::Down | Key::Character('j') => row + 1,
            Key::Up | Key::Character('k') => row.saturating_sub(1),
            Key::PageDown => row + page,
            Key::PageUp => row.saturating_sub(page),
            Key::Home => 0,
            Key::End => last,
            Key::Character(character) => {
                self.order = Order::of_key(character).unwrap_or(self.order);
                return;
            }
            Key::Enter | Key::Escape => return,
        };
        self.selected = selections.into_iter().nth(row.min(last));
    }

    /// The meaning of each row.
    fn selections(&self) -> Vec<Selection> {
        let rows = self.samples.iter().flat_map(|sample| {
            let readers = sample.readers.iter().map(|reader| Some(reader.entry));
            std::iter::once(None)
                .chain(readers)
                .map(|entry| (sample.channel.clone(), entry))
        });
        rows.collect()
    }

    /// The row that is selected now. If its reader is gone, it is the row of the channel; if that is gone, the first.
    fn selected_row(&self, selections: &[Selection]) -> usize {
        let Some(selected) = &self.selected else {
            return 0;
        };
        let row = selections.iter().position(|selection| selection == selected);
        let channel = || selections.iter().position(|selection| selection.0 == selected.0);
        row.or_else(channel).unwrap_or(0)
    }

    /// The lines of the screen.
    fn lines(&mut self, output: &Output, (width, height): (usize, usize)) -> Vec<String> {
        let mut rows = rows(&self.samples);
        let name_columns = width.saturating_sub(OTHER_COLUMNS).max(NAME_COLUMNS);
        for name in rows.iter_mut().filter_map(|row| row.first_mut()) {
            *name = Cell::new(shortened(name.text(), name_columns));
        }
        let mut table = output.table_lines(&COLUMNS, &rows).into_iter();
        let mut lines = vec![head(&self.samples, self.order)];
        lines.extend(table.next());
        let has_keys = height > 6;
        let visible = height.saturating_sub(lines.len() + usize::from(has_keys)).max(1);
        let row = self.selected_row(&self.selections());
        // The selected row is on the screen, and no line stays empty while there are rows for it.
        let last_first_row = rows.len().saturating_sub(visible);
        self.first_row = self
            .first_row
            .clamp((row + 1).saturating_sub(visible), row)
            .min(last_first_row);
        let table = table.enumerate().skip(self.first_row).take(visible);
        lines.extend(table.map(|(index, line)| if index == row { reversed(&line, width) } else { line }));
        if has_keys {
            lines.resize(height - 1, String::new());
            lines.push(KEYS.to_owned());
        }
        lines
    }

    /// Shows the picture of the selected channel until a key ends it, or why there is none.
    fn show_picture(&self, screen: &mut Screen) -> Result<(), Failure> {
        let selections = self.selections();
        let Some((channel, _)) = selections.get(self.selected_row(&selections)) else {
            return Ok(());
        };
        let Ok(channel) = ChannelName::new(channel.as_str()) else {
            return Ok(());
        };
        let viewer = Viewer {
            channel,
            style: None,
            interval: PICTURE_INTERVAL,
            count: None,
            advice: "Esc returns",
        };
        if let Err(failure) = viewer.run(screen) {
            screen.clear();
            screen.show_text(&format!("{}; any key returns", failure.text()));
            while matches!(
                screen.event(self.interval),
                Event::TimedOut | Event::Ready | Event::Redraw
            ) {}
        }
        screen.clear();
        Ok(())
    }
}

/// The text, with its end replaced by a dot if it needs more columns.
fn shortened(text: &str, columns: usize) -> String {
    let text = printable(text);
    if text.width() <= columns {
        return text;
    }
    let mut used = 1;
    let kept = text.chars().take_while(|character| {
        used += character.width().unwrap_or(0);
        used <= columns
    });
    kept.chain(['…']).collect()
}

/// The line in reversed colours, over the whole width.
fn reversed(line: &str, width: usize) -> String {
    let line = line.replace("\x1b[0m", "\x1b[0;7m");
    format!("\x1b[7m{line}{}\x1b[0m", " ".repeat(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_are_shortened() {
        for (text, columns, expected) in [
            ("cam0", 4, "cam0"),
            ("camera0", 5, "came…"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("日本語", 6, "日本語"),
            ("a\x1bb", 3, "a?b"),
        ] {
            assert_eq!(shortened(text, columns), expected);
        }
    }
}
