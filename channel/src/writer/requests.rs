//! What readers ask the writer for: a frame that can be decoded alone, and letters, where it takes any.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use super::{Clients, State};
use crate::protocol::layout::{MAIL_RING, SEATS, seat_state};

/// A wish for a frame that can be decoded alone is told once in so long: each costs an encoder bits, and all readers have
/// the same one.
const KEY_UNIT_INTERVAL: Duration = Duration::from_secs(1);

/// What a seat's owner has asked for so far, in one segment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heard {
    ticket: u32,
    key_requests: u32,
    mail: u64,
}

/// Frames that can be decoded alone, and the wish for one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct KeyUnits {
    /// Number of the newest.
    pub(super) newest: u64,
    /// Somebody has wanted one since the frame of this number.
    wanted_since: Option<u64>,
    told: Option<Instant>,
}

impl KeyUnits {
    /// Whether upstream is to be told now.
    fn tell(&mut self) -> bool {
        let Some(since) = self.wanted_since else {
            return false;
        };
        if self.newest > since {
            self.wanted_since = None;
            return false;
        }
        let due = self.told.is_none_or(|told| told.elapsed() >= KEY_UNIT_INTERVAL);
        if due {
            self.wanted_since = None;
            self.told = Some(Instant::now());
        }
        due
    }
}

impl State {
    /// Looks what the readers have asked for since the last time.
    pub(super) fn hear_requests(&mut self, clients: &mut Clients) {
        let Some(current) = &mut self.current else {
            return;
        };
        let control = &current.segment.segment.control;
        for seat in 0..SEATS {
            let shared = control.seat(seat);
            let Some(ticket) = self.seats[seat].ticket else {
                continue;
            };
            // Acquire: pairs with the release store of an owner that sits down; its counts begin at 0 before.
            if shared.state.load(Ordering::Acquire) != seat_state::ATTACHED
                || shared.ticket.load(Ordering::Acquire) != ticket
            {
                continue;
            }
            let heard = &mut current.heard[seat];
            if heard.ticket != ticket {
                *heard = Heard {
                    ticket,
                    ..Heard::default()
                };
            }
            // Relaxed: a count of its own.
            let key_requests = shared.key_requests.load(Ordering::Relaxed);
            if key_requests != heard.key_requests {
                heard.key_requests = key_requests;
                self.key_units.wanted_since.get_or_insert(self.head);
            }
            if current.segment.segment.fixed.mail_count == 0 {
                continue;
            }
            // Acquire: pairs with the release store after the letter was written.
            let newest = shared.mail_head.load(Ordering::Acquire);
            let first = (heard.mail.saturating_add(1)).max(newest.saturating_sub(MAIL_RING - 1));
            let letters = (first..=newest).filter_map(|number| control.mail(seat, number)?.read(number));
            clients.mail.extend(letters);
            heard.mail = newest;
        }
        clients.key_unit_wanted = self.key_units.tell();
    }
}
