// SPDX-License-Identifier: MIT OR Apache-2.0

//! A watch on the directory of shared memory.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    time::Duration,
};

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
    unistd::pipe2,
};

use super::directory::Directory;

/// How long a wait continues after the first change. One wait then covers a burst of changes; bursts are common,
/// because all programs share the directory.
const SETTLE_TIME: Duration = Duration::from_millis(50);

/// Waits until channels may have appeared or disappeared. After a wait, call [`channels`](crate::channels) to list the
/// existing channels.
///
/// # Examples
///
/// ```no_run
/// use std::time::Duration;
///
/// # fn main() -> std::io::Result<()> {
/// let (watch, _stop) = rsshm_channel::Watch::new()?;
/// loop {
///     println!("{:?}", rsshm_channel::channels());
///     watch.wait(Duration::from_secs(1));
/// }
/// # }
/// ```
#[derive(Debug)]
pub struct Watch {
    /// `None` if the directory cannot be watched, for example because the system has no inotify instance left. A wait
    /// then ends only at the caller's timeout, or when the watch is stopped.
    inotify: Option<Inotify>,
    stopped: OwnedFd,
}

/// Dropping this value ends the wait of its [`Watch`], and makes later waits return at once.
#[derive(Debug)]
pub struct WatchStop(#[allow(dead_code)] OwnedFd);

impl Watch {
    /// A watch, and the value that stops it.
    ///
    /// # Errors
    /// The system's error if the process has no file descriptors left.
    pub fn new() -> io::Result<(Self, WatchStop)> {
        let (stopped, stop) = pipe2(OFlag::O_CLOEXEC)?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .ok()
            .filter(|inotify| {
                // When a writer is killed, the kernel closes its files, and inotify reports IN_CLOSE_WRITE.
                let changes = AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_DELETE
                    | AddWatchFlags::IN_MOVE
                    | AddWatchFlags::IN_CLOSE_WRITE;
                inotify
                    .add_watch(Directory::current().path(), changes | AddWatchFlags::IN_ONLYDIR)
                    .is_ok()
            });
        Ok((Self { inotify, stopped }, WatchStop(stop)))
    }

    /// Whether a change ends a wait at once. Otherwise a wait ends only at its timeout, or when the watch is stopped.
    pub fn is_immediate(&self) -> bool {
        self.inotify.is_some()
    }

    /// Waits until channels may have appeared or disappeared, at most for `timeout`. `false` if the watch was stopped.
    pub fn wait(&self, timeout: Duration) -> bool {
        let stop = || PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN);
        let milliseconds =
            |duration: Duration| PollTimeout::try_from(duration.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
        let mut descriptors = vec![stop()];
        descriptors.extend(
            self.inotify
                .as_ref()
                .map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)),
        );
        let Ok(ready) = poll(&mut descriptors, milliseconds(timeout)) else {
            // A signal interrupted the call, or the kernel has no memory. The sleep limits how often the caller repeats
            // the failing call.
            std::thread::sleep(SETTLE_TIME);
            return true;
        };
        if descriptors[0].any() == Some(true) {
            return false;
        }
        if ready > 0 {
            let mut descriptors = [stop()];
            if poll(&mut descriptors, milliseconds(SETTLE_TIME)).is_ok() && descriptors[0].any() == Some(true) {
                return false;
            }
            // The events are discarded, because the caller lists all channels again.
            while self.inotify.as_ref().is_some_and(|it| it.read_events().is_ok()) {}
        }
        true
    }
}
