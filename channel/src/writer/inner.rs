// SPDX-License-Identifier: MIT OR Apache-2.0

//! The data that all steps of a writer share: the writer's name, options, state and locks.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use super::{objects::service::ObjectService, options::WriterOptions, state::State};
use crate::{
    ChannelName, Error,
    segment::{
        Segment,
        wait::{FutexWord, Waiter},
    },
    sys::{fork::ForkGuard, space::Space, sync},
};

/// How old a result of [`Inner::space`] may be.
const SPACE_INTERVAL: Duration = Duration::from_secs(1);

/// The data of a writer. Its locks are taken in this order: [`begin_replacing`](Self::begin_replacing), the semaphore
/// in [`with_semaphore`](Self::with_semaphore), [`lock`](Self::lock).
#[derive(Debug)]
pub(super) struct Inner {
    name: ChannelName,
    options: WriterOptions,
    fork_guard: ForkGuard,
    objects: ObjectService,
    publisher: Waiter,
    service: Waiter,
    /// How many batches are open. While there is one, readers are notified later.
    batches: AtomicU32,
    /// Whether readers have to be notified of something that was published in a batch.
    is_notification_due: AtomicBool,
    replacing: Mutex<()>,
    state: Mutex<State>,
    /// The result of the last [`space`](Self::space), and its time.
    space: Mutex<Option<(Instant, Space)>>,
}

impl Inner {
    pub(super) fn new(name: ChannelName, options: WriterOptions, state: State) -> Self {
        Self {
            name,
            options,
            fork_guard: ForkGuard::new(),
            objects: ObjectService::default(),
            publisher: Waiter::default(),
            service: Waiter::default(),
            batches: AtomicU32::new(0),
            is_notification_due: AtomicBool::new(false),
            replacing: Mutex::default(),
            state: Mutex::new(state),
            space: Mutex::default(),
        }
    }

    pub(super) fn name(&self) -> &ChannelName {
        &self.name
    }

    pub(super) fn options(&self) -> WriterOptions {
        self.options
    }

    /// The objects of the frames, and the thread that gives readers their descriptors.
    pub(super) fn objects(&self) -> &ObjectService {
        &self.objects
    }

    /// Whether this value is the copy in a forked child. If it is, the channel belongs to the parent process.
    pub(super) fn is_inherited(&self) -> bool {
        self.fork_guard.is_inherited()
    }

    /// The waits of the thread that publishes.
    pub(super) fn publisher(&self) -> &Waiter {
        &self.publisher
    }

    /// The waits of the thread that runs the service.
    pub(super) fn service(&self) -> &Waiter {
        &self.service
    }

    /// Locks the state.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        sync::lock(&self.state)
    }

    /// Locks the replacement of segments, so that only one thread at a time makes a segment.
    pub(super) fn begin_replacing(&self) -> MutexGuard<'_, ()> {
        sync::lock(&self.replacing)
    }

    /// Runs `change` with the state locked, and with the channel's semaphore held if it was acquired in time.
    ///
    /// The semaphore serves programs that hold it while they inspect a channel. If a program holds the semaphore for
    /// too long, the writer continues without it.
    pub(super) fn with_semaphore<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let lock_file = Arc::clone(self.lock().lock.lock_file());
        let semaphore = lock_file.acquire();
        let result = change(&mut self.lock());
        // The state is already unlocked here, before the semaphore is released.
        drop(semaphore);
        result
    }

    /// Wakes the readers that wait for something new in `segment`: now, or at the end of a batch. The caller holds no
    /// lock.
    pub(super) fn notify_readers(&self, segment: &Segment) {
        // Relaxed: the notification itself orders what was published.
        if self.batches.load(Ordering::Relaxed) == 0 {
            segment.notify(FutexWord::Published);
            return;
        }
        // Sequentially consistent, like the operations in `end_batch` and `notify_delayed`: either the batch that ends
        // now sees this store, or the load below sees that the batch has ended.
        self.is_notification_due.store(true, Ordering::SeqCst);
        if self.batches.load(Ordering::SeqCst) == 0 {
            self.notify_delayed();
        }
    }

    /// Delays the notifications of readers until [`end_batch`](Self::end_batch).
    pub(super) fn begin_batch(&self) {
        // Relaxed: a publish of another thread that does not see this increment notifies the readers at once.
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_batch(&self) {
        // Sequentially consistent: pairs with the operations in `notify_readers`.
        self.batches.fetch_sub(1, Ordering::SeqCst);
        self.notify_delayed();
    }

    /// Notifies readers of what was published in a batch so far. Call it before a wait for readers. The caller holds no
    /// lock.
    pub(super) fn notify_delayed(&self) {
        // Sequentially consistent: pairs with the operations in `notify_readers`.
        if self.is_notification_due.swap(false, Ordering::SeqCst) {
            let segment = self.lock().chain.current_mapped().map(Arc::clone);
            if let Some(segment) = segment {
                segment.notify(FutexWord::Published);
            }
        }
    }

    /// What the tightest limit of memory leaves. The limits are read at most once in [`SPACE_INTERVAL`], because a
    /// program may ask for each frame.
    pub(super) fn space(&self) -> Space {
        let mut cached = sync::lock(&self.space);
        match &*cached {
            Some((at, space)) if at.elapsed() < SPACE_INTERVAL => space.clone(),
            _ => cached.insert((Instant::now(), Space::now())).1.clone(),
        }
    }

    /// The error for a frame that cannot be published.
    pub(super) fn not_publishable(&self) -> Error {
        Error::NotPublishable {
            channel: self.name.to_string(),
        }
    }

    /// The error for a frame, metadata or caps that are too large. The text `what` names the sizes.
    pub(super) fn too_large(&self, what: String) -> Error {
        Error::TooLarge {
            channel: self.name.to_string(),
            what,
        }
    }
}
