// SPDX-License-Identifier: MIT OR Apache-2.0

//! Failpoints: named places of the protocol where a test can kill or stop the process that passes them.
//!
//! A build without `debug_assertions`, such as the plugin that users install, contains no failpoints. In a debug build,
//! a failpoint does only one relaxed load, unless the process was started with this environment variable:
//!
//! ```text
//! RSSHM_FAILPOINTS=SEED,KILLS,STOPS,FILE[,FAILPOINT[,PASS]]
//! ```
//!
//! - Each pass of a failpoint is counted in `FILE` and draws a number from a generator that starts at `SEED`. The
//!   number decides whether the process gets a signal.
//! - Of a million passes, `KILLS` end in SIGKILL and `STOPS` in SIGSTOP. The process sends the signal to itself at the
//!   failpoint.
//! - At failpoints that are passed rarely, these rates are up to 200 times as high. At each failpoint, the rate of each
//!   signal is 8 times as high until that signal has been sent there once.
//! - With `FAILPOINT`, only one pass draws a number: the first pass of that failpoint, or its pass number `PASS`.
//!
//! The chaos tests use the form without `FAILPOINT`; the failpoint tests of this crate use the form with it.
//!
//! Any number of processes may share `FILE`, and the test may read the file while they run. The file consists of 64-bit
//! words. The test writes the first word: while the word is not 0, passes are counted but draw no number. From byte 64
//! on, each failpoint has 64 bytes. They contain its name, filled with zeros to 32 bytes, and then three counts: all
//! passes, the passes that ended in SIGKILL, and the passes that ended in SIGSTOP.

