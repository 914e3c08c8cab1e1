// SPDX-License-Identifier: MIT OR Apache-2.0

//! Searches all states of a small system: a writer with its service, two readers, and a few slots that cannot become
//! more. In every state, the writer finds a slot for its next frame, and no pinned frame changes.
//!
//! A reader may stop for ever after any of its steps, because the search contains every order of steps. Each step is one
//! access to shared memory; the models of loom (`loom_pins`) show that the fences make this picture right.
//!
//! Each rule also has a variant without it. The search must find the fault of the variant, because a model that cannot
//! fail proves nothing.

mod model;

use model::{Pins, QUOTA, READERS, Ranks, SLOTS};

const SPARE: u32 = 2;

/// The rules that a search can leave out.
#[derive(Clone, Copy)]
struct Rules {
    /// Two slots stay without a frame while there is a quota.
    has_spare: bool,
    /// The pins are loaded after the quota is withdrawn, not before.
    looks_after_withdrawal: bool,
    /// The pins are loaded again after the seq was set to 0.
    looks_again: bool,
    /// A slot that nobody can pin is taken whatever the pin words say.
    ignores_late_pins: bool,
    /// When the quota is set again, slots with frames can be pinned again.
    forgets_at_grant: bool,
    /// The quota is set only when there are two slots without a frame.
    waits_for_spare: bool,
    /// A reader loads the quota before the seq.
    quota_first: bool,
    /// The first reader sets bits without a look at the quota and the seq, and never clears them.
    has_rogue: bool,
}

const ALL: Rules = Rules {
    has_spare: true,
    looks_after_withdrawal: true,
    looks_again: true,
    ignores_late_pins: true,
    forgets_at_grant: true,
    waits_for_spare: true,
    quota_first: true,
    has_rogue: false,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    /// The seq of the frame, which readers compare; 0: no frame.
    seq: u8,
    is_unpinnable: bool,
}

/// What the writer does next. Its service runs only between two claims, because both hold the lock of the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WriterStep {
    Claim,
    /// It takes a slot: for a frame, or as a spare slot.
    ClearSeq(usize, bool),
    LookAgain(usize, bool),
    Draw(usize),
    Publish(usize),
    Withdraw,
    LookAtPins,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    slots: [Slot; SLOTS],
    readers: [Pins; READERS],
    quota: u32,
    writer: WriterStep,
}

/// A fault that the search has found.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    NoSlot,
    PinnedFrameChanges,
}

impl State {
    fn first() -> Self {
        let mut slots = [Slot {
            seq: 0,
            is_unpinnable: true,
        }; SLOTS];
        slots[0] = Slot {
            seq: 1,
            is_unpinnable: false,
        };
        Self {
            slots,
            readers: [Pins::NONE; READERS],
            quota: QUOTA,
            writer: WriterStep::Claim,
        }
    }

    /// Replaces the seqs by the smallest ones in the same order, so that equal situations are equal states.
    fn normalized(mut self) -> Self {
        let ranks = Ranks::of(self.seqs());
        for slot in &mut self.slots {
            slot.seq = ranks.place(slot.seq);
        }
        for reader in &mut self.readers {
            reader.rank_wanted(&ranks);
        }
        self
    }

    fn pinned(&self) -> u8 {
        self.readers.iter().fold(0, |pinned, reader| pinned | reader.bits)
    }

    fn is_pinned(&self, slot: usize) -> bool {
        self.pinned() >> slot & 1 == 1
    }

    fn newest(&self) -> u8 {
        self.slots.iter().map(|slot| slot.seq).max().unwrap_or(0)
    }

    /// The slots with frames that may be taken.
    fn candidates(&self, rules: Rules) -> impl Iterator<Item = usize> {
        let newest = self.newest();
        (0..SLOTS).filter(move |slot| {
            let Slot { seq, is_unpinnable } = self.slots[*slot];
            seq != 0 && seq != newest && (!self.is_pinned(*slot) || is_unpinnable && rules.ignores_late_pins)
        })
    }

