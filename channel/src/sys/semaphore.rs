// SPDX-License-Identifier: MIT OR Apache-2.0

//! Operations on a semaphore in shared memory.
//!
//! The functions of glibc trust the bytes of a `sem_t`. If another process corrupts the word that holds the kind of
//! futex, the kernel rejects glibc's futex call, and glibc aborts the process. Therefore, on 64-bit glibc, this module
//! does not call glibc: it changes the bytes with atomics, and makes futex calls of a fixed kind. With any other C
//! library, it calls the library's functions.

use crate::sys::mapping::Mapping;

#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
mod word;

pub(crate) use imp::Semaphore;

/// The atomics of `word`, which the loom model replaces.
#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicU64, Ordering};
}

/// The value of a semaphore before [`Semaphore::release`] set it to 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SemaphoreState {
    /// The value was 0, because a process held the semaphore.
    Held,
    /// The value was larger than 0, because a process posted the semaphore without having waited for it.
    Posted,
    /// The value is impossible for a semaphore.
    Invalid,
}

/// The size of a semaphore in bytes.
pub(crate) const SEMAPHORE_SIZE: u64 = size_of::<nix::libc::sem_t>() as u64;

#[cfg(all(target_env = "gnu", target_pointer_width = "64"))]
mod imp {
    use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    use super::{Mapping, SemaphoreState, word};
    use crate::sys::futex;

    /// The kind of futex that `sem_init` writes for a semaphore that processes share.
    const SHARED_KIND: u32 = 128;
    /// The largest value of a semaphore.
    const MAX_VALUE: u32 = i32::MAX as u32;
    const VALUE_OFFSET: u64 = 0;
    const KIND_OFFSET: u64 = 8;
    /// The offset of the lower half of the word, which sleepers wait on.
    const FUTEX_OFFSET: u64 = if cfg!(target_endian = "little") { 0 } else { 4 };

    #[derive(Debug)]
    pub(crate) struct Semaphore(Mapping);

    impl Semaphore {
        /// The semaphore at the start of `mapping`; `None` if the mapping is too small.
        pub(crate) fn new(mapping: Mapping) -> Option<Self> {
            mapping.range(VALUE_OFFSET, super::SEMAPHORE_SIZE)?;
            mapping.at::<AtomicU64>(VALUE_OFFSET)?;
            Some(Self(mapping))
        }

        fn word(&self) -> Option<&AtomicU64> {
            self.0.at(VALUE_OFFSET)
        }

        /// Turns the bytes, whatever they were, into a semaphore with the value 1.
        pub(crate) fn initialise(&self) -> nix::Result<()> {
            self.repair_kind();
            if let Some(word) = self.word() {
                word::initialise(word);
            }
            Ok(())
        }

        /// Restores the kind of futex, for programs that use the C library's functions; `true` if the kind was wrong.
        pub(crate) fn repair_kind(&self) -> bool {
            // Relaxed: correct peers never change the kind once it is right, and its loads and stores order nothing.
            self.0.at::<AtomicU32>(KIND_OFFSET).is_some_and(|kind| {
                let wrong = kind.load(Ordering::Relaxed) != SHARED_KIND;
                if wrong {
                    kind.store(SHARED_KIND, Ordering::Relaxed);
                }
                wrong
            })
        }

        pub(crate) fn try_wait(&self) -> bool {
            self.word().is_some_and(word::try_take)
        }

        /// Waits at most for `timeout`; changes of the wall clock do not affect the wait.
        pub(crate) fn wait(&self, timeout: Duration) -> bool {
            let Some(word) = self.word() else {
                return false;
            };
            let until = Instant::now() + timeout;
            // The sleeper is counted first, because a process that releases the semaphore wakes a sleeper only if the
            // count is not 0.
            word::add_sleeper(word);
            let taken = loop {
                if word::try_take(word) {
                    break true;
                }
                let left = until.saturating_duration_since(Instant::now());
                let Some(futex) = self.0.at::<AtomicU32>(FUTEX_OFFSET).filter(|_| !left.is_zero()) else {
                    break false;
                };
                futex::futex_wait(futex, 0, left);
            };
            word::remove_sleeper(word);
            taken
        }

