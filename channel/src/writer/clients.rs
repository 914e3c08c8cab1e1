//! Who reads: the seats, what each may pin, and who has to go.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{Current, State, Writer};
use crate::{
    Error,
    layout::{EVICTED, FIRST_SEAT_BYTE, MAX_GRANT, SEATS, seat_state},
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
        let mut clients = state.update_clients();
        state.update_grants(&mut clients);
        state.tidy_retired(self.options.lossless);
        let check_names = state.names_checked.elapsed() > NAMES_CHECK;
        if check_names {
            state.names_checked = Instant::now();
        }
        drop(state);
        if check_names {
            clients.restored = self.restore_names()?;
        }
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
                *record = SeatRecord {
                    ticket: now,
                    ..SeatRecord::default()
                };
            }
            clients.count += u32::from(now.is_some());
        }
        let control = Arc::clone(&self.control);
        if let Some(current) = &mut self.current {
            current.slots.ignore_the_dead(&current.segment, &control);
        }
        clients
    }

    /// The ticket of the living reader in `seat`, if there is one that takes frames.
    fn reader_in(&self, seat: usize) -> Option<u32> {
        let current = self.current.as_ref()?;
        let shared = current.segment.segment.control.seat(seat);
        let (ticket, state) = (
            shared.ticket.load(Ordering::Acquire),
            shared.state.load(Ordering::Acquire),
        );
        let takes_frames = match state {
            seat_state::ATTACHED => Some(ticket),
            // Not here yet: perhaps on its way from a former segment.
            seat_state::NEW => self.retired.iter().rev().find_map(|retired| {
                let shared = retired.segment.segment.control.seat(seat);
                (retired.control.identity() == self.control.identity()
                    && shared.state.load(Ordering::Acquire) == seat_state::ATTACHED)
                    .then(|| shared.ticket.load(Ordering::Acquire))
            }),
            _ => None,
        };
        takes_frames.filter(|_| self.control.is_locked(FIRST_SEAT_BYTE + seat as i64))
    }

    /// Shares the slots out: each reader may pin as many as leave two to the writer when all do.
    ///
    /// A reader that holds more than its new share, from before others came, keeps it and gets no more: the others'
    /// shares are what is left. So only a reader that takes what it was not granted can hold too much.
    pub(super) fn update_grants(&mut self, clients: &mut Clients) {
        let Some(current) = &mut self.current else {
            return;
        };
        let held: [u32; SEATS] = core::array::from_fn(|seat| {
            let pins = &current.segment.segment.control.seat(seat).pins;
            pins.load(Ordering::Acquire).count_ones()
        });
        let retain = current.segment.segment.fixed.retain;
        let to_share = current.capacity().saturating_sub(retain + 2);
        let readers = || (0..SEATS).filter(|seat| self.seats[*seat].ticket.is_some());
        let fits = |share: u32| readers().map(|seat| held[seat].max(share)).sum::<u32>() <= to_share;
        let share = (1..=MAX_GRANT).rev().find(|share| fits(*share)).unwrap_or(0);
        for seat in 0..SEATS {
            let Some(ticket) = self.seats[seat].ticket else {
                continue;
            };
            let record = &mut self.seats[seat];
            if current.slots.ignored[seat] == Some(ticket) {
                continue;
            }
            if share < record.grant {
                record.lowered_at = Some(Instant::now());
            }
            record.grant = share;
            if record.lowered_at.is_some_and(|at| at.elapsed() < GRACE) {
                record.ceiling = share.max(held[seat]).min(MAX_GRANT);
            } else {
                record.lowered_at = None;
                record.ceiling = share.max(record.ceiling.min(held[seat]));
            }
            let evicted = held[seat] > record.ceiling;
            if evicted {
                current.slots.ignored[seat] = Some(ticket);
                self.stats.evicted += 1;
                clients.evicted.push(seat as u32);
            }
            current.publish_grant(seat, ticket, if evicted { EVICTED } else { share });
        }
    }

    /// Gives back what superseded segments still take.
    fn tidy_retired(&mut self, lossless: bool) {
        for retired in &mut self.retired {
            if retired.since.elapsed() > KEEP_RETIRED && !retired.is_empty() {
                retired.give_back(lossless);
            }
        }
        let current = self.current.is_some();
        self.retired
            .retain(|retired| !(current && retired.is_empty() && retired.is_deserted()));
        let too_many = self.retired.len().saturating_sub(MAX_RETIRED);
        self.retired.drain(..too_many);
    }
}

impl Current {
    fn publish_grant(&self, seat: usize, ticket: u32, grant: u32) {
        // Release: pairs with the reader's acquire load.
        let grant = u64::from(ticket) << 32 | u64::from(grant);
        self.segment.segment.control.grant(seat).store(grant, Ordering::Release);
    }
}