    /// The slots without a frame that the writer may use.
    fn blank(&self, rules: Rules) -> Vec<usize> {
        (0..SLOTS)
            .filter(|slot| {
                self.slots[*slot]
                    == Slot {
                        seq: 0,
                        is_unpinnable: true,
                    }
            })
            .filter(|slot| rules.ignores_late_pins || !self.is_pinned(*slot))
            .collect()
    }

    /// Notes that slots without a frame and without a pin cannot be pinned.
    fn note_unpinned(&mut self) {
        let pinned = self.pinned();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.is_unpinnable |= slot.seq == 0 && pinned >> index & 1 == 0;
        }
    }

    /// The states after one step of the writer or its service.
    fn after_writer(&self, rules: Rules) -> Result<Vec<Self>, Fault> {
        let mut next = *self;
        let mut others = Vec::new();
        match self.writer {
            WriterStep::Claim => {
                if self.quota == 0 {
                    others.extend(self.after_service(rules));
                }
                next.note_unpinned();
                let blank = next.blank(rules);
                let needed = if next.quota > 0 && rules.has_spare { SPARE } else { 0 };
                let warmest = next.candidates(rules).max_by_key(|slot| next.slots[*slot].seq);
                let coldest = next.candidates(rules).min_by_key(|slot| next.slots[*slot].seq);
                next.writer = if (blank.len() as u32) < needed {
                    coldest.map_or(WriterStep::Withdraw, |slot| WriterStep::ClearSeq(slot, false))
                } else if let Some(slot) = warmest {
                    WriterStep::ClearSeq(slot, true)
                } else if let Some(slot) = blank.first().filter(|_| blank.len() as u32 > needed) {
                    WriterStep::Draw(*slot)
                } else if next.quota > 0 {
                    WriterStep::Withdraw
                } else {
                    return Err(Fault::NoSlot);
                };
                if next.writer == WriterStep::Withdraw && !rules.looks_after_withdrawal {
                    next.look_at_pins();
                }
            }
            WriterStep::ClearSeq(slot, is_for_frame) => {
                next.slots[slot].seq = 0;
                next.writer = if self.slots[slot].is_unpinnable && rules.ignores_late_pins || !rules.looks_again {
                    next.taken(slot, is_for_frame)
                } else {
                    WriterStep::LookAgain(slot, is_for_frame)
                };
            }
            WriterStep::LookAgain(slot, is_for_frame) => {
                next.writer = if self.is_pinned(slot) {
                    next.slots[slot].is_unpinnable = false;
                    WriterStep::Claim
                } else {
                    next.taken(slot, is_for_frame)
                };
            }
            WriterStep::Draw(slot) => {
                if self.readers.iter().any(|reader| reader.held >> slot & 1 == 1) {
                    return Err(Fault::PinnedFrameChanges);
                }
                next.writer = WriterStep::Publish(slot);
            }
            WriterStep::Publish(slot) => {
                next.slots[slot] = Slot {
                    // A frame that a reader wanted is older, too.
                    seq: self.seqs().max().unwrap_or(0) + 1,
                    is_unpinnable: self.quota == 0,
                };
                next.writer = WriterStep::Claim;
            }
            WriterStep::Withdraw => {
                next.quota = 0;
                next.writer = if rules.looks_after_withdrawal {
                    WriterStep::LookAtPins
                } else {
                    WriterStep::Claim
                };
            }
            WriterStep::LookAtPins => {
                next.look_at_pins();
                next.writer = WriterStep::Claim;
            }
        }
        others.push(next);
        Ok(others)
    }

    fn seqs(&self) -> impl Iterator<Item = u8> {
        let wanted = self.readers.iter().map(Pins::wanted);
        self.slots.iter().map(|slot| slot.seq).chain(wanted)
    }

    fn taken(&mut self, slot: usize, is_for_frame: bool) -> WriterStep {
        self.slots[slot].is_unpinnable = true;
        if is_for_frame {
            WriterStep::Draw(slot)
        } else {
            WriterStep::Claim
        }
    }

    /// Every slot without a pin is unpinnable from now on.
    fn look_at_pins(&mut self) {
        let pinned = self.pinned();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            slot.is_unpinnable |= pinned >> index & 1 == 0;
        }
    }

    /// The service makes a spare slot, or grants the quota.
    fn after_service(&self, rules: Rules) -> Vec<Self> {
        let mut next = *self;
        next.note_unpinned();
        let newest = next.newest();
        let in_use = (0..SLOTS)
            .filter(|slot| next.is_pinned(*slot) || next.slots[*slot].seq == newest)
            .count();
        if rules.waits_for_spare && in_use + 1 + SPARE as usize > SLOTS {
            return Vec::new();
        }
        if rules.waits_for_spare && (next.blank(rules).len() as u32) < SPARE {
            let Some(slot) = next.candidates(rules).min_by_key(|slot| next.slots[*slot].seq) else {
                return Vec::new();
            };
            next.writer = WriterStep::ClearSeq(slot, false);
        } else {
            next.quota = QUOTA;
            for slot in next
                .slots
                .iter_mut()
                .filter(|slot| slot.seq != 0 && rules.forgets_at_grant)
            {
                slot.is_unpinnable = false;
            }
        }
        vec![next]
    }

    /// The states after one step of a reader.
    fn after_reader(&self, number: usize, rules: Rules) -> Result<Vec<Self>, Fault> {
        let reader = self.readers[number];
        let seqs = self.slots.map(|slot| slot.seq);
        let after = if rules.has_rogue && number == 0 {
            reader.after_rogue_step()
        } else {
            reader.after_step(seqs, self.quota, rules.quota_first)
        };
        let states = after.into_iter().map(|pins| {
            let pinned = pins.held & !reader.held;
            if (0..SLOTS).any(|slot| pinned >> slot & 1 == 1 && seqs[slot] != reader.wanted()) {
                return Err(Fault::PinnedFrameChanges);
            }
            let mut next = *self;
            next.readers[number] = pins;
            Ok(next)
        });
        states.collect()
    }
}

