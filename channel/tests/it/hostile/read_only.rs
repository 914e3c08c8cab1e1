// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks by processes of another user, which may only read the segment.

use std::{
    ffi::CString,
    fs::{File, Metadata, OpenOptions},
    hint::black_box,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt},
    },
    sync::atomic::AtomicU32,
    time::Duration,
};

use nix::{libc, sys::statvfs::statvfs};
use rsshm_channel::layout::{Header, Status};
use rsshm_testkit::{
    emulation::{frames_on_this_machine, on_this_machine},
    need_root,
    privileges::{NOBODY, become_user},
    role::{self, Role, listen, say},
    shm::{self, OWN_MOUNTS},
};

use super::honest::{Honest, RATE};
use crate::support::{SIZE, raw, test_duration};

pub const ROLES: &[(&str, Role)] = &[
    ("hostile/read-only attacks", all_attacks),
    ("hostile/forbidden calls", |arguments| {
        ReadOnly::new(arguments[0]).try_forbidden_calls();
    }),
    ("hostile/wakeups", |arguments| {
        ReadOnly::new(arguments[0]).wake_for_ever()
    }),
    ("hostile/stolen sleepers", |arguments| {
        ReadOnly::new(arguments[0]).steal_sleepers_for_ever();
    }),
    ("hostile/many sleepers", |arguments| {
        ReadOnly::new(arguments[0]).sleep_in_many_threads();
    }),
];

/// The roles of the attackers.
const ATTACKS: [&str; 4] = [
    "hostile/forbidden calls",
    "hostile/wakeups",
    "hostile/stolen sleepers",
    "hostile/many sleepers",
];

/// The line that an attacker prints when it begins its attack.
const ATTACKING: &str = "attacks";
/// The line that an attacker prints if the kernel refuses all its calls.
const ALL_REFUSED: &str = "succeeded: []";

/// The segment, opened and mapped only for reading, as a process of another user can have it.
struct ReadOnly {
    channel: String,
    path: String,
    file: File,
    size: usize,
    mapping: *mut libc::c_void,
}

impl ReadOnly {
    fn new(channel: &str) -> Self {
        become_user(NOBODY, NOBODY);
        let path = format!("/dev/shm/{channel}");
        let file = File::open(&path).unwrap();
        let size = file.metadata().unwrap().len() as usize;
        let mapping = map(&file, size, libc::PROT_READ);
        assert!(mapping != libc::MAP_FAILED);
        Self {
            channel: channel.to_owned(),
            path,
            file,
            size,
            mapping,
        }
    }

    /// The word of the status that is at the offset `field`.
    fn status_word(&self, field: usize) -> &AtomicU32 {
        let mut offset = [0; 8];
        let at = std::mem::offset_of!(Header, status_offset) as u64;
        self.file.read_exact_at(&mut offset, at).unwrap();
        let at = u64::from_ne_bytes(offset) as usize + field;
        unsafe { &*self.mapping.cast::<u8>().add(at).cast::<AtomicU32>() }
    }

    fn published(&self) -> &AtomicU32 {
        self.status_word(std::mem::offset_of!(Status, published))
    }

    fn writer_word(&self) -> &AtomicU32 {
        self.status_word(std::mem::offset_of!(Status, writer_word))
    }

