//! The semaphore as it lies in shared memory.
//!
//! On 64-bit glibc its `sem_t` is worked on by its bytes. The library's own functions believe what lies there: where the
//! word that says which kind of futex it is has been damaged, the kernel refuses the call, and glibc ends the process. So
//! what they do is done here, on atomics, with futex calls whose kind nobody else can write. Other C libraries are asked.

use crate::sys::mapping::Mapping;

pub(crate) use imp::Semaphore;

/// What giving a semaphore back found there. It has the value 1 afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SemaphoreState {
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

    use super::{Mapping, SemaphoreState};
    use crate::sys::futex;

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
            self.repair_kind();
            if let Some(word) = self.word() {
                word.store(1, Ordering::Release);
            }
            Ok(())
        }

        /// Puts the kind of futex right, for programs that use the library's functions; `true` when it was wrong.
        pub(crate) fn repair_kind(&self) -> bool {
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
                futex::futex_wait(futex, 0, left);
            };
            // Somebody may have made it anew meanwhile, without sleepers.
            self.update(|word| word.checked_sub(SLEEPER));
            taken
        }

        /// Brings the value to 1, and wakes one who waits for that.
        pub(crate) fn release(&self) -> SemaphoreState {
            let sleepers = |word: u64| word & !u64::from(u32::MAX);
            let before = self.update(|word| Some(sleepers(word) | 1)).unwrap_or_default();
            if sleepers(before) > 0
                && let Some(futex) = self.0.at::<AtomicU32>(FUTEX_AT)
            {
                futex::futex_wake(futex, 1);
            }
            match before as u32 {
                0 => SemaphoreState::Held,
                1..=MAX => SemaphoreState::Posted,
                _ => SemaphoreState::Nonsense,
            }
        }
    }
}

#[cfg(not(all(target_env = "gnu", target_pointer_width = "64")))]
mod imp {
    use std::time::Duration;

    use super::raw::RawSemaphore;
    use super::{Mapping, SemaphoreState};

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
        pub(crate) fn repair_kind(&self) -> bool {
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
        pub(crate) fn release(&self) -> SemaphoreState {
            self.raw.post();
            let mut found = SemaphoreState::Held;
            // Bounded: a value may be as damaged as it likes.
            for _ in 0..64 {
                if self.raw.value() <= 1 || !self.raw.try_wait() {
                    break;
                }
                found = SemaphoreState::Posted;
            }
            found
        }
    }
}

/// The C library's calls on a semaphore in shared memory, whose `sem_t` is what `sem_open` of any program maps too.
#[cfg(not(all(target_env = "gnu", target_pointer_width = "64")))]
mod raw {
    use std::{io, time::Duration};

    use nix::{errno::Errno, libc};

    use crate::sys::clock::monotonic_ns;

    unsafe extern "C" {
        /// glibc 2.30 and later; as `sem_timedwait`, by a clock that nobody sets back.
        fn sem_clockwait(
            semaphore: *mut libc::sem_t,
            clock: libc::clockid_t,
            until: *const libc::timespec,
        ) -> libc::c_int;
    }

    /// A semaphore inside a mapping that lives as long as this does; the constructor's caller sees to that.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct RawSemaphore(*mut libc::sem_t);

    // SAFETY: the functions of a process-shared semaphore may be called from any thread (sem_overview(7)).
    unsafe impl Send for RawSemaphore {}
    // SAFETY: as above.
    unsafe impl Sync for RawSemaphore {}

    impl RawSemaphore {
        /// # Safety
        /// `at` is the address of a `sem_t`, aligned and mapped for reading and writing for as long as the value is used.
        pub(crate) unsafe fn new(at: *mut libc::sem_t) -> Self {
            Self(at)
        }

        /// Makes it a new semaphore, shared between processes. Only before anybody else can know it.
        pub(crate) fn initialise(self, value: u32) -> nix::Result<()> {
            // SAFETY: the address is valid (see `new`).
            Errno::result(unsafe { libc::sem_init(self.0, 1, value) }).map(drop)
        }

        pub(crate) fn try_wait(self) -> bool {
            // SAFETY: the address is valid (see `new`).
            unsafe { libc::sem_trywait(self.0) == 0 }
        }

        /// Waits at most for `timeout`.
        pub(crate) fn wait(self, timeout: Duration) -> bool {
            let until = monotonic_ns().saturating_add(timeout.as_nanos() as u64);
            let until = libc::timespec {
                tv_sec: (until / 1_000_000_000) as libc::time_t,
                tv_nsec: (until % 1_000_000_000) as libc::c_long,
            };
            loop {
                // SAFETY: the address is valid (see `new`) and `until` outlives the call.
                if unsafe { sem_clockwait(self.0, libc::CLOCK_MONOTONIC, &raw const until) } == 0 {
                    return true;
                }
                if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                    return false;
                }
            }
        }

        pub(crate) fn post(self) {
            // SAFETY: the address is valid (see `new`). EOVERFLOW needs no answer: the value is brought to 1 next.
            unsafe { libc::sem_post(self.0) };
        }

        pub(crate) fn value(self) -> i32 {
            let mut value = 0;
            // SAFETY: the address is valid (see `new`), and `value` is a local.
            unsafe { libc::sem_getvalue(self.0, &raw mut value) };
            value
        }
    }
}
