// SPDX-License-Identifier: MIT OR Apache-2.0

//! The whole screen of a terminal, for `top` and `watch`: single keys, and pictures of lines that replace each other.

use std::{
    io::{self, Write, stdin, stdout},
    os::fd::AsFd,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr},
};

/// The settings of the terminal before this program changed them.
static FORMER: Mutex<Option<Termios>> = Mutex::new(None);

/// Begins the alternate screen, and hides the cursor.
const BEGIN: &str = "\x1b[?1049h\x1b[?25l";
/// Shows the cursor, and ends the alternate screen.
const END: &str = "\x1b[?25h\x1b[?1049l";

/// The screen, until the value is dropped.
#[derive(Debug)]
pub(crate) struct Screen(());

impl Screen {
    /// Takes the screen. Keys arrive without Enter, and are not echoed; Ctrl-C works as usual.
    ///
    /// # Errors
    /// Stdin is no terminal.
    pub(crate) fn new() -> io::Result<Self> {
        let input = stdin();
        let former = tcgetattr(&input)?;
        let mut settings = former.clone();
        settings.local_flags.remove(LocalFlags::ICANON | LocalFlags::ECHO);
        *FORMER.lock().unwrap_or_else(PoisonError::into_inner) = Some(former);
        tcsetattr(&input, SetArg::TCSADRAIN, &settings)?;
        write!(stdout(), "{BEGIN}")?;
        stdout().flush()?;
        Ok(Self(()))
    }

    /// The number of columns and rows.
    pub(crate) fn size(&self) -> (usize, usize) {
        let size = terminal_size::terminal_size_of(stdout());
        size.map_or((80, 24), |(width, height)| (width.0.into(), height.0.into()))
    }

    /// Shows these lines from the top on, as many as fit.
    pub(crate) fn show(&self, lines: &[String]) -> io::Result<()> {
        let (width, height) = self.size();
        let mut text = "\x1b[H".to_owned();
        for (index, line) in lines.iter().take(height).enumerate() {
            if index > 0 {
                text += "\r\n";
            }
            text += &cut(line, width);
            text += "\x1b[K";
        }
        text += "\x1b[J";
        let mut output = stdout().lock();
        output.write_all(text.as_bytes())?;
        output.flush()
    }

    /// Shows a picture in the upper left corner by a protocol of the terminal, and a line below its `rows`.
    pub(crate) fn draw(&self, picture: &str, rows: usize, line: &str) -> io::Result<()> {
        let (width, _) = self.size();
        let mut output = stdout().lock();
        write!(
            output,
            "\x1b[H{picture}\x1b[{};1H{}\x1b[K\x1b[J",
            rows + 1,
            cut(line, width)
        )?;
        output.flush()
    }

    /// Waits for a key, at most for `timeout`.
    pub(crate) fn key(&self, timeout: Duration) -> Option<u8> {
        let input = stdin();
        let milliseconds = PollTimeout::try_from(timeout.as_millis()).unwrap_or(PollTimeout::MAX);
        let mut descriptors = [PollFd::new(input.as_fd(), PollFlags::POLLIN)];
        let ready = poll(&mut descriptors, milliseconds).unwrap_or(0);
        let mut key = [0];
        // The byte is read without a buffer, so that `poll` sees the keys that follow.
        (ready > 0 && nix::unistd::read(&input, &mut key) == Ok(1)).then_some(key[0])
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        restore();
    }
}

/// Gives the terminal back as it was. It does nothing if the screen was not taken.
pub(crate) fn restore() {
    let former = FORMER.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(former) = former {
        let _ = write!(stdout(), "{END}");
        let _ = stdout().flush();
        let _ = tcsetattr(stdin(), SetArg::TCSADRAIN, &former);
    }
}

/// The first `width` characters of a line. Escape sequences for colours have no width.
fn cut(line: &str, width: usize) -> String {
    let (mut text, mut used, mut is_escape) = (String::new(), 0, false);
    for character in line.chars() {
        if character == '\x1b' {
            is_escape = true;
        } else if !is_escape {
            used += 1;
            if used > width {
                continue;
            }
        }
        text.push(character);
        is_escape &= character != 'm';
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_without_their_colours() {
        assert_eq!(cut("abcdef", 3), "abc");
        assert_eq!(cut("a\x1b[31mbcd\x1b[0m", 2), "a\x1b[31mb\x1b[0m");
        assert_eq!(cut("", 3), "");
    }
}