/// Defines [`Failpoint`], with the name and the weight of each failpoint. A failpoint that is passed once for each
/// frame has the weight 1; rarer failpoints have a larger weight, so that a test reaches all of them.
macro_rules! failpoints {
    ($($(#[$doc:meta])* $name:ident $weight:literal,)*) => {
        /// A named place of the protocol. The comment of each failpoint says which process passes it, and what has
        /// happened before.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Failpoint {
            $($(#[$doc])* $name,)*
        }

        #[cfg(debug_assertions)]
        impl Failpoint {
            const NAMES: [&str; [$($weight),*].len()] = [$(stringify!($name)),*];
            const WEIGHTS: [u64; [$($weight),*].len()] = [$($weight),*];
        }
    };
}

failpoints! {
    /// Writer: the slot was seen without pins, and still has its seq.
    PinsSeen 30,
    /// Writer: the seq of the slot is 0, and the pins have not been loaded again yet.
    SeqCleared 10,
    /// Writer: a slot is claimed, and nothing is drawn yet.
    SlotClaimed 1,
    /// Writer: the semaphore is held for a publish.
    PublishHolding 1,
    /// Writer: the descriptor is written, and the seq is not stored yet.
    DescriptorWritten 1,
    /// Writer: the seq is stored, and the ring's entry is not stored yet.
    SeqStored 1,
    /// Writer: the ring's entry is stored, and the head is not stored yet.
    RingStored 1,
    /// Writer: a frame is appended to a run, and the run's tail is not stored yet.
    AppendWritten 1,
    /// Writer: the tail of a run is stored, and the head is not stored yet.
    TailStored 1,
    /// Writer: the head is stored, and the semaphore is still held.
    HeadStored 1,
    /// Writer: the frame is published, and the readers are not notified yet.
    NotifyDue 1,
    /// Reader: the ends of the stream are loaded, and the head is not loaded yet.
    EndsLoaded 1,
    /// Reader: the pin's bit is set, and the seq has not been loaded again yet.
    PinSet 1,
    /// Reader: the seq was the expected one, so the frame is pinned.
    Pinned 1,
    /// Reader: it is about to clear the pin's bit.
    UnpinDue 1,
    /// Reader: the pin's bit is cleared, and a waiting writer is not notified yet.
    Unpinned 1,
    /// Reader: half of a copy under a pin is done.
    CopyHalf 1,
    /// Reader: it is about to copy without a pin.
    CopyUnpinned 1,
    /// Reader: the copy without a pin is done, and the seq has not been loaded again yet.
    CopyUnchecked 1,
    /// Reader: a frame is taken, and the cursor is not stored yet.
    CursorDue 1,
    /// Writer or reader: the record of an event or a message is half written.
    RecordHalf 200,
    /// Writer: the semaphore is held for an event.
    EventHolding 100,
    /// Writer: the event is written, and the head of events is not stored yet.
    EventWritten 100,
    /// Writer: the seq of the last frame before an end of the stream is stored, and the end is not counted yet.
    EndHalf 100,
    /// Writer: a staging file exists and has no lock yet.
    StagingMade 100,
    /// Writer: a lock file is complete and locked, and has no name yet.
    LockFileMade 100,
    /// Writer: the lock file has its name.
    LockFileNamed 100,
    /// Writer or remover: it holds the writer byte, and has not looked for the segment of a dead writer yet.
    ChannelLocked 100,
    /// Remover: nobody has the channel, and the writer byte is not held yet.
    LeftoverFound 100,
    /// Writer: the segment of a dead writer is open, and not superseded yet.
    FormerOpened 100,
    /// Writer: the segment of a dead writer is superseded.
    FormerSuperseded 100,
    /// Writer: a segment is created, and is empty.
    SegmentMade 100,
    /// Writer: the semaphore is held for a new segment.
    ReplaceHolding 100,
    /// Writer: a segment is complete, and has no name yet.
    SegmentWritten 100,
    /// Writer: a new segment has the name, and the former one is not superseded yet.
    SegmentNamed 100,
    /// Writer: a segment is superseded, and nobody is notified yet.
    Superseded 100,
    /// Writer: the new segment is in use, and the semaphore is still held.
    SegmentCurrent 100,
    /// Writer: it is about to commit memory for a slot.
    GrowthDue 10,
    /// Writer: a slot has memory, and is not in use yet.
    Grown 10,
    /// Writer: a slot is taken, and its memory is not released yet.
    ReleaseDue 10,
    /// Writer: the quota is lowered or withdrawn, and the pins are not loaded again yet.
    QuotaLowered 100,
    /// Writer: it is about to set another quota.
    QuotaDue 10,
    /// Writer: a socket for the descriptors of objects exists, and has no name and its final mode yet.
    SocketMade 100,
    /// Writer: the socket has its name, and nobody answers yet.
    SocketNamed 100,
    /// Writer: the owner value of a frame is stored, and the frame is not published yet.
    OwnerStored 1,
    /// Writer: a frame of objects is published, and former frames are not retired yet.
    RetireDue 1,
    /// Writer: frames are retired, and the buffers are not given back yet.
    OwnersDue 1,
    /// Writer: a reader's request for an object is received, and not answered yet.
    RequestReceived 10,
    /// Reader: it needs an object, and has not connected yet. It may have pinned the frame.
    ObjectDue 10,
    /// Reader: its request for an object is sent, and no answer has come yet.
    RequestSent 10,
    /// Reader: the descriptor of an object has come, and is not checked yet.
    DescriptorReceived 10,
    /// Writer: it is closing the channel, and the segment has lost its name.
    CloseUnnamed 100,
    /// Writer: it is closing the channel, and the segment's state says that it is closed.
    CloseStored 100,
    /// Reader: a segment is open, and no reader entry is locked yet.
    SegmentOpened 100,
    /// Reader: an entry is locked, and it still has the values of its last owner.
    EntryLocked 100,
    /// Reader: the state of the last owner is cleared.
    EntryCleared 100,
    /// Reader: the pins of the last owner are cleared.
    PinsCleared 100,
    /// Reader: the generation is stored.
    GenerationStored 100,
    /// Reader: the cursor is stored.
    CursorStored 100,
    /// Reader: the state is joining, and a lossless writer keeps the frames that the reader is going to take.
    Joining 100,
    /// Reader: the state is attached, and the writer is not notified yet.
    Joined 100,
    /// Reader: it is attached to the next segment, and its entry in the former segment is not in the state moved yet.
    MoveDue 100,
    /// Reader: it is about to store that it leaves.
    LeaveDue 100,
}

/// Passes a failpoint. In a release build, the function does nothing.
#[inline(always)]
pub(crate) fn failpoint(at: Failpoint) {
    #[cfg(debug_assertions)]
    armed::pass(at);
    #[cfg(not(debug_assertions))]
    let _ = at;
}

#[cfg(debug_assertions)]
mod armed {
    use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};
    use std::{fs::OpenOptions, sync::OnceLock};

    use nix::libc;

    use super::Failpoint;
    use crate::sys::{mapping::Mapping, signal, space};

    const VARIABLE_NAME: &str = "RSSHM_FAILPOINTS";
    /// The number of passes that the rates refer to.
    const RATE_UNIT: u64 = 1_000_000;
    /// The factor by which the rate of a signal is higher at a failpoint until the signal has been sent there once.
    const FIRST_TIME_FACTOR: u64 = 8;

    /// The size of each failpoint's record in the file, and of the part before the first record.
    const RECORD_SIZE: u64 = 64;
    const NAME_SIZE: u64 = 32;
    const FILE_SIZE: u64 = RECORD_SIZE * (1 + Failpoint::NAMES.len() as u64);

    static OFF: AtomicBool = AtomicBool::new(false);
    static PLAN: OnceLock<Option<FailpointPlan>> = OnceLock::new();

    /// The values of the environment variable.
    struct FailpointPlan {
        counts: Mapping,
        /// The state of the generator.
        generator: AtomicU64,
        /// How many of a million passes end in SIGKILL.
        kills: u64,
        /// How many of a million passes end in SIGSTOP.
        stops: u64,
        /// The name of the one failpoint that draws; `None` if all failpoints draw.
        only: Option<String>,
        /// The number of the one pass that draws, if `only` is set.
        pass: u64,
    }

    /// One of the counts of a failpoint.
    #[derive(Clone, Copy)]
    enum Count {
        Passes,
        Kills,
        Stops,
    }

    #[inline]
    pub(super) fn pass(at: Failpoint) {
        // Relaxed, here and below: once set, the flag stays set. A thread that does not see the set flag yet looks at
        // the plan again.
        if OFF.load(Ordering::Relaxed) {
            return;
        }
        match PLAN.get_or_init(FailpointPlan::from_environment) {
            Some(plan) => plan.pass(at),
            None => OFF.store(true, Ordering::Relaxed),
        }
    }

    impl FailpointPlan {
        fn from_environment() -> Option<Self> {
            let text = std::env::var(VARIABLE_NAME).ok()?;
            let plan = Self::parse(&text);
            if plan.is_none() {
                eprintln!("{VARIABLE_NAME}={text} is invalid");
            }
            plan
        }

        fn parse(text: &str) -> Option<Self> {
            let mut fields = text.split(',');
            let mut number = || fields.next()?.parse::<u64>().ok();
            let (seed, kills, stops) = (number()?, number()?, number()?);
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(fields.next()?)
                .ok()?;
            let only = fields.next().map(str::to_owned);
            if only
                .as_ref()
                .is_some_and(|only| !Failpoint::NAMES.contains(&only.as_str()))
            {
                return None;
            }
            let pass = fields.next().map_or(Some(1), |pass| pass.parse().ok())?;
            space::allocate(&file.try_clone().ok()?.into(), 0, FILE_SIZE).ok()?;
            let counts = Mapping::new(&file, 0, FILE_SIZE, true).ok()?;
            for (index, name) in (1..).zip(Failpoint::NAMES) {
                counts.write(
                    RECORD_SIZE * index,
                    &name.as_bytes()[..name.len().min(NAME_SIZE as usize)],
                );
            }
            Some(Self {
                counts,
                generator: AtomicU64::new(seed),
                kills,
                stops,
                only,
                pass,
            })
        }

        /// Increases a count by `more`, and returns its former value.
        fn count(&self, at: Failpoint, what: Count, more: u64) -> u64 {
            let offset = RECORD_SIZE * (1 + at as u64) + NAME_SIZE + 8 * what as u64;
            let word = self.counts.at::<AtomicU64>(offset);
            // Relaxed: the counts order nothing else.
            word.map_or(0, |word| word.fetch_add(more, Ordering::Relaxed))
        }

        fn pass(&self, at: Failpoint) {
            let passes = self.count(at, Count::Passes, 1) + 1;
            let paused = self.counts.at::<AtomicU64>(0);
            // Relaxed: if a pass still draws just after the test has paused the failpoints, this does no harm.
            if paused.is_none_or(|paused| paused.load(Ordering::Relaxed) != 0) {
                return;
            }
            let is_other = |only: &String| *only != Failpoint::NAMES[at as usize] || passes != self.pass;
            if self.only.as_ref().is_some_and(is_other) {
                return;
            }
            let weight = Failpoint::WEIGHTS[at as usize];
            let rate = |rate: u64, what: Count| match self.count(at, what, 0) {
                0 => rate * weight * FIRST_TIME_FACTOR,
                _ => rate * weight,
            };
            let draw = self.draw() % RATE_UNIT;
            let (kills, stops) = (rate(self.kills, Count::Kills), rate(self.stops, Count::Stops));
            if draw < kills {
                self.count(at, Count::Kills, 1);
                signal::raise(libc::SIGKILL);
            } else if draw < kills + stops {
                self.count(at, Count::Stops, 1);
                signal::raise(libc::SIGSTOP);
            }
        }

        /// The next number of the generator (splitmix64), which all threads share.
        fn draw(&self) -> u64 {
            const INCREMENT: u64 = 0x9e37_79b9_7f4a_7c15;
            // Relaxed: each draw needs a different number, and the order does not matter.
            let mut number = self
                .generator
                .fetch_add(INCREMENT, Ordering::Relaxed)
                .wrapping_add(INCREMENT);
            number = (number ^ number >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            number = (number ^ number >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            number ^ number >> 31
        }
    }
}
