//! The semaphore as it lies in shared memory.
//!
//! On 64-bit glibc its `sem_t` is worked on by its bytes. The library's own functions believe what lies there: where the
//! word that says which kind of futex it is has been damaged, the kernel refuses the call, and glibc ends the process. So
//! what they do is done here, on atomics, with futex calls whose kind nobody else can write. Other C libraries are asked.

use crate::map::Mapping;

pub(crate) use imp::Semaphore;

/// What giving a semaphore back found there. It has the value 1 afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The value 0, as whoever holds it leaves it.
    Held,
    /// A larger one: somebody has posted without having waited.
    Posted,
    /// One that no semaphore can have.
    Nonsense,
}

/// Bytes of a semaphore.
pub(crate) const SIZE: u64 = size_of::<nix::libc::sem_t>() as u64;

#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
mod imp {
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use super::{Found, Mapping};
    use crate::sys;

    /// How often a change is tried again that another process was faster with. One that is faster each time is no honest one.
    const TRIES: u32 = 1000;
    /// What `sem_init` writes for a semaphore that processes share.
    const SHARED_KIND: u32 = 128;
    /// The largest value that a semaphore can have.
    const MAX: u32 = i32::MAX as u32;
    /// One sleeper, in the word that has the value in its lower half and the sleepers in its upper.
    const SLEEPER: u64 = 1 << 32;
    const VALUE_AT: u64 = 0;
    const KIND_AT: u64 = 8;
    /// Where the lower half of the word lies, which is what sleepers sleep on.
    const FUTEX_AT: u64 = if cfg!(target_endian = "little") { 0 } else { 4 };

    #[derive(Debug)]
    pub(crate) struct Semaphore(Mapping);

    impl Semaphore {
        /// `None` when the mapping is too small for a semaphore at its beginning.
        pub(crate) fn new(mapping: Mapping) -> Option<Self> {
            mapping.range(VALUE_AT, super::SIZE)?;
            mapping.at::<AtomicU64>(VALUE_AT)?;
            Some(Self(mapping))
        }

        fn word(&self) -> Option<&AtomicU64> {
            self.0.at(VALUE_AT)
        }

        /// Makes it a semaphore of the value 1, whatever its bytes are.
        pub(crate) fn initialise(&self) -> nix::Result<()> {
            self.mend_kind();
            if let Some(word) = self.word() {
                word.store(1, Ordering::Release);
            }
            Ok(())
        }

        /// Puts the kind of futex right, for programs that use the library's functions; `true` when it was wrong.
        pub(crate) fn mend_kind(&self) -> bool {
            // Relaxed: it never changes in an honest channel.
            self.0.at::<AtomicU32>(KIND_AT).is_some_and(|kind| {
                let wrong = kind.load(Ordering::Relaxed) != SHARED_KIND;
                if wrong {
                    kind.store(SHARED_KIND, Ordering::Relaxed);
                }
                wrong
            })
        }

        /// Changes the word as `change` says; `None` when that says no, or others never let it.
        fn update(&self, change: impl Fn(u64) -> Option<u64>) -> Option<u64> {
            let word = self.word()?;
            let mut seen = word.load(Ordering::Relaxed);
            for _ in 0..TRIES {
                // Acquire, release: as those of the library, whoever takes it sees what was done under it.
                match word.compare_exchange_weak(seen, change(seen)?, Ordering::AcqRel, Ordering::Relaxed) {
                    Ok(before) => return Some(before),
                    Err(now) => seen = now,
                }
            }
            None
        }

        pub(crate) fn try_wait(&self) -> bool {
            self.update(|word| (word as u32 > 0).then(|| word - 1)).is_some()
        }

        /// Waits at most for `timeout`, by a clock that nobody sets back.
        pub(crate) fn wait(&self, timeout: Duration) -> bool {
            let until = Instant::now() + timeout;
            // Who gives it back wakes somebody only if there are sleepers.
            self.update(|word| Some(word.wrapping_add(SLEEPER)));
            let taken = loop {
                if self.try_wait() {
                    break true;
                }
                let left = until.saturating_duration_since(Instant::now());
                let Some(futex) = self.0.at::<AtomicU32>(FUTEX_AT).filter(|_| !left.is_zero()) else {
                    break false;
                };
                sys::futex_wait(futex, 0, left);
            };
            // Somebody may have made it anew meanwhile, without sleepers.
            self.update(|word| word.checked_sub(SLEEPER));
            taken
        }

        /// Brings the value to 1, and wakes one who waits for that.
        pub(crate) fn give_back(&self) -> Found {
            let sleepers = |word: u64| word & !u64::from(u32::MAX);
            let before = self.update(|word| Some(sleepers(word) | 1)).unwrap_or_default();
            if sleepers(before) > 0
                && let Some(futex) = self.0.at::<AtomicU32>(FUTEX_AT)
            {
                sys::futex_wake(futex, 1);
            }
            match before as u32 {
                0 => Found::Held,
                1..=MAX => Found::Posted,
                _ => Found::Nonsense,
            }
        }
    }
}

#[cfg(not(all(target_env = "gnu", target_pointer_width = "64")))]
mod imp {
    use std::time::Duration;

    use super::{Found, Mapping};
    use crate::sys::semaphore::RawSemaphore;

    #[derive(Debug)]
    pub(crate) struct Semaphore {
        raw: RawSemaphore,
        _mapping: Mapping,
    }

    impl Semaphore {
        /// `None` when the mapping is too small for a semaphore at its beginning.
        pub(crate) fn new(mapping: Mapping) -> Option<Self> {
            let address = mapping.range(0, super::SIZE)?;
            // SAFETY: a page-aligned address, mapped for reading and writing, kept beside the semaphore in this structure.
            let raw = unsafe { RawSemaphore::new(address.as_ptr().cast()) };
            Some(Self { raw, _mapping: mapping })
        }

        /// Makes it a semaphore of the value 1, whatever its bytes are.
        pub(crate) fn initialise(&self) -> nix::Result<()> {
            self.raw.initialise(1)
        }

        /// Here only the library knows what is right.
        pub(crate) fn mend_kind(&self) -> bool {
            false
        }

        pub(crate) fn try_wait(&self) -> bool {
            self.raw.try_wait()
        }

        /// Waits at most for `timeout`, by a clock that nobody sets back.
        pub(crate) fn wait(&self, timeout: Duration) -> bool {
            self.raw.wait(timeout)
        }

        /// Brings the value to 1, and wakes one who waits for that.
        pub(crate) fn give_back(&self) -> Found {
            self.raw.post();
            let mut found = Found::Held;
            // Bounded: a value may be as damaged as it likes.
            for _ in 0..64 {
                if self.raw.value() <= 1 || !self.raw.try_wait() {
                    break;
                }
                found = Found::Posted;
            }
            found
        }
    }
}
