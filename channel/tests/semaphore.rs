//! The semaphore is a courtesy: nothing that is done to it stops the channel, and it is put right again.
#![allow(clippy::undocumented_unsafe_blocks)] // plain calls of the C library, in a test

mod common;

use std::{
    ffi::CString,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use common::{Channel, Service, peer::Peer, publish, slots, wait_until};
use nix::libc;

/// The named semaphore, as any program opens it.
struct Semaphore(*mut libc::sem_t);

unsafe impl Send for Semaphore {}
unsafe impl Sync for Semaphore {}

impl Semaphore {
    fn open(channel: &Channel) -> Self {
        let name = CString::new(format!("/{}", channel.as_str())).unwrap();
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
        let head = || peer.live().head.load(Ordering::SeqCst);
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
