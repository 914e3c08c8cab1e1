//! Who reads: the seats, what each may pin, and who has to go.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{CurrentSegment, State, Writer, overcommit::Overcommit};
use crate::{
    Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{EVICTED, MAX_QUOTA, MAX_READERS, reader_state},
    },
    segment::{faults::SemaphoreFault, wait::FutexWord},
};

/// How long a reader may hold what it was granted before the grant was lowered and it could know of that.
const GRACE: Duration = Duration::from_secs(1);
/// What a reader is granted at first: one to copy from, one to show, and the one before, which many sinks keep.
pub(super) const INITIAL_QUOTA: u32 = 3;
/// How many more slots than it holds a reader is granted.
const QUOTA_AHEAD: u32 = 2;
/// How often the names in /dev/shm are looked at.
const NAMES_CHECK: Duration = Duration::from_secs(1);
/// How long a superseded segment keeps frames that nobody holds.
const KEEP_RETIRED: Duration = Duration::from_secs(1);
/// More superseded segments than this are let go of, whoever still reads them.
const MAX_RETIRED: usize = 8;

/// What came of one [`Writer::service`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceReport {
    /// Readers that are attached and alive.
    pub reader_count: u32,
    /// Seats of those that came.
    pub connected: Vec<u32>,
    /// Seats of those that went.
    pub disconnected: Vec<u32>,
    /// Seats that were evicted.
    pub evicted: Vec<u32>,
    /// Readers wait for a frame that can be decoded without those before it. Said once a second at the most.
    pub keyframe_wanted: bool,
    /// Letters of readers, which may be anything, where the writer takes them.
    pub messages: Vec<Vec<u8>>,
    /// Somebody had removed the channel's files; they are there again.
    pub names_restored: bool,
    /// Somebody else had written into what this writer alone writes; there is a new segment.
    pub repaired: bool,
    /// What was done to the semaphore. Each kind is said once.
    pub semaphore_faults: Vec<SemaphoreFault>,
}

/// What the writer knows of the owner of a seat.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ReaderRecord {
    /// The owner that is counted as a reader.
    pub(super) generation: Option<u32>,
    quota: u32,
    /// What it may hold without breaking a rule: the grant, or what it held already when that was lowered.
    ceiling: u32,
    lowered_at: Option<Instant>,
    /// An owner that is not counted as a reader and was seen to hold more than it may.
    suspect: Option<u32>,
}

impl ReaderRecord {
    /// What is known once the owner is counted as a reader, or no longer.
    fn followed_by(self, generation: Option<u32>) -> Self {
        Self {
            generation,
            // A reader that left keeps the frames that it passed on.
            ceiling: if generation.is_some() { 0 } else { self.ceiling },
            ..Self::default()
        }
    }

    /// Whether an owner that is granted `share` and holds `held` slots has broken the rule.
    fn breaks_rule(&mut self, share: u32, held: u32) -> bool {
        if share < self.quota {
            self.lowered_at = Some(Instant::now());
        }
        self.quota = share;
        match self.lowered_at {
            // It may not know yet, and take what it was granted before: that much, as its own holding may be why it was lowered.
            Some(at) if at.elapsed() < GRACE => self.ceiling = share.max(self.ceiling),
            // What it holds when the time is over was granted once.
            _ => {
                self.ceiling = share.max(self.ceiling.min(held));
                self.lowered_at = None;
            }
        }
        held > self.ceiling
    }

    /// The same of an owner that is not counted as a reader: it has left, or says so. It gets no more than it had. Found
    /// twice, as the pins may be those of a dead owner, whose successor clears them in a moment.
    fn breaks_rule_unattached(&mut self, generation: u32, held: u32) -> bool {
        let too_many = held > self.ceiling;
        self.ceiling = self.ceiling.min(held);
        let again = self.suspect == Some(generation);
        self.suspect = too_many.then_some(generation);
        too_many && again
    }
}

impl Writer {
    /// Looks after the readers and the channel's files; to be called a few times a second, from any thread, and when
    /// [`wait_for_service`](Self::wait_for_service) returns.
    ///
    /// # Errors
    /// [`Error::Busy`] when somebody else has taken the channel's names; [`Error::NoSpace`] and others when lost files
    /// cannot be made again.
    pub fn service(&self) -> Result<ServiceReport, Error> {
        let mut state = self.lock();
        let lock_file = Arc::clone(&state.lock_file);
        let check_names = state.names_checked.elapsed() > NAMES_CHECK;
        if check_names {
            state.names_checked = Instant::now();
            // The system may have memory again.
            if let Some(current) = &mut state.current {
                current.slots.full = false;
            }
        }
        drop(state);
        lock_file.repair_semaphore();
        // Before the news of who came and went is taken, which an error here would lose.
        let names_restored = check_names && self.restore_names()?;
        let repaired = self.replace_corrupted(check_names)?;
        let mut state = self.lock();
        state.repair_heads();
        if let Some(current) = &state.current {
            // Acquire: who came before the count was read is found; who comes after changes it.
            state.served = current.segment.segment.word(FutexWord::Writer).load(Ordering::Acquire);
        }
        let mut report = state.update_clients();
        state.poll_requests(&mut report);
        let wanted = state.slots_for_readers();
        drop(state);
        self.commit_slots(wanted);
        let mut state = self.lock();
        state.update_quotas(&mut report);
        state.tidy_retired(self.options.lossless);
        report.names_restored = names_restored;
        report.repaired = repaired;
        report.semaphore_faults = state.faults.merge(&state.lock_file.faults);
        Ok(report)
    }
}

