// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the two searches share: the search of all states, and a reader that pins slots as the protocol says.

use std::{collections::HashSet, hash::Hash};

pub const READERS: usize = 2;
pub const SLOTS: usize = 4;
/// The largest quota. Two readers can pin all slots.
pub const QUOTA: u32 = 2;

/// Visits every state that can follow `first`. `after` returns the states after one step of anybody, or a fault. Returns the
/// number of states.
pub fn search<State: Copy + Eq + Hash, Fault>(
    first: State,
    after: impl Fn(&State) -> Result<Vec<State>, Fault>,
) -> Result<usize, Fault> {
    let mut open = vec![first];
    let mut seen = HashSet::from([first]);
    while let Some(state) = open.pop() {
        for state in after(&state)? {
            if seen.insert(state) {
                open.push(state);
            }
        }
    }
    Ok(seen.len())
}

/// The places of seqs in their order. With a place instead of each seq, equal situations are equal states.
pub struct Ranks(u64);

impl Ranks {
    pub fn of(seqs: impl Iterator<Item = u8>) -> Self {
        Self(seqs.fold(0, |all, seq| all | 1 << seq))
    }

    /// The place of `seq`, counted from 1; 0 for 0.
    pub fn place(&self, seq: u8) -> u8 {
        (self.0 >> 1 & ((1 << seq) - 1)).count_ones() as u8
    }
}

/// What a reader does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PinStep {
    Choose,
    /// The bit of the slot is set. The reader wants this frame.
    LoadFirst(usize, u8),
    LoadSecond(usize, u8),
    /// The attempt failed. The bit is still set.
    Clear(usize),
}

/// The pins of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pins {
    pub bits: u8,
    /// The slots that the reader has pinned, and may read.
    pub held: u8,
    pub step: PinStep,
}

impl Pins {
    pub const NONE: Self = Self {
        bits: 0,
        held: 0,
        step: PinStep::Choose,
    };

    /// The seq of the frame that the reader is pinning; 0 if it pins none.
    pub fn wanted(&self) -> u8 {
        match self.step {
            PinStep::LoadFirst(_, seq) | PinStep::LoadSecond(_, seq) => seq,
            PinStep::Choose | PinStep::Clear(_) => 0,
        }
    }

    /// Replaces the seq of the frame that the reader is pinning by its place.
    pub fn rank_wanted(&mut self, ranks: &Ranks) {
        if let PinStep::LoadFirst(_, seq) | PinStep::LoadSecond(_, seq) = &mut self.step {
            *seq = ranks.place(*seq);
        }
    }

    /// The pins after one step: all that can follow. `seqs` are those of the slots. Without `quota_first`, the reader breaks
    /// the rule that it loads the quota before the seq.
    pub fn after_step(self, seqs: [u8; SLOTS], quota: u32, quota_first: bool) -> Vec<Self> {
        let allows = |slot: usize, seq: u8, loads_quota: bool| {
            if loads_quota {
                self.bits.count_ones() <= quota
            } else {
                seqs[slot] == seq
            }
        };
        let next = match self.step {
            PinStep::Choose => return (0..SLOTS).filter_map(|slot| self.choose(slot, seqs[slot])).collect(),
            PinStep::LoadFirst(slot, seq) if allows(slot, seq, quota_first) => Self {
                step: PinStep::LoadSecond(slot, seq),
                ..self
            },
            PinStep::LoadSecond(slot, seq) if allows(slot, seq, !quota_first) => Self {
                held: self.held | 1 << slot,
                step: PinStep::Choose,
                ..self
            },
            PinStep::LoadFirst(slot, _) | PinStep::LoadSecond(slot, _) => Self {
                step: PinStep::Clear(slot),
                ..self
            },
            PinStep::Clear(slot) => Self {
                bits: self.bits & !(1 << slot),
                step: PinStep::Choose,
                ..self
            },
        };
        vec![next]
    }

    /// The pins after a step of a reader that sets any bit, whatever the quota and the seqs are, and never clears one.
    pub fn after_rogue_step(self) -> Vec<Self> {
        let with = |slot: usize| Self {
            bits: self.bits | 1 << slot,
            ..self
        };
        (0..SLOTS).map(with).collect()
    }

    /// The pins after the reader has released the slot, or has set the bit for the frame `seq` in the slot.
    fn choose(self, slot: usize, seq: u8) -> Option<Self> {
        let bit = 1 << slot;
        if self.held & bit != 0 {
            return Some(Self {
                bits: self.bits & !bit,
                held: self.held & !bit,
                ..self
            });
        }
        (seq != 0).then_some(Self {
            bits: self.bits | bit,
            step: PinStep::LoadFirst(slot, seq),
            ..self
        })
    }
}
