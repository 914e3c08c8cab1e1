//! Who reads: the seats, what each may pin, and who has to go.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Current, State, Writer, crowd::Crowd};
use crate::{
    Error,
    protocol::{
        failpoint::{At, point},
        layout::{EVICTED, MAX_GRANT, SEATS, seat_state},
    },
    segment::{lock_file::SemaphoreTrouble, wait::Word},
};

/// How long a reader may hold what it was granted before the grant was lowered and it could know of that.
const GRACE: Duration = Duration::from_secs(1);
/// What a reader is granted at first: one to copy from, one to show, and the one before, which many sinks keep.
pub(super) const FIRST_GRANT: u32 = 3;
/// How many more slots than it holds a reader is granted.
const GRANT_AHEAD: u32 = 2;
/// How often the names in /dev/shm are looked at.
const NAMES_CHECK: Duration = Duration::from_secs(1);
/// How long a superseded segment keeps frames that nobody holds.
const KEEP_RETIRED: Duration = Duration::from_secs(1);
/// More superseded segments than this are let go of, whoever still reads them.
const MAX_RETIRED: usize = 8;

/// What came of one [`Writer::service`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Clients {
    /// Readers that are attached and alive.
    pub count: u32,
    /// Seats of those that came.
    pub connected: Vec<u32>,
    /// Seats of those that went.
    pub disconnected: Vec<u32>,
    /// Seats that were evicted.
    pub evicted: Vec<u32>,
    /// Readers wait for a frame that can be decoded without those before it. Said once a second at the most.
    pub key_unit_wanted: bool,
    /// Letters of readers, which may be anything, where the writer takes them.
    pub mail: Vec<Vec<u8>>,
    /// Somebody had removed the channel's files; they are there again.
    pub restored: bool,
    /// Somebody else had written into what this writer alone writes; there is a new segment.
    pub spoilt: bool,
    /// What was done to the semaphore. Each kind is said once.
    pub semaphore: Vec<SemaphoreTrouble>,
}

/// What the writer knows of the owner of a seat.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SeatRecord {
    /// The owner that is counted as a reader.
    pub(super) ticket: Option<u32>,
    grant: u32,
    /// What it may hold without breaking a rule: the grant, or what it held already when that was lowered.
    ceiling: u32,
    lowered_at: Option<Instant>,
    /// An owner that is not counted as a reader and was seen to hold more than it may.
    suspect: Option<u32>,
}

impl SeatRecord {
    /// What is known once the owner is counted as a reader, or no longer.
    fn followed_by(self, ticket: Option<u32>) -> Self {
        Self {
            ticket,
            // A reader that left keeps the frames that it passed on.
            ceiling: if ticket.is_some() { 0 } else { self.ceiling },
            ..Self::default()
        }
    }

