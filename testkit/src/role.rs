// SPDX-License-Identifier: MIT OR Apache-2.0

//! Roles: functions of a test program. Each role runs in its own process.
//!
//! The test program starts itself again with the name of a role in `RSSHM_ROLE`. In the new process, a constructor
//! calls the role's function and ends the process. The constructor runs before `main`, so no test harness runs.
//!
//! ```no_run
//! use rsshm_testkit::role::{self, Role, listen, say};
//!
//! const ROLES: &[(&str, Role)] = &[("greeting/host", host)];
//!
//! rsshm_testkit::roles!(ROLES);
//!
//! fn host(arguments: &[&str]) {
//!     say(format!("welcome, {}", arguments[0]));
//!     assert_eq!(listen(), "thank you");
//! }
//!
//! # fn main() {
//! let mut host = role::start("greeting/host", &["guest"]);
//! host.expect("welcome, guest");
//! host.send("thank you");
//! assert!(host.wait().success());
//! # }
//! ```

use std::{
    fmt::Display,
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, exit},
    sync::mpsc,
};

use nix::sys::signal::{SigHandler, Signal, signal};

use crate::Process;

/// The environment variable that names the role of a process.
const VARIABLE: &str = "RSSHM_ROLE";

/// The exit code of a role that panicked. Any Rust program that panics has this exit code.
const PANICKED: i32 = 101;

/// The function of a role. It receives the arguments of the role's process, and the process ends when the function
/// returns.
pub type Role = fn(&[&str]);

/// Declares the roles of a test program. Each argument of the macro is a table of names and functions. A test program
/// uses the macro once, in `main.rs`.
#[macro_export]
macro_rules! roles {
    ($($table:expr),+ $(,)?) => {
        $crate::ctor::declarative::ctor! {
            // SAFETY: the function runs before `main`. With glibc, the parts of the standard library that the function
            // uses work before `main`. The function catches the panics of the role.
            #[ctor(unsafe)]
            fn play_role() {
                $crate::role::play(&[$($table),+]);
            }
        }
    };
}

/// Starts a process in a role. The process converses with the test (see [`Process::converse`]).
#[track_caller]
pub fn start(role: &str, arguments: &[&str]) -> Process {
    Process::converse(command(role, arguments))
}

/// Starts a process in a role through the command `wrapper`. The command has to run the rest of its command line.
#[track_caller]
pub fn start_within(wrapper: &[&str], role: &str, arguments: &[&str]) -> Process {
    let inner = command(role, arguments);
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .arg(inner.get_program())
        .args(inner.get_args())
        .env(VARIABLE, role);
    Process::converse(command)
}

/// The command that runs a role of this program.
pub fn command(role: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().expect("the path of this program"));
    command.args(arguments).env(VARIABLE, role);
    command
}

/// In the role's process: sends a line to the test.
pub fn say(line: impl Display) {
    println!("{line}");
    let _ = std::io::stdout().flush();
}

/// In the role's process: waits for a line from the test. Ends the process if the test has ended.
pub fn listen() -> String {
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
        exit(0);
    }
    line.trim_end().to_owned()
}

/// In the role's process: returns a receiver of the lines from the test. With a receiver, a role can do other work
/// between the lines.
pub fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || while sender.send(listen()).is_ok() {});
    lines
}

/// Runs the role for which this process was started, and ends the process. Returns only if `RSSHM_ROLE` is not set.
///
/// [`roles!`](crate::roles) calls this function before `main`.
#[doc(hidden)]
pub fn play(tables: &[&[(&str, Role)]]) {
    let Ok(name) = std::env::var(VARIABLE) else {
        return;
    };
    // Programs that the role starts must not play the role again.
    // SAFETY: this runs before `main`, so that no other thread reads or changes the environment.
    unsafe { std::env::remove_var(VARIABLE) };
    // With SIGPIPE ignored, a write to a closed pipe returns an error. Rust's runtime also ignores SIGPIPE, but only
    // later, just before `main`.
    // SAFETY: SIG_IGN installs no handler, so no code has to be async-signal-safe.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.expect("SIGPIPE is ignored");

    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        let mut named = tables.iter().copied().flatten().filter(|(role, _)| *role == name);
        let (_, function) = named.next().unwrap_or_else(|| panic!("there is no role {name:?}"));
        assert!(named.next().is_none(), "there are two roles {name:?}");
        function(&arguments);
    }));
    exit(if outcome.is_ok() { 0 } else { PANICKED });
}