impl State {
    /// Compares who is there with who was.
    fn update_clients(&mut self) -> ServiceReport {
        let mut report = ServiceReport::default();
        for entry in 0..MAX_READERS {
            let now = self.reader_in(entry);
            let record = &mut self.readers[entry];
            let before = record.generation;
            if now != before {
                // A reader that goes on to another segment may need another ticket there; it stays the same reader.
                if before.is_some() {
                    report.disconnected.push(entry as u32);
                }
                if now.is_some() {
                    report.connected.push(entry as u32);
                }
                *record = record.followed_by(now);
            }
            report.reader_count += u32::from(now.is_some());
        }
        if let Some(current) = &mut self.current {
            current.slots.ignore_the_dead(&current.segment);
        }
        report
    }

    /// The ticket of the living reader in `entry`, if there is one that takes frames.
    fn reader_in(&self, entry: usize) -> Option<u32> {
        let current = &self.current.as_ref()?.segment;
        let shared = current.segment.tables.entry(entry);
        // The state first: the ticket is then at least that of the owner whose state it is.
        let state = shared.state.load(Ordering::Acquire);
        let generation = shared.generation.load(Ordering::Acquire);
        match state {
            reader_state::ATTACHED => current.is_alive(entry).then_some(generation),
            // Not here yet: perhaps on its way from a former segment.
            reader_state::NEW | reader_state::JOINING => self.retired.iter().rev().find_map(|retired| {
                let former = &retired.segment;
                (former.lock_file.file_id() == current.lock_file.file_id() && former.has_reader_in(entry))
                    .then(|| former.segment.tables.entry(entry).generation.load(Ordering::Acquire))
            }),
            _ => None,
        }
    }

    /// What each seat holds, and whose that is. The pins before the ticket: as in `SlotTable::pinned`.
    fn held(&self, current: &CurrentSegment) -> [EntryUsage; MAX_READERS] {
        core::array::from_fn(|entry| {
            let shared = current.segment.segment.tables.entry(entry);
            let bits = shared.pins.load(Ordering::Acquire);
            let owner = shared.generation.load(Ordering::Acquire);
            let ignored = current.slots.ignored[entry];
            let reader = self.readers[entry].generation;
            EntryUsage {
                owner,
                slots: if ignored == Some(owner) { 0 } else { bits.count_ones() },
                reader: reader.filter(|generation| ignored != Some(*generation)),
            }
        })
    }

    /// What each reader should be granted: somewhat more than it holds, and not less than before, so that one whose queue
    /// grows goes on in place. At most its share of what the segment can ever have, when all pin all they may; in a crowd
    /// what each needs.
    fn wanted_quotas(&self, current: &CurrentSegment, held: &[EntryUsage; MAX_READERS]) -> [u32; MAX_READERS] {
        let share = match current.slots.overcommit {
            Overcommit::Stopped => 0,
            Overcommit::None | Overcommit::Sharing if current.needs_overcommit(share(current, held)) => INITIAL_QUOTA,
            Overcommit::None | Overcommit::Sharing => share(current, held),
        };
        core::array::from_fn(|entry| {
            let ahead = (held[entry].slots + QUOTA_AHEAD).max(INITIAL_QUOTA);
            ahead.max(self.readers[entry].quota).min(share)
        })
    }

    /// How many slots have to be there for all readers to have what they should be granted.
    pub(super) fn slots_for_readers(&self) -> u32 {
        self.current.as_ref().map_or(0, |current| {
            let held = self.held(current);
            sum_of_quotas(&held, &self.wanted_quotas(current, &held)) + current.slots_for_writer()
        })
    }

