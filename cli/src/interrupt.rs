// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ctrl-C, SIGTERM, the end of the terminal, and Ctrl-Z.

use std::sync::{Mutex, PoisonError};

use nix::sys::signal::{SigSet, Signal, raise};

use crate::terminal;

/// The exit code after a signal is this number plus the signal, as in a shell: 130 after Ctrl-C.
const SIGNAL_EXIT: i32 = 128;

type Task = Box<dyn FnOnce() + Send>;

/// What has to be done before a signal ends the program.
static TASK: Mutex<Option<Task>> = Mutex::new(None);

/// Ends the program at SIGINT, SIGQUIT, SIGTERM and SIGHUP, with the exit code that a shell gives for the signal. At Ctrl-Z,
/// gives the terminal back while the program is stopped.
///
/// The kernel ignores these signals in the first process of a container unless the process handles them. A thread waits
/// for them, so no code runs in a signal handler. Call this before other threads start: they inherit the blocked signals.
pub(crate) fn end_program_at_signals() {
    let signals: SigSet = [
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGTERM,
        Signal::SIGHUP,
        Signal::SIGTSTP,
        Signal::SIGCONT,
    ]
    .into_iter()
    .collect();
    if signals.thread_block().is_err() {
        return;
    }
    let waiting = std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while let Ok(signal) = signals.wait() {
            match signal {
                Signal::SIGTSTP => {
                    terminal::suspend();
                    // The signal stops all threads. The process continues here, and SIGCONT follows.
                    let _ = raise(Signal::SIGSTOP);
                    continue;
                }
                Signal::SIGCONT => {
                    terminal::resume();
                    continue;
                }
                _ => {}
            }
            let task = TASK.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(task) = task {
                task();
            }
            terminal::restore();
            std::process::exit(SIGNAL_EXIT + signal as i32);
        }
    });
    if waiting.is_err() {
        // Without the thread, the signals have their usual effect.
        let _ = signals.thread_unblock();
    }
}

/// Sets what another thread does before a signal ends the program.
pub(crate) fn before_end(task: impl FnOnce() + Send + 'static) {
    *TASK.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(task));
}
