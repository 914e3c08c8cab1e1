// SPDX-License-Identifier: MIT OR Apache-2.0

//! The whole screen of a terminal, for `top` and `watch`: keys, and pictures that replace each other.
//!
//! ```text
//! input    divides what arrives into keys and answers
//! painter  writes from a thread of its own, because a slow terminal blocks each write
//! ability  which pictures the terminal can show
//! ```
//!
//! The terminal gets back its settings and its former screen whatever ends or stops the program, except for SIGKILL.

use std::{
    io::{self, stdin, stdout},
    os::fd::AsFd,
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{FlushArg, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcflush, tcgetattr, tcsetattr},
};
use rustix::termios::tcgetwinsize;
use unicode_width::UnicodeWidthChar;

pub(crate) use self::{
    ability::{Ability, Depth, Style},
    input::{Input, Key},
};
use self::{input::Parser, painter::Painter};
use crate::output::printable;

mod ability;
mod input;
mod painter;

/// Begins the alternate screen, and hides the cursor.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J";
/// Ends all colours, shows the cursor, and ends the alternate screen.
const END: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";
/// A query that each terminal answers with [`ANSWER`], after everything before it has been drawn.
const QUERY: &str = "\x1b[5n";
const ANSWER: &str = "[0n";
/// How long the terminal may take to answer the first query. Then it is one that answers nothing.
const FIRST_ANSWER_TIMEOUT: Duration = Duration::from_millis(300);
/// How long a terminal that answers may take to draw a picture.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end of the program waits for the terminal.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// How long after an escape character the rest of a sequence may arrive.
const SEQUENCE_TIMEOUT: Duration = Duration::from_millis(50);
/// How often the size of the terminal is looked at.
const SIZE_INTERVAL: Duration = Duration::from_millis(100);

/// The screen that this program has taken.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);
/// Whether an answer of the terminal is on its way.
static IS_ANSWER_DUE: AtomicBool = AtomicBool::new(false);
/// Whether the program was stopped, so that the screen has to be drawn again.
static IS_RESUMED: AtomicBool = AtomicBool::new(false);

#[derive(Clone, Debug)]
struct Taken {
    /// The settings of the terminal before this program changed them.
    former: Termios,
    settings: Termios,
    painter: Painter,
}

/// What happened on the terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Key(Key),
    /// The terminal has another size, or shows this program again, so that the screen has to be drawn.
    Redraw,
    /// The last picture has been drawn.
    Ready,
    /// The time is over.
    TimedOut,
    /// There is no terminal any more.
    Closed,
}

/// The screen, until the value is dropped.
#[derive(Debug)]
pub(crate) struct Screen {
    painter: Painter,
    parser: Parser,
    size: (usize, usize),
    pace: Pace,
    ability: Option<Ability>,
    /// The keys that were pressed while the program waited for an answer.
    keys: std::collections::VecDeque<Key>,
}

/// Whether the terminal has drawn what was written. Between this program and the terminal may be buffers of any size, for
/// example those of ssh, so only an answer of the terminal says so.
#[derive(Debug, Default)]
struct Pace {
    asked_at: Option<Instant>,
    /// Whether the terminal answers; `None` before it is known.
    answers: Option<bool>,
}

impl Pace {
    fn is_ready(&mut self) -> bool {
        let limit = match self.answers {
            Some(true) => ANSWER_TIMEOUT,
            _ => FIRST_ANSWER_TIMEOUT,
        };
        match self.asked_at {
            Some(asked_at) if asked_at.elapsed() < limit => false,
            Some(_) => {
                self.asked_at = None;
                self.answers = Some(false);
                true
            }
            None => true,
        }
    }

    /// What to write behind a picture.
    fn query(&mut self) -> &'static str {
        if self.answers == Some(false) {
            return "";
        }
        self.asked_at = Some(Instant::now());
        // Relaxed, here and below: this is a hint, and no other value depends on it.
        IS_ANSWER_DUE.store(true, Ordering::Relaxed);
        QUERY
    }

    fn record_answer(&mut self) {
        IS_ANSWER_DUE.store(false, Ordering::Relaxed);
        self.asked_at = None;
        self.answers = Some(true);
    }
}

