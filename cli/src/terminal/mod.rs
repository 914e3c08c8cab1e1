// SPDX-License-Identifier: MIT OR Apache-2.0

//! The whole screen of a terminal, for `top` and `watch`: keys, and pictures that replace each other.
//!
//! ```text
//! input    divides what arrives into keys and answers
//! pace     knows when the terminal has drawn a picture
//! painter  writes from a thread of its own, because a slow terminal blocks each write
//! ability  which pictures the terminal can show
//! text     lines that fit the columns
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

pub(crate) use self::{
    ability::{Ability, Depth, Style},
    input::{Input, Key},
};
use self::{
    input::Parser,
    pace::{ANSWER, Pace},
    painter::Painter,
    text::{cut, wrapped},
};
use crate::output::printable;

mod ability;
mod input;
mod pace;
mod painter;
mod text;

/// Begins the alternate screen, and hides the cursor.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l\x1b[H\x1b[2J";
/// Ends all colours, shows the cursor, and ends the alternate screen.
const END: &str = "\x1b[0m\x1b[?25h\x1b[?1049l";
/// How long the end of the program waits for the terminal.
const END_TIMEOUT: Duration = Duration::from_millis(500);
/// How long after an escape character the rest of a sequence may arrive.
const SEQUENCE_TIMEOUT: Duration = Duration::from_millis(50);
/// How often the size of the terminal is looked at.
const SIZE_INTERVAL: Duration = Duration::from_millis(100);

/// The screen that this program has taken.
static TAKEN: Mutex<Option<Taken>> = Mutex::new(None);
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
                    self.pace.reset();
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
        while pace::is_answer_due() && Instant::now() < deadline {
            let mut bytes = [0; 64];
            match read(&mut bytes, SEQUENCE_TIMEOUT) {
                Ok(count) if bytes[..count].ends_with(b"n") => break,
                Ok(_) => {}
                Err(_) => break,
            }
        }
        pace::forget_answer();
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs itself again in a terminal of the program `script`, takes the screen there, and panics.
    #[test]
    fn panic_gives_the_terminal_back() {
        use std::process::{Command, Stdio};

        const ROLE: &str = "RSSHM_TEST_PANIC";
        if std::env::var_os(ROLE).is_some() {
            let _screen = Screen::new().unwrap();
            std::thread::sleep(Duration::from_millis(200));
            panic!("on purpose");
        }
        let program = std::env::current_exe().unwrap();
        let name = "terminal::tests::panic_gives_the_terminal_back";
        let command = format!("{} --exact {name} --nocapture; stty -a", program.display());
        let mut script = Command::new("script");
        script
            .args(["--quiet", "--command", &command, "/dev/null"])
            .env(ROLE, "1");
        let output = script.stdin(Stdio::null()).output().unwrap();
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        let (end, message) = (output.find(END).unwrap(), output.find("on purpose").unwrap());
        assert!(output.contains(BEGIN) && end < message, "{output:?}");
        assert!(output.contains(" icanon") && output.contains(" echo "), "{output:?}");
    }
}
