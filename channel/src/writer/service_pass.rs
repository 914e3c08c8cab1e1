// SPDX-License-Identifier: MIT OR Apache-2.0

//! One pass of the service, which is the writer's regular housekeeping.

use std::sync::Arc;

use super::{claim, inner::Inner, restore, service::ServiceReport, shortage::Shortage, state::State};
use crate::Error;

/// Repairs damage by other programs, looks for readers that came or went, and gives each reader its quota.
pub(super) fn run(inner: &Inner) -> Result<ServiceReport, Error> {
    let mut state = inner.lock();
    let lock_file = Arc::clone(state.lock.lock_file());
    let check_names = state.service.begin_name_check();
    if check_names {
        if let Some(slots) = state.chain.current_mut() {
            slots.retry_growth();
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
    let needed_slots = poll_readers(&mut inner.lock(), &mut report);
    // The memory is committed without a lock, because this takes milliseconds. It is committed before the quotas are
    // published, because readers may use their quotas at once.
    claim::commit_slots(inner, needed_slots);
    finish(&mut inner.lock(), inner.options().lossless, &mut report);
    Ok(report)
}

/// Records the present readers and their requests. Returns how many slots their quotas and the writer need.
fn poll_readers(state: &mut State, report: &mut ServiceReport) -> u32 {
    restore::repair_status(state);
    if let Some(segment) = state.chain.current_mapped() {
        state.service.note_word(segment);
    }
    state
        .readers
        .update(|entry, known| state.chain.reader_in(entry, known), report);
    let Some(slots) = state.chain.current_mut() else {
        return 0;
    };
    slots.ignore_dead_readers();
    state.requests.poll(
        slots.segment().mapped(),
        |entry| state.readers.generation(entry),
        state.sequence.head(),
        report,
    );
    state.readers.needed_slots(slots)
}

/// Publishes quotas, and releases unused memory of superseded segments.
fn finish(state: &mut State, lossless: bool, report: &mut ServiceReport) {
    if let Some(slots) = state.chain.current_mut() {
        let are_readers_short = state.readers.update_quotas(slots, report);
        report.shortage = state.shortage.take(are_readers_short).map(|space| Shortage {
            slots: slots.attainable(),
            slot_size: slots.segment().header().slot_size,
            space,
        });
        state.stats.missed_by_readers += slots.take_missed();
    }
    report.missed_by_readers = state.service.new_missed(state.stats.missed_by_readers);
    state.stats.evicted += report.evicted.len() as u64;
    state.chain.release_old(lossless);
    report.semaphore_faults = state.service.new_faults(&state.lock.lock_file().faults);
}
