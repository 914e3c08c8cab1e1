// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests with hostile peers. A peer with write permission writes garbage all over the segment, or wakes other peers
//! without end. A peer that has only read permission tries calls that could harm other peers. No honest peer crashes,
//! hangs, or is kept busy.
//!
//! `RSSHM_TEST_SECONDS` sets the duration of each attack.

pub mod honest;
pub mod read_only;

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use honest::{Honest, RATE, all_have};
use rsshm_channel::{
    Next, ReadLimits,
    layout::{EVICTED, Header, MAX_READERS, ReaderEntry, Status, reader_state},
};
use rsshm_testkit::{
    Channel, Random,
    emulation::processor_on_this_machine,
    eventually,
    role::{self, Role, say},
};

use crate::support::{
    CAPS, ChannelExt, SECOND, Service, StopOnDrop, check, cpu_time, futex, lossless, next, publish, raw::RawPeer,
    slots, test_duration,
};

pub const ROLES: &[(&str, Role)] = &[("hostile/waiting lossless writer", |_| waiting_lossless_writer())];

/// The offset and the size of each part of a segment's tables.
fn parts(header: &Header) -> [(u64, u64); 9] {
    let readers = MAX_READERS as u64;
    [
        (0, size_of::<Header>() as u64),
        (header.status_offset, size_of::<Status>() as u64),
        (header.caps_offset, header.caps_size & !7),
        (header.evictions_offset, readers * 8),
        (header.readers_offset, readers * size_of::<ReaderEntry>() as u64),
        (header.ring_offset, u64::from(header.ring_count) * 8),
        (
            header.events_offset,
            u64::from(header.event_count * header.event_stride),
        ),
        (
            header.messages_offset,
            readers * u64::from(header.message_count * header.message_stride),
        ),
        (
            header.descriptors_offset,
            u64::from(header.slot_count) * u64::from(header.descriptor_stride),
        ),
    ]
}

/// Garbage for a word whose current value is `now`. It is a special value, a value near `now`, a plausible value or a
/// random value.
fn garbage(random: &mut Random, now: u64, slots_offset: u64) -> u64 {
    match random.below(8) {
        0 => 0,
        1 => u64::MAX,
        2 => random.below(256),
        3 => now.wrapping_add(random.below(9)).wrapping_sub(4),
        4 => now ^ 1 << random.below(64),
        5 => random.below(4) << 32 | random.below(4),
        6 => random.below(u64::from(slots_offset as u32)) / 64 * 64,
        _ => random.number(),
    }
}

/// Writes garbage into all tables of the segment and into the semaphore until `time` is over. Returns the number of
/// words that it wrote to the tables.
///
/// If `sparing` is set, the attacker does not overwrite words whose damage makes all peers look for another segment.
/// The other words are then hit more often.
fn write_garbage(channel: &Channel, time: Duration, sparing: bool, seed: u64) -> u64 {
    let mut random = Random::new(seed);
    // The attacker attaches as a reader, so that its pins count until the writer evicts it.
    let own = RawPeer::open(channel);
    own.attach();
    let until = Instant::now() + time;
    let mut writes = 0;
    while Instant::now() < until {
        // Another segment may have the name by now. If the new segment's header is damaged, the offsets of its tables
        // are unknown.
        let Some(peer) = RawPeer::try_open(channel) else {
            std::thread::sleep(Duration::from_millis(1));
            continue;
        };
        if !sparing
            && random.below(4) == 0
            && let Ok(file) = OpenOptions::new().write(true).open(channel.lock_file())
        {
            let _ = file.write_all_at(&random.number().to_ne_bytes(), random.below(4) * 8);
        }
        let parts = parts(&peer.header);
        // The 8 bytes at `published` also contain the state of the segment.
        let state_at = peer.header.status_offset + std::mem::offset_of!(Status, published) as u64;
        for _ in 0..2000 {
            let part = random.below(parts.len() as u64) as usize;
            if sparing && (part == 0 || part == 2) {
                continue;
            }
            let (at, size) = parts[part];
            let at = at + random.below(size / 8) * 8;
            if sparing && at == state_at {
                continue;
            }
            let word: &AtomicU64 = peer.at(at);
            let now = word.load(Ordering::Relaxed);
            word.store(garbage(&mut random, now, peer.header.slots_offset), Ordering::Relaxed);
            writes += 1;
            if random.below(64) == 0 {
                futex::wake(&peer.status().published);
                futex::wake(&peer.status().writer_word);
            }
            if random.below(50) == 0 {
                std::thread::sleep(Duration::from_micros(random.below(200)));
            }
        }
    }
    writes
}

#[test]
fn garbage_in_whole_segment_ends_no_peer() {
    let mut honest = Honest::new();
    for (round, sparing) in [false, true].into_iter().enumerate() {
        let what = if sparing {
            "garbage except in the header"
        } else {
            "garbage everywhere"
        };
        honest.during(what, |channel| {
            let writes = write_garbage(
                channel,
                test_duration(2.0),
                sparing,
                0x9e37_79b9_7f4a_7c15 + round as u64,
            );
            println!("{writes} words written");
        });
        // The service checks the header once a second, so it has repaired the segment after this sleep.
        std::thread::sleep(Duration::from_millis(2500));
        honest.assert_well("after it");
    }
    honest.assert_restart_is_clean();
}

