// SPDX-License-Identifier: MIT OR Apache-2.0

//! The connection of a reader: which segment it is in, with which entry, and when it may attach again.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    attach::{FormerLocks, ObserverReason},
    attachment::Attachment,
    entry::EntryLock,
    handle::{HandleState, ReaderHandle},
    options::ReaderOptions,
};
use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::reader_state,
        status::Snapshot,
    },
    segment::wait::{FutexWord, Waiter},
};

/// How often a waiting reader asks the kernel whether the writer is alive. This is also the longest sleep of a reader
/// on a segment's futex word.
pub(super) const LIVENESS_INTERVAL: Duration = Duration::from_millis(250);
/// How long a reader waits for the next segment after a superseded one. Then it reports the writer as lost.
const SEGMENT_GAP_TIMEOUT: Duration = Duration::from_secs(1);
/// If a second eviction follows within this time, the reader waits this long before it attaches again. A correct reader
/// is never evicted twice within this time, so another program must be changing the reader's quota.
const EVICTION_BACKOFF: Duration = Duration::from_secs(1);

/// The connection of a reader to the channel.
#[derive(Debug)]
pub(super) struct Connection {
    shared: Arc<HandleState>,
    state: ConnectionState,
    /// The lock of the reader's entry, which the reader keeps from one segment to the next.
    entry_lock: Option<Arc<EntryLock>>,
    backoff: EvictionBackoff,
    liveness_checked_at: Instant,
}

#[derive(Debug)]
enum ConnectionState {
    /// The reader has never attached, or it has reported the loss of the writer.
    Disconnected,
    /// The reader found its segment superseded at the given time, and has not opened the next one yet. It is still in
    /// the reader table of the superseded segment, so that a lossless writer waits for the reader.
    Moving(Instant, Arc<Attachment>),
    Attached(Arc<Attachment>),
}

/// Delays the next attachment of a reader that is evicted again and again.
#[derive(Debug, Default)]
struct EvictionBackoff {
    last_eviction: Option<Instant>,
    not_before: Option<Instant>,
}

impl EvictionBackoff {
    fn record_eviction(&mut self) {
        let former = self.last_eviction.replace(Instant::now());
        self.not_before = former
            .filter(|time| time.elapsed() < EVICTION_BACKOFF)
            .map(|time| time + EVICTION_BACKOFF);
    }

    fn is_over(&self) -> bool {
        self.not_before.is_none_or(|time| time <= Instant::now())
    }
}

impl Connection {
    pub(super) fn new() -> Self {
        Self {
            shared: Arc::default(),
            state: ConnectionState::Disconnected,
            entry_lock: None,
            backoff: EvictionBackoff::default(),
            liveness_checked_at: Instant::now(),
        }
    }

    pub(super) fn handle(&self) -> ReaderHandle {
        ReaderHandle(Arc::clone(&self.shared))
    }

    #[inline]
    pub(super) fn waiter(&self) -> &Waiter {
        &self.shared.waiter
    }

    /// The attachment to the current segment. `None` while the reader is not attached, or moves from a superseded
    /// segment to the next.
    #[inline]
    pub(super) fn attachment(&self) -> Option<&Arc<Attachment>> {
        match &self.state {
            ConnectionState::Attached(attachment) => Some(attachment),
            ConnectionState::Disconnected | ConnectionState::Moving(..) => None,
        }
    }

    pub(super) fn is_attached(&self) -> bool {
        self.attachment().is_some()
    }

    /// Whether the last segment is superseded and the next one is not open yet.
    pub(super) fn is_moving(&self) -> bool {
        matches!(self.state, ConnectionState::Moving(..))
    }

    /// Whether the segment after a superseded one did not appear within [`SEGMENT_GAP_TIMEOUT`].
    pub(super) fn has_move_timed_out(&self) -> bool {
        matches!(self.state, ConnectionState::Moving(since, _) if since.elapsed() > SEGMENT_GAP_TIMEOUT)
    }

    /// Whether the reader may attach now. After repeated evictions, the reader has to wait first.
    pub(super) fn may_attach(&self) -> bool {
        self.backoff.is_over()
    }

