// SPDX-License-Identifier: MIT OR Apache-2.0

//! Other programs hold, damage or replace the semaphore. Frames still arrive at full rate, and the writer repairs the
//! semaphore.

use std::{
    ffi::CString,
    fs::OpenOptions,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use nix::libc;
use rsshm_channel::SemaphoreFault;
use rsshm_testkit::{
    Channel, eventually, on_this_machine,
    role::{self, Role, listen, say},
};

use crate::support::{ChannelExt, SECOND, Service, StopOnDrop, check, next, open_writer, publish, raw::RawPeer, slots};

pub const ROLES: &[(&str, Role)] = &[
    ("semaphore/holder", |arguments| holder(arguments[0])),
    ("semaphore/stats under load", |arguments| stats_under_load(arguments[0])),
];

/// The named semaphore, opened with the C library as other programs do.
struct Semaphore(*mut libc::sem_t);

// SAFETY: the functions of the C library may use and close a semaphore in any thread.
unsafe impl Send for Semaphore {}
// SAFETY: the functions of the C library may use a semaphore in several threads at once.
unsafe impl Sync for Semaphore {}

impl Semaphore {
    fn open(channel: &Channel) -> Self {
        Self::open_by_name(channel.as_str())
    }

    fn open_by_name(channel: &str) -> Self {
        let name = c_name(channel);
        // SAFETY: the name is a string that ends with a 0, and it lives longer than the call.
        Self::of_result(unsafe { libc::sem_open(name.as_ptr(), 0) })
    }

    /// Makes a new semaphore with this value. The name must be free.
    fn create(channel: &Channel, value: libc::c_uint) -> Self {
        let name = c_name(channel.as_str());
        let (flags, mode): (_, libc::c_uint) = (libc::O_CREAT | libc::O_EXCL, 0o600);
        // SAFETY: the name is a string that ends with a 0, and it lives longer than the call. With O_CREAT, a mode and a
        // value follow, which are two unsigned integers.
        Self::of_result(unsafe { libc::sem_open(name.as_ptr(), flags, mode, value) })
    }

    /// Removes the name of the channel's semaphore.
    fn unlink(channel: &Channel) {
        let name = c_name(channel.as_str());
        // SAFETY: the name is a string that ends with a 0, and it lives longer than the call.
        assert_eq!(unsafe { libc::sem_unlink(name.as_ptr()) }, 0);
    }

    #[track_caller]
    fn of_result(semaphore: *mut libc::sem_t) -> Self {
        assert!(
            !std::ptr::eq(semaphore, libc::SEM_FAILED),
            "{:?}",
            nix::errno::Errno::last()
        );
        Self(semaphore)
    }

    fn wait(&self) {
        // SAFETY: the semaphore is open as long as `self` lives.
        while unsafe { libc::sem_wait(self.0) } != 0 {}
    }

    fn try_wait(&self) -> bool {
        // SAFETY: the semaphore is open as long as `self` lives.
        unsafe { libc::sem_trywait(self.0) == 0 }
    }

    fn post(&self) {
        // SAFETY: the semaphore is open as long as `self` lives.
        assert_eq!(unsafe { libc::sem_post(self.0) }, 0);
    }

    fn value(&self) -> i32 {
        let mut value = -1;
        // SAFETY: the semaphore is open as long as `self` lives, and the call writes one integer to `value`.
        assert_eq!(unsafe { libc::sem_getvalue(self.0, &raw mut value) }, 0);
        value
    }
}

impl Drop for Semaphore {
    fn drop(&mut self) {
        // SAFETY: the semaphore is open, and nobody uses this value any more.
        unsafe { libc::sem_close(self.0) };
    }
}

/// The name of a channel's semaphore for the C library.
fn c_name(channel: &str) -> CString {
    CString::new(format!("/{channel}")).unwrap()
}

/// Takes the semaphore and keeps it.
fn holder(channel: &str) {
    Semaphore::open_by_name(channel).wait();
    say("holds it");
    listen();
}

/// The effects that a fault of the semaphore has on publishing.
struct Episode {
    /// The longest publish from the fault on.
    longest_publish: Duration,
    /// The longest publish among those that the fault can delay: the first one, and each one with a time-out.
    longest_delay: Duration,
    took: Duration,
    timeouts: u64,
    reported: Vec<SemaphoreFault>,
}

/// The number of frames of an episode.
const FRAMES: u64 = 400;
/// The time between two frames of an episode.
const EACH: Duration = Duration::from_millis(5);

/// Repeats an episode with new channels until the stream kept its rate, because other programs can delay it. `check` sees
/// the effects of each episode.
#[track_caller]
fn stream_while(case: &str, mut harm: impl FnMut(&Channel), check: impl Fn(&Episode)) {
    eventually("a stream at full rate", || {
        let episode = run_episode(case, &mut harm);
        check(&episode);
        // The writer itself waits for two milliseconds.
        episode.took < on_this_machine(EACH * FRAMES as u32 + Duration::from_millis(500))
            && episode.longest_delay < on_this_machine(Duration::from_millis(60))
    });
}

/// Publishes 200 frames a second for two seconds, and calls `harm` meanwhile. Checks that a reader gets all frames, and
/// that the final value of the semaphore is 1.
#[track_caller]
fn run_episode(case: &str, harm: &mut impl FnMut(&Channel)) -> Episode {
    const HARMED: u64 = 20;
    let channel = Channel::new();
    // With this many slots, a reader on a busy machine misses no frame.
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 0));
    let service = Service::of(&writer);
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    check(&next(&mut reader, &mut copy), &copy, 0);
    let (mut longest_publish, mut longest_delay, mut timeouts) = (Duration::ZERO, Duration::ZERO, 0);
    let began = Instant::now();
    for value in 1..=FRAMES {
        if value == HARMED {
            harm(&channel);
        }
        let due = EACH * value as u32;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let before = Instant::now();
        assert!(publish(&writer, value), "no slot for {value}");
        let publish_time = before.elapsed();
        if value >= HARMED {
            longest_publish = longest_publish.max(publish_time);
        }
        let timeouts_before = std::mem::replace(&mut timeouts, writer.stats().semaphore_timeouts);
        if value == HARMED || timeouts > timeouts_before {
            longest_delay = longest_delay.max(publish_time);
        }
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, value);
        assert_eq!(frame.missed, 0);
    }
    let took = began.elapsed();
    eventually("the semaphore is repaired", || Semaphore::open(&channel).value() == 1);
    let reported = service.seen().semaphore_faults;
    println!(
        "{case}: {FRAMES} frames in {took:.3?}, longest publish {longest_publish:.3?}, delay {longest_delay:.3?}, \
         {timeouts} time-outs, reported {reported:?}"
    );
    Episode {
        longest_publish,
        longest_delay,
        took,
        timeouts,
        reported,
    }
}

