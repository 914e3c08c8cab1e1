// SPDX-License-Identifier: MIT OR Apache-2.0

//! The process that publishes a camera. Only the thread that started it waits for its end; other threads may stop it.

use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, ChildStderr, Command, ExitStatus, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
    },
    unistd::Pid,
};

use super::notify;

/// How long the process may take to end after SIGINT.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest line of stderr that is kept.
const MAX_LINE: usize = 4096;

/// The process id of the child, while it can be signalled.
#[derive(Debug, Default)]
struct Shared {
    pid: Mutex<Option<Pid>>,
    /// Whether this program ends. Relaxed: the lock of `pid` orders it before the end of the child.
    is_stopping: AtomicBool,
    ended: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Option<Pid>> {
        self.pid.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Stops the child, from any thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stopper(Arc<Shared>);

impl Stopper {
    /// Asks the child to end.
    pub(crate) fn interrupt(&self) {
        self.signal(Signal::SIGINT);
    }

    pub(crate) fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    fn signal(&self, signal: Signal) {
        // While the lock is held, the child is not waited for, so its id belongs to it.
        if let Some(pid) = *self.0.lock() {
            let _ = kill(pid, signal);
        }
    }

    /// Whether [`stop`](Self::stop) was called, so that no other child must be started.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.is_stopping.load(Ordering::Relaxed)
    }

    /// Asks the child to end, and waits until it has ended. A child that takes too long is killed.
    pub(crate) fn stop(&self) {
        self.0.is_stopping.store(true, Ordering::Relaxed);
        self.interrupt();
        let deadline = Instant::now() + STOP_TIMEOUT;
        let mut is_killed = false;
        let mut pid = self.0.lock();
        while pid.is_some() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() && is_killed {
                // Only a process that waits in the kernel, for a device, survives this.
                return;
            }
            if left.is_zero() {
                is_killed = true;
                drop(pid);
                self.kill();
                pid = self.0.lock();
            }
            let patience = if is_killed { STOP_TIMEOUT } else { left };
            let waited = self.0.ended.wait_timeout(pid, patience);
            let (guard, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            pid = guard;
            if is_killed && timeout.timed_out() {
                return;
            }
        }
    }
}

/// Prepares the child between fork and exec. This program has blocked the signals that its signal thread waits for, and
/// a child inherits that. If this program is killed, the child gets SIGINT, so that the camera is free for the next start.
fn prepare() -> io::Result<()> {
    SigSet::all().thread_unblock()?;
    prctl::set_pdeathsig(Signal::SIGINT)?;
    Ok(())
}

/// A running child.
#[derive(Debug)]
pub(crate) struct Supervised {
    child: Child,
    stderr: Option<ChildStderr>,
    stopper: Stopper,
    log: Log,
}

impl Supervised {
    /// Starts a program. Its stderr is passed on, and its output goes there too.
    pub(crate) fn start(program: &str, arguments: &[String], stopper: &Stopper) -> io::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(io::stderr().as_fd().try_clone_to_owned()?)
            .stderr(Stdio::piped())
            // At Ctrl-C, the terminal sends SIGINT to this program only. gst-launch-1.0 does not stop its pipeline
            // at a second SIGINT.
            .process_group(0);
        for name in notify::VARIABLES {
            command.env_remove(name);
        }
        // SAFETY: the function calls only sigprocmask and prctl, which may be called between fork and exec, and allocates
        // nothing.
        unsafe {
            command.pre_exec(prepare);
        }
        let mut pid = stopper.0.lock();
        let mut child = command.spawn()?;
        *pid = Some(Pid::from_raw(child.id() as i32));
        drop(pid);
        Ok(Self {
            stderr: child.stderr.take(),
            child,
            stopper: stopper.clone(),
            log: Log::default(),
        })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Passes stderr on for a while. Returns the exit status as soon as the child has ended.
    pub(crate) fn wait(&mut self, timeout: Duration) -> io::Result<Option<ExitStatus>> {
        if let Some(stderr) = &mut self.stderr {
            let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
            let mut descriptors = [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)];
            match poll(&mut descriptors, timeout) {
                Ok(0) | Err(nix::errno::Errno::EINTR) => return Ok(None),
                Ok(_) => {}
                Err(errno) => return Err(errno.into()),
            }
            let mut bytes = [0; MAX_LINE];
            let count = stderr.read(&mut bytes)?;
            if count > 0 {
                self.log.pass_on(&bytes[..count]);
                return Ok(None);
            }
            // The end of stderr is the end of the child, or it comes soon.
            self.stderr = None;
        }
        let deadline = Instant::now() + timeout.max(Duration::from_millis(1));
        loop {
            // The lock is held, so that nobody signals the process id after the child has been waited for.
            let mut pid = self.stopper.0.lock();
            if let Some(status) = self.child.try_wait()? {
                *pid = None;
                drop(pid);
                self.stopper.0.ended.notify_all();
                return Ok(Some(status));
            }
            drop(pid);
            if Instant::now() >= deadline {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The line of stderr that says best why the child has failed.
    pub(crate) fn last_words(&self) -> &str {
        self.log.last_words()
    }
}

/// The lines that the child has printed.
#[derive(Debug, Default)]
struct Log {
    line: Vec<u8>,
    last: String,
    /// The first line with an error of gst-launch-1.0, which prints the consequences after it.
    error: Option<String>,
}

impl Log {
    fn pass_on(&mut self, bytes: &[u8]) {
        // If nobody reads stderr, the camera goes on.
        let _ = io::stderr().write_all(bytes);
        for byte in bytes {
            if *byte == b'\n' {
                self.end_line();
            } else if self.line.len() < MAX_LINE {
                self.line.push(*byte);
            }
        }
    }

    fn end_line(&mut self) {
        let line = String::from_utf8_lossy(&self.line).trim().to_owned();
        self.line.clear();
        if line.is_empty() {
            return;
        }
        let is_error = line.starts_with("ERROR") || line.contains("erroneous pipeline");
        if is_error && self.error.is_none() {
            self.error = Some(line.clone());
        }
        self.last = line;
    }

    fn last_words(&self) -> &str {
        self.error.as_deref().unwrap_or(&self.last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_is_preferred_to_the_last_line() {
        let mut log = Log::default();
        log.pass_on(b"Setting pipeline\nERROR: from element v4l2src0: Cannot");
        log.pass_on(b" identify device\nAdditional debug info:\nsystem error\n\n");
        assert_eq!(log.last_words(), "ERROR: from element v4l2src0: Cannot identify device");
    }
}
