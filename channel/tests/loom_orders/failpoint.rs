// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failpoints, which do nothing in a model.

#[allow(dead_code)]
pub(crate) enum Failpoint {
    EntryCleared,
    PinsCleared,
    GenerationStored,
    Joining,
    PinSet,
    Pinned,
    UnpinDue,
    PinsSeen,
    SeqCleared,
    SeqStored,
    RingStored,
    EndHalf,
    EndsLoaded,
    QuotaLowered,
}

pub(crate) fn failpoint(_: Failpoint) {}
