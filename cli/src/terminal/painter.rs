// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writes to the terminal from a thread of its own, because a slow or stopped terminal blocks each write.

use std::{
    io::{self, stdout},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use nix::{errno::Errno, unistd::write};

/// How much is written at once. A key takes effect after at most this much has left.
const PART_SIZE: usize = 256;
/// Ends whatever sequence the terminal is in the middle of.
const CANCEL: &[u8] = b"\x18\x1b\\";

/// Writes one picture of the screen after the other.
#[derive(Clone, Debug, Default)]
pub(super) struct Painter(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is written next.
    next: Option<Vec<u8>>,
    is_writing: bool,
    /// Whether the picture that is being written is given up.
    is_cancelled: bool,
    /// Whether the screen is given back, so that pictures are ignored.
    is_paused: bool,
    /// Why the terminal cannot be written to any more.
    error: Option<io::ErrorKind>,
}

impl Painter {
    /// Starts the thread.
    pub(super) fn new() -> io::Result<Self> {
        let painter = Self::default();
        let shared = Arc::clone(&painter.0);
        std::thread::Builder::new()
            .name("painter".to_owned())
            .spawn(move || shared.run())?;
        Ok(painter)
    }

    /// Whether the last picture has left, so that the next one would not wait behind it.
    pub(super) fn is_idle(&self) -> io::Result<bool> {
        let state = self.0.lock();
        match state.error {
            Some(kind) => Err(kind.into()),
            None => Ok(!state.is_writing && !state.is_paused && state.next.is_none()),
        }
    }

    /// Writes these bytes after those that wait or are being written.
    pub(super) fn paint(&self, bytes: &[u8]) {
        let mut state = self.0.lock();
        if !state.is_paused {
            state.next.get_or_insert_default().extend_from_slice(bytes);
            drop(state);
            self.0.changed.notify_all();
        }
    }

    /// Gives up the picture that is being written, and writes these bytes. Further pictures are ignored until
    /// [`resume`](Self::resume). Returns whether the bytes have left within `timeout`.
    pub(super) fn finish(&self, bytes: &[u8], timeout: Duration) -> bool {
        let mut state = self.0.lock();
        state.next = Some(bytes.to_vec());
        state.is_cancelled |= state.is_writing;
        state.is_paused = true;
        drop(state);
        self.0.changed.notify_all();
        self.drain(timeout)
    }

    /// Writes these bytes, and pictures from now on.
    pub(super) fn resume(&self, bytes: &[u8]) {
        self.0.lock().is_paused = false;
        self.paint(bytes);
    }

    /// Waits until everything has left; `false` if that takes longer than `timeout`.
    pub(super) fn drain(&self, timeout: Duration) -> bool {
        let is_busy = |state: &mut State| state.error.is_none() && (state.is_writing || state.next.is_some());
        let waited = self.0.changed.wait_timeout_while(self.0.lock(), timeout, is_busy);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        !is_busy(&mut state)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut state = self.lock();
        loop {
            let Some(bytes) = state.next.take() else {
                let waited = self.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            state.is_writing = true;
            drop(state);
            let written = self.write(&bytes);
            state = self.lock();
            state.is_writing = false;
            state.is_cancelled = false;
            state.error = written.err().map(|error| error.kind());
            self.changed.notify_all();
            if state.error.is_some() {
                return;
            }
        }
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        for part in bytes.chunks(PART_SIZE) {
            if self.lock().is_cancelled {
                return write_all(CANCEL);
            }
            write_all(part)?;
        }
        Ok(())
    }
}

/// Writes to stdout without its lock and buffer, so that a terminal that is stopped for ever blocks only this thread.
fn write_all(mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match write(stdout(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
