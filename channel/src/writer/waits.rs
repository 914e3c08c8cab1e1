// SPDX-License-Identifier: MIT OR Apache-2.0

//! The waits of a writer: for a reader, for readers that follow to a new segment, for a slot, for buffers of upstream,
//! and for work that the service has to do.
//!
//! | a lossless writer waits for | how long |
//! |---|---|
//! | readers of a superseded segment | until they have followed, have left or are dead |
//! | a slot | until readers release one, or as long as [`Patience`] says; then the segment grows, if it can |
//! | buffers of upstream | as long as a reader has frames to take; then as long as [`Patience`] says |

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    inner::Inner,
    patience::{Patience, ReaderWait},
    slots::SlotAllocator,
    state::State,
};
use crate::segment::wait::{FutexWord, RateLimiter};

/// The longest sleep of a blocked writer. After it, the writer asks the kernel whether the awaited reader is alive.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(10);
/// How many wakes in a row a blocked writer handles without a pause. After these wakes, it handles one in each
/// [`WAKE_INTERVAL`].
const WAKE_BURST: u32 = 256;
const WAKE_INTERVAL: Duration = Duration::from_millis(1);

/// Waits until a reader is attached, or `is_wanted` returns `false`. Returns `Some(false)` if the wait was interrupted,
/// and `None` if the segment is gone.
pub(super) fn wait_for_reader(inner: &Inner, is_wanted: impl Fn() -> bool) -> Option<bool> {
    let mut is_answered = false;
    let is_over = wait_until(
        inner,
        |_| LIVENESS_INTERVAL,
        |state| {
            is_answered = state.chain.has_reader() || !is_wanted();
            is_answered
        },
    );
    (is_answered || !is_over).then_some(is_over)
}

/// In lossless mode, waits until the readers of former segments have taken all frames there and have followed. Returns
/// `false` if the wait was interrupted, or if `is_wanted` returned `false`.
pub(super) fn wait_for_followers(inner: &Inner, is_wanted: &dyn Fn() -> bool) -> bool {
    wait_while(
        inner,
        |_| LIVENESS_INTERVAL,
        is_wanted,
        |state| state.chain.has_all_followers(),
    )
}

/// In lossless mode, waits until a frame of `size` bytes can have a place. Returns `false` if the wait was interrupted,
/// or if `is_wanted` returned `false`.
pub(super) fn wait_for_slot(inner: &Inner, size: u64, is_wanted: &dyn Fn() -> bool) -> bool {
    let mut wait = ReaderWait::default();
    wait_while(inner, slot_interval, is_wanted, |state| {
        if can_claim(state, size, false) {
            wait.end_answered(&mut state.patience);
            return true;
        }
        let is_growing = wait.is_over(&state.patience, slot_size(state)) && can_claim(state, size, true);
        if is_growing {
            wait.end_unanswered(&mut state.patience);
        }
        is_growing
    })
}

/// The size of the slots of the current segment.
fn slot_size(state: &State) -> u64 {
    let slots = state.chain.current();
    slots.map_or(0, |slots| slots.segment().header().slot_size)
}

/// When to look for a slot again although no reader notifies the writer.
fn slot_interval(state: &State) -> Duration {
    match state.chain.current() {
        Some(slots) if slots.can_grow() => state.patience.limit(slot_size(state)).min(LIVENESS_INTERVAL),
        _ => LIVENESS_INTERVAL,
    }
}

/// In lossless mode, waits until the buffers of upstream suffice for another frame of objects of `size` bytes, or until
/// the wait for readers that hold frames is over. Returns `false` if the wait was interrupted. If the frame needs
/// another segment, the wait comes before it: the frames of all segments count, so the next one needs no other wait.
pub(super) fn wait_for_objects(inner: &Inner, size: u64) -> bool {
    let lossless = inner.options().lossless;
    let mut checked_at = Instant::now();
    let mut wait = ReaderWait::default();
    loop {
        let mut owners = Vec::new();
        let is_ready = wait_while(
            inner,
            |state| state.patience.limit(size).min(LIVENESS_INTERVAL),
            &|| true,
            |state| {
                let State { chain, patience, .. } = state;
                if checked_at.elapsed() >= LIVENESS_INTERVAL {
                    if let Some(slots) = chain.current_mut() {
                        slots.ignore_dead_readers();
                    }
                    checked_at = Instant::now();
                }
                owners.append(&mut chain.retire_objects(lossless));
                let may_publish = |slots| has_objects(slots, patience, size, &mut wait);
                !owners.is_empty() || chain.current().is_none_or(may_publish)
            },
        );
        if !is_ready || owners.is_empty() {
            return is_ready;
        }
        // Upstream gets its buffers back while no lock is held. Then this thread looks again.
        drop(owners);
    }
}

