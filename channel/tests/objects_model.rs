// SPDX-License-Identifier: MIT OR Apache-2.0

//! Searches all states of a small system with frames of objects: a writer that retires frames and withdraws the quota,
//! and two readers. In every state, no buffer goes back to the camera while a reader holds its frame, and the camera
//! never lacks the buffers that it needs.
//!
//! A lossless writer waits besides: the quota is not withdrawn while a reader is behind, and readers that have taken
//! all frames and hold them do not stop the writer.
//!
//! As in `slots_model`, a reader may stop for ever after any of its steps, each step is one access to shared memory,
//! and each rule has a variant without it, whose fault the search must find.

mod model;

use model::{PinStep, Pins, QUOTA, READERS, Ranks, SLOTS};

/// How many frames may be out. Both readers together could hold more.
const LIMIT: u32 = 3;

/// The rules that a search can leave out.
#[derive(Clone, Copy)]
struct Rules {
    /// The pins are loaded again after the seq was set to 0.
    looks_again: bool,
    /// A buffer goes back only if nobody can pin its slot. Without the rule, it goes back when the seq is 0.
    waits_for_pins: bool,
    /// The quota is withdrawn when buffers become scarce.
    has_limit: bool,
    /// Two buffers are left when a frame is published that can be pinned: one for it, and one for the next.
    counts_next: bool,
    /// The pins are loaded after the quota is withdrawn, not before.
    looks_after_withdrawal: bool,
    /// When the quota is set again, slots with frames can be pinned again.
    forgets_at_grant: bool,
    /// The service grants the quota only if the last publish did not reach the limit, or if enough buffers are back.
    grants_with_care: bool,
    /// A reader loads the quota before the seq.
    quota_first: bool,
    /// Frames stay until all readers have taken them.
    is_lossless: bool,
    /// A lossless writer waits at the limit while a reader is behind: it has frames to take.
    waits_while_behind: bool,
    /// A lossless writer does not wait for readers that have taken all frames.
    spares_holders: bool,
    /// The first reader sets bits without a look at the quota and the seq, and never clears them.
    has_rogue: bool,
}

const ALL: Rules = Rules {
    looks_again: true,
    waits_for_pins: true,
    has_limit: true,
    counts_next: true,
    looks_after_withdrawal: true,
    forgets_at_grant: true,
    grants_with_care: true,
    quota_first: true,
    is_lossless: false,
    waits_while_behind: true,
    spares_holders: true,
    has_rogue: false,
};

