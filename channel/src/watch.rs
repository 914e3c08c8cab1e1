//! A wait for channels that come and go.

use std::{
    io::{self, PipeReader, PipeWriter},
    os::fd::AsFd,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

use crate::name::SHM_DIR;

/// After a first sign so much is waited for others: /dev/shm is everybody's, and files come and go there in crowds.
const SETTLES: Duration = Duration::from_millis(50);

/// Tells when channels may have come or gone. What is there then, [`channels`](crate::channels) says.
#[derive(Debug)]
pub struct Watch {
    /// `None` where the system has none to give: then it is the caller's time-outs that tell.
    inotify: Option<Inotify>,
    stopped: PipeReader,
}

/// Ends the waits of a [`Watch`], now and for ever, when it is dropped.
#[derive(Debug)]
pub struct WatchStop(#[allow(dead_code)] PipeWriter);

impl Watch {
    /// A watch, and what stops it.
    ///
    /// # Errors
    /// That there are no more file descriptors.
    pub fn new() -> io::Result<(Self, WatchStop)> {
        let (stopped, stop) = io::pipe()?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .ok()
            .filter(|inotify| {
                // The last is the sign of a writer that was killed.
                let signs = AddWatchFlags::IN_CREATE
                    | AddWatchFlags::IN_DELETE
                    | AddWatchFlags::IN_MOVE
                    | AddWatchFlags::IN_CLOSE_WRITE;
                inotify.add_watch(SHM_DIR, signs | AddWatchFlags::IN_ONLYDIR).is_ok()
            });
        Ok((Self { inotify, stopped }, WatchStop(stop)))
    }

    /// Whether a change is told of at once, and not at the end of the time only.
    pub fn is_immediate(&self) -> bool {
        self.inotify.is_some()
    }

    /// Waits until channels may have come or gone, or the time is over. `false` when it was stopped.
    pub fn wait(&self, timeout: Duration) -> bool {
        let stop = || PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN);
        let milliseconds =
            |duration: Duration| PollTimeout::try_from(duration.as_millis().max(1)).unwrap_or(PollTimeout::MAX);
        let mut on = vec![stop()];
        on.extend(
            self.inotify
                .as_ref()
                .map(|inotify| PollFd::new(inotify.as_fd(), PollFlags::POLLIN)),
        );
        let Ok(ready) = poll(&mut on, milliseconds(timeout)) else {
            // Interrupted by a signal or out of memory: not again at once, for ever.
            std::thread::sleep(SETTLES);
            return true;
        };
        if on[0].any() == Some(true) {
            return false;
        }
        if ready > 0 {
            let mut on = [stop()];
            if poll(&mut on, milliseconds(SETTLES)).is_ok() && on[0].any() == Some(true) {
                return false;
            }
            // What happened is of no interest: everything is looked at anew.
            while self.inotify.as_ref().is_some_and(|it| it.read_events().is_ok()) {}
        }
        true
    }
}