#[track_caller]
fn assert_one_wait(episode: &Episode) {
    assert_eq!(episode.timeouts, 1);
    assert!(episode.longest_publish >= Duration::from_millis(2));
    assert_eq!(episode.reported, [SemaphoreFault::Held]);
}

#[test]
fn frames_go_on_when_semaphore_holder_is_killed() {
    let harm = |channel: &Channel| {
        let mut holder = role::start("semaphore/holder", &[channel.as_str()]);
        holder.expect("holds it");
        holder.kill();
    };
    stream_while("holder killed", harm, assert_one_wait);
}

#[test]
fn frames_go_on_when_semaphore_holder_is_stopped() {
    let mut kept = None;
    let harm = |channel: &Channel| {
        let mut holder = role::start("semaphore/holder", &[channel.as_str()]);
        holder.expect("holds it");
        holder.stop();
        kept = Some(holder);
    };
    stream_while("holder stopped", harm, assert_one_wait);
}

#[test]
fn frames_go_on_when_semaphore_is_never_released() {
    stream_while("taken", |channel| Semaphore::open(channel).wait(), assert_one_wait);
}

#[test]
fn frames_go_on_when_semaphore_is_posted_ten_times() {
    let harm = |channel: &Channel| {
        let semaphore = Semaphore::open(channel);
        (0..10).for_each(|_| semaphore.post());
    };
    stream_while("posted ten times", harm, |episode| {
        assert_eq!(episode.timeouts, 0);
        assert_eq!(episode.reported, [SemaphoreFault::Posted]);
    });
}