/// Visits every state. Returns the number of states.
fn search(rules: Rules) -> Result<usize, Fault> {
    model::search(State::first().normalized(), |state| {
        let mut next = state.after_writer(rules)?;
        for number in 0..READERS {
            next.extend(state.after_reader(number, rules)?);
        }
        Ok(next.into_iter().map(State::normalized).collect())
    })
}

#[test]
fn writer_always_has_a_slot_and_no_pinned_frame_changes() {
    let states = search(ALL).expect("no fault");
    println!("{states} states");
    assert!(states > 100_000);
}

#[test]
fn reader_that_breaks_the_rules_costs_the_writer_no_slot() {
    search(Rules { has_rogue: true, ..ALL }).expect("no fault");
}

#[test]
fn search_detects_missing_spare_slots() {
    assert_eq!(
        search(Rules {
            has_spare: false,
            ..ALL
        }),
        Err(Fault::NoSlot)
    );
}

#[test]
fn search_detects_look_before_withdrawal() {
    let fault = search(Rules {
        looks_after_withdrawal: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::PinnedFrameChanges));
}

#[test]
fn search_detects_missing_second_look() {
    let fault = search(Rules {
        looks_again: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::PinnedFrameChanges));
}

#[test]
fn search_detects_slots_lost_to_late_pins() {
    assert_eq!(
        search(Rules {
            ignores_late_pins: false,
            ..ALL
        }),
        Err(Fault::NoSlot)
    );
}

#[test]
fn search_detects_grant_that_keeps_slots_unpinnable() {
    let fault = search(Rules {
        forgets_at_grant: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::PinnedFrameChanges));
}

#[test]
fn search_detects_quota_loaded_after_seq() {
    let fault = search(Rules {
        quota_first: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::PinnedFrameChanges));
}

#[test]
fn search_detects_quota_without_spare_slots() {
    let fault = search(Rules {
        waits_for_spare: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::NoSlot));
}
