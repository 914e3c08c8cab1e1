// SPDX-License-Identifier: MIT OR Apache-2.0

//! A call from another thread ends a wait promptly, whatever step of the wait the waiting thread has reached.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use nix::time::{ClockId, clock_gettime};
use rsshm_channel::{Caps, Next, ReadLimits, Reader, Writer, layout::state};
use rsshm_testkit::{Channel, eventually};

use crate::support::{ChannelExt, SECOND, SIZE, StopOnDrop, next, publish, publish_sized, raw::RawPeer, slots};

/// Interrupts a waiting reader 60 times, each time after a longer delay.
fn interrupt_again_and_again(reader: &mut Reader) {
    let interrupter = reader.handle();
    let mut copy = Vec::new();
    let mut slow = Vec::new();
    for round in 0..60u64 {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let next = reader.next(&mut copy, ReadLimits::default(), None).unwrap();
                (matches!(next, Next::Interrupted), format!("{next:?}"), Instant::now())
            });
            // In the first rounds, the interrupt comes before the reader sleeps. In the last rounds, the reader is
            // already asleep.
            std::thread::sleep(Duration::from_micros(round * round));
            let called = Instant::now();
            interrupter.interrupt();
            let (interrupted, what, ended) = waiting.join().unwrap();
            assert!(interrupted, "{what}");
            let took = ended.saturating_duration_since(called);
            if took > Duration::from_millis(200) {
                slow.push(took);
            }
        });
        // The interrupt stays in effect until `resume`.
        let still = reader.next(&mut copy, ReadLimits::default(), None).unwrap();
        assert!(matches!(still, Next::Interrupted), "{still:?}");
        interrupter.resume();
    }
    // A few waits may be slow, because the machine may be busy. Without a wakeup, each wait would last 250 ms.
    assert!(slow.len() < 10, "{slow:?}");
}

#[test]
fn interrupt_ends_wait_for_channel() {
    let channel = Channel::new();
    interrupt_again_and_again(&mut channel.reader());
}

#[test]
fn interrupt_ends_wait_for_first_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    drop(writer.claim(SIZE).unwrap());
    interrupt_again_and_again(&mut channel.reader());
    interrupt_again_and_again(&mut channel.observer());
}

#[test]
fn interrupt_ends_wait_for_newer_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    for mut reader in [channel.reader(), channel.observer()] {
        next(&mut reader, &mut Vec::new());
        interrupt_again_and_again(&mut reader);
        assert!(publish(&writer, 2));
        next(&mut reader, &mut Vec::new());
    }
}

/// No time is so long that it can be added to every time of the clock.
#[test]
fn longest_timeout_is_no_timeout() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    for mut reader in [channel.reader(), channel.observer()] {
        let next = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::MAX));
        assert!(matches!(next, Ok(Next::Frame(_))), "{next:?}");
    }
}

#[test]
fn interrupt_ends_wait_between_two_segments() {
    // After a second, the reader reports the channel as lost. If other programs delay the test for longer, it repeats this.
    eventually("each wait is interrupted", || {
        let channel = Channel::new();
        let writer = channel.writer(slots(4));
        assert!(publish(&writer, 1));
        let mut reader = channel.reader();
        next(&mut reader, &mut Vec::new());
        // The test marks the segment as superseded, and no other segment follows.
        let peer = RawPeer::open(&channel);
        peer.status().state.store(state::SUPERSEDED, Ordering::SeqCst);
        let began = Instant::now();
        let interrupter = reader.handle();
        while began.elapsed() < Duration::from_millis(700) {
            let ended = std::thread::scope(|scope| {
                let waiting = scope.spawn(|| reader.next(&mut Vec::new(), ReadLimits::default(), None).unwrap());
                std::thread::sleep(Duration::from_millis(5));
                interrupter.interrupt();
                waiting.join().unwrap()
            });
            interrupter.resume();
            if matches!(ended, Next::Lost) && began.elapsed() >= SECOND {
                return false;
            }
            assert!(matches!(ended, Next::Interrupted), "{ended:?}");
        }
        let lost = reader.next(&mut Vec::new(), ReadLimits::default(), Some(3 * SECOND));
        assert!(matches!(lost, Ok(Next::Lost)), "{lost:?}");
        true
    });
}

/// Another peer increments the futex word and publishes nothing. The reader uses little processor time meanwhile, and
/// gets the next frame.
#[test]
fn spurious_wakeups_do_not_make_reader_spin() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    next(&mut reader, &mut copy);
    let peer = RawPeer::open(&channel);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, peer) = (&stop, peer);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                peer.status().published.fetch_add(1, Ordering::SeqCst);
                std::thread::yield_now();
            }
        });
        let stopping = StopOnDrop(stop);
        let cpu_time = || {
            let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
            Duration::from(now)
        };
        let before = cpu_time();
        let nothing = reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(500)));
        let used = cpu_time() - before;
        assert!(publish(&writer, 2));
        let frame = reader.next(&mut copy, ReadLimits::default(), Some(5 * SECOND));
        drop(stopping);
        assert!(matches!(nothing, Ok(Next::TimedOut)), "{nothing:?}");
        assert!(matches!(frame, Ok(Next::Frame(_))), "{frame:?}");
        assert!(
            used < Duration::from_millis(75),
            "{used:?} of processor time in half a second"
        );
    });
}

/// Calls `wait_for_service` in another thread. `wake` must end this wait, which would otherwise last for ever.
#[track_caller]
fn assert_wakes(writer: &Arc<Writer>, wake: impl FnOnce()) {
    let waiting = wait_for_service(writer);
    // Give the thread time to fall asleep.
    std::thread::sleep(Duration::from_millis(20));
    assert!(waiting.try_recv().is_err(), "the service does not wait");
    wake();
    waiting.recv_timeout(10 * SECOND).expect("the service is not woken");
}

/// Calls `wait_for_service` in another thread, which sends a value when the wait is over.
fn wait_for_service(writer: &Arc<Writer>) -> mpsc::Receiver<()> {
    let (sender, ended) = mpsc::channel();
    let writer = Arc::clone(writer);
    std::thread::spawn(move || {
        writer.wait_for_service(Duration::MAX);
        let _ = sender.send(());
    });
    ended
}

/// Checks that `wait_for_service` returns without a wakeup from the test.
#[track_caller]
fn assert_does_not_wait(writer: &Arc<Writer>) {
    let ended = wait_for_service(writer).recv_timeout(10 * SECOND);
    ended.expect("the service waits");
}

/// A reader that attaches ends the service's wait. `stop_service` ends the current wait, and all later waits end at
/// once.
#[test]
fn service_wait_is_woken_by_readers_and_stop() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    writer.service().unwrap();
    assert_wakes(&writer, || drop(next(&mut channel.reader(), &mut Vec::new())));
    // If a reader attaches while the service does not wait, the next wait ends at once.
    writer.service().unwrap();
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    next(&mut reader, &mut copy);
    assert_does_not_wait(&writer);
    assert_eq!(writer.service().unwrap().reader_count, 1);
    // After the writer has created a new segment, the next wait also ends at once.
    writer.set_caps(Caps::fixed_size("new", 9)).unwrap();
    assert!(publish_sized(&writer, 2, 9));
    next(&mut reader, &mut copy);
    assert_does_not_wait(&writer);
    writer.service().unwrap();
    assert_wakes(&writer, || writer.stop_service());
    assert_does_not_wait(&writer);
}
