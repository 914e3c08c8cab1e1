//! Many readers, many starts, and a long time: nothing grows.
//!
//! Short by itself. With `RSSHM_TEST_SECONDS` the counts are large; `RSSHM_SOAK_SECONDS` is how long the stream of large
//! frames goes on.

mod common;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    Channel, Holdings, Service, check_bytes,
    child::{self, Child, say},
    is_in_place, next, publish, slots, times, wait_until,
};
use rsshm_channel::{
    Caps, ChannelName, FrameData, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions,
};

#[test]
fn child() {
    child::play(&[
        ("reads on and on", reads_on),
        ("writes until killed", writes_until_killed),
    ]);
}

/// 64 readers with a seat each, and one that observes, all get the stream to its end.
/// What a process holds is counted: no other test may hold anything in it meanwhile.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn sixty_four_readers_and_one_more_get_the_stream() {
    let _alone = alone();
    const FRAMES: u64 = 60;
    let channel = Channel::new();
    let writer = channel.writer(slots(64));
    assert!(publish(&writer, 0));
    let service = Service::of(&writer);
    let stop = AtomicBool::new(false);
    let (observers, complete, missed) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let there = AtomicU32::new(0);
    let longest = std::thread::scope(|scope| {
        let stopping = common::StopAtEnd(&stop);
        for seq in 0..65 {
            let (channel, stop, there) = (&channel, &stop, &there);
            let (observers, complete, missed) = (&observers, &complete, &missed);
            scope.spawn(move || {
                // The 65th comes when all seats are taken.
                wait_until("its turn", Duration::from_secs(10), || {
                    seq < 64 || there.load(Ordering::SeqCst) == 64
                });
                let (mut reader, mut copy) = (channel.reader(), Vec::new());
                let mut last = next(&mut reader, &mut copy).descriptor.offset;
                observers.fetch_add(u32::from(reader.is_observer()), Ordering::SeqCst);
                there.fetch_add(1, Ordering::SeqCst);
                while last < FRAMES && !stop.load(Ordering::Relaxed) {
                    let patience = Some(Duration::from_millis(100));
                    if let Ok(Next::Frame(frame)) = reader.next(&mut copy, ReadLimits::default(), patience) {
                        check_bytes(&frame, &copy);
                        assert!(frame.descriptor.offset > last);
                        last = frame.descriptor.offset;
                        missed.fetch_add(frame.missed as u32, Ordering::SeqCst);
                    }
                }
                complete.fetch_add(u32::from(last == FRAMES), Ordering::SeqCst);
            });
        }
        wait_until("all are there", Duration::from_secs(10), || {
            there.load(Ordering::SeqCst) == 65
        });
        let mut longest = Duration::ZERO;
        for value in 1..=FRAMES {
            let began = Instant::now();
            assert!(publish(&writer, value));
            longest = longest.max(began.elapsed());
            std::thread::sleep(Duration::from_millis(25));
        }
        wait_until("all are through", Duration::from_secs(5), || {
            complete.load(Ordering::SeqCst) == 65
        });
        drop(stopping);
        longest
    });
    println!("65 readers, {FRAMES} frames each, {missed:?} missed by all together, longest publish {longest:.2?}");
    assert_eq!(observers.load(Ordering::SeqCst), 1);
    assert_eq!(service.seen().connected.len(), 64);
}

#[test]
fn readers_come_and_go_and_nothing_grows() {
    let _alone = alone();
    let cycles = times(500, 10_000);
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    let service = Service::of(&writer);
    let mut copy = Vec::new();
    let cycle = |copy: &mut Vec<u8>| {
        let mut reader = channel.reader();
        let frame = next(&mut reader, copy);
        common::check(&frame, copy, 1);
    };
    (0..50).for_each(|_| cycle(&mut copy));
    let before = Holdings::now();
    let began = Instant::now();
    (0..cycles).for_each(|_| cycle(&mut copy));
    let took = began.elapsed();
    wait_until("all are gone", Duration::from_secs(3), || {
        service.seen().reader_count == 0
    });
    let after = Holdings::now();
    println!("{cycles} times attached and detached in {took:.1?}: {before:?}, {after:?}");
    after.assert_not_above(&before);
    assert_eq!(writer.stats().evicted, 0);
    assert!(publish(&writer, 2));
}

fn writes_until_killed(channel: &str) {
    let name = ChannelName::new(channel).unwrap();
    let writer = Arc::new(Writer::open(name, slots(8)).unwrap());
    writer.set_caps(Caps::fixed_size(common::CAPS, common::SIZE));
    let _service = Service::of(&writer);
    assert!(publish(&writer, 7));
    say("published");
    child::listen();
}

/// Writers stop and start, every tenth of them killed, and the same readers go on.
#[test]
fn writers_start_again_and_nothing_grows() {
    let _alone = alone();
    let restarts = times(40, 1000);
    let channel = Channel::new();
    let mut readers = [channel.reader(), channel.reader(), channel.observer()];
    let mut copy = Vec::new();
    let mut before = None;
    let began = Instant::now();
    for restart in 0..restarts {
        let (mut killed, mut stopped) = (None, None);
        if restart % 10 == 9 {
            let writer = Child::start("writes until killed", channel.as_str());
            writer.expect("published");
            killed = Some(writer);
        } else {
            let writer = channel.writer(slots(8));
            assert!(publish(&writer, 7));
            stopped = Some(writer);
        }
        for reader in &mut readers {
            let began = Instant::now();
            loop {
                match reader
                    .next(&mut copy, ReadLimits::default(), Some(Duration::from_secs(1)))
                    .unwrap()
                {
                    Next::Frame(frame) => {
                        common::check(&frame, &copy, 7);
                        break;
                    }
                    _ => assert!(
                        began.elapsed() < Duration::from_secs(5),
                        "no frame after restart {restart}"
                    ),
                }
            }
        }
        drop((killed, stopped));
        if restart == 20 {
            before = Some(Holdings::now());
        }
    }
    for reader in &mut readers {
        assert!(
            reader.stats().reconnects + 1 >= u64::from(restarts),
            "{:?}",
            reader.stats()
        );
        wait_until("they are told", Duration::from_secs(3), || {
            matches!(
                reader
                    .next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(10)))
                    .unwrap(),
                Next::Lost
            )
        });
    }
    let (before, after) = (before.unwrap(), Holdings::now());
    println!("{restarts} restarts in {:.1?}: {before:?}, {after:?}", began.elapsed());
    after.assert_not_above(&before);
}

