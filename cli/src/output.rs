// SPDX-License-Identifier: MIT OR Apache-2.0

//! The output on stdout: tables for people, JSON and CSV for programs.

use std::{
    env,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
};

use clap::ValueEnum;
use serde::Serialize;
use unicode_width::UnicodeWidthStr;

use crate::{args::Global, failure::Failure};

/// The form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences for people.
    Table,
    /// JSON for programs.
    Json,
    /// Comma-separated values, after a line with their names.
    Csv,
}

/// What a colour means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Colour {
    Good,
    Warning,
    Bad,
    Dim,
}

/// A cell of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    text: String,
    colour: Option<Colour>,
}

impl Cell {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            colour: None,
        }
    }

    pub(crate) fn coloured(text: impl Into<String>, colour: Colour) -> Self {
        Self {
            text: text.into(),
            colour: Some(colour),
        }
    }

    pub(crate) fn in_colour(self, colour: Colour) -> Self {
        Self {
            colour: Some(colour),
            ..self
        }
    }

    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// A cell with `-` if there is no value.
    pub(crate) fn optional(value: Option<impl ToString>) -> Self {
        Self::new(value.map_or_else(|| "-".to_owned(), |value| value.to_string()))
    }
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Left(&'static str),
    Right(&'static str),
}

/// The output on stdout.
#[derive(Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    is_coloured: bool,
    stream: BufWriter<Stdout>,
}

impl Output {
    /// The output that the options ask for. It is coloured only on a terminal.
    pub(crate) fn new(options: &Global) -> Self {
        let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
        let is_dumb = env::var_os("TERM").is_none_or(|terminal| terminal == "dumb");
        Self {
            format: options.format(),
            is_coloured: io::stdout().is_terminal() && !options.no_color && !is_set("NO_COLOR") && !is_dumb,
            stream: BufWriter::with_capacity(64 * 1024, io::stdout()),
        }
    }

    /// Writes a line. Control characters become `?`, because names in shared memory may have any content, and a terminal
    /// would obey them.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        let text = printable(text.as_ref());
        writeln!(self.stream, "{text}").map_err(|error| Failure::output(&error))
    }

    /// Writes bytes as they are, at once.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.stream
            .write_all(bytes)
            .and_then(|()| self.stream.flush())
            .map_err(|error| Failure::output(&error))
    }

    /// Writes a line that begins with a tab, as the second lines of ros2's measurements do.
    pub(crate) fn line_with_tab(&mut self, text: impl AsRef<str>) -> Result<(), Failure> {
        let text = printable(text.as_ref());
        writeln!(self.stream, "\t{text}").map_err(|error| Failure::output(&error))
    }

    /// Writes a value as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string(value).map_err(|error| Failure::output(&error.into()))?;
        writeln!(self.stream, "{}", escaped(&text)).map_err(|error| Failure::output(&error))
    }

    /// Writes a line of comma-separated values, with `?` in place of control characters.
    pub(crate) fn csv<T: AsRef<str>>(&mut self, fields: &[T]) -> Result<(), Failure> {
        let fields: Vec<String> = fields.iter().map(|field| quoted(&printable(field.as_ref()))).collect();
        writeln!(self.stream, "{}", fields.join(",")).map_err(|error| Failure::output(&error))
    }

    /// Writes values of one line of CSV, after a line with their names if it is the first.
    pub(crate) fn csv_with_head<T: AsRef<str>>(
        &mut self,
        has_head: &mut bool,
        names: &[&str],
        values: &[T],
    ) -> Result<(), Failure> {
        if !std::mem::replace(has_head, true) {
            self.csv(names)?;
        }
        self.csv(values)
    }

    /// Writes a table. Each line begins with `indent`.
    pub(crate) fn table(&mut self, indent: &str, columns: &[Column], rows: &[Vec<Cell>]) -> Result<(), Failure> {
        for line in self.table_lines(columns, rows) {
            writeln!(self.stream, "{indent}{line}").map_err(|error| Failure::output(&error))?;
        }
        Ok(())
    }

    /// The lines of a table, whose columns are as wide as their widest cells.
    pub(crate) fn table_lines(&self, columns: &[Column], rows: &[Vec<Cell>]) -> Vec<String> {
        let title = |column: &Column| match *column {
            Column::Left(title) | Column::Right(title) => title,
        };
        let cells = |index: usize| rows.iter().filter_map(move |row| row.get(index));
        let widths: Vec<usize> = columns
            .iter()
            .enumerate()
            .map(|(index, column)| {
                let widest = cells(index).map(|cell| printable(&cell.text).width()).max();
                widest.unwrap_or(0).max(title(column).len())
            })
            .collect();
        let head: Vec<Cell> = columns
            .iter()
            .map(|column| Cell::coloured(title(column), Colour::Dim))
            .collect();
        let mut lines = Vec::new();
        for row in std::iter::once(&head).chain(rows) {
            let mut line = String::new();
            for (index, ((cell, column), width)) in row.iter().zip(columns).zip(&widths).enumerate() {
                let text = printable(&cell.text);
                let padding = " ".repeat(width.saturating_sub(text.width()));
                let is_last = index + 1 == columns.len();
                let text = self.paint(&text, cell.colour);
                line += &match column {
                    Column::Right(_) => padding + &text,
                    Column::Left(_) if is_last => text,
                    Column::Left(_) => text + &padding,
                };
                line += if is_last { "" } else { "  " };
            }
            lines.push(line.trim_end().to_owned());
        }
        lines
    }

    /// Writes everything to stdout now.
    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.stream.flush().map_err(|error| Failure::output(&error))
    }

    fn paint(&self, text: &str, colour: Option<Colour>) -> String {
        let code = match colour {
            Some(Colour::Good) => 32,
            Some(Colour::Warning) => 33,
            Some(Colour::Bad) => 31,
            Some(Colour::Dim) => 2,
            None => 0,
        };
        if self.is_coloured && code != 0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Whether a terminal would obey the character: control characters, and those that change the direction of text, so that
/// it looks like another one.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

/// The text with `?` in place of characters that a terminal would obey.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| if is_obeyed(character) { '?' } else { character })
        .collect()
}

/// Prints a sentence on stderr, with `?` in place of control characters, because it may have names from shared memory.
pub(crate) fn warn(text: impl AsRef<str>) {
    // Nobody may read stderr any more, which is no reason to end.
    let _ = writeln!(io::stderr(), "rsshm: {}", printable(text.as_ref()));
}

/// Prints a command line to copy on stderr.
pub(crate) fn advise(line: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "    {}", printable(line.as_ref()));
}

/// JSON in which all characters are escaped that a terminal would obey. They appear only in strings.
fn escaped(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if is_obeyed(character) {
            text += &format!("\\u{:04x}", u32::from(character));
        } else {
            text.push(character);
        }
    }
    text
}

/// A field of comma-separated values, in quotes if it needs them.
fn quoted(field: &str) -> String {
    if field.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_they_need_it() {
        for (field, text) in [("cam0", "cam0"), ("a,b", "\"a,b\""), ("a\"b", "\"a\"\"b\""), ("", "")] {
            assert_eq!(quoted(field), text);
        }
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\u{9b}c\nd\u{202e}e"), "a?[2Jb?c?d?e");
        assert_eq!(escaped("\"日\u{9b}2J\u{7f}\""), r#""日\u009b2J\u007f""#);
    }
}