        /// Sets the value to 1 and wakes one waiter.
        pub(crate) fn release(&self) -> SemaphoreState {
            let (before, has_sleepers) = self.word().map_or((0, false), word::give_back);
            if has_sleepers {
                if let Some(futex) = self.0.at::<AtomicU32>(FUTEX_OFFSET) {
                    futex::futex_wake(futex, 1);
                }
            }
            match before {
                0 => SemaphoreState::Held,
                1..=MAX_VALUE => SemaphoreState::Posted,
                _ => SemaphoreState::Invalid,
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
        /// The semaphore at the start of `mapping`; `None` if the mapping is too small.
        pub(crate) fn new(mapping: Mapping) -> Option<Self> {
            let address = mapping.range(0, super::SEMAPHORE_SIZE)?;
            // SAFETY: the address is the start of a mapping, so it is aligned to a page. It has room for a `sem_t`
            // (checked above), is mapped for reading and writing, and this structure keeps the mapping beside the
            // semaphore.
            let raw = unsafe { RawSemaphore::new(address.as_ptr().cast()) };
            Some(Self { raw, _mapping: mapping })
        }

        /// Turns the bytes, whatever they were, into a semaphore with the value 1.
        pub(crate) fn initialise(&self) -> nix::Result<()> {
            self.raw.initialise(1)
        }

        /// Always `false`, because only the C library knows the right kind of futex.
        pub(crate) fn repair_kind(&self) -> bool {
            false
        }

        pub(crate) fn try_wait(&self) -> bool {
            self.raw.try_wait()
        }

        /// Waits at most for `timeout`; changes of the wall clock do not affect the wait.
        pub(crate) fn wait(&self, timeout: Duration) -> bool {
            self.raw.wait(timeout)
        }

        /// Sets the value to 1 and wakes one waiter.
        pub(crate) fn release(&self) -> SemaphoreState {
            self.raw.post();
            let mut found = SemaphoreState::Held;
            // The loop is bounded, because a damaged value may be very large.
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

/// The C library's calls on a semaphore in shared memory. Other programs map this `sem_t` with `sem_open`.
#[cfg(not(all(target_env = "gnu", target_pointer_width = "64")))]
mod raw {
    use std::{io, time::Duration};

    use nix::{errno::Errno, libc};

    use crate::sys::clock::monotonic_ns;

    unsafe extern "C" {
        /// Like `sem_timedwait`, but the caller chooses the clock. glibc has this function since version 2.30.
        fn sem_clockwait(
            semaphore: *mut libc::sem_t,
            clock: libc::clockid_t,
            until: *const libc::timespec,
        ) -> libc::c_int;
    }

    /// A semaphore inside a mapping. The caller of the constructor keeps the mapping for at least as long as this
    /// value.
    #[derive(Clone, Copy, Debug)]
    pub(crate) struct RawSemaphore(*mut libc::sem_t);

    // SAFETY: the functions of a process-shared semaphore may be called from any thread (sem_overview(7)).
    unsafe impl Send for RawSemaphore {}
    // SAFETY: the functions of a process-shared semaphore may also be called by several threads at the same time
    // (sem_overview(7)).
    unsafe impl Sync for RawSemaphore {}

    impl RawSemaphore {
        /// # Safety
        /// `at` is the address of a `sem_t`, aligned and mapped for reading and writing for as long as the value is
        /// used.
        pub(crate) unsafe fn new(at: *mut libc::sem_t) -> Self {
            Self(at)
        }

        /// Makes the bytes a new semaphore that processes share. No other process may use the semaphore yet.
        pub(crate) fn initialise(self, value: u32) -> nix::Result<()> {
            // SAFETY: the address is valid (the caller of `new` promises it).
            Errno::result(unsafe { libc::sem_init(self.0, 1, value) }).map(drop)
        }

        pub(crate) fn try_wait(self) -> bool {
            // SAFETY: the address is valid (the caller of `new` promises it).
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
                // SAFETY: the address is valid (the caller of `new` promises it) and `until` outlives the call.
                if unsafe { sem_clockwait(self.0, libc::CLOCK_MONOTONIC, &raw const until) } == 0 {
                    return true;
                }
                if io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
                    return false;
                }
            }
        }

        pub(crate) fn post(self) {
            // SAFETY: the address is valid (the caller of `new` promises it). EOVERFLOW is harmless, because the caller
            // then sets the value to 1.
            unsafe { libc::sem_post(self.0) };
        }

        pub(crate) fn value(self) -> i32 {
            let mut value = 0;
            // SAFETY: the address is valid (the caller of `new` promises it), and `value` is a local.
            unsafe { libc::sem_getvalue(self.0, &raw mut value) };
            value
        }
    }
}
