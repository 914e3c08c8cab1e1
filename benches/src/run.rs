// SPDX-License-Identifier: MIT OR Apache-2.0

//! One run of a producer and its consumers, from start to end.

use std::{
    ops::Range,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    calls::{self, Calls},
    child::{ChildProcess, OutputLine},
    cleanup, ipc,
    job::RunJob,
    memory::Memory,
    results::FirstFrame,
    tools::Tools,
};

/// Whether the user has interrupted the benchmark.
pub static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// The error of an interrupted run.
pub const INTERRUPTION: &str = "interrupted";

/// How long a process may still run after it has closed its output.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// The interval at which [`Processes::collect`] checks whether the user has interrupted the benchmark.
const POLL_INTERVAL: Duration = Duration::from_millis(200);

struct Processes {
    /// The processes. The first is the producer, and the others are the consumers.
    children: Vec<ChildProcess>,
    sender: Sender<OutputLine>,
    receiver: Receiver<OutputLine>,
}

/// The reports of the producer and of the consumers, and what the parent process has measured itself.
pub struct Reports<P, C> {
    pub producer: P,
    pub consumers: Vec<C>,
    /// The first frame of each consumer.
    pub starts: Vec<Start>,
    pub memory: Option<Memory>,
    /// The system calls of the producer and then of each consumer, if they were counted.
    pub calls: Vec<Calls>,
}

/// The times from the start of a consumer to its first frame, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Start {
    /// From the start of the process.
    pub process_ms: f64,
    /// From the push of the frame. If the frame was older than the consumer, it is the time since the
    /// consumer's pipeline has started.
    pub frame_ms: f64,
}

impl Start {
    fn new(process_ns: u64, first: FirstFrame) -> Self {
        let since = |from_ns| first.arrived_ns.saturating_sub(from_ns) as f64 / 1e6;
        Self {
            process_ms: since(process_ns),
            frame_ms: since(first.sent_ns.max(first.began_ns)),
        }
    }
}

/// Runs a job. Each step of the run may take `patience`; after that, all processes are killed and the run fails.
pub fn run<P: DeserializeOwned, C: DeserializeOwned>(
    job: &mut impl RunJob,
    patience: Duration,
) -> Result<Reports<P, C>, String> {
    let (sender, receiver) = channel();
    let mut processes = Processes {
        children: Vec::new(),
        sender,
        receiver,
    };
    let outcome = processes.run(job, patience);
    let failed = outcome.is_err();
    // This kills the processes that still run.
    drop(processes);
    let left = cleanup::remove_channel(&job.endpoint().channel);
    if left && !failed {
        return Err(format!("{}: it leaves files in /dev/shm", job.transport()));
    }
    outcome
}

impl Processes {
    fn run<P: DeserializeOwned, C: DeserializeOwned>(
        &mut self,
        job: &mut impl RunJob,
        patience: Duration,
    ) -> Result<Reports<P, C>, String> {
        let deadline = || Instant::now() + patience;
        self.start(job)?;
        let ready = self.collect(0..1, ipc::READY, deadline())?;
        job.set_port(ready.first().and_then(|port| port.parse().ok()).unwrap_or(0));
        let readers = if job.transport().is_producer_only() {
            0
        } else {
            job.readers() as usize
        };
        for _ in 0..readers {
            self.start(job)?;
        }
        let firsts = self.collect(1..readers + 1, ipc::FIRST, deadline())?;
        let starts = firsts
            .iter()
            .zip(&self.children[1..])
            .map(|(first, child)| Ok(Start::new(child.started_ns, parse(Some(first))?)))
            .collect::<Result<_, String>>()?;
        let mut tools = match job.has_tools() {
            true => Some(Tools::start(&job.endpoint().channel)?),
            false => None,
        };
        self.children[0].go()?;
        let results = self.collect(0..readers + 1, ipc::RESULT, deadline() + job.duration() * 2)?;
        tools.as_mut().map_or(Ok(()), Tools::check)?;
        drop(tools);
        let memory = Memory::of(self.children.iter().map(ChildProcess::id));
        let mut results = results.iter();
        let producer = parse(results.next())?;
        let consumers = results.map(|result| parse(Some(result))).collect::<Result<_, _>>()?;
        // The consumers end before the producer, so that no consumer loses its producer.
        let deadline = deadline();
        self.children.iter_mut().skip(1).for_each(ChildProcess::stop);
        for child in self.children.iter_mut().rev() {
            child.end(deadline)?;
        }
        let calls = match job.traced_frames() {
            Some(frames) => self.calls(job, frames)?,
            None => Vec::new(),
        };
        Ok(Reports {
            producer,
            consumers,
            starts,
            memory,
            calls,
        })
    }

    /// The system calls of all processes, which have ended.
    fn calls(&self, job: &impl RunJob, frames: u64) -> Result<Vec<Calls>, String> {
        let of = |(index, child): (usize, &ChildProcess)| {
            calls::per_frame(&calls::log(&job.endpoint().dir, index), child.id(), frames)
        };
        self.children.iter().enumerate().map(of).collect()
    }

    fn start(&mut self, job: &impl RunJob) -> Result<(), String> {
        let child = ChildProcess::start(self.children.len(), job, self.sender.clone())?;
        self.children.push(child);
        Ok(())
    }

    /// Waits until each process whose index is in `from` has sent a line that begins with `word`. Returns the rest of
    /// each line.
    fn collect(&mut self, from: Range<usize>, word: &str, deadline: Instant) -> Result<Vec<String>, String> {
        let mut payloads = vec![None; from.len()];
        while let Some(missing) = payloads.iter().position(Option::is_none) {
            if INTERRUPTED.load(Ordering::Relaxed) {
                // Partner: the store in rounds::watch_for_signals. Relaxed is enough, because no other data depends on
                // the flag.
                return Err(INTERRUPTION.into());
            }
            match self.receiver.recv_timeout(POLL_INTERVAL) {
                Ok(OutputLine {
                    process,
                    line: Some(line),
                }) => {
                    let index = process.checked_sub(from.start);
                    let entry = index.and_then(|index| payloads.get_mut(index));
                    if let (Some(payload), Some(entry)) = (ipc::payload(&line, word), entry) {
                        *entry = Some(payload.to_owned());
                    }
                }
                Ok(OutputLine { process, line: None }) => {
                    let child = &mut self.children[process];
                    // Only after the process has ended are its status and its error output complete.
                    let ended = child.end(Instant::now() + END_TIMEOUT);
                    return Err(ended.err().unwrap_or_else(|| child.error("it ends early")));
                }
                Err(RecvTimeoutError::Timeout) if Instant::now() < deadline => {}
                Err(_) => {
                    let late = &self.children[from.start + missing];
                    return Err(late.error(&format!("it does not send \"{word}\" in time")));
                }
            }
        }
        Ok(payloads.into_iter().flatten().collect())
    }
}

fn parse<T: DeserializeOwned>(result: Option<&String>) -> Result<T, String> {
    let result = result.ok_or("a result is missing")?;
    serde_json::from_str(result).map_err(|error| format!("a result is not readable: {error}"))
}
