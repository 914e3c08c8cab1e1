// SPDX-License-Identifier: MIT OR Apache-2.0

//! The report of a service pass, and the values that the service keeps from one pass to the next.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::shortage::Shortage;
use crate::{
    protocol::keyframe::KeyframeRequest,
    segment::{
        Segment,
        faults::{SemaphoreFault, SemaphoreFaults},
        wait::{FutexWord, RateLimiter},
    },
};

/// How often the service checks the channel's names in /dev/shm.
const NAME_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long another writer may own one of the channel's names before this writer gives up the channel. A second writer
/// that finds this one alive needs a moment to remove its files.
const FOREIGN_NAME_TIMEOUT: Duration = Duration::from_secs(2);
/// How many wakes in a row the service handles without a pause. After these wakes, it handles one in each
/// [`WAKE_INTERVAL`].
const WAKE_BURST: u32 = 16;
const WAKE_INTERVAL: Duration = Duration::from_millis(5);

/// The result of one [`Writer::service`](crate::Writer::service) pass.
///
/// # Examples
/// ```
/// use rsshm_channel::ServiceReport;
///
/// fn log(report: &ServiceReport) {
///     for entry in &report.connected {
///         println!("a reader has entry {entry}; {} readers", report.reader_count);
///     }
///     for fault in &report.semaphore_faults {
///         println!("the semaphore: {fault}");
///     }
/// }
/// # log(&ServiceReport::default());
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServiceReport {
    /// The number of readers that are attached and alive.
    pub reader_count: u32,
    /// The reader entries of readers that have attached since the last pass.
    pub connected: Vec<u32>,
    /// The reader entries of readers that have left or died since the last pass.
    pub disconnected: Vec<u32>,
    /// The reader entries of readers that were evicted in this pass.
    pub evicted: Vec<u32>,
    /// Whether readers wait for a keyframe now, that is, whether `due_keyframe_requests` has a request.
    pub keyframe_wanted: bool,
    /// New requests for the first keyframe of a later time. An encoder that can plan its keyframes uses them and
    /// ignores `due_keyframe_requests` with a time. Requests of several readers for one frame are reported once.
    pub keyframe_requests: Vec<KeyframeRequest>,
    /// Requests for a keyframe now. At most once a second, one of them stands for all requests that have no time. The
    /// others are former `keyframe_requests` whose time has come before a keyframe.
    pub due_keyframe_requests: Vec<KeyframeRequest>,
    /// Messages of readers, if the writer accepts them. They may have any content.
    pub messages: Vec<Vec<u8>>,
    /// How many frames readers have missed since the last pass, as
    /// [`WriterStats::missed_by_readers`](crate::WriterStats::missed_by_readers) counts them.
    pub missed_by_readers: u64,
    /// Whether the channel's files had been removed and were made again.
    pub names_restored: bool,
    /// Whether a new segment was made because another program had written into memory that only this writer writes.
    pub repaired: bool,
    /// The faults of the semaphore that other programs caused. Each kind of fault is reported once.
    pub semaphore_faults: Vec<SemaphoreFault>,
    /// Why there are fewer slots than readers could use. Each limit is reported once.
    pub shortage: Option<Shortage>,
}

/// The values that the service keeps from one pass to the next.
#[derive(Debug)]
pub(super) struct ServiceState {
    /// The count in the current segment's futex word for the writer, at the last pass.
    seen_word: u32,
    limiter: RateLimiter,
    reported_faults: SemaphoreFaults,
    reported_missed: u64,
    names_checked_at: Instant,
    /// When this writer first noticed that another writer owns one of the channel's names.
    foreign_since: Option<Instant>,
}

impl ServiceState {
    pub(super) fn new() -> Self {
        Self {
            seen_word: 0,
            limiter: RateLimiter::new(WAKE_BURST, WAKE_INTERVAL),
            reported_faults: SemaphoreFaults::default(),
            reported_missed: 0,
            names_checked_at: Instant::now(),
            foreign_since: None,
        }
    }

    /// Whether this pass has to check the channel's names.
    pub(super) fn begin_name_check(&mut self) -> bool {
        let is_due = self.names_checked_at.elapsed() > NAME_CHECK_INTERVAL;
        if is_due {
            self.names_checked_at = Instant::now();
        }
        is_due
    }

    /// Records that another writer owns one of the names. Returns whether this has lasted for too long.
    pub(super) fn note_foreign_name(&mut self) -> bool {
        let since = *self.foreign_since.get_or_insert_with(Instant::now);
        since.elapsed() > FOREIGN_NAME_TIMEOUT
    }

    /// Records that this writer owns the channel's names.
    pub(super) fn note_own_names(&mut self) {
        self.foreign_since = None;
    }

    /// Records the count in `segment`'s futex word for the writer. If readers come or go after this pass, the count
    /// changes.
    pub(super) fn note_word(&mut self, segment: &Segment) {
        // Acquire: pairs with the release increment of a reader that notifies the writer. This pass finds every reader
        // that notified before this load. A reader that notifies later changes the count.
        self.seen_word = segment.word(FutexWord::Writer).load(Ordering::Acquire);
    }

    /// Records that a new segment is current. Its count begins at 0.
    pub(super) fn begin_segment(&mut self) {
        self.seen_word = 0;
    }

    /// Returns the count at the last pass. If there were too many wakes, also returns how long to sleep before the
    /// wait.
    pub(super) fn begin_wait(&mut self) -> (u32, Option<Duration>) {
        (self.seen_word, self.limiter.throttle())
    }

    /// How many of the `missed` frames were not reported before.
    pub(super) fn new_missed(&mut self, missed: u64) -> u64 {
        missed - std::mem::replace(&mut self.reported_missed, missed)
    }

    /// The kinds of faults that were not reported before.
    pub(super) fn new_faults(&self, faults: &SemaphoreFaults) -> Vec<SemaphoreFault> {
        self.reported_faults.merge(faults)
    }
}