const WIDE: usize = 3840 * 2160 * 3 / 2;

/// Takes frames of a 4K stream, and says what it has had.
fn reads_on(channel: &str) {
    let lines = child::lines();
    let mut reader = Reader::new(ChannelName::new(channel).unwrap(), ReaderOptions::default());
    let mut copy = Vec::new();
    let mut held = Vec::new();
    let (mut ages, mut in_place, mut warm) = (Vec::new(), 0u64, None);
    say("reads");
    loop {
        match reader
            .next(&mut copy, ReadLimits::default(), Some(Duration::from_millis(20)))
            .unwrap()
        {
            Next::Frame(frame) => {
                ages.push(rsshm_channel::monotonic_ns().saturating_sub(frame.descriptor.pts));
                if let FrameData::InPlace(pinned) = &frame.data {
                    let value = frame.descriptor.offset as u8;
                    assert!(
                        pinned.as_ref().iter().step_by(4096).all(|byte| *byte == value),
                        "a torn frame"
                    );
                    in_place += u64::from(is_in_place(&frame));
                }
                held.push(frame);
                if held.len() > 2 {
                    held.remove(0);
                }
                if ages.len() == 30 {
                    // Before it can grow.
                    ages.reserve(1 << 17);
                    warm = Some(Holdings::now());
                }
            }
            Next::TimedOut => {}
            other => panic!("{other:?}"),
        }
        if lines.try_recv().is_ok() {
            let now = Holdings::now();
            ages.sort_unstable();
            let at = |part: f64| Duration::from_nanos(ages[((ages.len() - 1) as f64 * part) as usize]);
            let stats = reader.stats();
            say(format!(
                "{} frames, {in_place} in place, {} missed, age {:.2?} median, {:.2?} of 99 %, {:.2?} at most, {:.1} % of a processor, {warm:?} then, {now:?} now",
                ages.len(),
                stats.missed,
                at(0.5),
                at(0.99),
                at(1.0),
                common::cpu_time().as_secs_f64() * 100.0 / (ages.len() as f64 / 60.0),
            ));
            if let Some(warm) = warm {
                // A word for each age.
                let warm = Holdings {
                    memory_kib: warm.memory_kib + ages.len() as u64 * 8 / 1024,
                    ..warm
                };
                now.assert_not_above(&warm);
            }
            say("done");
            return;
        }
    }
}

/// 4K at 60 frames a second, all drawn anew, with four readers that hold two frames each.
#[test]
fn a_stream_of_4k_with_four_readers_goes_on_and_nothing_grows() {
    let _alone = alone();
    let asked = std::env::var("RSSHM_SOAK_SECONDS")
        .ok()
        .and_then(|text| text.parse().ok());
    let time = Duration::from_secs_f64(asked.unwrap_or(3.0));
    let channel = Channel::new();
    let writer = Arc::new(Writer::open(channel.0.clone(), WriterOptions::default()).unwrap());
    writer.set_caps(Caps::fixed_size(
        "video/x-raw,format=NV12,width=3840,height=2160,framerate=60/1",
        WIDE,
    ));
    let draw = |value: u64| {
        let Some(mut slot) = writer.claim(WIDE).unwrap() else {
            return false;
        };
        slot.as_mut().fill(value as u8);
        let descriptor = FrameDescriptor {
            size: WIDE as u64,
            offset: value,
            pts: rsshm_channel::monotonic_ns(),
            ..FrameDescriptor::default()
        };
        writer.publish(&slot, descriptor, &[]).is_ok()
    };
    assert!(draw(0));
    let service = Service::of(&writer);
    let mut readers: Vec<Child> = (0..4)
        .map(|_| Child::start("reads on and on", channel.as_str()))
        .collect();
    readers.iter().for_each(|reader| reader.expect("reads"));
    wait_until("all are there", Duration::from_secs(5), || {
        service.seen().reader_count == 4
    });
    let began = Instant::now();
    let (mut value, mut dropped, mut warm) = (0u64, 0u64, None);
    while began.elapsed() < time {
        value += 1;
        let due = Duration::from_nanos(value * 1_000_000_000 / 60);
        std::thread::sleep(due.saturating_sub(began.elapsed()));
        dropped += u64::from(!draw(value));
        if value == 60 {
            warm = Some(Holdings::now());
        }
    }
    let stats = writer.stats();
    println!(
        "{value} frames in {:.1?}, {dropped} dropped, {stats:?}",
        began.elapsed()
    );
    for reader in &mut readers {
        reader.tell("report");
        println!("{}", reader.receive());
        reader.expect("done");
    }
    let now = Holdings::now();
    println!("the writer: {warm:?} then, {now:?} now");
    if let Some(warm) = warm {
        now.assert_not_above(&warm);
    }
    assert!(
        value > (time.as_secs_f64() * 50.0) as u64 && dropped == 0,
        "{value} frames, {dropped} dropped"
    );
    assert_eq!((stats.evicted, stats.semaphore_timeouts), (0, 0));
}
