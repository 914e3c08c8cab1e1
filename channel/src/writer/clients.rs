//! Who reads: the seats, what each may pin, and who has to go.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Current, State, Writer};
use crate::{
    Error, files,
    layout::{EVICTED, MAX_GRANT, SEATS, seat_state},
    wait::Word,
};

/// How long a reader may hold what it was granted before the grant was lowered and it could know of that.
const GRACE: Duration = Duration::from_secs(1);
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
    /// Somebody had removed the channel's files; they are there again.
    pub restored: bool,
}

/// What the writer knows of the owner of a seat.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SeatRecord {
    /// The owner that is counted as a reader.
    ticket: Option<u32>,
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
            ceiling: match (ticket, self.lowered_at) {
                (Some(_), _) => 0,
                (None, None) => self.ceiling,
                (None, Some(_)) => MAX_GRANT,
            },
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
            // It may not know yet. What it holds when the time is over was granted once.
            Some(at) => {
                self.ceiling = held.clamp(share, MAX_GRANT);
                if at.elapsed() >= GRACE {
                    self.lowered_at = None;
                }
            }
            None => self.ceiling = share.max(self.ceiling.min(held)),
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
            if let Some(current) = &mut state.current {
                current.retry_growth();
            }
        }
        if let Some(current) = &mut state.current {
            current.slots.spare = files::space(control.file()).0;
        }
        drop(state);
        control.mend();
        // Before the news of who came and went is taken, which an error here would lose.
        let restored = check_names && self.restore_names()?;
        let mut state = self.lock();
        if let Some(current) = &state.current {
            // Acquire: who came before the count was read is found; who comes after changes it.
            state.served = current.segment.segment.word(Word::Writer).load(Ordering::Acquire);
        }
        let mut clients = state.update_clients();
        state.update_grants(&mut clients);
        state.tidy_retired(self.options.lossless);
        clients.restored = restored;
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
            seat_state::NEW => self.retired.iter().rev().find_map(|retired| {
                let former = &retired.segment;
                (former.control.identity() == current.control.identity() && former.has_reader_in(seat))
                    .then(|| former.segment.control.seat(seat).ticket.load(Ordering::Acquire))
            }),
            _ => None,
        }
    }

    /// Shares the slots out: each reader may pin as many as leave two to the writer when all do.
    ///
    /// A reader that holds more than its new share, from before others came, keeps it and gets no more: the others'
    /// shares are what is left, after that and after what is still held of those that have left. So only who takes what it
    /// was not granted can hold too much, and what those hold is not counted.
    pub(super) fn update_grants(&mut self, clients: &mut Clients) {
        let Some(current) = &mut self.current else {
            return;
        };
        // The pins before the ticket: as in `SlotTable::pinned`.
        let held: [(u32, u32); SEATS] = core::array::from_fn(|seat| {
            let shared = current.segment.segment.control.seat(seat);
            let bits = shared.pins.load(Ordering::Acquire);
            let ticket = shared.ticket.load(Ordering::Acquire);
            let counts = current.slots.ignored[seat] != Some(ticket);
            (ticket, if counts { bits.count_ones() } else { 0 })
        });
        let to_share = current.capacity().saturating_sub(current.retain() + 2);
        let taken = |share: u32| {
            let of_seat = |seat: usize| match self.seats[seat].ticket {
                Some(ticket) if current.slots.ignored[seat] == Some(ticket) => 0,
                Some(_) => held[seat].1.max(share),
                None => held[seat].1,
            };
            (0..SEATS).map(of_seat).sum::<u32>()
        };
        let fits = |share: u32| taken(share) <= to_share;
        let share = (1..=MAX_GRANT).rev().find(|share| fits(*share)).unwrap_or(0);
        for (seat, (owner, held)) in held.into_iter().enumerate() {
            let record = &mut self.seats[seat];
            let ticket = record.ticket.unwrap_or(owner);
            if current.slots.ignored[seat] == Some(ticket) {
                continue;
            }
            let evicted = match record.ticket {
                Some(_) => record.breaks_rule(share, held),
                None => record.breaks_rule_unattached(ticket, held),
            };
            if evicted {
                current.slots.ignored[seat] = Some(ticket);
                self.stats.evicted += 1;
                clients.evicted.push(seat as u32);
                current.publish_grant(seat, ticket, EVICTED);
            } else if record.ticket.is_some() {
                current.publish_grant(seat, ticket, share);
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

impl Current {
    fn publish_grant(&self, seat: usize, ticket: u32, grant: u32) {
        // Release: pairs with the reader's acquire load.
        let grant = u64::from(ticket) << 32 | u64::from(grant);
        self.segment.segment.control.grant(seat).store(grant, Ordering::Release);
    }
}
