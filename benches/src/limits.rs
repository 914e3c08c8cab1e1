//! The limits: shared memory with a futex and nothing else, and a bare copy, at the rate of the frames.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    consume::{Progress, Seen},
    frame::{self, Mark},
    order::Order,
    pace::{Pace, Step, now_ns, thread_ns},
    produce::{Counts, Produced},
    shared::{self, Memory},
    talk,
    transport::Transport,
};

/// As many as a producer with GStreamer has of its own: neither side of the copy is in the processor's caches.
const BUFFERS: usize = 8;

fn memory(order: &Order) -> Result<(Memory, PathBuf), String> {
    let path = Path::new("/dev/shm").join(&order.place.channel);
    let memory = Memory::map(&path, order.case.size.bytes());
    Ok((memory.map_err(|error| format!("{}: {error}", path.display()))?, path))
}

/// Does `body` for each frame; it yields how long its one thing took of the processor.
fn each(order: &Order, mut body: impl FnMut(Step) -> u64) -> Result<(), String> {
    let core = Arc::new(AtomicU64::new(0));
    let frames = order.frames;
    let mut pace = Pace::new(order, talk::listen(|| {}), {
        let core = Arc::clone(&core);
        move |usage| {
            // Relaxed: the same thread.
            let core_us = core.load(Ordering::Relaxed) as f64 / 1e3 / frames as f64;
            let produced = Produced {
                usage,
                core_us: Some(core_us),
                counts: Counts::new(),
            };
            let _ = talk::say_result(&produced);
        }
    });
    talk::say(talk::READY);
    while let Some(step) = pace.step() {
        let took_ns = body(step);
        if step.is_counted() {
            // Relaxed: the same thread.
            core.fetch_add(took_ns, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn timed(body: impl FnOnce()) -> u64 {
    let before = thread_ns();
    body();
    thread_ns() - before
}

pub fn produce(order: &Order) -> Result<(), String> {
    match order.transport {
        Transport::Memcpy => copy(order),
        _ => wake(order),
    }
}

fn copy(order: &Order) -> Result<(), String> {
    let bytes = order.case.size.bytes();
    // Written once, so that they are there.
    let mut from = vec![vec![1_u8; bytes]; BUFFERS];
    let mut to = vec![vec![2_u8; bytes]; BUFFERS];
    each(order, |step| {
        let index = step.number as usize % BUFFERS;
        // What is copied has just been drawn, as in a stream.
        frame::draw(&mut from[index], step.number);
        timed(|| to[index].copy_from_slice(std::hint::black_box(&from[index])))
    })
}

fn wake(order: &Order) -> Result<(), String> {
    let (memory, path) = memory(order)?;
    let page = memory.page;
    let outcome = each(order, |step| {
        memory.draw(step.number);
        // Relaxed: the word's store makes them seen.
        page.number.store(step.number, Ordering::Relaxed);
        page.first.store(step.first, Ordering::Relaxed);
        page.end.store(step.end, Ordering::Relaxed);
        page.sent_ns.store(now_ns(), Ordering::Relaxed);
        timed(|| {
            // Partner: the load in consume.
            page.word.store(step.number as u32 + 1, Ordering::Release);
            shared::wake(&page.word);
        })
    });
    std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    outcome
}

pub fn consume(order: &Order) -> Result<(), String> {
    let (memory, _) = memory(order)?;
    let page = memory.page;
    // It sleeps without an end, so it ends with the program's wish.
    talk::listen(|| std::process::exit(0));
    let mut seen = Seen::new(order);
    let mut last = 0;
    loop {
        // Partner: the store in wake.
        let word = page.word.load(Ordering::Acquire);
        if word == last {
            shared::wait(&page.word, last);
            continue;
        }
        let now_ns = now_ns();
        last = word;
        // Relaxed: the word was read before. Where the next frame is being written already, its own word follows.
        let mark = Mark {
            number: page.number.load(Ordering::Relaxed),
            sent_ns: page.sent_ns.load(Ordering::Relaxed),
            first: page.first.load(Ordering::Relaxed),
            end: page.end.load(Ordering::Relaxed),
        };
        if mark.number as u32 + 1 != word {
            continue;
        }
        // As much work as in the other consumers.
        std::hint::black_box(memory.is_whole(mark.number));
        match seen.take(mark, now_ns)? {
            Progress::First => talk::say(talk::FIRST),
            Progress::Goes => {}
            Progress::Complete(consumed) => {
                talk::say_result(&consumed)?;
                loop {
                    std::thread::park();
                }
            }
        }
    }
}
