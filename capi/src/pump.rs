// SPDX-License-Identifier: MIT OR Apache-2.0

//! The thread behind `rsshm_reader_fd`. A futex cannot be polled, so the thread waits for the next frame, keeps it, and
//! makes an eventfd readable.

use std::{
    os::fd::{AsFd, AsRawFd, RawFd},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use rsshm_channel::ReaderHandle;

use crate::{
    delivery::{Delivered, Delivery},
    status::{Failure, Status},
};

/// How long the thread waits after an error before it tries again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The reader, which the pump and the program's threads use in turn. `None` after the close.
pub(crate) type SharedDelivery = Arc<Mutex<Option<Delivery>>>;

/// Feeds the descriptor of one reader.
pub(crate) struct Pump {
    shared: Arc<PumpShared>,
    /// `None` after the thread was joined.
    thread: Mutex<Option<JoinHandle<()>>>,
}

struct PumpShared {
    state: Mutex<PumpState>,
    changed: Condvar,
    /// Readable as long as a call of [`Pump::next`] would return at once.
    event: EventFd,
    delivery: SharedDelivery,
}

#[derive(Default)]
struct PumpState {
    item: Option<Result<Delivered, Failure>>,
    is_woken: bool,
    is_stopped: bool,
    /// Whether a thread of the program replaces the item by a newer one at this moment.
    is_refreshing: bool,
    is_readable: bool,
}

impl PumpShared {
    fn lock(&self) -> MutexGuard<'_, PumpState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, PumpState>, timeout: Option<Duration>) -> MutexGuard<'a, PumpState> {
        match timeout {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(timeout) => {
                let waited = self.changed.wait_timeout(state, timeout);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Makes the descriptor readable if the state has something for the program. Otherwise makes it not readable.
    fn update_event(&self, state: &mut PumpState) {
        let is_readable = state.item.is_some() || state.is_woken;
        if is_readable != state.is_readable {
            state.is_readable = is_readable;
            // Neither call can fail or block: the count is 0 or 1, and the descriptor does not block.
            let _ = if is_readable {
                self.event.write(1).map(drop)
            } else {
                self.event.read().map(drop)
            };
        }
    }

    /// The body of the thread.
    fn run(&self) {
        loop {
            let mut state = self.lock();
            while !state.is_stopped && (state.item.is_some() || state.is_refreshing) {
                state = self.wait(state, None);
            }
            if state.is_stopped {
                return;
            }
            drop(state);
            let result = match lock_delivery(&self.delivery).as_mut() {
                Some(delivery) => delivery.next(None),
                None => return,
            };
            let is_error = result.is_err();
            let mut state = self.lock();
            match result {
                // `Pump::stop` wakes the thread too.
                Ok(Delivered::Woken) => state.is_woken = !state.is_stopped,
                Ok(Delivered::TimedOut) => {}
                result => state.item = Some(result),
            }
            self.update_event(&mut state);
            self.changed.notify_all();
            if is_error {
                let retry_at = Instant::now() + RETRY_INTERVAL;
                while !state.is_stopped {
                    let remaining = retry_at.saturating_duration_since(Instant::now());
                    if remaining.is_zero() {
                        break;
                    }
                    state = self.wait(state, Some(remaining));
                }
            }
        }
    }
}

fn lock_delivery(delivery: &SharedDelivery) -> MutexGuard<'_, Option<Delivery>> {
    delivery.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pump {
    /// Starts the thread.
    pub(crate) fn start(delivery: SharedDelivery) -> Result<Self, Failure> {
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK).map_err(|errno| {
            Failure::new(
                Status::System,
                format!("eventfd failed: {errno}; close some descriptors"),
            )
        })?;
        let shared = Arc::new(PumpShared {
            state: Mutex::default(),
            changed: Condvar::new(),
            event,
            delivery,
        });
        let thread = thread::Builder::new()
            .name("rsshm-reader".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || shared.run()
            })
            .map_err(|error| Failure::new(Status::System, format!("no thread can be started: {error}")))?;
        Ok(Self {
            shared,
            thread: Mutex::new(Some(thread)),
        })
    }

    pub(crate) fn descriptor(&self) -> RawFd {
        self.shared.event.as_fd().as_raw_fd()
    }

    /// Takes what the thread has, or waits for it. With `wants_newest`, a frame is replaced if there is a newer one.
    pub(crate) fn next(&self, timeout: Option<Duration>, wants_newest: bool) -> Result<Delivered, Failure> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut state = self.shared.lock();
        loop {
            if state.is_stopped {
                return Err(Failure::closed("reader"));
            }
            if state.is_woken {
                state.is_woken = false;
                self.shared.update_event(&mut state);
                return Ok(Delivered::Woken);
            }
            if let Some(item) = state.item.take() {
                if wants_newest && matches!(item, Ok(Delivered::Frame(_))) {
                    return self.refresh(state, item);
                }
                self.shared.update_event(&mut state);
                drop(state);
                self.shared.changed.notify_all();
                return item;
            }
            let remaining = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if remaining.is_some_and(|remaining| remaining.is_zero()) {
                return Ok(Delivered::TimedOut);
            }
            state = self.shared.wait(state, remaining);
        }
    }

    /// Replaces the frame `item`, which may be old by now, if there is a newer one. The thread does not use the reader
    /// meanwhile.
    fn refresh(
        &self,
        mut state: MutexGuard<'_, PumpState>,
        item: Result<Delivered, Failure>,
    ) -> Result<Delivered, Failure> {
        state.is_refreshing = true;
        drop(state);
        let newer = lock_delivery(&self.shared.delivery)
            .as_mut()
            .map(|delivery| delivery.next(Some(Duration::ZERO)));
        let mut state = self.shared.lock();
        state.is_refreshing = false;
        let result = match (item, newer) {
            (Ok(Delivered::Frame(old)), Some(Ok(Delivered::Frame(mut new)))) => {
                // No program has the new frame yet.
                if let Some(new) = Arc::get_mut(&mut new) {
                    new.missed = new.missed.saturating_add(old.missed).saturating_add(1);
                    new.discontinuity |= old.discontinuity;
                }
                Ok(Delivered::Frame(new))
            }
            (item, None | Some(Ok(Delivered::TimedOut))) => item,
            (item, Some(Ok(Delivered::Woken))) => {
                state.is_woken = !state.is_stopped;
                item
            }
            (item, Some(other)) => {
                state.item = Some(other);
                item
            }
        };
        self.shared.update_event(&mut state);
        drop(state);
        self.shared.changed.notify_all();
        result
    }

    /// Makes one call of [`next`](Self::next) return [`Delivered::Woken`].
    pub(crate) fn wake(&self) {
        let mut state = self.shared.lock();
        state.is_woken = !state.is_stopped;
        self.shared.update_event(&mut state);
        drop(state);
        self.shared.changed.notify_all();
    }

    /// Ends the thread and waits for its end. Calls of [`next`](Self::next) end too.
    pub(crate) fn stop(&self, reader: &ReaderHandle) {
        let mut state = self.shared.lock();
        state.is_stopped = true;
        state.item = None;
        drop(state);
        self.shared.changed.notify_all();
        reader.interrupt();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            // The error is a panic of the thread, which was printed when it happened.
            let _ = thread.join();
        }
    }
}