    /// Whether an owner that is granted `share` and holds `held` slots has broken the rule.
    fn breaks_rule(&mut self, share: u32, held: u32) -> bool {
        if share < self.grant {
            self.lowered_at = Some(Instant::now());
        }
        self.grant = share;
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
    fn breaks_rule_unattached(&mut self, ticket: u32, held: u32) -> bool {
        let too_many = held > self.ceiling;
        self.ceiling = self.ceiling.min(held);
        let again = self.suspect == Some(ticket);
        self.suspect = too_many.then_some(ticket);
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
    pub fn service(&self) -> Result<Clients, Error> {
        let mut state = self.lock();
        let control = Arc::clone(&state.control);
        let check_names = state.names_checked.elapsed() > NAMES_CHECK;
        if check_names {
            state.names_checked = Instant::now();
            // The system may have memory again.
            if let Some(current) = &mut state.current {
                current.slots.full = false;
            }
        }
        drop(state);
        control.mend();
        // Before the news of who came and went is taken, which an error here would lose.
        let restored = check_names && self.restore_names()?;
        let spoilt = self.replace_spoilt(check_names)?;
        let mut state = self.lock();
        state.mend_heads();
        if let Some(current) = &state.current {
            // Acquire: who came before the count was read is found; who comes after changes it.
            state.served = current.segment.segment.word(Word::Writer).load(Ordering::Acquire);
        }
        let mut clients = state.update_clients();
        state.hear_requests(&mut clients);
        let wanted = state.slots_for_readers();
        drop(state);
        self.back_slots(wanted);
        let mut state = self.lock();
        state.update_grants(&mut clients);
        state.tidy_retired(self.options.lossless);
        clients.restored = restored;
        clients.spoilt = spoilt;
        clients.semaphore = state.troubles.news_of(&state.control.troubles);
        Ok(clients)
    }
}

impl State {
    /// Compares who is there with who was.
    fn update_clients(&mut self) -> Clients {
        let mut clients = Clients::default();
        for seat in 0..SEATS {
            let now = self.reader_in(seat);
            let record = &mut self.seats[seat];
            let before = record.ticket;
            if now != before {
                // A reader that goes on to another segment may need another ticket there; it stays the same reader.
                if before.is_some() {
                    clients.disconnected.push(seat as u32);
                }
                if now.is_some() {
                    clients.connected.push(seat as u32);
                }
                *record = record.followed_by(now);
            }
            clients.count += u32::from(now.is_some());
        }
        if let Some(current) = &mut self.current {
            current.slots.ignore_the_dead(&current.segment);
        }
        clients
    }

    /// The ticket of the living reader in `seat`, if there is one that takes frames.
    fn reader_in(&self, seat: usize) -> Option<u32> {
        let current = &self.current.as_ref()?.segment;
        let shared = current.segment.control.seat(seat);
        // The state first: the ticket is then at least that of the owner whose state it is.
        let state = shared.state.load(Ordering::Acquire);
        let ticket = shared.ticket.load(Ordering::Acquire);
        match state {
            seat_state::ATTACHED => current.is_alive(seat).then_some(ticket),
            // Not here yet: perhaps on its way from a former segment.
            seat_state::NEW | seat_state::SITTING => self.retired.iter().rev().find_map(|retired| {
                let former = &retired.segment;
                (former.control.identity() == current.control.identity() && former.has_reader_in(seat))
                    .then(|| former.segment.control.seat(seat).ticket.load(Ordering::Acquire))
            }),
            _ => None,
        }
    }

    /// What each seat holds, and whose that is. The pins before the ticket: as in `SlotTable::pinned`.
    fn held(&self, current: &Current) -> [Held; SEATS] {
        core::array::from_fn(|seat| {
            let shared = current.segment.segment.control.seat(seat);
            let bits = shared.pins.load(Ordering::Acquire);
            let owner = shared.ticket.load(Ordering::Acquire);
            let ignored = current.slots.ignored[seat];
            let reader = self.seats[seat].ticket;
            Held {
                owner,
                slots: if ignored == Some(owner) { 0 } else { bits.count_ones() },
                reader: reader.filter(|ticket| ignored != Some(*ticket)),
            }
        })
    }

    /// What each reader should be granted: somewhat more than it holds, and not less than before, so that one whose queue
    /// grows goes on in place. At most its share of what the segment can ever have, when all pin all they may; in a crowd
    /// what each needs.
    fn wishes(&self, current: &Current, held: &[Held; SEATS]) -> [u32; SEATS] {
        let share = match current.slots.crowd {
            Crowd::Stopped => 0,
            Crowd::None | Crowd::Sharing if current.is_crowd(share(current, held)) => FIRST_GRANT,
            Crowd::None | Crowd::Sharing => share(current, held),
        };
        core::array::from_fn(|seat| {
            let ahead = (held[seat].slots + GRANT_AHEAD).max(FIRST_GRANT);
            ahead.max(self.seats[seat].grant).min(share)
        })
    }

    /// How many slots have to be there for all readers to have what they should be granted.
    pub(super) fn slots_for_readers(&self) -> u32 {
        self.current.as_ref().map_or(0, |current| {
            let held = self.held(current);
            sum_of_grants(&held, &self.wishes(current, &held)) + current.slots_for_writer()
        })
    }

    /// Tells each reader how many slots it may pin.
    ///
    /// What is granted may be pinned at once, and for ever. So there is memory for it before, and for the writer's own slots
    /// beside it (of a crowd see `crowd`): readers that keep to their grants never take the writer's last. One that holds more than its new grant,
    /// from before others came, keeps it and gets no more. So only who takes what it was not granted can hold too much,
    /// and what those hold is not counted.
    fn update_grants(&mut self, clients: &mut Clients) {
        let head = self.head;
        let Some(current) = &self.current else {
            return;
        };
        let held = self.held(current);
        let is_crowd = current.is_crowd(share(current, &held));
        if let Some(current) = &mut self.current {
            current.look_after_crowd(is_crowd, head);
        }
        let Some(current) = &self.current else {
            return;
        };
        let mut grants = self.wishes(current, &held);
        let there = match current.slots.crowd {
            Crowd::Sharing => u32::MAX,
            Crowd::None | Crowd::Stopped => current.slots.backed.saturating_sub(current.slots_for_writer()),
        };
        while sum_of_grants(&held, &grants) > there {
            let Some(largest) = grants.iter().copied().max().filter(|largest| *largest > 0) else {
                break;
            };
            grants = grants.map(|grant| grant.min(largest - 1));
        }
        let Some(current) = &mut self.current else {
            return;
        };
        for (seat, (held, grant)) in held.into_iter().zip(grants).enumerate() {
            let record = &mut self.seats[seat];
            let ticket = record.ticket.unwrap_or(held.owner);
            if current.slots.ignored[seat] == Some(ticket) {
                continue;
            }
            let evicted = match record.ticket {
                Some(_) => record.breaks_rule(grant, held.slots),
                None => record.breaks_rule_unattached(ticket, held.slots),
            };
            if evicted {
                current.slots.ignored[seat] = Some(ticket);
                self.stats.evicted += 1;
                clients.evicted.push(seat as u32);
                current.publish_grant(seat, ticket, EVICTED);
            } else if record.ticket.is_some() {
                current.publish_grant(seat, ticket, grant);
            }
        }
    }

    /// Gives back what superseded segments still take.
    fn tidy_retired(&mut self, lossless: bool) {
        for retired in &mut self.retired {
            if retired.since.elapsed() > KEEP_RETIRED && !retired.is_empty() {
                retired.give_back(lossless);
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
struct Held {
    owner: u32,
    /// Slots whose pins count.
    slots: u32,
    /// The owner as a reader that is granted slots; `None` for who has left, or was evicted.
    reader: Option<u32>,
}

/// How many slots each reader can have of its own.
fn share(current: &Current, held: &[Held; SEATS]) -> u32 {
    let for_readers = current.slots_for_readers_at_most();
    (1..=MAX_GRANT)
        .rev()
        .find(|share| sum_of_grants(held, &[*share; SEATS]) <= for_readers)
        .unwrap_or(0)
}

/// How many slots are pinned when each reader pins what it is granted, or what it holds where that is more.
fn sum_of_grants(held: &[Held; SEATS], grants: &[u32; SEATS]) -> u32 {
    held.iter()
        .zip(grants)
        .map(|(held, grant)| match held.reader {
            Some(_) => held.slots.max(*grant),
            None => held.slots,
        })
        .sum()
}

impl Current {
    /// What the writer needs at the least: the newest frame, and one to draw into, or those that upstream has.
    fn slots_for_writer(&self) -> u32 {
        1 + self.in_hand().max(1)
    }

    /// What readers may pin together: all but two for the writer and the frames that are kept for latecomers. Where the
    /// system has no memory for more slots, fewer are kept.
    fn slots_for_readers_at_most(&self) -> u32 {
        if self.slots.full {
            self.slots.backed.saturating_sub(self.slots_for_writer())
        } else {
            self.segment.segment.fixed.slot_count.saturating_sub(self.retain() + 2)
        }
    }

    fn publish_grant(&mut self, seat: usize, ticket: u32, grant: u32) {
        // Before its owner can know, and pin.
        self.slots.granted |= 1 << seat;
        let grant = u64::from(ticket) << 32 | u64::from(grant);
        let shared = self.segment.segment.control.grant(seat);
        // Relaxed: nobody else writes it.
        let before = shared.load(Ordering::Relaxed);
        if grant != before {
            let same_owner = grant >> 32 == before >> 32;
            point(if same_owner && grant < before {
                At::GrantLowered
            } else {
                At::GrantDue
            });
        }
        // Release: pairs with the reader's acquire load.
        shared.store(grant, Ordering::Release);
    }
}
