// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measures the two ways to copy a frame into a slot, and what the reader of the frame then costs. `make bench-copies`
//! prints the table from which `CACHED_TIME` in src/sys/copy.rs was chosen.
//!
//! One thread copies frames into slots in turn, and another core reads every byte of each.
#![allow(missing_docs)]

use std::{
    env,
    hint::black_box,
    sync::{
        RwLock,
        atomic::{Ordering, fence},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use rsshm_channel::Copier;

/// The number of buffers upstream uses in turn, like a camera.
const SOURCES: usize = 8;
/// How many frames each case copies, unless the command line says otherwise.
const FRAMES: usize = 300;
/// The sums of two ways are equal if they differ by less than this part.
const NOISE: f64 = 0.05;

const HD: (&str, usize) = ("720p", 1280 * 720 * 3 / 2);
const FULL_HD: (&str, usize) = ("1080p", 1920 * 1080 * 3 / 2);
const UHD: (&str, usize) = ("4K", 3840 * 2160 * 3 / 2);

/// The frames, the number of slots, and the frames a second; 0 for as many as possible.
const CASES: [((&str, usize), usize, u32); 14] = [
    (FULL_HD, 3, 0),
    (FULL_HD, 5, 0),
    (FULL_HD, 3, 480),
    (UHD, 3, 0),
    (FULL_HD, 16, 0),
    (FULL_HD, 3, 240),
    (FULL_HD, 5, 240),
    (FULL_HD, 26, 0),
    (FULL_HD, 3, 120),
    (UHD, 8, 0),
    (FULL_HD, 3, 60),
    (UHD, 3, 60),
    (FULL_HD, 5, 60),
    (HD, 5, 60),
];

/// What a frame costs, as the median.
struct Cost {
    copy: Duration,
    read: Duration,
    /// The time from one copy into a slot to the next.
    age: Duration,
}

impl Cost {
    fn total(&self) -> f64 {
        (self.copy + self.read).as_secs_f64()
    }
}

fn main() {
    // `cargo bench` adds an option of its own.
    let number = env::args().skip(1).find_map(|argument| argument.parse().ok());
    let frames = number.unwrap_or(FRAMES).max(2);
    println!("| frames | slots | age, ms | ordinary | streaming | faster |\n|---|---|---|---|---|---|");
    for ((name, size), slots, rate) in CASES {
        let [ordinary, streaming] =
            [Copier::Ordinary, Copier::Streaming].map(|copier| measure(copier, size, slots, rate, frames));
        let ratio = streaming.total() / ordinary.total();
        let faster = match ratio {
            ratio if ratio < 1.0 - NOISE => "streaming",
            ratio if ratio > 1.0 + NOISE => "ordinary",
            _ => "equal",
        };
        let rate = if rate == 0 {
            "at once".to_owned()
        } else {
            format!("{rate} fps")
        };
        let sum = |cost: &Cost| format!("{} + {}", cost.copy.as_micros(), cost.read.as_micros());
        println!(
            "| {name}, {rate} | {slots} | {} | {} | {} | {faster} |",
            ordinary.age.as_millis(),
            sum(&ordinary),
            sum(&streaming)
        );
    }
}

fn measure(copier: Copier, size: usize, slots: usize, rate: u32, frames: usize) -> Cost {
    let sources: Vec<Vec<u8>> = (0..SOURCES).map(|value| vec![value as u8; size]).collect();
    // The locks are never contended, because the writer waits until a frame was read.
    let memory: Vec<RwLock<Vec<u8>>> = (0..slots).map(|_| RwLock::new(vec![0; size])).collect();
    let (published, next) = mpsc::channel::<usize>();
    let (finished, done) = mpsc::channel::<Duration>();
    let (mut copies, mut reads) = (Vec::new(), Vec::new());
    let began = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            let finished = finished;
            for slot in next {
                let frame = memory[slot].read().unwrap();
                let started = Instant::now();
                let words = frame
                    .chunks_exact(8)
                    .map(|word| u64::from_ne_bytes(word.try_into().unwrap()));
                black_box(words.fold(0_u64, u64::wrapping_add));
                finished.send(started.elapsed()).unwrap();
            }
        });
        for frame in 0..frames {
            if let Some(interval) = Duration::from_secs(frame as u64).checked_div(rate) {
                thread::sleep(interval.saturating_sub(began.elapsed()));
            }
            let slot = frame % slots;
            let mut to = memory[slot].write().unwrap();
            let started = Instant::now();
            copier.copy(&sources[frame % SOURCES], &mut to);
            // A streaming copy is complete only after a fence. No other fence pairs with it: the locks order the bytes.
            fence(Ordering::SeqCst);
            copies.push(started.elapsed());
            drop(to);
            published.send(slot).unwrap();
            reads.push(done.recv().unwrap());
        }
        drop(published);
    });
    let age = began.elapsed() * slots as u32 / frames as u32;
    // The first copies into each slot also get its memory from the system.
    let median = |times: &mut Vec<Duration>| {
        let times = &mut times[slots.min(frames / 2)..];
        times.sort_unstable();
        times[times.len() / 2]
    };
    Cost {
        copy: median(&mut copies),
        read: median(&mut reads),
        age,
    }
}
