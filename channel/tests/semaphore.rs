//! The semaphore is a courtesy: nothing that is done to it stops the channel, and it is put right again.
#![allow(clippy::undocumented_unsafe_blocks)] // plain calls of the C library, in a test

mod common;

use std::{
    ffi::CString,
    fs::OpenOptions,
    os::unix::fs::FileExt,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use common::{
    Channel, Service,
    child::{self, Child, listen, say},
    next,
    peer::Peer,
    publish, slots, wait_until,
};
use nix::{libc, sys::signal::Signal};
use rsshm_channel::{SemaphoreFault, Writer};

/// The named semaphore, as any program opens it.
struct Semaphore(*mut libc::sem_t);

unsafe impl Send for Semaphore {}
unsafe impl Sync for Semaphore {}

impl Semaphore {
    fn open(channel: &Channel) -> Self {
        Self::open_by_name(channel.as_str())
    }

    fn open_by_name(channel: &str) -> Self {
        let name = CString::new(format!("/{channel}")).unwrap();
        let semaphore = unsafe { libc::sem_open(name.as_ptr(), 0) };
        assert!(
            !std::ptr::eq(semaphore, libc::SEM_FAILED),
            "{:?}",
            nix::errno::Errno::last()
        );
        Self(semaphore)
    }

    fn wait(&self) {
        while unsafe { libc::sem_wait(self.0) } != 0 {}
    }

    fn try_wait(&self) -> bool {
        unsafe { libc::sem_trywait(self.0) == 0 }
    }

    fn post(&self) {
        assert_eq!(unsafe { libc::sem_post(self.0) }, 0);
    }

    fn value(&self) -> i32 {
        let mut value = -1;
        assert_eq!(unsafe { libc::sem_getvalue(self.0, &raw mut value) }, 0);
        value
    }
}

impl Drop for Semaphore {
    fn drop(&mut self) {
        unsafe { libc::sem_close(self.0) };
    }
}

#[test]
fn child() {
    child::play(&[("holds the semaphore", holds)]);
}

fn holds(channel: &str) {
    Semaphore::open_by_name(channel).wait();
    say("has it");
    listen();
}

/// What an episode with the semaphore did to the exchange of frames.
struct Episode {
    longest_publish: Duration,
    timeouts: u64,
    reported: Vec<SemaphoreFault>,
}

/// Publishes 200 frames a second for two seconds while `harm` is done; a reader takes them all. In the end the
/// semaphore is as it should be.
#[track_caller]
fn stream_while(case: &str, harm: impl FnOnce(&Channel, &Writer)) -> Episode {
    const FRAMES: u64 = 400;
    const EACH: Duration = Duration::from_millis(5);
    let channel = Channel::new();
    // So many that a reader on a busy machine misses none.
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 0));
    let service = Service::of(&writer);
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    common::check(&next(&mut reader, &mut copy), &copy, 0);
    let mut longest_publish = Duration::ZERO;
    let mut harm = Some(harm);
    let began = Instant::now();
    for value in 1..=FRAMES {
        if value == 20
            && let Some(harm) = harm.take()
        {
            harm(&channel, &writer);
        }
        let due = EACH * value as u32;
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        let before = Instant::now();
        assert!(publish(&writer, value), "no slot for {value}");
        longest_publish = longest_publish.max(before.elapsed());
        let frame = next(&mut reader, &mut copy);
        common::check(&frame, &copy, value);
        assert_eq!(frame.missed, 0);
    }
    let took = began.elapsed();
    let timeouts = writer.stats().semaphore_timeouts;
    let reported = service.seen().semaphore_faults;
    println!(
        "{case}: {FRAMES} frames in {took:.3?}, longest publish {longest_publish:.3?}, {timeouts} time-outs, told {reported:?}"
    );
    assert!(
        took < EACH * FRAMES as u32 + Duration::from_millis(500),
        "not at full rate"
    );
    wait_until("it is put right", Duration::from_secs(2), || {
        Semaphore::open(&channel).value() == 1
    });
    // Two milliseconds, and what a busy machine adds.
    assert!(longest_publish < Duration::from_millis(60), "{longest_publish:?}");
    Episode {
        longest_publish,
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
fn its_holder_is_killed_and_frames_go_on() {
    let episode = stream_while("holder killed", |channel, _| {
        let mut holder = Child::start("holds the semaphore", channel.as_str());
        holder.expect("has it");
        holder.kill();
    });
    assert_one_wait(&episode);
}

#[test]
fn its_holder_is_stopped_and_frames_go_on() {
    let mut kept = None;
    let episode = stream_while("holder stopped", |channel, _| {
        let holder = Child::start("holds the semaphore", channel.as_str());
        holder.expect("has it");
        holder.signal(Signal::SIGSTOP);
        kept = Some(holder);
    });
    assert_one_wait(&episode);
}

#[test]
fn it_is_taken_and_never_given_back_and_frames_go_on() {
    let episode = stream_while("taken", |channel, _| Semaphore::open(channel).wait());
    assert_one_wait(&episode);
}

#[test]
fn it_is_posted_ten_times_and_frames_go_on() {
    let episode = stream_while("posted ten times", |channel, _| {
        let semaphore = Semaphore::open(channel);
        (0..10).for_each(|_| semaphore.post());
    });
    assert_eq!(episode.timeouts, 0);
    assert_eq!(episode.reported, [SemaphoreFault::Posted]);
}

#[test]
fn its_bytes_are_damaged_and_frames_go_on() {
    // The value, the sleepers, the kind of futex, which ends whoever uses the library's functions, and all.
    let cases: [(&str, u64, &[u8]); 5] = [
        ("value", 0, &[0xff; 4]),
        ("value 0 and sleepers", 0, &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]),
        ("kind", 8, &[1, 0xbe, 0xad, 0xde]),
        ("all", 0, &[0xff; 32]),
        ("all, taken", 0, &[0, 0, 0, 0, 1, 0, 0, 0, 1, 2, 3, 4]),
    ];
    all_at_once(&cases, |(case, at, bytes)| {
        let episode = stream_while(case, |channel, _| {
            let file = OpenOptions::new().write(true).open(channel.semaphore()).unwrap();
            file.write_all_at(bytes, *at).unwrap();
        });
        assert!(episode.timeouts <= 1);
        assert!(
            !episode.reported.is_empty() && episode.reported.len() <= 2,
            "{:?}",
            episode.reported
        );
    });
}