impl Screen {
    /// Takes the screen. Keys arrive without Enter, and are not echoed; Ctrl-C and Ctrl-Z work as usual.
    ///
    /// # Errors
    /// Stdin is no terminal.
    pub(crate) fn new() -> io::Result<Self> {
        restore_at_panics();
        let former = tcgetattr(stdin())?;
        let mut settings = former.clone();
        settings.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        // A read returns at once, because the restoring thread may have read the bytes that `poll` announced.
        settings.control_chars[SpecialCharacterIndices::VMIN as usize] = 0;
        settings.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        let painter = Painter::new()?;
        let taken = Taken {
            former,
            settings,
            painter: painter.clone(),
        };
        taken.begin();
        *lock() = Some(taken);
        Ok(Self {
            painter,
            parser: Parser::default(),
            size: size(),
            pace: Pace::default(),
            ability: None,
            keys: std::collections::VecDeque::new(),
        })
    }

    /// The number of columns and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        self.size
    }

    /// Which pictures the terminal can show. The first call asks the terminal.
    pub(crate) fn ability(&mut self) -> Ability {
        let ability = self.ability.unwrap_or_else(|| Ability::of(self));
        self.ability = Some(ability);
        ability
    }

    /// Whether the terminal has drawn the last picture, so that the next one would not wait behind it.
    ///
    /// # Errors
    /// The terminal is gone.
    pub(crate) fn is_ready(&mut self) -> io::Result<bool> {
        Ok(self.painter.is_idle()? && self.pace.is_ready())
    }

    /// Shows these lines from the top on, as many as fit. The lines may have colours, but no other control characters.
    pub(crate) fn show(&mut self, lines: &[String]) {
        let (width, height) = self.size();
        let mut text = "\x1b[H".to_owned();
        for (index, line) in lines.iter().take(height).enumerate() {
            if index > 0 {
                text += "\r\n";
            }
            // The line is erased first. Behind a character in the last column, the sequence would erase this one.
            text += "\x1b[K";
            text += &cut(line, width);
        }
        if lines.len() < height {
            text += "\r\n\x1b[J";
        }
        self.paint(text);
    }

    /// Shows a picture in the upper left corner by a protocol of the terminal, and a line below its `rows`.
    pub(crate) fn draw(&mut self, picture: &str, rows: usize, line: &str) {
        let (width, _) = self.size();
        let line = cut(&printable(line), width);
        self.paint(format!("\x1b[H{picture}\x1b[{};1H\x1b[J{line}", rows + 1));
    }

    /// Shows a sentence, which may have names from shared memory.
    pub(crate) fn show_text(&mut self, text: &str) {
        let (width, _) = self.size();
        self.show(&wrapped(&printable(text), width));
    }

    /// Removes everything from the screen, also pictures.
    pub(crate) fn clear(&mut self) {
        self.painter.paint(b"\x1b_Ga=d,q=2\x1b\\\x1b[H\x1b[2J");
    }

    fn paint(&mut self, mut text: String) {
        text += self.pace.query();
        self.painter.paint(text.as_bytes());
    }

    /// Waits until something happens on the terminal, at most for `timeout`.
    pub(crate) fn event(&mut self, timeout: Duration) -> Event {
        let deadline = Instant::now() + timeout;
        if let Some(key) = self.keys.pop_front() {
            return Event::Key(key);
        }
        loop {
            let is_resumed = IS_RESUMED.swap(false, Ordering::Relaxed);
            if is_resumed || self.size != size() {
                if is_resumed {
                    // The answer arrived while the screen was given back.
                    self.pace.asked_at = None;
                }
                self.size = size();
                return Event::Redraw;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.input(left.min(SIZE_INTERVAL)) {
                Ok(Some(Input::Key(key))) => return Event::Key(key),
                Ok(Some(Input::Answer(answer))) if answer == ANSWER => {
                    self.pace.record_answer();
                    return Event::Ready;
                }
                Ok(_) => {}
                Err(_) => return Event::Closed,
            }
            if left.is_zero() {
                return Event::TimedOut;
            }
        }
    }

    /// The next key or answer; `None` if there is none within `timeout`.
    fn input(&mut self, timeout: Duration) -> io::Result<Option<Input>> {
        if let Some(input) = self.parser.next(false) {
            return Ok(Some(input));
        }
        let timeout = if self.parser.is_incomplete() {
            SEQUENCE_TIMEOUT
        } else {
            timeout
        };
        let mut bytes = [0; 256];
        match read(&mut bytes, timeout)? {
            0 => Ok(self.parser.next(true)),
            count => {
                self.parser.push(&bytes[..count]);
                Ok(self.parser.next(false))
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

impl Taken {
    fn begin(&self) {
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.settings);
        self.painter.resume(BEGIN.as_bytes());
    }

    fn end(&self) {
        if !self.painter.finish(END.as_bytes(), END_TIMEOUT) {
            // The terminal takes nothing now. What waits for it makes room for the last bytes.
            let _ = tcflush(stdout(), FlushArg::TCOFLUSH);
            self.painter.drain(END_TIMEOUT);
        }
        // An answer that arrives later would be the next input of the shell.
        let deadline = Instant::now() + END_TIMEOUT;
        while IS_ANSWER_DUE.load(Ordering::Relaxed) && Instant::now() < deadline {
            let mut bytes = [0; 64];
            match read(&mut bytes, SEQUENCE_TIMEOUT) {
                Ok(count) if bytes[..count].ends_with(b"n") => break,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        IS_ANSWER_DUE.store(false, Ordering::Relaxed);
        let _ = tcflush(stdin(), FlushArg::TCIFLUSH);
        let _ = tcsetattr(stdin(), SetArg::TCSANOW, &self.former);
    }
}

fn lock() -> MutexGuard<'static, Option<Taken>> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives the terminal back as it was. It does nothing if the screen was not taken.
pub(crate) fn restore() {
    let taken = lock().take();
    if let Some(taken) = taken {
        taken.end();
    }
}

/// Gives the terminal back before a signal stops this process.
pub(crate) fn suspend() {
    // The lock is not held while the terminal is slow.
    let taken = lock().clone();
    if let Some(taken) = taken {
        taken.end();
    }
}

/// Takes the screen again after the process was stopped.
pub(crate) fn resume() {
    let taken = lock().clone();
    if let Some(taken) = taken {
        taken.begin();
        IS_RESUMED.store(true, Ordering::Relaxed);
    }
}

/// Gives the terminal back before a panic prints its message.
fn restore_at_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let former = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            former(panic);
        }));
    });
}

