// SPDX-License-Identifier: MIT OR Apache-2.0

//! The waits of a writer: for a reader, for readers that follow to a new segment, for a slot, and for work that the
//! service has to do.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{inner::Inner, patience::Patience, slots::SlotAllocator, state::State};
use crate::segment::wait::{FutexWord, RateLimiter};

/// The longest sleep of a blocked writer. After it, the writer asks the kernel whether the awaited reader is alive.
const LIVENESS_INTERVAL: Duration = Duration::from_millis(10);
/// How many wakes in a row a blocked writer handles without a pause. After these wakes, it handles one in each
/// [`WAKE_INTERVAL`].
const WAKE_BURST: u32 = 256;
const WAKE_INTERVAL: Duration = Duration::from_millis(1);

/// Waits until a reader is attached, or `is_wanted` returns `false`. Returns `false` if the wait was interrupted.
pub(super) fn wait_for_reader(inner: &Inner, is_wanted: impl Fn() -> bool) -> bool {
    wait_until(
        inner,
        |_| LIVENESS_INTERVAL,
        |state| state.chain.has_reader() || !is_wanted(),
    )
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
    let mut began = None;
    wait_while(inner, slot_interval, is_wanted, |state| {
        if can_claim(state, size, false) {
            if let Some(began) = began {
                state.patience.note_answer(Instant::elapsed(&began));
            }
            return true;
        }
        let waited = began.get_or_insert_with(Instant::now).elapsed();
        let is_growing = waited >= growth_delay(state) && can_claim(state, size, true);
        if is_growing {
            state.patience.note_growth(waited);
        }
        is_growing
    })
}

/// How long a lossless writer waits for its readers before the segment gets another slot.
fn growth_delay(state: &State) -> Duration {
    let slots = state.chain.current();
    let slot_size = slots.map_or(0, |slots| slots.segment().header().slot_size);
    state.patience.limit(slot_size)
}

/// When to look for a slot again although no reader notifies the writer.
fn slot_interval(state: &State) -> Duration {
    match state.chain.current() {
        Some(slots) if slots.can_grow() => growth_delay(state).min(LIVENESS_INTERVAL),
        _ => LIVENESS_INTERVAL,
    }
}

/// In lossless mode, waits until the buffers of upstream suffice for another frame of objects of `size` bytes. Returns
/// `false` if the wait was interrupted.
pub(super) fn wait_for_objects(inner: &Inner, size: u64) -> bool {
    let mut checked_at = Instant::now();
    let mut held_since = None;
    loop {
        let mut owners = Vec::new();
        let is_ready = wait_while(
            inner,
            |state| state.patience.limit(size).min(LIVENESS_INTERVAL),
            &|| true,
            |state| {
                let State { chain, patience, .. } = state;
                let Some(slots) = chain.current_mut() else {
                    return true;
                };
                if checked_at.elapsed() >= LIVENESS_INTERVAL {
                    slots.ignore_dead_readers();
                    checked_at = Instant::now();
                }
                owners.append(&mut slots.retire());
                !owners.is_empty() || has_objects(slots, patience, size, &mut held_since)
            },
        );
        if !is_ready || owners.is_empty() {
            return is_ready;
        }
        // Upstream gets its buffers back while no lock is held. Then this thread looks again.
        drop(owners);
    }
}

/// Whether a lossless writer may publish another frame of objects of `size` bytes now. `held_since` is when the wait
/// for readers that only hold frames began.
///
/// If the limit of upstream's buffers is near, the next publish withdraws the quota. A reader that is behind will
/// release its frames, so the writer waits for it. A reader that has taken all frames may hold them until it gets
/// another one, so the writer waits only a short time for it. This holds too if the limit was lowered below the frames
/// that are out: then one more is out, and no further one, because nobody can pin it.
fn has_objects(slots: &SlotAllocator, patience: &mut Patience, size: u64, held_since: &mut Option<Instant>) -> bool {
    let has_spare = slots.has_spare_object();
    if has_spare && !slots.would_limit_objects() {
        if let Some(since) = held_since.take() {
            patience.note_answer(since.elapsed());
        }
        return true;
    }
    if !slots.have_readers_all() {
        *held_since = None;
        return false;
    }
    if has_spare && slots.quota() == 0 {
        return true;
    }
    let waited = held_since.get_or_insert_with(Instant::now).elapsed();
    let is_over = waited >= patience.limit(size);
    if is_over {
        patience.note_growth(waited);
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

/// Waits until `is_ready` returns `true`. Returns `false` if the wait was interrupted. `is_ready` is called when a
/// reader notifies the writer, and at least every `interval`.
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
