//! Waits end promptly when another thread says so, wherever the waiting thread is.

mod common;

use std::time::{Duration, Instant};

use common::{Channel, peer::Peer, publish, slots};
use rsshm_channel::{Next, ReadLimits, Reader, layout::state};

/// Interrupts a waiting reader many times, at all kinds of moments.
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
            // From "not asleep yet" to "long asleep".
            std::thread::sleep(Duration::from_micros(round * round));
            let called = Instant::now();
            interrupter.interrupt();
            let (interrupted, what, ended) = waiting.join().unwrap();
            assert!(interrupted, "{what}");
            let took = ended.saturating_duration_since(called);
            if took > Duration::from_millis(50) {
                slow.push(took);
            }
        });
        // It stays so, until it is taken back.
        let still = reader.next(&mut copy, ReadLimits::default(), None).unwrap();
        assert!(matches!(still, Next::Interrupted), "{still:?}");
        interrupter.resume();
    }
    // On a busy machine a few are: not the wait's fault, which would be over by itself after 250 ms only.
    assert!(slow.len() < 10, "{slow:?}");
}

#[test]
fn while_there_is_no_channel() {
    let channel = Channel::new();
    interrupt_again_and_again(&mut channel.reader());
}

#[test]
fn while_there_is_no_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    drop(writer.claim(common::SIZE).unwrap());
    interrupt_again_and_again(&mut channel.reader());
    interrupt_again_and_again(&mut channel.observer());
}

#[test]
fn while_there_is_no_newer_frame() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    for mut reader in [channel.reader(), channel.observer()] {
        common::next(&mut reader, &mut Vec::new());
        interrupt_again_and_again(&mut reader);
        assert!(publish(&writer, 2));
        common::next(&mut reader, &mut Vec::new());
    }
}

#[test]
fn between_two_segments() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let mut reader = channel.reader();
    common::next(&mut reader, &mut Vec::new());
    // Superseded, and nothing follows.
    let peer = Peer::open(&channel);
    peer.status()
        .state
        .store(state::SUPERSEDED, std::sync::atomic::Ordering::SeqCst);
    let began = Instant::now();
    let interrupter = reader.handle();
    while began.elapsed() < Duration::from_millis(700) {
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| reader.next(&mut Vec::new(), ReadLimits::default(), None).unwrap());
            std::thread::sleep(Duration::from_millis(5));
            let called = Instant::now();
            interrupter.interrupt();
            assert!(matches!(waiting.join().unwrap(), Next::Interrupted));
            assert!(called.elapsed() < Duration::from_millis(900));
        });
        interrupter.resume();
    }
    let lost = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::from_secs(3)));
    assert!(matches!(lost, Ok(Next::Lost)), "{lost:?}");
}

/// Somebody counts the word up and publishes nothing: the reader neither spins nor misses what comes.
#[test]
fn a_word_that_lies_does_not_make_a_reader_spin() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    assert!(publish(&writer, 1));
    let mut reader = channel.reader();
    let mut copy = Vec::new();
    common::next(&mut reader, &mut copy);
    let peer = Peer::open(&channel);
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (stop, peer) = (&stop, peer);
        scope.spawn(move || {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                peer.status()
                    .published
                    .fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                std::thread::yield_now();
            }
        });
        let stopping = common::StopAtEnd(stop);
        let cpu_time = || {
            let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap();
            Duration::from(now)
        };
        let before = cpu_time();
        let nothing = reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(500)));
        let used = cpu_time() - before;
        assert!(publish(&writer, 2));
        let frame = reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_secs(5)));
        drop(stopping);
        assert!(matches!(nothing, Ok(Next::TimedOut)), "{nothing:?}");
        assert!(matches!(frame, Ok(Next::Frame(_))), "{frame:?}");
        assert!(used < Duration::from_millis(75), "{used:?} of CPU in half a second");
    });
}

/// The writer's monitor: woken for good, and by a reader that comes.
#[test]
fn the_monitor_is_woken() {
    let channel = Channel::new();
    let writer = channel.writer(slots(4));
    let hour = Duration::from_secs(3600);
    for with_segment in [false, true] {
        if with_segment {
            assert!(publish(&writer, 1));
            std::thread::scope(|scope| {
                let waiting = scope.spawn(|| {
                    writer.wait_for_service(hour);
                    writer.service().unwrap()
                });
                std::thread::sleep(Duration::from_millis(20));
                common::next(&mut channel.reader(), &mut Vec::new());
                waiting.join().unwrap();
            });
            // Who came while nobody waited is not slept over.
            writer.service().unwrap();
            let mut reader = channel.reader();
            common::next(&mut reader, &mut Vec::new());
            writer.wait_for_service(hour);
            assert_eq!(writer.service().unwrap().reader_count, 1);
            // A new segment is not either.
            let mut copy = Vec::new();
            writer.set_caps(rsshm_channel::Caps::fixed_size("new", 9));
            assert!(common::publish_sized(&writer, 2, 9));
            common::next(&mut reader, &mut copy);
            writer.wait_for_service(hour);
        }
    }
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            writer.service().unwrap();
            writer.wait_for_service(hour);
        });
        std::thread::sleep(Duration::from_millis(20));
        writer.stop_service();
        waiting.join().unwrap();
    });
    writer.wait_for_service(hour);
}
