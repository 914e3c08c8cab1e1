//! Discovery: which channels there are, and a wait for channels that come and go.

use std::{
    fs::File,
    io::{self, PipeReader, PipeWriter, Read},
    os::fd::AsFd,
    path::Path,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify},
};

use crate::{
    protocol::layout,
    sys::files::{SHM_DIR, open},
};

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

/// The names of the channels that are there, sorted: of all files in /dev/shm that this user may read and that begin as
/// a segment does.
pub fn channels() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(SHM_DIR)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| crate::ChannelName::new(name.as_str()).is_ok() && begins_as_segment(name))
        .collect();
    names.sort();
    names
}

fn begins_as_segment(name: &str) -> bool {
    let path = Path::new(SHM_DIR).join(name);
    let Some(Ok(Some(file))) = path.to_str().map(|path| open(path, false)) else {
        return false;
    };
    let mut magic = [0; 8];
    File::from(file).read_exact(&mut magic).is_ok() && u64::from_ne_bytes(magic) == layout::MAGIC
}