const LOSSLESS: Rules = Rules {
    is_lossless: true,
    ..ALL
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Slot {
    /// The seq of the frame, which readers compare; 0: no frame.
    seq: u8,
    is_unpinnable: bool,
    /// Whether the slot has a buffer of the camera.
    is_out: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Reader {
    pins: Pins,
    /// The seq of the newest frame that the reader has taken. It is 0 for readers of a writer that is not lossless, which
    /// does not look at it.
    cursor: u8,
}

/// What the writer does next. A frame is published in the order of these steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum WriterStep {
    /// It retires frames, before a publish or after it.
    Retire(When),
    /// In lossless mode, it waits for buffers.
    Wait,
    ClearSeq(usize, When),
    LookAgain(usize, When),
    GiveBack(When),
    /// The decision whether readers may pin the next frame.
    Limit,
    Withdraw,
    LookAtPins,
    Publish,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum When {
    Before,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct State {
    slots: [Slot; SLOTS],
    readers: [Reader; READERS],
    quota: u32,
    /// Whether the last publish reached the limit.
    is_limited: bool,
    writer: WriterStep,
}

/// A fault that the search has found.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The camera gets a buffer whose frame a reader holds.
    HeldBufferGoesBack,
    /// More frames are out than the camera can spare.
    CameraLacksBuffer,
    /// There is no slot for the next frame.
    NoSlot,
    /// A lossless writer withdraws the quota while a reader is behind.
    ReaderBehindCopies,
    /// A lossless writer waits for readers that release a frame only when they get another one.
    WaitsForEver,
}

impl State {
    fn first() -> Self {
        let mut slots = [Slot {
            seq: 0,
            is_unpinnable: true,
            is_out: false,
        }; SLOTS];
        slots[0] = Slot {
            seq: 1,
            is_unpinnable: false,
            is_out: true,
        };
        Self {
            slots,
            readers: [Reader {
                pins: Pins::NONE,
                cursor: 0,
            }; READERS],
            quota: QUOTA,
            is_limited: false,
            writer: WriterStep::Retire(When::Before),
        }
    }

    fn seqs(&self) -> impl Iterator<Item = u8> {
        let wanted = self.readers.iter().map(|reader| reader.pins.wanted());
        let cursors = self.readers.iter().map(|reader| reader.cursor);
        self.slots.iter().map(|slot| slot.seq).chain(wanted).chain(cursors)
    }

    /// Replaces the seqs by the smallest ones in the same order, so that equal situations are equal states.
    fn normalized(mut self) -> Self {
        let ranks = Ranks::of(self.seqs());
        for slot in &mut self.slots {
            slot.seq = ranks.place(slot.seq);
        }
        for reader in &mut self.readers {
            reader.pins.rank_wanted(&ranks);
            reader.cursor = ranks.place(reader.cursor);
        }
        self
    }

    fn is_pinned(&self, slot: usize) -> bool {
        self.readers.iter().any(|reader| reader.pins.bits >> slot & 1 == 1)
    }

    fn is_held(&self, slot: usize) -> bool {
        self.readers.iter().any(|reader| reader.pins.held >> slot & 1 == 1)
    }

    fn out(&self) -> u32 {
        self.slots.iter().filter(|slot| slot.is_out).count() as u32
    }

    fn is_at_limit(&self, rules: Rules) -> bool {
        let needed = if rules.counts_next { 2 } else { 1 };
        rules.has_limit && self.out() + needed > LIMIT
    }

    fn newest(&self) -> u8 {
        self.slots.iter().map(|slot| slot.seq).max().unwrap_or(0)
    }

    /// The seq up to which all readers have taken the frames.
    fn slowest_cursor(&self) -> u8 {
        self.readers.iter().map(|reader| reader.cursor).min().unwrap_or(0)
    }

    fn have_readers_all(&self) -> bool {
        self.slowest_cursor() >= self.newest()
    }

    /// Whether the buffers suffice for another frame, so that a lossless writer need not wait.
    fn has_spare(&self) -> bool {
        let newest_goes_back =
            self.have_readers_all() && (self.slots.iter()).any(|slot| slot.seq == self.newest() && slot.is_unpinnable);
        self.out() < LIMIT + u32::from(newest_goes_back)
    }

    fn may_go_on(&self, rules: Rules) -> bool {
        let is_near = rules.waits_while_behind && self.is_at_limit(rules);
        self.has_spare() && (!is_near || rules.spares_holders && self.have_readers_all())
    }

    /// The state after a pass of the service that sets the quota.
    fn granted(&self, rules: Rules) -> Option<Self> {
        if self.quota > 0 || rules.grants_with_care && self.is_limited && self.is_at_limit(rules) {
            return None;
        }
        let mut granted = Self { quota: QUOTA, ..*self };
        for slot in (granted.slots.iter_mut()).filter(|slot| slot.seq != 0 && rules.forgets_at_grant) {
            slot.is_unpinnable = false;
        }
        Some(granted)
    }

    /// The states after one step of the writer. Its service may run whenever the thread that publishes holds no lock.
    fn after_writer(&self, rules: Rules) -> Result<Vec<Self>, Fault> {
        let mut next = *self;
        let mut others = Vec::new();
        if matches!(
            self.writer,
            WriterStep::Retire(_) | WriterStep::Wait | WriterStep::Limit
        ) {
            others.extend(self.granted(rules));
        }
        match self.writer {
            WriterStep::Retire(when) => {
                // Slots without a frame and without a pin cannot be pinned.
                for slot in 0..SLOTS {
                    next.slots[slot].is_unpinnable |= self.slots[slot].seq == 0 && !self.is_pinned(slot);
                }
                let newest = self.newest();
                let kept_after = if rules.is_lossless {
                    self.slowest_cursor()
                } else {
                    u8::MAX
                };
                let retired = (0..SLOTS).find(|slot| {
                    let Slot { seq, is_unpinnable, .. } = self.slots[*slot];
                    seq != 0 && seq != newest && seq <= kept_after && (is_unpinnable || !self.is_pinned(*slot))
                });
                next.writer = retired.map_or(WriterStep::GiveBack(when), |slot| WriterStep::ClearSeq(slot, when));
            }
            WriterStep::ClearSeq(slot, when) => {
                next.slots[slot].seq = 0;
                next.writer = if self.slots[slot].is_unpinnable || !rules.looks_again {
                    next.slots[slot].is_unpinnable = true;
                    WriterStep::Retire(when)
                } else {
                    WriterStep::LookAgain(slot, when)
                };
            }
            WriterStep::LookAgain(slot, when) => {
                next.slots[slot].is_unpinnable = !self.is_pinned(slot);
                next.writer = WriterStep::Retire(when);
            }
            WriterStep::GiveBack(when) => {
                for slot in 0..SLOTS {
                    let Slot {
                        seq,
                        is_unpinnable,
                        is_out,
                    } = self.slots[slot];
                    if is_out && seq == 0 && (is_unpinnable || !rules.waits_for_pins) {
                        if self.is_held(slot) {
                            return Err(Fault::HeldBufferGoesBack);
                        }
                        next.slots[slot].is_out = false;
                    }
                }
                if when == When::After && next.out() > LIMIT {
                    return Err(Fault::CameraLacksBuffer);
                }
                next.writer = match when {
                    When::Before if rules.is_lossless => WriterStep::Wait,
                    When::Before => WriterStep::Limit,
                    When::After => WriterStep::Retire(When::Before),
                };
            }
            WriterStep::Wait if self.may_go_on(rules) => next.writer = WriterStep::Limit,
            // It retires frames again, and so looks at the pins and the cursors.
            WriterStep::Wait => {
                if self.have_readers_all() {
                    return Err(Fault::WaitsForEver);
                }
                next.writer = WriterStep::Retire(When::Before);
            }
            WriterStep::Limit => {
                next.is_limited = self.is_at_limit(rules);
                next.writer = if !next.is_limited || self.quota == 0 {
                    WriterStep::Publish
                } else if rules.is_lossless && !self.have_readers_all() {
                    return Err(Fault::ReaderBehindCopies);
                } else {
                    if !rules.looks_after_withdrawal {
                        next.look_at_pins();
                    }
                    WriterStep::Withdraw
                };
            }
            WriterStep::Withdraw => {
                next.quota = 0;
                next.writer = if rules.looks_after_withdrawal {
                    WriterStep::LookAtPins
                } else {
                    WriterStep::Publish
                };
            }
            WriterStep::LookAtPins => {
                next.look_at_pins();
                next.writer = WriterStep::Publish;
            }
            WriterStep::Publish => {
                let free = self
                    .slots
                    .iter()
                    .position(|slot| !slot.is_out && slot.is_unpinnable && slot.seq == 0);
                let Some(slot) = free else {
                    return Err(if self.out() > LIMIT {
                        Fault::CameraLacksBuffer
                    } else {
                        Fault::NoSlot
                    });
                };
                next.slots[slot] = Slot {
                    // A frame that a reader wanted is older, too.
                    seq: self.seqs().max().unwrap_or(0) + 1,
                    is_unpinnable: self.quota == 0,
                    is_out: true,
                };
                next.writer = WriterStep::Retire(When::After);
            }
        }
        others.push(next);
        Ok(others)
    }

    /// Every slot without a pin is unpinnable from now on.
    fn look_at_pins(&mut self) {
        for slot in 0..SLOTS {
            self.slots[slot].is_unpinnable |= !self.is_pinned(slot);
        }
    }

    /// The states after one step of a reader.
    fn after_reader(&self, number: usize, rules: Rules) -> Vec<Self> {
        let reader = self.readers[number];
        let with = |changed: Reader| {
            let mut next = *self;
            next.readers[number] = changed;
            next
        };
        if rules.has_rogue && number == 0 {
            let after = reader.pins.after_rogue_step().into_iter();
            return after.map(|pins| with(Reader { pins, ..reader })).collect();
        }
        let seqs = self.slots.map(|slot| slot.seq);
        let after = reader.pins.after_step(seqs, self.quota, rules.quota_first);
        let after = after.into_iter().map(|pins| {
            let has_taken = pins.held & !reader.pins.held != 0;
            let cursor = if has_taken && rules.is_lossless {
                reader.cursor.max(reader.pins.wanted())
            } else {
                reader.cursor
            };
            Reader { pins, cursor }
        });
        after.chain(self.copy(reader, rules)).map(with).collect()
    }

    /// The reader after it has copied the next frame of a lossless writer without a pin, which it can always do.
    fn copy(&self, reader: Reader, rules: Rules) -> Option<Reader> {
        let seqs = self.slots.iter().map(|slot| slot.seq);
        let cursor = seqs.filter(|seq| *seq > reader.cursor).min()?;
        (rules.is_lossless && reader.pins.step == PinStep::Choose).then_some(Reader { cursor, ..reader })
    }
}

/// Visits every state. Returns the number of states.
fn search(rules: Rules) -> Result<usize, Fault> {
    model::search(State::first().normalized(), |state| {
        let mut next = state.after_writer(rules)?;
        for number in 0..READERS {
            next.extend(state.after_reader(number, rules));
        }
        Ok(next.into_iter().map(State::normalized).collect())
    })
}

#[test]
fn held_buffers_stay_and_camera_has_its_buffers() {
    let states = search(ALL).expect("no fault");
    println!("{states} states");
    assert!(states > 50_000, "{states}");
}

#[test]
fn lossless_writer_waits_for_readers_behind_only() {
    let states = search(LOSSLESS).expect("no fault");
    println!("{states} states");
    assert!(states > 50_000, "{states}");
}

#[test]
fn search_detects_missing_wait_for_reader_behind() {
    let fault = search(Rules {
        waits_while_behind: false,
        ..LOSSLESS
    });
    assert_eq!(fault, Err(Fault::ReaderBehindCopies));
}

#[test]
fn search_detects_wait_for_holders() {
    let fault = search(Rules {
        spares_holders: false,
        ..LOSSLESS
    });
    assert_eq!(fault, Err(Fault::WaitsForEver));
}

#[test]
fn search_detects_grant_without_a_look_at_the_limit() {
    let fault = search(Rules {
        grants_with_care: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::CameraLacksBuffer));
}

#[test]
fn reader_that_breaks_the_rules_costs_no_buffer() {
    search(Rules { has_rogue: true, ..ALL }).expect("no fault");
}

#[test]
fn search_detects_missing_second_look() {
    let fault = search(Rules {
        looks_again: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::HeldBufferGoesBack));
}

#[test]
fn search_detects_buffer_that_goes_back_with_the_seq() {
    let fault = search(Rules {
        waits_for_pins: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::HeldBufferGoesBack));
}

#[test]
fn search_detects_missing_limit() {
    let fault = search(Rules {
        has_limit: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::CameraLacksBuffer));
}

#[test]
fn search_detects_limit_that_forgets_the_next_frame() {
    let fault = search(Rules {
        counts_next: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::CameraLacksBuffer));
}

#[test]
fn search_detects_look_before_withdrawal() {
    let fault = search(Rules {
        looks_after_withdrawal: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::HeldBufferGoesBack));
}

#[test]
fn search_detects_grant_that_keeps_slots_unpinnable() {
    let fault = search(Rules {
        forgets_at_grant: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::HeldBufferGoesBack));
}

#[test]
fn search_detects_quota_loaded_after_seq() {
    let fault = search(Rules {
        quota_first: false,
        ..ALL
    });
    assert_eq!(fault, Err(Fault::HeldBufferGoesBack));
}