#[test]
fn frames_go_on_when_semaphore_bytes_are_damaged() {
    // The cases overwrite the value, the number of sleepers, the kind of futex (private or shared), or all bytes. If
    // the kind is wrong, the functions of the C library abort the process.
    let cases: [(&str, u64, &[u8]); 5] = [
        ("value", 0, &[0xff; 4]),
        ("value 0 and sleepers", 0, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        ("kind", 8, &[1, 0xbe, 0xad, 0xde]),
        ("all", 0, &[0xff; 32]),
        ("all, taken", 0, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4]),
    ];
    all_at_once(&cases, |(case, at, bytes)| {
        let harm = |channel: &Channel| {
            let file = OpenOptions::new().write(true).open(channel.lock_file()).unwrap();
            file.write_all_at(bytes, *at).unwrap();
        };
        stream_while(case, harm, |episode| {
            assert!(episode.timeouts <= 1);
            assert!(
                !episode.reported.is_empty() && episode.reported.len() <= 2,
                "{:?}",
                episode.reported
            );
        });
    });
}

#[test]
fn frames_go_on_when_semaphore_name_is_removed() {
    let harm = |channel: &Channel| std::fs::remove_file(channel.lock_file()).unwrap();
    stream_while("name removed", harm, |episode| assert_eq!(episode.timeouts, 0));
}

/// Another program removes the semaphore and creates a new one, because it believes that the semaphore is its own.
#[test]
fn frames_go_on_when_another_program_replaces_semaphore() {
    all_at_once(&[0 as libc::c_uint, 1, 7], |value| {
        let harm = |channel: &Channel| {
            Semaphore::unlink(channel);
            Semaphore::create(channel, *value);
        };
        stream_while(&format!("replaced with {value}"), harm, |episode| {
            assert!(episode.timeouts <= 1);
            assert!(
                episode.reported.contains(&SemaphoreFault::Replaced),
                "{:?}",
                episode.reported
            );
        });
    });
}

/// Runs all cases at the same time, which is possible because each case has its own channel and sleeps most of the
/// time.
fn all_at_once<T: Sync>(cases: &[T], body: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| body(case));
        }
    });
}

/// The writer counts each occurrence of a repeated fault, but reports only the first.
#[test]
fn each_kind_of_semaphore_fault_is_reported_once() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let semaphore = Semaphore::open(&channel);
    let mut reported = Vec::new();
    for episode in 1..=5 {
        semaphore.wait();
        assert!(publish(&writer, episode));
        semaphore.post();
        assert!(publish(&writer, episode));
        reported.extend(writer.service().unwrap().semaphore_faults);
    }
    assert_eq!(writer.stats().semaphore_timeouts, 5);
    assert_eq!(reported, [SemaphoreFault::Held]);
}

/// Another program takes the semaphore and never releases it. The writer waits only once, for 2 ms, and repairs the
/// semaphore after a second.
#[test]
fn semaphore_held_for_ever_costs_one_delay() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let semaphore = Semaphore::open(&channel);
    assert_eq!((semaphore.value(), writer.stats().semaphore_timeouts), (1, 0));
    for episode in 1..=2 {
        semaphore.wait();
        // The writer repairs the semaphore a second after its time-out. This publish has the time-out.
        let before = Instant::now();
        assert!(publish(&writer, 2));
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(800) {
            assert!(publish(&writer, 2));
            assert_eq!(writer.stats().semaphore_timeouts, episode);
            // The value stays 0 until the repair. It may be 1 here only if this thread was delayed until the repair.
            assert!(semaphore.value() == 0 || before.elapsed() > Duration::from_millis(950));
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(250));
        assert!(publish(&writer, 3));
        assert_eq!(semaphore.value(), 1);
        // The holder now posts the repaired semaphore, which raises its value to 2. Until the next publish, two
        // programs could take it at once.
        semaphore.post();
        assert!(publish(&writer, 4));
        assert_eq!((semaphore.value(), writer.stats().semaphore_timeouts), (1, episode));
    }
}

