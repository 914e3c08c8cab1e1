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
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use nix::sys::termios::{Termios, tcgetattr};
use rsshm_testkit::PATIENCE;
use rustix::{
    fs::{Mode, OFlags, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

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
    reading: JoinHandle<()>,
}

struct State {
    speed: AtomicU64,
    is_over: AtomicBool,
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
        let (keyboard, end) = pair();
        let state = Arc::new(State {
            speed: AtomicU64::new(speed),
            is_over: AtomicBool::new(false),
            screen: Mutex::new(vt100::Parser::new(cells(size.1), cells(size.0), 0)),
            received: Mutex::default(),
        });
        let other_end = |end: &OwnedFd| Stdio::from(end.try_clone().unwrap());
        tcsetwinsize(&end, winsize(size)).unwrap();
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
            .stdin(other_end(&end))
            .stdout(other_end(&end))
            .stderr(other_end(&end));
        let program = Running::start(session);
        let mut line = keyboard.try_clone().unwrap();
        let shared = Arc::clone(&state);
        let reading = std::thread::spawn(move || shared.run(&mut line, answers));
        Self {
            program,
            state,
            keyboard,
            end,
            reading,
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

    /// Waits until the program has ended by itself, and returns its exit code and everything that it wrote.
    #[track_caller]
    pub fn finish(self) -> (Option<i32>, Vec<u8>) {
        let Self {
            mut program,
            state,
            end,
            reading,
            keyboard: _keyboard,
        } = self;
        let code = program.wait();
        // The line ends behind the last byte when nobody has its other end any more.
        drop(end);
        reading.join().unwrap();
        let received = state.received.lock().unwrap().clone();
        (code, received)
    }

    /// Ends the line, as if the window was closed, and returns the program.
    pub fn hang_up(self) -> Running {
        let Self { program, state, .. } = self;
        state.is_over.store(true, Ordering::Relaxed);
        program
    }

    /// The settings of the terminal.
    pub fn settings(&self) -> Termios {
        tcgetattr(&self.end).unwrap()
    }

    /// How many bytes wait for the next program in the terminal.
    pub fn unread(&self) -> u64 {
        rustix::io::ioctl_fionread(&self.end).unwrap()
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
        let started = Instant::now();
        while !self.text().contains(what) {
            assert!(
                started.elapsed() < PATIENCE,
                "no {what} on the screen:\n{}",
                self.text()
            );
            std::thread::sleep(TICK);
        }
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
        while !self.is_over.load(Ordering::Relaxed) {
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

/// Both ends of a new line. No other program inherits them, because a line is open as long as a program has an end.
fn pair() -> (File, OwnedFd) {
    let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&keyboard).unwrap();
    unlockpt(&keyboard).unwrap();
    let name = ptsname(&keyboard, Vec::new()).unwrap();
    let end = open(&name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    (File::from(keyboard), end)
}

/// The settings of a new terminal.
pub fn new_settings() -> Termios {
    let (_keyboard, end) = pair();
    tcgetattr(&end).unwrap()
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
