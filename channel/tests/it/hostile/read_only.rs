// SPDX-License-Identifier: MIT OR Apache-2.0

//! Attacks by processes of another user, which may only read the segment.

use std::{
    fs::{File, Metadata, OpenOptions, Permissions},
    hint::black_box,
    os::{
        fd::AsRawFd,
        unix::fs::{FileExt, MetadataExt, PermissionsExt},
    },
    sync::atomic::{AtomicU8, AtomicU32, Ordering},
    time::Duration,
};

use nix::{
    fcntl::{FallocateFlags, fallocate},
    libc,
    sys::{mman::ProtFlags, statvfs::statvfs},
    unistd::truncate,
};
use rsshm_channel::layout::{Header, Status};
use rsshm_testkit::{
    emulation::on_this_machine,
    eventually, need_root,
    privileges::{NOBODY, become_user},
    role::{self, Role, listen, say},
    shm::{self, OWN_MOUNTS},
};

use super::honest::{Honest, RATE, all_have};
use crate::support::{SIZE, futex, mapping::SharedMapping, raw, test_duration};

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
    mapping: SharedMapping,
}

impl ReadOnly {
    fn new(channel: &str) -> Self {
        become_user(NOBODY, NOBODY);
        let path = format!("/dev/shm/{channel}");
        let file = File::open(&path).unwrap();
        let size = file.metadata().unwrap().len() as usize;
        Self {
            channel: channel.to_owned(),
            mapping: SharedMapping::of_file(&file, size, ProtFlags::PROT_READ).unwrap(),
            path,
            file,
            size,
        }
    }

    /// The word of the status that is at the offset `field`.
    fn status_word(&self, field: usize) -> &AtomicU32 {
        let mut offset = [0; 8];
        let at = std::mem::offset_of!(Header, status_offset) as u64;
        self.file.read_exact_at(&mut offset, at).unwrap();
        self.mapping.at(u64::from_ne_bytes(offset) as usize + field)
    }

    fn published(&self) -> &AtomicU32 {
        self.status_word(std::mem::offset_of!(Status, published))
    }

    fn writer_word(&self) -> &AtomicU32 {
        self.status_word(std::mem::offset_of!(Status, writer_word))
    }

    /// Tries calls on the segment's path. Returns the names of the calls that succeed.
    fn try_by_path(&self) -> Vec<&'static str> {
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
            ("truncate by name", truncate(self.path.as_str(), 0).is_ok()),
            ("remove", std::fs::remove_file(&self.path).is_ok()),
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
        let file = &self.file;
        let hole = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        let calls = [
            ("write", file.write_at(&[0; 8], 256).is_ok()),
            ("truncate", file.set_len(0).is_ok()),
            (
                "fallocate",
                fallocate(file, FallocateFlags::empty(), 0, 1 << 30).is_ok(),
            ),
            ("punch", fallocate(file, hole, 0, 4096).is_ok()),
            (
                "map for writing",
                SharedMapping::of_file(file, self.size, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE).is_ok(),
            ),
            ("mprotect", self.mapping.make_writable().is_ok()),
            ("chmod", file.set_permissions(Permissions::from_mode(0o666)).is_ok()),
            ("lease", can_take_lease(file)),
            ("write lock", raw::lock(file, libc::F_WRLCK, 0, 0)),
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
                // Only the first of these calls can succeed.
                let _ = file.try_lock();
                file
            })
            .into();
        // Read a byte of every page through the mapping. These reads must not commit memory.
        let pages = (0..self.size).step_by(4096);
        black_box(
            pages
                .map(|page| u64::from(self.mapping.at::<AtomicU8>(page).load(Ordering::Relaxed)))
                .sum::<u64>(),
        );
        say(format!("succeeded: {done:?}"));
        listen();
        drop(locked);
    }

    fn wake_for_ever(&self) {
        let words = [self.published(), self.writer_word()];
        say(ATTACKING);
        loop {
            words.iter().for_each(|word| futex::wake(word));
        }
    }

    fn steal_sleepers_for_ever(&self) {
        let words = [self.published(), self.writer_word()];
        // The attacker's own word must be in shared memory too, because the kernel moves sleepers only between two
        // shared futexes or two private futexes.
        let own = SharedMapping::new_memory(4096).unwrap();
        say(ATTACKING);
        loop {
            for word in words {
                // Nobody wakes the sleepers there.
                futex::move_sleepers(word, own.at(0));
            }
        }
    }

    /// Sleeps on the futex word `published` in a thousand threads.
    fn sleep_in_many_threads(&self) {
        let published = self.published();
        std::thread::scope(|scope| {
            for _ in 0..1000 {
                std::thread::Builder::new()
                    .stack_size(64 << 10)
                    .spawn_scoped(scope, || {
                        loop {
                            // Relaxed: the value only lets the thread sleep.
                            futex::sleep(published, published.load(Ordering::Relaxed));
                        }
                    })
                    .unwrap();
            }
            say(ATTACKING);
        });
    }
}

/// Whether this process may take a lease on the file, which the kernel would break at the next open.
fn can_take_lease(file: &File) -> bool {
    // SAFETY: the call gets a descriptor and a number, and no memory.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETLEASE, libc::F_RDLCK) };
    result != -1
}

/// The names of those calls that succeeded.
fn succeeded(calls: &[(&'static str, bool)]) -> Vec<&'static str> {
    let succeeded = calls.iter().filter(|(_, succeeded)| *succeeded);
    succeeded.map(|(name, _)| *name).collect()
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
        // Other programs can slow down the peers too, so the attack is repeated.
        eventually(attack, || {
            let reports = honest.during(attack, |channel| {
                let mut attacker = role::start(attack, &[channel.as_str()]);
                let answer = attacker.receive();
                assert!(answer == ATTACKING || answer == ALL_REFUSED, "{answer}");
                std::thread::sleep(test_duration(1.5));
            });
            for (_, report) in &reports {
                assert!(!report.occurrences.contains("Evicted"), "{report:?}");
            }
            let (longest, longest_quiet) = (reports[0].1.longest, quiet[0].1.longest);
            let allowed = longest_quiet + on_this_machine(Duration::from_millis(100));
            all_have(&reports, RATE) && longest < allowed
        });
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