    /// Tells each reader how many slots it may pin.
    ///
    /// What is granted may be pinned at once, and for ever. So there is memory for it before, and for the writer's own slots
    /// beside it (of a crowd see `overcommit`): readers that keep to their grants never take the writer's last. One that holds more than its new grant,
    /// from before others came, keeps it and gets no more. So only who takes what it was not granted can hold too much,
    /// and what those hold is not counted.
    fn update_quotas(&mut self, report: &mut ServiceReport) {
        let head = self.head;
        let Some(current) = &self.current else {
            return;
        };
        let held = self.held(current);
        let needs_overcommit = current.needs_overcommit(share(current, &held));
        if let Some(current) = &mut self.current {
            current.update_overcommit(needs_overcommit, head);
        }
        let Some(current) = &self.current else {
            return;
        };
        let mut quotas = self.wanted_quotas(current, &held);
        let there = match current.slots.overcommit {
            Overcommit::Sharing => u32::MAX,
            Overcommit::None | Overcommit::Stopped => {
                current.slots.committed.saturating_sub(current.slots_for_writer())
            }
        };
        while sum_of_quotas(&held, &quotas) > there {
            let Some(largest) = quotas.iter().copied().max().filter(|largest| *largest > 0) else {
                break;
            };
            quotas = quotas.map(|quota| quota.min(largest - 1));
        }
        let Some(current) = &mut self.current else {
            return;
        };
        for (entry, (held, quota)) in held.into_iter().zip(quotas).enumerate() {
            let record = &mut self.readers[entry];
            let generation = record.generation.unwrap_or(held.owner);
            if current.slots.ignored[entry] == Some(generation) {
                continue;
            }
            let evicted = match record.generation {
                Some(_) => record.breaks_rule(quota, held.slots),
                None => record.breaks_rule_unattached(generation, held.slots),
            };
            if evicted {
                current.slots.ignored[entry] = Some(generation);
                self.stats.evicted += 1;
                report.evicted.push(entry as u32);
                current.publish_quota(entry, generation, EVICTED);
            } else if record.generation.is_some() {
                current.publish_quota(entry, generation, quota);
            }
        }
    }

    /// Gives back what superseded segments still take.
    fn tidy_retired(&mut self, lossless: bool) {
        for retired in &mut self.retired {
            if retired.since.elapsed() > KEEP_RETIRED && !retired.is_empty() {
                retired.release(lossless);
            }
        }
        self.forget_retired();
    }

    /// Lets go of superseded segments that nobody has anything of any more.
    pub(super) fn forget_retired(&mut self) {
        let mut retired = std::mem::take(&mut self.retired);
        retired.retain(|retired| !(retired.is_empty() && self.is_deserted(retired)));
        let too_many = retired.len().saturating_sub(MAX_RETIRED);
        retired.drain(..too_many);
        self.retired = retired;
    }
}

/// What a seat holds.
#[derive(Clone, Copy, Debug)]
struct EntryUsage {
    owner: u32,
    /// Slots whose pins count.
    slots: u32,
    /// The owner as a reader that is granted slots; `None` for who has left, or was evicted.
    reader: Option<u32>,
}

/// How many slots each reader can have of its own.
fn share(current: &CurrentSegment, held: &[EntryUsage; MAX_READERS]) -> u32 {
    let for_readers = current.slots_for_readers_at_most();
    (1..=MAX_QUOTA)
        .rev()
        .find(|share| sum_of_quotas(held, &[*share; MAX_READERS]) <= for_readers)
        .unwrap_or(0)
}

/// How many slots are pinned when each reader pins what it is granted, or what it holds where that is more.
fn sum_of_quotas(held: &[EntryUsage; MAX_READERS], quotas: &[u32; MAX_READERS]) -> u32 {
    held.iter()
        .zip(quotas)
        .map(|(held, quota)| match held.reader {
            Some(_) => held.slots.max(*quota),
            None => held.slots,
        })
        .sum()
}

impl CurrentSegment {
    /// What the writer needs at the least: the newest frame, and one to draw into, or those that upstream has.
    fn slots_for_writer(&self) -> u32 {
        1 + self.claimed_slots().max(1)
    }

    /// What readers may pin together: all but two for the writer and the frames that are kept for latecomers. Where the
    /// system has no memory for more slots, fewer are kept.
    fn slots_for_readers_at_most(&self) -> u32 {
        if self.slots.full {
            self.slots.committed.saturating_sub(self.slots_for_writer())
        } else {
            self.segment
                .segment
                .header
                .slot_count
                .saturating_sub(self.history() + 2)
        }
    }

    fn publish_quota(&mut self, entry: usize, generation: u32, quota: u32) {
        // Before its owner can know, and pin.
        self.slots.granted |= 1 << entry;
        let quota = u64::from(generation) << 32 | u64::from(quota);
        let shared = self.segment.segment.tables.quota(entry);
        // Relaxed: nobody else writes it.
        let before = shared.load(Ordering::Relaxed);
        if quota != before {
            let same_owner = quota >> 32 == before >> 32;
            failpoint(if same_owner && quota < before {
                Failpoint::QuotaLowered
            } else {
                Failpoint::QuotaDue
            });
        }
        // Release: pairs with the reader's acquire load.
        shared.store(quota, Ordering::Release);
    }
}
