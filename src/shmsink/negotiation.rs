// SPDX-License-Identifier: MIT OR Apache-2.0

//! Decides which messages the sink posts about caps that it cannot carry.

use std::sync::Mutex;

use crate::sync::lock;

/// The last answer that upstream has received about caps since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum CapsAnswer {
    /// There has been no answer yet.
    #[default]
    None,
    /// None of the caps that upstream asked about can be carried.
    Refusal,
    /// Upstream may send some of the caps that it asked about.
    Offer,
    /// The caps that upstream sent cannot be carried.
    Error,
}

/// The state of the negotiation of caps with upstream.
#[derive(Debug, Default)]
pub(super) struct Negotiation(Mutex<CapsAnswer>);

impl Negotiation {
    /// Forgets the last answer.
    pub(super) fn reset(&self) {
        *lock(&self.0) = CapsAnswer::None;
    }

    /// Records that upstream may send some of the caps that it asked about.
    pub(super) fn record_offer(&self) {
        *lock(&self.0) = CapsAnswer::Offer;
    }

    /// Records that the sink refused all caps that upstream asked about. Returns whether to post a warning.
    ///
    /// A warning is posted only if the refusal is the first answer. A refusal after an offer means only that upstream
    /// tries further caps. The caps that upstream finally sends are checked when they arrive.
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
    /// The error is posted only once, although upstream may send the caps again with each buffer.
    pub(super) fn record_error(&self) -> bool {
        std::mem::replace(&mut *lock(&self.0), CapsAnswer::Error) != CapsAnswer::Error
    }
}