/// Another peer overwrites the segment's state, header or caps. The writer creates a new segment and continues there.
#[test]
fn writer_replaces_corrupted_segment() {
    type Corrupt = fn(&RawPeer);
    let cases: [(&str, Corrupt); 4] = [
        ("superseded", |peer| peer.status().state.store(1, Ordering::SeqCst)),
        ("closed", |peer| peer.status().state.store(2, Ordering::SeqCst)),
        ("lock inode", |peer| peer.at::<AtomicU64>(40).store(1, Ordering::SeqCst)),
        ("caps", |peer| {
            peer.at::<AtomicU64>(peer.header.caps_offset).store(0, Ordering::SeqCst)
        }),
    ];
    for (what, corrupt) in cases {
        let channel = Channel::new();
        let writer = channel.writer(slots(8));
        assert!(publish(&writer, 1));
        let service = Service::of(&writer);
        corrupt(&RawPeer::open(&channel));
        eventually(what, || service.seen().repaired);
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        assert!(publish(&writer, 2));
        check(&next(&mut reader, &mut copy), &copy, 2);
        assert_eq!(reader.caps(), CAPS);
        assert_eq!(writer.stats().segments, 2);
    }
}

/// Increments a futex word of the channel and wakes the word's sleepers, as fast as it can, until `time` is over.
fn wake_for(channel: &Channel, time: Duration, word: impl Fn(&RawPeer) -> &AtomicU32) {
    let peer = RawPeer::open(channel);
    let until = Instant::now() + time;
    while Instant::now() < until {
        for _ in 0..1000 {
            word(&peer).fetch_add(1, Ordering::Relaxed);
            futex::wake(word(&peer));
        }
    }
}

#[test]
fn endless_wakeups_keep_no_peer_busy() {
    let mut honest = Honest::new();
    for (what, published) in [("wakeups of writer_word", false), ("wakeups of published", true)] {
        // Other programs can slow down the peers too, so the attack is repeated.
        eventually(what, || {
            let found = honest.during(what, |channel| {
                wake_for(channel, test_duration(1.5), |peer| match published {
                    true => &peer.status().published,
                    false => &peer.status().writer_word,
                });
            });
            all_have(&found, RATE)
        });
    }
    honest.assert_restart_is_clean();
}

/// Endless wakeups do not keep a lossless writer busy while it waits for a reader. The test runs in a role, because it
/// measures the processor time of its process.
#[test]
fn endless_wakeups_keep_no_lossless_writer_busy() {
    print!("{}", role::start("hostile/waiting lossless writer", &[]).wait_ok());
}

fn waiting_lossless_writer() {
    let channel = Channel::new();
    let writer = channel.writer(lossless(4));
    assert!(publish(&writer, 1));
    let _service = Service::of(&writer);
    let peer = RawPeer::open(&channel);
    // This reader never takes a frame.
    peer.attach();
    let waits = std::thread::spawn({
        let writer = Arc::clone(&writer);
        move || while publish(&writer, 2) {}
    });
    eventually("it waits", || peer.status().writer_waits.load(Ordering::SeqCst) != 0);
    let before = cpu_time();
    let began = Instant::now();
    // The attacker sleeps 20 microseconds after each wakeup. Most of the processor time that the test measures is
    // therefore used by the writer.
    let mut wakeups = 0;
    while began.elapsed() < SECOND {
        peer.status().writer_word.fetch_add(1, Ordering::Relaxed);
        futex::wake(&peer.status().writer_word);
        wakeups += 1;
        std::thread::sleep(Duration::from_micros(20));
    }
    let cpu = cpu_time() - before;
    say(format!(
        "{wakeups} wakeups, {cpu:?} of processor time for attacker and writer"
    ));
    writer.interrupt();
    waits.join().unwrap();
    let limit = SECOND.mul_f64(processor_on_this_machine(0.6));
    assert!(cpu < limit, "{cpu:?} in a second");
}

/// Another peer keeps writing "evicted" into the reader's eviction word.
#[test]
fn repeatedly_evicted_reader_backs_off() {
    let channel = Channel::new();
    let writer = channel.writer(slots(12));
    assert!(publish(&writer, 1));
    let peer = RawPeer::open(&channel);
    let (mut reader, mut copy) = (channel.reader(), Vec::new());
    let began = Instant::now();
    let mut evictions = 0;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (peer, stop) = (&peer, &stop);
        let stopping = StopOnDrop(stop);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                for entry in 0..4 {
                    let generation = u64::from(peer.entry(entry).generation.load(Ordering::Relaxed));
                    let eviction: &AtomicU64 = peer.at(peer.header.evictions_offset + entry as u64 * 8);
                    eviction.store(EVICTED | generation, Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_micros(50));
            }
        });
        while began.elapsed() < Duration::from_millis(1500) {
            let next = reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(20)));
            evictions += u32::from(matches!(next, Ok(Next::Evicted)));
        }
        drop(stopping);
    });
    println!("evicted {evictions} times in {:?}", began.elapsed());
    assert!((1..=4).contains(&evictions), "{evictions}");
    // When the attack is over, the reader attaches again.
    eventually("a frame", || {
        assert!(publish(&writer, 3));
        matches!(
            reader.next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(20))),
            Ok(Next::Frame(_))
        )
    });
}

/// An attacker fills in all reader entries, as if attached readers pinned all slots, but no process has locked these
/// entries.
#[test]
fn faked_reader_entries_count_for_nothing() {
    let channel = Channel::new();
    let writer = channel.writer(slots(6));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let peer = RawPeer::open(&channel);
    for entry in 0..MAX_READERS {
        peer.entry(entry).generation.store(5, Ordering::SeqCst);
        peer.entry(entry).state.store(reader_state::ATTACHED, Ordering::SeqCst);
        peer.entry(entry).pins.store(u64::MAX, Ordering::SeqCst);
    }
    for value in 2..200 {
        assert!(publish(&writer, value), "no slot for {value}");
    }
    assert_eq!(service.seen().reader_count, 0);
}