/// Whether a lossless writer may publish another frame of objects of `size` bytes now. `wait` is the wait for readers
/// that hold frames and have none to take.
///
/// If the limit of upstream's buffers is near, the next publish withdraws the quota. A reader that is behind will
/// release its frames, so the writer waits for it. A reader that has taken all frames may hold them until it gets
/// another one, so the writer waits only a short time for it.
///
/// If the limit became smaller than the number of frames that are out, the same wait comes before the next publish,
/// which adds one frame. Nobody can pin this frame, so the publish after it adds none.
fn has_objects(slots: &SlotAllocator, patience: &mut Patience, size: u64, wait: &mut ReaderWait) -> bool {
    let has_spare = slots.has_spare_object();
    if has_spare && !slots.would_limit_objects() {
        wait.end_answered(patience);
        return true;
    }
    if !slots.have_readers_all() {
        wait.cancel();
        return false;
    }
    if has_spare && slots.quota() == 0 {
        return true;
    }
    let is_over = wait.is_over(patience, size);
    if is_over {
        wait.end_unanswered(patience);
    }
    is_over
}

/// In lossless mode, waits until `is_ready` returns `true`. Returns `false` if the wait was interrupted, or if
/// `is_wanted` returned `false` before. Another writer does not wait.
fn wait_while(
    inner: &Inner,
    interval: impl Fn(&State) -> Duration,
    is_wanted: &dyn Fn() -> bool,
    mut is_ready: impl FnMut(&mut State) -> bool,
) -> bool {
    let mut is_given_up = false;
    !inner.options().lossless
        || wait_until(inner, interval, |state| {
            is_ready(state) || {
                is_given_up = !is_wanted();
                is_given_up
            }
        }) && !is_given_up
}

/// Whether a claim in lossless mode would find a place: in the newest run, in a slot that has memory, or in a new slot
/// that readers need. With `may_grow`, any new slot counts.
fn can_claim(state: &mut State, size: u64, may_grow: bool) -> bool {
    let has_gap = state.sequence.has_gap();
    let Some(slots) = state.chain.current_mut() else {
        return true;
    };
    !has_gap && slots.can_append(size) || slots.can_find(may_grow)
}

/// Waits until `is_ready` returns `true`, or until there is no segment. Returns `false` if the wait was interrupted.
/// `is_ready` is called when a reader notifies the writer, and at least every `interval`.
fn wait_until(
    inner: &Inner,
    interval: impl Fn(&State) -> Duration,
    mut is_ready: impl FnMut(&mut State) -> bool,
) -> bool {
    let mut state = inner.lock();
    if is_ready(&mut state) {
        return true;
    }
    let mut limiter = RateLimiter::new(WAKE_BURST, WAKE_INTERVAL);
    loop {
        let Some(segment) = state.chain.current_mapped().map(Arc::clone) else {
            return true;
        };
        let status = segment.tables.status();
        let seen = status.begin_writer_wait();
        let ready = is_ready(&mut state);
        let timeout = interval(&state);
        drop(state);
        // Readers that sleep cannot release anything. Within a batch, they have not been notified yet.
        inner.notify_delayed();
        if !ready && !inner.publisher().is_interrupted() {
            inner.publisher().wait(&segment, FutexWord::Writer, seen, timeout);
        }
        status.end_writer_wait();
        if ready {
            return true;
        }
        if inner.publisher().is_interrupted() {
            return false;
        }
        if let Some(pause) = limiter.throttle() {
            inner.publisher().sleep(pause);
        }
        state = inner.lock();
    }
}

/// Sleeps until a reader comes or goes, until another segment is current, until the time of a keyframe request comes,
/// or until `timeout` has passed.
pub(super) fn wait_for_service(inner: &Inner, timeout: Duration) {
    let mut state = inner.lock();
    let (seen, pause) = state.service.begin_wait();
    let segment = state.chain.current_mapped().map(Arc::clone);
    let timeout = state.requests.time_until_due().map_or(timeout, |due| due.min(timeout));
    drop(state);
    // With this pause, a peer that only sends notifications cannot keep this thread busy.
    if let Some(pause) = pause {
        inner.service().sleep(pause);
    }
    match segment {
        None => inner.service().sleep(timeout),
        // A reader that came after the last pass has changed the word, so this wait ends at once. If this writer has
        // superseded the segment since the last pass, the word has changed too.
        Some(segment) => inner.service().wait(&segment, FutexWord::Writer, seen, timeout),
    }
}
