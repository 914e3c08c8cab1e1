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
    errno::Errno,
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
/// The longest time between two looks whether the process has ended.
const REAP_INTERVAL: Duration = Duration::from_secs(2);
/// The same for a process that has closed stderr, whose end comes soon.
const EXIT_INTERVAL: Duration = Duration::from_millis(5);
/// The longest line of stderr that is kept.
const MAX_LINE: usize = 4096;
/// How often stderr is read after the end of the process. A pipe has 64 KiB.
const MAX_LAST_READS: usize = 16;

/// The process id of the child, while it can be signalled.
#[derive(Debug, Default)]
struct Shared {
    pid: Mutex<Option<Pid>>,
    /// Whether this program ends. Relaxed: the lock of `pid` orders it before the end of the child, and before the start
    /// of another one.
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

    /// Kills the child.
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
        for signal in [Signal::SIGINT, Signal::SIGKILL] {
            self.signal(signal);
            let is_running = |pid: &mut Option<Pid>| pid.is_some();
            let waited = self.0.ended.wait_timeout_while(self.0.lock(), STOP_TIMEOUT, is_running);
            if waited.unwrap_or_else(PoisonError::into_inner).0.is_none() {
                return;
            }
        }
        // Only a process that waits in the kernel, for a device, survives SIGKILL.
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
    /// Starts a program, unless this program ends. Its stderr is passed on, and its output goes there too.
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
        if stopper.is_stopping() {
            return Err(io::ErrorKind::Interrupted.into());
        }
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
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            self.pass_on(left)?;
            let status = self.reap()?;
            if status.is_some() {
                // What the child has printed last says why it has ended. A process that it started may print on.
                let mut reads = 0;
                while reads < MAX_LAST_READS && self.pass_on(Duration::ZERO)? {
                    reads += 1;
                }
            }
            if status.is_some() || left.is_zero() {
                return Ok(status);
            }
        }
    }

    /// Passes on what comes from stderr first. Returns whether there was something.
    fn pass_on(&mut self, timeout: Duration) -> io::Result<bool> {
        let Some(stderr) = &mut self.stderr else {
            std::thread::sleep(timeout.min(EXIT_INTERVAL));
            return Ok(false);
        };
        // The end of stderr is not always the end of the child: a process that the child started may keep it open.
        let timeout = PollTimeout::try_from(timeout.min(REAP_INTERVAL)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stderr.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => return Ok(false),
            Ok(_) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut bytes = [0; MAX_LINE];
        let count = stderr.read(&mut bytes)?;
        if count == 0 {
            self.stderr = None;
        }
        self.log.pass_on(&bytes[..count]);
        Ok(count > 0)
    }

    /// The exit status, if the child has ended.
    fn reap(&mut self) -> io::Result<Option<ExitStatus>> {
        // The lock is held, so that nobody signals the process id after the child has been waited for.
        let mut pid = self.stopper.0.lock();
        let status = self.child.try_wait()?;
        if status.is_some() {
            *pid = None;
            self.stopper.0.ended.notify_all();
        }
        Ok(status)
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