fn size() -> (usize, usize) {
    let size = tcgetwinsize(stdout())
        .ok()
        .filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or((80, 24), |size| (size.ws_col.into(), size.ws_row.into()))
}

/// Reads what has arrived within `timeout`; 0 if nothing has.
///
/// # Errors
/// The terminal is gone.
fn read(bytes: &mut [u8], timeout: Duration) -> io::Result<usize> {
    let input = stdin();
    // A part of a millisecond counts as a whole one, so that short waits do not become none.
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    let milliseconds = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    let mut descriptors = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
    // A signal ends the wait like a time-out.
    if poll(&mut descriptors, milliseconds).unwrap_or(0) == 0 {
        return Ok(0);
    }
    let count = nix::unistd::read(&input, bytes)?;
    let is_closed = descriptors[0]
        .revents()
        .is_some_and(|events| events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL));
    if count == 0 && is_closed {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(count)
}

/// The beginning of a line that fills at most `width` columns. Escape sequences for colours have no width, and the
/// characters of some languages fill two columns.
fn cut(line: &str, width: usize) -> String {
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
fn wrapped(text: &str, width: usize) -> Vec<String> {
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

    #[test]
    fn terminal_that_answers_sets_the_pace() {
        let mut pace = Pace::default();
        assert_eq!(pace.query(), QUERY);
        assert!(!pace.is_ready());
        pace.record_answer();
        assert!(pace.is_ready());
        assert_eq!(pace.query(), QUERY);
        pace.asked_at = Instant::now().checked_sub(FIRST_ANSWER_TIMEOUT * 2);
        assert!(!pace.is_ready(), "a terminal that answers may be slow");
        pace.asked_at = Instant::now().checked_sub(ANSWER_TIMEOUT);
        assert!(pace.is_ready() && pace.query().is_empty());
        // A late answer counts.
        pace.record_answer();
        assert_eq!(pace.query(), QUERY);
    }
}
