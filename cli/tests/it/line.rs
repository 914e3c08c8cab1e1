// SPDX-License-Identifier: MIT OR Apache-2.0

//! A terminal at the end of a line of any speed. It draws what arrives, and answers queries.

use std::{
    fs::File,
    io::{Read, Write},
    num::NonZero,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    pty::openpty,
    sys::termios::{Termios, tcgetattr},
};
use rsshm_testkit::{PATIENCE, wait_until};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::support::Running;

/// How often the terminal takes bytes from the line.
const TICK: Duration = Duration::from_millis(10);
/// The speed of a line that is not slow, in bytes a second. A speed of 0 is a line that is stopped.
pub const FAST: u64 = 10_000_000;

/// A program in a terminal.
#[derive(Debug)]
pub struct Line {
    pub program: Running,
    state: Arc<State>,
    keyboard: File,
    /// The other end of the line, whose settings the program changes.
    end: OwnedFd,
}

struct State {
    speed: AtomicU64,
    screen: Mutex<vt100::Parser>,
    received: Mutex<Vec<u8>>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("State").finish_non_exhaustive()
    }
}

impl Line {
    /// Starts a program in a terminal of this many columns and rows. `answers` has queries, and what the terminal
    /// answers.
    pub fn start(command: &Command, size: (u16, u16), speed: u64, answers: &'static [(&str, &str)]) -> Self {
        let ends = openpty(None, None).unwrap();
        let state = Arc::new(State {
            speed: AtomicU64::new(speed),
            screen: Mutex::new(vt100::Parser::new(cells(size.1), cells(size.0), 0)),
            received: Mutex::default(),
        });
        let other_end = |end: &OwnedFd| Stdio::from(end.try_clone().unwrap());
        tcsetwinsize(&ends.slave, winsize(size)).unwrap();
        // The program gets a session of its own, with this terminal.
        let mut session = Command::new("setsid");
        session
            .arg("--ctty")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => session.env(name, value),
                None => session.env_remove(name),
            };
        }
        session
            .env("TERM", "xterm-256color")
            .env_remove("TMUX")
            .env_remove("TERM_PROGRAM")
            .env_remove("COLORTERM")
            .stdin(other_end(&ends.slave))
            .stdout(other_end(&ends.slave))
            .stderr(other_end(&ends.slave));
        let program = Running::start(session);
        let keyboard = File::from(ends.master);
        let mut line = keyboard.try_clone().unwrap();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || shared.run(&mut line, answers));
        Self {
            program,
            state,
            keyboard,
            end: ends.slave,
        }
    }

    pub fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub fn set_speed(&self, speed: u64) {
        self.state.speed.store(speed, Ordering::Relaxed);
    }

    pub fn resize(&self, size: (u16, u16)) {
        tcsetwinsize(&self.end, winsize(size)).unwrap();
        self.screen().screen_mut().set_size(cells(size.1), cells(size.0));
    }

    /// The settings of the terminal.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.end).unwrap()
    }

    fn screen(&self) -> MutexGuard<'_, vt100::Parser> {
        self.state.screen.lock().unwrap()
    }

    /// What is on the screen.
    pub fn text(&self) -> String {
        self.screen().screen().contents()
    }

    /// Whether the screen is the alternate one.
    pub fn is_alternate(&self) -> bool {
        self.screen().screen().alternate_screen()
    }

    /// All bytes that have arrived.
    pub fn received(&self) -> Vec<u8> {
        self.state.received.lock().unwrap().clone()
    }

    #[track_caller]
    pub fn wait_for(&self, what: &str) {
        wait_until(&format!("{what} on the screen:\n{}", self.text()), PATIENCE, || {
            self.text().contains(what)
        });
    }

    /// Waits until the program has ended, and returns its exit code and the time that it took.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> (Option<i32>, Duration) {
        let started = Instant::now();
        let code = self.program.wait();
        (code, started.elapsed())
    }
}

impl State {
    fn run(&self, line: &mut File, answers: &[(&str, &str)]) {
        let mut bytes = vec![0; 64 * 1024];
        // A query may arrive in parts.
        let mut tail = Vec::new();
        loop {
            std::thread::sleep(TICK);
            let speed = self.speed.load(Ordering::Relaxed);
            let allowed = (speed * TICK.as_millis() as u64 / 1000) as usize;
            if allowed == 0 {
                continue;
            }
            let allowed = allowed.min(bytes.len());
            // The line is closed when the program has ended and the test has dropped its end.
            let Ok(count @ 1..) = line.read(&mut bytes[..allowed]) else {
                return;
            };
            let new = &bytes[..count];
            self.received.lock().unwrap().extend_from_slice(new);
            self.screen.lock().unwrap().process(new);
            tail.extend_from_slice(new);
            for (query, answer) in answers {
                while let Some(start) = find(&tail, query.as_bytes()) {
                    tail.drain(..start + query.len());
                    let _ = line.write_all(answer.as_bytes());
                }
            }
            let kept = tail.len().min(16);
            tail.drain(..tail.len() - kept);
        }
    }
}

/// Where `part` begins in `bytes`.
pub fn find(bytes: &[u8], part: &[u8]) -> Option<usize> {
    bytes.windows(part.len()).position(|window| window == part)
}

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

fn winsize((columns, rows): (u16, u16)) -> Winsize {
    Winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}