#[test]
fn its_name_is_removed_and_frames_go_on() {
    let episode = stream_while("name removed", |channel, _| {
        std::fs::remove_file(channel.semaphore()).unwrap();
    });
    assert_eq!(episode.timeouts, 0);
}

/// Another program makes it anew, as one does that thinks the semaphore is its own.
#[test]
fn it_is_made_anew_by_another_program_and_frames_go_on() {
    all_at_once(&[0 as libc::c_uint, 1, 7], |value| {
        let episode = stream_while(&format!("made anew with {value}"), |channel, _| {
            let name = CString::new(format!("/{}", channel.as_str())).unwrap();
            assert_eq!(unsafe { libc::sem_unlink(name.as_ptr()) }, 0);
            let flags = libc::O_CREAT | libc::O_EXCL;
            let semaphore = unsafe { libc::sem_open(name.as_ptr(), flags, 0o600 as libc::c_uint, *value) };
            assert!(!std::ptr::eq(semaphore, libc::SEM_FAILED));
            unsafe { libc::sem_close(semaphore) };
        });
        assert!(episode.timeouts <= 1);
        assert!(
            episode.reported.contains(&SemaphoreFault::Replaced),
            "{:?}",
            episode.reported
        );
    });
}

/// Each case has a channel of its own, and mostly sleeps.
fn all_at_once<T: Sync>(cases: &[T], body: impl Fn(&T) + Sync) {
    std::thread::scope(|scope| {
        for case in cases {
            scope.spawn(|| body(case));
        }
    });
}

/// What is done again and again is counted each time, and told once.
#[test]
fn each_kind_of_trouble_is_told_once() {
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

/// Somebody takes it and never gives it back: one wait of 2 ms an episode, and after a second all is well.
#[test]
fn one_that_is_held_for_ever_costs_one_delay_and_heals() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let semaphore = Semaphore::open(&channel);
    assert_eq!((semaphore.value(), writer.stats().semaphore_timeouts), (1, 0));
    for episode in 1..=2 {
        semaphore.wait();
        let began = Instant::now();
        while began.elapsed() < Duration::from_millis(800) {
            assert!(publish(&writer, 2));
            assert_eq!(writer.stats().semaphore_timeouts, episode);
            // Unless this thread was kept waiting until it was healed.
            assert!(semaphore.value() == 0 || began.elapsed() > Duration::from_millis(950));
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(250));
        assert!(publish(&writer, 3));
        assert_eq!(semaphore.value(), 1);
        // The holder comes back after all: two could be inside at once, until the next publish.
        semaphore.post();
        assert!(publish(&writer, 4));
        assert_eq!((semaphore.value(), writer.stats().semaphore_timeouts), (1, episode));
    }
}

