//! Named instants of the protocol at which a test can have the process that passes them killed or stopped.
//!
//! There is nothing of it in a build without `debug_assertions`, so not in the plugin that users install. In a debug build
//! an instant is one relaxed load, unless the process was started with the environment variable
//! `RSSHM_FAILPOINTS=SEED,KILLS,STOPS,FILE[,INSTANT[,PASS]]`: then each pass of an instant is counted in `FILE`, and draws a
//! number from a generator that begins at `SEED`. Of a million passes so many as `KILLS` says end in SIGKILL, and `STOPS`
//! in SIGSTOP, sent to itself exactly there; of instants that are passed seldom up to a hundred times as many, and eight
//! times as many until it has happened once. With `INSTANT` only one pass of that one draws, the first or the one of number `PASS`.
//! `tests/chaos` uses the first form, `channel/tests/instants.rs` the second.
//!
//! `FILE` may be shared by any number of processes, and read by the test meanwhile: words of 64 bits. The first one is
//! written by the test: while it is not 0, passes are only counted. From byte 64 on come 64 bytes for each instant: its name,
//! filled up to 32 bytes with zeros, then how often it was passed, and how many passes ended in SIGKILL and in SIGSTOP.

/// Makes [`Failpoint`] with the names of its values, and how much more readily a process ends there than at an instant that it
/// passes with each frame.
macro_rules! instants {
    ($($(#[$doc:meta])* $name:ident $readily:literal,)*) => {
        /// An instant.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum Failpoint {
            $($(#[$doc])* $name,)*
        }

        #[cfg(debug_assertions)]
        impl Failpoint {
            const NAMES: [&str; [$($readily),*].len()] = [$(stringify!($name)),*];
            const READILY: [u64; [$($readily),*].len()] = [$($readily),*];
        }
    };
}

instants! {
    /// Writer: nobody was seen to hold a slot, and its number is still there.
    PinsSeen 30,
    /// Writer: a slot's number is 0, the pins have not been looked at again.
    SeqCleared 10,
    /// Writer: a slot is claimed, nothing is drawn.
    SlotClaimed 1,
    /// Writer: the semaphore is held for a publish.
    PublishHolding 1,
    /// Writer: the descriptor is written, the number is not stored.
    DescriptorWritten 1,
    /// Writer: the number is stored, the ring's entry is not.
    SeqStored 1,
    /// Writer: the ring's entry is stored, the head is not.
    RingStored 1,
    /// Writer: the head is stored, the semaphore still held.
    HeadStored 1,
    /// Writer: all is published, the bell is not rung.
    NotifyDue 1,
    /// Reader: the pin's bit is set, the number not looked at.
    PinSet 1,
    /// Reader: the number was the one that is wanted.
    Pinned 1,
    /// Reader: the bit is about to be cleared.
    UnpinDue 1,
    /// Reader: the bit is cleared, a waiting writer not told.
    Unpinned 1,
    /// Reader: between the two halves of a copy under a pin.
    CopyHalf 1,
    /// Reader: a copy without a pin is about to begin.
    CopyUnpinned 1,
    /// Reader: it is made, the number has not been looked at again.
    CopyUnchecked 1,
    /// Reader: a frame is taken, the position is not stored.
    CursorDue 1,
    /// Both: a record, an event or a letter, is half written.
    RecordHalf 200,
    /// Writer: the semaphore is held for an event.
    EventHolding 100,
    /// Writer: the event is written, its count not stored.
    EventWritten 100,
    /// Writer: the number of the last frame before an end of the stream is stored, the end not counted.
    EndHalf 100,
    /// Writer: a file is made aside and has no lock.
    StagingMade 100,
    /// Writer: a control file is made, and locked, and has no name.
    LockFileMade 100,
    /// Writer: it has its name.
    LockFileNamed 100,
    /// Writer: it has the channel's lock and has not looked for what a dead writer left.
    ChannelLocked 100,
    /// Writer: what a dead writer left is open, and not yet superseded.
    FormerOpened 100,
    /// Writer: what a dead writer left is superseded.
    FormerSuperseded 100,
    /// Writer: a segment is made, and is empty.
    SegmentMade 100,
    /// Writer: the semaphore is held for a new segment.
    ReplaceHolding 100,
    /// Writer: a segment is complete, and has no name.
    SegmentWritten 100,
    /// Writer: it has the name, and the one before is not superseded.
    SegmentNamed 100,
    /// Writer: a segment is superseded, and nobody told.
    Superseded 100,
    /// Writer: all is done for a new segment, the semaphore still held.
    SegmentCurrent 100,
    /// Writer: a slot is about to be backed.
    GrowthDue 10,
    /// Writer: it has memory, and nobody knows.
    Grown 10,
    /// Writer: a slot of a superseded segment is taken, its memory not given back.
    ReleaseDue 10,
    /// Writer: a grant is about to be lowered.
    QuotaLowered 100,
    /// Writer: another grant is about to be published.
    QuotaDue 10,
    /// Writer: it stops, and the segment has lost its name.
    CloseUnnamed 100,
    /// Writer: it stops, and the segment says so.
    CloseStored 100,
    /// Reader: a segment is open, a seat not taken.
    SegmentOpened 100,
    /// Reader: a seat is locked, what the last owner left in it untouched.
    EntryLocked 100,
    /// Reader: what the last owner said of itself is gone.
    EntryCleared 100,
    /// Reader: its ticket is stored.
    GenerationStored 100,
    /// Reader: its position is stored.
    CursorStored 100,
    /// Reader: it sits down, and what it is going to take is kept.
    Joining 100,
    /// Reader: it sits, the bell is not rung.
    Joined 100,
    /// Reader: it sits in the segment that follows, and has not said so in the former.
    MoveDue 100,
    /// Reader: it is about to say that it leaves.
    LeaveDue 100,
}

/// The process is at an instant.
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
    use crate::sys::{files, mapping::Mapping, signal};

    const VARIABLE: &str = "RSSHM_FAILPOINTS";
    const MILLION: u64 = 1_000_000;
    /// How much more readily a process ends at an instant where none has ended yet.
    const NOT_YET: u64 = 8;

    /// Bytes before the first instant's, and of each instant.
    const STRIDE: u64 = 64;
    const NAME_ROOM: u64 = 32;
    const SIZE: u64 = STRIDE * (1 + Failpoint::NAMES.len() as u64);

    static OFF: AtomicBool = AtomicBool::new(false);
    static POINTS: OnceLock<Option<Points>> = OnceLock::new();

    struct Points {
        counts: Mapping,
        drawn: AtomicU64,
        kills: u64,
        stops: u64,
        only: Option<String>,
        pass: u64,
    }

    /// What is counted of an instant.
    #[derive(Clone, Copy)]
    enum Count {
        Passes,
        Kills,
        Stops,
    }

    #[inline]
    pub(super) fn pass(at: Failpoint) {
        // Relaxed: what was once off stays so; who does not know yet looks again.
        if OFF.load(Ordering::Relaxed) {
            return;
        }
        match POINTS.get_or_init(Points::from_environment) {
            Some(points) => points.pass(at),
            None => OFF.store(true, Ordering::Relaxed),
        }
    }

    impl Points {
        fn from_environment() -> Option<Self> {
            let text = std::env::var(VARIABLE).ok()?;
            let points = Self::parse(&text);
            if points.is_none() {
                eprintln!("{VARIABLE}={text} is of no use");
            }
            points
        }

        fn parse(text: &str) -> Option<Self> {
            let mut fields = text.split(',');
            let mut seq = || fields.next()?.parse::<u64>().ok();
            let (seed, kills, stops) = (seq()?, seq()?, seq()?);
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
            files::commit_memory(&file.try_clone().ok()?.into(), 0, SIZE).ok()?;
            let counts = Mapping::new(&file, 0, SIZE, true).ok()?;
            for (index, name) in (1..).zip(Failpoint::NAMES) {
                counts.write(STRIDE * index, &name.as_bytes()[..name.len().min(NAME_ROOM as usize)]);
            }
            Some(Self {
                counts,
                drawn: AtomicU64::new(seed),
                kills,
                stops,
                only,
                pass,
            })
        }

        /// Counts up by `more`, and yields the count before.
        fn count(&self, at: Failpoint, what: Count, more: u64) -> u64 {
            let offset = STRIDE * (1 + at as u64) + NAME_ROOM + 8 * what as u64;
            let word = self.counts.at::<AtomicU64>(offset);
            // Relaxed: nothing goes with the counts.
            word.map_or(0, |word| word.fetch_add(more, Ordering::Relaxed))
        }

        fn pass(&self, at: Failpoint) {
            let passes = self.count(at, Count::Passes, 1) + 1;
            let paused = self.counts.at::<AtomicU64>(0);
            if paused.is_none_or(|paused| paused.load(Ordering::Relaxed) != 0) {
                return;
            }
            if let Some(only) = &self.only
                && (*only != Failpoint::NAMES[at as usize] || passes != self.pass)
            {
                return;
            }
            let readily = Failpoint::READILY[at as usize];
            let rate = |rate: u64, what: Count| match self.count(at, what, 0) {
                0 => rate * readily * NOT_YET,
                _ => rate * readily,
            };
            let draw = self.draw() % MILLION;
            let (kills, stops) = (rate(self.kills, Count::Kills), rate(self.stops, Count::Stops));
            if draw < kills {
                self.count(at, Count::Kills, 1);
                signal::raise(libc::SIGKILL);
            } else if draw < kills + stops {
                self.count(at, Count::Stops, 1);
                signal::raise(libc::SIGSTOP);
            }
        }

        /// The next number of the generator (splitmix64), of which all threads draw.
        fn draw(&self) -> u64 {
            const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
            let mut seq = self.drawn.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
            seq = (seq ^ seq >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            seq = (seq ^ seq >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
            seq ^ seq >> 31
        }
    }
}