#[test]
fn held_semaphore_is_repaired_while_nothing_is_published() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let semaphore = Semaphore::open(&channel);
    semaphore.wait();
    assert!(publish(&writer, 2));
    eventually("repaired", || semaphore.value() == 1);
    assert_eq!(writer.stats().semaphore_timeouts, 1);
}

#[test]
fn publish_resets_semaphore_posted_too_often() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let semaphore = Semaphore::open(&channel);
    for _ in 0..10 {
        semaphore.post();
    }
    assert!(publish(&writer, 2));
    assert_eq!(semaphore.value(), 1);
    assert_eq!(writer.stats().semaphore_timeouts, 0);
}

#[test]
fn service_restores_unlinked_semaphore() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    Semaphore::unlink(&channel);
    let _service = Service::of(&writer);
    assert!(publish(&writer, 2));
    eventually("restored", || channel.lock_file().exists());
    assert!(publish(&writer, 3));
    let semaphore = Semaphore::open(&channel);
    eventually("in use", || semaphore.value() == 1);
}

/// The writer publishes as fast as it can, but it does not publish while another program holds the semaphore.
#[test]
fn semaphore_holder_sees_channel_at_rest() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let (semaphore, peer) = (Semaphore::open(&channel), RawPeer::open(&channel));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut value = 1;
            while !stop.load(Ordering::Relaxed) {
                value += 1;
                assert!(publish(&writer, value));
                std::thread::yield_now();
            }
        });
        let stopping = StopOnDrop(&stop);
        let head = || peer.status().head.load(Ordering::SeqCst);
        let (mut looks, mut overruled) = (0, 0);
        let began = Instant::now();
        while looks < 200 && began.elapsed() < 10 * SECOND {
            // Wait for three publishes. The writer has then found the semaphore free, so it will wait for the next
            // holder again.
            let before = head();
            while head() < before + 3 {
                std::thread::yield_now();
            }
            // Only this holder makes the writer count a time-out, so the count is loaded before the semaphore is taken.
            let timeouts = writer.stats().semaphore_timeouts;
            if !semaphore.try_wait() {
                continue;
            }
            let newest = head();
            std::thread::yield_now();
            let at_rest = peer.seqs().last() == Some(&newest) && head() == newest;
            // If the kernel suspends the holder for more than 2 ms, the writer stops waiting and counts a time-out.
            let counted = writer.stats().semaphore_timeouts != timeouts;
            semaphore.post();
            assert!(at_rest || counted, "the writer does not wait for the holder");
            overruled += u32::from(!at_rest);
            looks += 1;
        }
        drop(stopping);
        assert!(looks > overruled, "{looks} looks, {overruled} of them overruled");
    });
}

/// Any thread may call `stats` at any time, even while another program holds the semaphore.
///
/// The test runs in a process of its own, because a test could not end threads that are deadlocked.
#[test]
fn reading_stats_never_blocks_the_writer() {
    let channel = Channel::new();
    let mut process = role::start("semaphore/stats under load", &[channel.as_str()]);
    process.expect("published");
}

fn stats_under_load(channel: &str) {
    let writer = open_writer(channel, slots(8));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let semaphore = Semaphore::open_by_name(channel);
    for _ in 0..2 {
        let writer = Arc::clone(&writer);
        std::thread::spawn(move || {
            loop {
                writer.stats();
            }
        });
    }
    let publishing = std::thread::spawn({
        let writer = Arc::clone(&writer);
        move || (0..3000).for_each(|value| assert!(publish(&writer, value)))
    });
    while !publishing.is_finished() {
        if semaphore.try_wait() {
            std::thread::sleep(Duration::from_micros(100));
            semaphore.post();
        }
    }
    publishing.join().unwrap();
    say("published");
    // The exit also ends the threads that call `stats`.
    std::process::exit(0);
}