    /// Tries calls on the segment's path. Returns the names of the calls that succeed.
    fn try_by_path(&self) -> Vec<&'static str> {
        let path = CString::new(self.path.clone()).unwrap();
        let may_write = |path: &str| OpenOptions::new().write(true).open(path).is_ok();
        let calls = [
            ("open", may_write(&self.path)),
            (
                "open again",
                may_write(&format!("/proc/self/fd/{}", self.file.as_raw_fd())),
            ),
            (
                "open the lock file",
                File::open(format!("/dev/shm/sem.{}", self.channel)).is_ok(),
            ),
            (
                "truncate by name",
                succeeds(unsafe { libc::truncate(path.as_ptr(), 0) }),
            ),
            ("remove", succeeds(unsafe { libc::unlink(path.as_ptr()) })),
            (
                "rename",
                std::fs::rename(&self.path, format!("{}-stolen", self.path)).is_ok(),
            ),
            ("replace", File::create_new(&self.path).is_ok()),
        ];
        succeeded(&calls)
    }

    /// Tries calls on the segment's descriptor and mapping. Returns the names of the calls that succeed.
    fn try_by_descriptor(&self) -> Vec<&'static str> {
        let fd = self.file.as_raw_fd();
        let read_write = libc::PROT_READ | libc::PROT_WRITE;
        let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let calls = [
            (
                "write",
                unsafe { libc::pwrite(fd, [0u8; 8].as_ptr().cast(), 8, 256) } >= 0,
            ),
            ("truncate", succeeds(unsafe { libc::ftruncate(fd, 0) })),
            ("fallocate", succeeds(unsafe { libc::fallocate(fd, 0, 0, 1 << 30) })),
            ("punch", succeeds(unsafe { libc::fallocate(fd, hole, 0, 4096) })),
            (
                "map for writing",
                map(&self.file, self.size, read_write) != libc::MAP_FAILED,
            ),
            (
                "mprotect",
                succeeds(unsafe { libc::mprotect(self.mapping, 4096, read_write) }),
            ),
            ("chmod", succeeds(unsafe { libc::fchmod(fd, 0o666) })),
            (
                "lease",
                succeeds(unsafe { libc::fcntl(fd, libc::F_SETLEASE, libc::F_RDLCK) }),
            ),
            ("write lock", raw::lock(&self.file, libc::F_WRLCK, 0, 0)),
        ];
        succeeded(&calls)
    }

    /// Tries every call that could change the segment, takes all locks that the kernel allows, and reads a byte of each
    /// page.
    fn try_forbidden_calls(&self) {
        let mut done = self.try_by_path();
        done.extend(self.try_by_descriptor());
        // Take read locks on all bytes, and `flock` locks. Their file descriptions stay open, so that the locks last.
        let locked: Vec<_> = [(0, 4096), (4097, 0), (4096, 1)]
            .map(|(byte, length)| {
                let file = File::open(&self.path).unwrap();
                raw::lock(&file, libc::F_RDLCK, byte, length);
                unsafe { libc::flock(file.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
                file
            })
            .into();
        // Read a byte of every page through the mapping. These reads must not commit memory.
        let bytes = unsafe { std::slice::from_raw_parts(self.mapping.cast::<u8>(), self.size) };
        black_box(bytes.iter().step_by(4096).map(|byte| u64::from(*byte)).sum::<u64>());
        say(format!("succeeded: {done:?}"));
        listen();
        drop(locked);
    }

    fn wake_for_ever(&self) {
        let words = [self.published(), self.writer_word()];
        say(ATTACKING);
        loop {
            words.iter().for_each(|word| raw::wake(word));
        }
    }

    fn steal_sleepers_for_ever(&self) {
        let words = [self.published(), self.writer_word()];
        // The attacker's own word must be in shared memory too, because the kernel moves sleepers only between two
        // shared futexes or two private futexes.
        let own = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                4096,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        assert!(own != libc::MAP_FAILED);
        let own = unsafe { &*own.cast::<AtomicU32>() };
        say(ATTACKING);
        loop {
            for word in words {
                steal_sleepers(word, own);
            }
        }
    }

    /// Sleeps on the futex word `published` in a thousand threads.
    fn sleep_in_many_threads(&self) {
        let address = self.published().as_ptr().addr();
        for _ in 0..1000 {
            std::thread::Builder::new()
                .stack_size(64 << 10)
                .spawn(move || {
                    let published = std::ptr::without_provenance::<AtomicU32>(address);
                    loop {
                        unsafe {
                            let seen = std::ptr::read_volatile(published.cast::<u32>());
                            libc::syscall(libc::SYS_futex, published, libc::FUTEX_WAIT, seen, 0);
                        }
                    }
                })
                .unwrap();
        }
        say(ATTACKING);
        loop {
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

fn map(file: &File, size: usize, protection: i32) -> *mut libc::c_void {
    unsafe {
        libc::mmap(
            std::ptr::null_mut(),
            size,
            protection,
            libc::MAP_SHARED,
            file.as_raw_fd(),
            0,
        )
    }
}

fn succeeds(result: i32) -> bool {
    result != -1
}

/// The names of those calls that succeeded.
fn succeeded(calls: &[(&'static str, bool)]) -> Vec<&'static str> {
    let succeeded = calls.iter().filter(|(_, succeeded)| *succeeded);
    succeeded.map(|(name, _)| *name).collect()
}

/// Moves all threads that sleep on `from` to the attacker's own word, where nobody wakes them.
fn steal_sleepers(from: &AtomicU32, own: &AtomicU32) -> i64 {
    unsafe {
        libc::syscall(
            libc::SYS_futex,
            from.as_ptr(),
            libc::FUTEX_REQUEUE,
            0,
            libc::c_long::from(i32::MAX),
            own.as_ptr(),
        )
    }
}

/// The test runs in a role. If possible, the role has its own /dev/shm, so that the test can check how much memory is
/// used.
#[test]
fn read_only_attackers_change_nothing() {
    need_root!("the attackers are another user's processes");
    const ROLE: &str = "hostile/read-only attacks";
    let mut process = match shm::unshared(&OWN_MOUNTS) {
        Some(wrapper) => role::start_within(&wrapper, ROLE, &["own /dev/shm"]),
        None => role::start(ROLE, &[]),
    };
    // This wait has no limit, because the environment variable `RSSHM_TEST_SECONDS` decides how long the attacks last.
    while process.is_running() {
        std::thread::sleep(Duration::from_millis(20));
    }
    print!("{}", process.wait_ok());
}

fn all_attacks(arguments: &[&str]) {
    let has_own_shm = !arguments.is_empty();
    if has_own_shm {
        shm::mount("64m");
    }
    let mut honest = Honest::new();
    let quiet = honest.during("quiet", |_| std::thread::sleep(test_duration(1.5)));
    let metadata = |honest: &Honest| std::fs::metadata(honest.channel.segment()).unwrap();
    let before = metadata(&honest);
    let outside_before = bytes_outside(&before);
    for attack in ATTACKS {
        let reports = honest.during(attack, |channel| {
            let mut attacker = role::start(attack, &[channel.as_str()]);
            let answer = attacker.receive();
            assert!(answer == ATTACKING || answer == ALL_REFUSED, "{answer}");
            std::thread::sleep(test_duration(1.5));
        });
        for (role, report) in &reports {
            assert!(
                report.frames > frames_on_this_machine(RATE),
                "{attack}: {role}: {report:?}"
            );
            assert!(!report.occurrences.contains("Evicted"), "{report:?}");
        }
        let (longest, longest_quiet) = (reports[0].1.longest, quiet[0].1.longest);
        let allowed = longest_quiet + on_this_machine(Duration::from_millis(100));
        assert!(longest < allowed, "{reports:?}");
    }
    let after = metadata(&honest);
    assert_eq!((after.ino(), after.mode()), (before.ino(), before.mode()));
    // Memory is committed for the bytes of the segment, but not for slots that the writer has not used for long.
    let missing = after
        .size()
        .checked_sub(after.blocks() * 512)
        .expect("no memory behind the segment");
    assert_eq!(missing % SIZE as u64, 0, "{after:?}");
    if has_own_shm {
        assert_eq!(bytes_outside(&after), outside_before, "memory outside the segment");
    }
    honest.assert_restart_is_clean();
}

/// How many bytes of /dev/shm are in use outside the segment.
fn bytes_outside(segment: &Metadata) -> i64 {
    let shm = statvfs("/dev/shm").unwrap();
    let used = (shm.blocks() - shm.blocks_free()) * shm.fragment_size();
    used as i64 - (segment.blocks() * 512) as i64
}
