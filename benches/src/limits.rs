// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measures the limits of the machine at the frame rate of a case. One limit is a wake through a futex in shared
//! memory, and the other is a plain copy of a frame.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crate::{
    case::Reading,
    check::FrameChecker,
    consume::Progress,
    frame::{self, Mark},
    ipc,
    job::Job,
    pace::{Pacer, Step, now_ns, thread_ns},
    results::{Counts, FirstFrame, ProducerReport},
    shared::{self, SharedMemory},
    transport::Transport,
};

/// Number of source buffers, and of target buffers, of the copies. A GStreamer producer has as many buffers. With this
/// many, neither the source nor the target of a copy is in the caches.
const BUFFER_COUNT: usize = 8;

fn map_shared(job: &Job) -> Result<(SharedMemory, PathBuf), String> {
    let path = Path::new("/dev/shm").join(&job.endpoint.channel);
    let memory = SharedMemory::map(&path, job.case.size.bytes());
    Ok((memory.map_err(|error| format!("{}: {error}", path.display()))?, path))
}

/// Calls `body` for each frame. `body` returns the CPU time in nanoseconds of the step that the limit measures.
fn run_paced(job: &Job, mut body: impl FnMut(Step) -> u64) -> Result<(), String> {
    let core_ns = Arc::new(AtomicU64::new(0));
    let frames = job.frames;
    let mut pacer = Pacer::new(job, ipc::receive_commands(|| {}), {
        let core_ns = Arc::clone(&core_ns);
        move |usage| {
            // Relaxed: the additions are made by the same thread.
            let core_us = core_ns.load(Ordering::Relaxed) as f64 / 1e3 / frames as f64;
            let report = ProducerReport {
                usage,
                core_us: Some(core_us),
                counts: Counts::new(),
            };
            let _ = ipc::send_result(&report);
        }
    });
    ipc::send(ipc::READY);
    while let Some(step) = pacer.next_step() {
        let took_ns = body(step);
        if step.is_counted() {
            // Relaxed: the load is made by the same thread.
            core_ns.fetch_add(took_ns, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// The CPU time that `body` takes, in nanoseconds.
fn cpu_time_ns(body: impl FnOnce()) -> u64 {
    let before = thread_ns();
    body();
    thread_ns() - before
}

pub fn produce(job: &Job) -> Result<(), String> {
    match job.transport {
        Transport::Memcpy => produce_copies(job),
        _ => produce_wakes(job),
    }
}

fn produce_copies(job: &Job) -> Result<(), String> {
    let size = job.case.size.bytes();
    // Each buffer is written once before the run, so that its memory is committed.
    let mut from = vec![vec![1_u8; size]; BUFFER_COUNT];
    let mut to = vec![vec![2_u8; size]; BUFFER_COUNT];
    run_paced(job, |step| {
        let index = step.seq as usize % BUFFER_COUNT;
        // The frame is drawn just before the copy, as a real producer does.
        if job.case.reading != Reading::Few {
            frame::draw(&mut from[index], step.seq);
        }
        cpu_time_ns(|| to[index].copy_from_slice(std::hint::black_box(&from[index])))
    })
}

fn produce_wakes(job: &Job) -> Result<(), String> {
    let (memory, path) = map_shared(job)?;
    let header = memory.header();
    let outcome = run_paced(job, |step| {
        if job.case.reading != Reading::Few {
            memory.draw(step.seq);
        }
        // Relaxed: the release store of the word publishes these fields.
        header.seq.store(step.seq, Ordering::Relaxed);
        header.first.store(step.first, Ordering::Relaxed);
        header.end.store(step.end, Ordering::Relaxed);
        header.sent_ns.store(now_ns(), Ordering::Relaxed);
        cpu_time_ns(|| {
            // Partner: the load in consume.
            header.word.store(step.seq as u32 + 1, Ordering::Release);
            shared::wake(&header.word);
        })
    });
    std::fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    outcome
}

pub fn consume(job: &Job) -> Result<(), String> {
    let began_ns = now_ns();
    let (memory, _) = map_shared(job)?;
    let header = memory.header();
    // This thread sleeps without a time-out, so the thread that receives the request to end exits the whole process.
    ipc::receive_commands(|| std::process::exit(0));
    let mut checker = FrameChecker::new(job);
    let mut last = 0;
    loop {
        // Partner: the store in produce_wakes.
        let word = header.word.load(Ordering::Acquire);
        if word == last {
            shared::wait(&header.word, last);
            continue;
        }
        let now_ns = now_ns();
        last = word;
        // Relaxed: the acquire load of the word came before. If these fields already belong to a later frame, this
        // thread skips them here and reads that frame when the word changes.
        let mark = Mark {
            seq: header.seq.load(Ordering::Relaxed),
            sent_ns: header.sent_ns.load(Ordering::Relaxed),
            first: header.first.load(Ordering::Relaxed),
            end: header.end.load(Ordering::Relaxed),
        };
        if mark.seq as u32 + 1 != word {
            continue;
        }
        // The consumers of the other transports check every frame, so this consumer does the same work.
        std::hint::black_box(memory.read(mark.seq, job.case.reading));
        match checker.receive(mark, now_ns)? {
            Progress::First { sent_ns } => ipc::send_first(FirstFrame {
                began_ns,
                sent_ns,
                arrived_ns: now_ns,
            }),
            Progress::Continue => {}
            Progress::Complete(report) => {
                ipc::send_result(&report)?;
                loop {
                    std::thread::park();
                }
            }
        }
    }
}