    /// Opens the segment that has the channel's name now. If the reader has an entry from a former segment, it keeps
    /// the entry. If it comes from a superseded segment, it is present all the time.
    pub(super) fn open(
        &self,
        name: &ChannelName,
        options: ReaderOptions,
        followed_to: Option<u64>,
    ) -> Result<Option<(Attachment, Option<ObserverReason>)>, Error> {
        let former = FormerLocks {
            entry: self.entry_lock.as_ref(),
            presence: match &self.state {
                ConnectionState::Moving(_, former) => former.presence(),
                ConnectionState::Disconnected | ConnectionState::Attached(_) => None,
            },
        };
        Attachment::open(name, options.read_only, former, followed_to)
    }

    /// Makes `attachment` the current attachment. If the reader comes from a superseded segment, this function stores
    /// there that the reader has moved.
    pub(super) fn complete_attach(&mut self, attachment: Attachment) {
        self.entry_lock = attachment.entry_lock().cloned();
        self.liveness_checked_at = Instant::now();
        failpoint(Failpoint::MoveDue);
        // The reader leaves the former segment only after it has joined the new one. A lossless writer waits until the
        // reader has left, and must then find the reader in the new segment.
        self.leave_former(reader_state::MOVED);
        if let Some(objects) = &attachment.objects {
            objects.set_waiter(&self.shared.waiter);
        }
        let attachment = Arc::new(attachment);
        *self.shared.attachment() = Some(Arc::clone(&attachment));
        self.state = ConnectionState::Attached(attachment);
    }

    /// Records that the current segment is superseded, so that the reader opens the next one.
    pub(super) fn begin_move(&mut self, attachment: Arc<Attachment>) {
        self.state = ConnectionState::Moving(Instant::now(), attachment);
    }

    /// Stores in the superseded segment, if there is one, that this reader takes no more frames there.
    pub(super) fn leave_former(&mut self, state: u32) {
        self.shared.attachment().take();
        if let ConnectionState::Moving(_, former) = std::mem::replace(&mut self.state, ConnectionState::Disconnected) {
            former.leave(state);
        }
    }

    /// Leaves the current segment.
    pub(super) fn disconnect(&mut self, attachment: &Attachment) {
        self.shared.attachment().take();
        attachment.leave(reader_state::LEFT);
        self.state = ConnectionState::Disconnected;
    }

    /// Leaves the current segment after an eviction, and gives up the reader entry.
    pub(super) fn disconnect_evicted(&mut self, attachment: &Attachment) {
        self.disconnect(attachment);
        self.entry_lock = None;
        self.backoff.record_eviction();
    }

    /// Whether the writer is dead. This function asks the kernel at most once in each [`LIVENESS_INTERVAL`].
    pub(super) fn has_lost_writer(&mut self, attachment: &Attachment, snapshot: &Snapshot) -> bool {
        // The caller's timeouts may be short, so a wakeup does not mean that the interval has passed.
        if self.liveness_checked_at.elapsed() < LIVENESS_INTERVAL {
            return false;
        }
        self.liveness_checked_at = Instant::now();
        attachment.has_lost_writer(snapshot)
    }

    /// The value of the superseded segment's futex word for readers. `None` if the reader does not move.
    pub(super) fn former_word(&self) -> Option<u32> {
        match &self.state {
            // Acquire: pairs with the release increment of a writer that notifies. A segment that got its name before
            // this notification is then found.
            ConnectionState::Moving(_, former) => {
                Some(former.segment.word(FutexWord::Published).load(Ordering::Acquire))
            }
            ConnectionState::Disconnected | ConnectionState::Attached(_) => None,
        }
    }

    /// Sleeps at most for `timeout`. A writer ends the sleep when the segment after a superseded one has its name and
    /// the superseded segment's futex word is no longer `seen`. Returns whether a writer can end it.
    pub(super) fn wait_for_segment(&self, seen: Option<u32>, timeout: Duration) -> bool {
        match (&self.state, seen) {
            (ConnectionState::Moving(_, former), Some(seen)) => {
                self.waiter().wait(&former.segment, FutexWord::Published, seen, timeout);
                true
            }
            _ => {
                self.waiter().sleep(timeout);
                false
            }
        }
    }

    /// Sleeps until the segment's futex word for readers differs from the value in `snapshot`, at most for `timeout`.
    pub(super) fn wait(&self, attachment: &Attachment, snapshot: &Snapshot, timeout: Duration) {
        self.shared
            .waiter
            .wait(&attachment.segment, FutexWord::Published, snapshot.published, timeout);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.attachment().take();
        if let ConnectionState::Attached(attachment) | ConnectionState::Moving(_, attachment) = &self.state {
            attachment.leave(reader_state::LEFT);
        }
    }
}
