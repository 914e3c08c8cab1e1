//! Decides which messages the sink posts about caps that it cannot carry.

use std::sync::Mutex;

use crate::sync::lock;

/// The last answer about caps that upstream received since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CapsAnswer {
    #[default]
    None,
    /// Why the caps that it asked about cannot be carried.
    Refusal,
    /// Caps that it may send.
    Offer,
    /// Why the caps that it sent cannot be carried.
    Error,
}

/// What upstream has learned about caps since the start.
#[derive(Debug, Default)]
pub(super) struct Negotiation(Mutex<CapsAnswer>);

impl Negotiation {
    /// Forgets all answers.
    pub(super) fn reset(&self) {
        *lock(&self.0) = CapsAnswer::None;
    }

    /// Records that upstream may send some of the caps that it asked about.
    pub(super) fn record_offer(&self) {
        *lock(&self.0) = CapsAnswer::Offer;
    }

    /// Records that upstream may send none of the caps that it asked about. Returns whether to post a warning.
    ///
    /// A warning is posted only while upstream has no other answer. Later, upstream only tries what is possible, and
    /// the caps that it does send are checked when they arrive.
    pub(super) fn record_refusal(&self) -> bool {
        let mut answer = lock(&self.0);
        let is_first = *answer == CapsAnswer::None;
        if is_first {
            *answer = CapsAnswer::Refusal;
        }
        is_first
    }

    /// Records that upstream sent caps that cannot be carried. Returns whether to post an error.
    ///
    /// An error is posted once, because upstream may send the caps again with each buffer.
    pub(super) fn record_error(&self) -> bool {
        std::mem::replace(&mut *lock(&self.0), CapsAnswer::Error) != CapsAnswer::Error
    }
}
