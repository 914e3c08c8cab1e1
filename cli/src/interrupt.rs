// SPDX-License-Identifier: MIT OR Apache-2.0

//! Ctrl-C, SIGTERM, the end of the terminal, and Ctrl-Z.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use nix::sys::signal::{SigSet, Signal, raise};

use crate::terminal;

/// The exit code after a signal is this number plus the signal, as in a shell: 130 after Ctrl-C.
const SIGNAL_EXIT: i32 = 128;

type Task = Box<dyn FnOnce() + Send>;

/// How long the end of the program after a signal may take.
const END_TIMEOUT: Duration = Duration::from_secs(10);

/// Whether a signal ends the program now.
static IS_ENDING: AtomicBool = AtomicBool::new(false);
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
            // Release: pairs with the acquire load in `wait_for_end`.
            IS_ENDING.store(true, Ordering::Release);
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

/// If a signal ends the program now, waits for this end. What the task of [`before_end`] has done may be an error of the
/// command, which is then neither printed nor the exit code.
pub(crate) fn wait_for_end() {
    // Acquire: pairs with the release store before the task.
    if IS_ENDING.load(Ordering::Acquire) {
        std::thread::sleep(END_TIMEOUT);
    }
}

/// Sets what another thread does before a signal ends the program.
pub(crate) fn before_end(task: impl FnOnce() + Send + 'static) {
    *TASK.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(task));
}
