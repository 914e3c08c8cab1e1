// SPDX-License-Identifier: MIT OR Apache-2.0

//! One pass of the service, which is the writer's regular housekeeping.

use std::sync::Arc;

use super::{claim, inner::Inner, restore, service::ServiceReport, shortage::Shortage, state::State};
use crate::Error;

/// Repairs damage by other programs, looks for readers that came or went, grants the quota, and adapts the memory.
pub(super) fn run(inner: &Inner) -> Result<ServiceReport, Error> {
    let mut state = inner.lock();
    let lock_file = Arc::clone(state.lock.lock_file());
    let check_names = state.service.begin_name_check();
    if check_names {
        if let Some(slots) = state.chain.current_mut() {
            slots.memory().retry_growth();
        }
    }
    drop(state);

    lock_file.repair_semaphore();
    // The names are restored before the readers are polled. If the names cannot be restored, this function returns
    // early, and would lose a report of readers that came or went.
    let names_restored = check_names && restore::restore_names(inner)?;
    let repaired = restore::replace_corrupted(inner, check_names)?;

    let mut report = ServiceReport {
        names_restored,
        repaired,
        ..ServiceReport::default()
    };
    poll_readers(&mut inner.lock(), &mut report);
    if check_names {
        claim::release_idle(inner);
    }
    // The memory is committed without a lock, because this takes milliseconds. Each round commits a slot.
    loop {
        claim::commit_wanted(inner);
        let mut state = inner.lock();
        let is_growth_wanted = update_quota(&mut state, &mut report);
        if !is_growth_wanted {
            finish(&mut state, inner.options().lossless, &mut report);
            let owners = state.chain.retire_objects(inner.options().lossless);
            drop(state);
            // Upstream gets its buffers back while no lock is held.
            drop(owners);
            inner.objects().forget_unused(false);
            return Ok(report);
        }
    }
}

/// Records the present readers and their requests, and evicts readers that hold too many slots.
fn poll_readers(state: &mut State, report: &mut ServiceReport) {
    restore::repair_status(state);
    if let Some(segment) = state.chain.current_mapped() {
        state.service.note_word(segment);
    }
    state
        .readers
        .update(|entry, known| state.chain.reader_in(entry, known), report);
    let Some(slots) = state.chain.current_mut() else {
        return;
    };
    slots.find_attached();
    slots.ignore_dead_readers();
    state.requests.poll(
        slots.segment().mapped(),
        |entry| state.readers.generation(entry),
        state.sequence.head(),
        report,
    );
    state.readers.evict_greedy(slots, report);
}

/// Grants the quota, and reports a shortage of slots. Returns whether another slot must be committed first.
fn update_quota(state: &mut State, report: &mut ServiceReport) -> bool {
    let Some(slots) = state.chain.current_mut() else {
        return false;
    };
    let are_readers_short = state.readers.update_quota(slots);
    if slots.memory().may_begin_growth() && slots.memory().is_growth_wanted() {
        return true;
    }
    report.shortage = state.shortage.take(are_readers_short).map(|space| Shortage {
        slots: slots.attainable(),
        slot_size: slots.segment().header().slot_size,
        space,
    });
    false
}

/// Collects what the service reports, and releases unused memory of superseded segments.
fn finish(state: &mut State, lossless: bool, report: &mut ServiceReport) {
    if let Some(slots) = state.chain.current_mut() {
        state.stats.missed_by_readers += slots.take_missed();
    }
    report.missed_by_readers = state.service.new_missed(state.stats.missed_by_readers);
    state.stats.evicted += report.evicted.len() as u64;
    state.chain.release_old(lossless);
    report.semaphore_faults = state.service.new_faults(&state.lock.lock_file().faults);
}