/// It heals too when nothing is published any more.
#[test]
fn one_that_is_held_for_ever_heals_in_a_pause() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let semaphore = Semaphore::open(&channel);
    semaphore.wait();
    assert!(publish(&writer, 2));
    wait_until("healed", Duration::from_secs(3), || semaphore.value() == 1);
    assert_eq!(writer.stats().semaphore_timeouts, 1);
}

#[test]
fn one_that_is_posted_too_often_has_the_value_1_after_a_publish() {
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
fn one_that_is_unlinked_comes_back() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let name = CString::new(format!("/{}", channel.as_str())).unwrap();
    assert_eq!(unsafe { libc::sem_unlink(name.as_ptr()) }, 0);
    let _service = Service::of(&writer);
    assert!(publish(&writer, 2));
    wait_until("restored", Duration::from_secs(2), || channel.semaphore().exists());
    assert!(publish(&writer, 3));
    let semaphore = Semaphore::open(&channel);
    wait_until("in use", Duration::from_secs(1), || semaphore.value() == 1);
}

/// Whoever holds it sees the channel at rest, though the writer runs as fast as it can.
#[test]
fn under_it_the_channel_is_at_rest() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let (semaphore, peer) = (Semaphore::open(&channel), Peer::open(&channel));
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
        let stopping = common::StopAtEnd(&stop);
        let head = || peer.status().head.load(Ordering::SeqCst);
        let (mut looks, mut gone_around) = (0, 0);
        let began = Instant::now();
        while looks < 200 && began.elapsed() < Duration::from_secs(10) {
            // The writer has seen it free since the last look: an episode in which it waits no more is over.
            let before = head();
            while head() < before + 3 {
                std::thread::yield_now();
            }
            if !semaphore.try_wait() {
                continue;
            }
            let timeouts = writer.stats().semaphore_timeouts;
            let newest = head();
            std::thread::yield_now();
            let at_rest = peer.numbers().last() == Some(&newest) && head() == newest;
            // A holder that is put off its processor for more than 2 ms is gone around, and that is counted.
            let counted = writer.stats().semaphore_timeouts != timeouts;
            semaphore.post();
            assert!(at_rest || counted, "the writer does not wait for the holder");
            gone_around += u32::from(!at_rest);
            looks += 1;
        }
        drop(stopping);
        assert!(looks > gone_around, "{looks} looks, {gone_around} of them gone around");
    });
}

/// Counts can be asked for at any time, by any thread, also while the semaphore is not to be had.
#[test]
fn asking_for_counts_never_stops_the_writer() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let semaphore = Semaphore::open(&channel);
    let (done, sender) = {
        let (sender, done) = std::sync::mpsc::channel();
        (done, sender)
    };
    let stop = std::sync::Arc::new(AtomicBool::new(false));
    for _ in 0..2 {
        let (writer, stop) = (std::sync::Arc::clone(&writer), std::sync::Arc::clone(&stop));
        std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                writer.stats();
            }
        });
    }
    std::thread::spawn({
        let writer = std::sync::Arc::clone(&writer);
        move || {
            for value in 0..3000 {
                assert!(publish(&writer, value));
            }
            let _ = sender.send(());
        }
    });
    let began = Instant::now();
    let ended = loop {
        if semaphore.try_wait() {
            std::thread::sleep(Duration::from_micros(100));
            semaphore.post();
        }
        if done.try_recv().is_ok() {
            break true;
        }
        if began.elapsed() > Duration::from_secs(20) {
            break false;
        }
    };
    stop.store(true, Ordering::Relaxed);
    if !ended {
        // Threads that wait for each other can not be joined.
        eprintln!("the writer has stopped for ever");
        std::process::exit(1);
    }
}
