// SPDX-License-Identifier: MIT OR Apache-2.0

//! The job of a producer or consumer process. The program's hidden commands take it as one JSON argument.

use std::time::Duration;

use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::getppid,
};
use serde::{Deserialize, Serialize};

use crate::{
    case::Case,
    transport::{Endpoint, Transport},
};

/// Faults that a test injects, to check that the benchmark notices them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub enum Sabotage {
    /// A frame has one wrong word.
    Corrupt,
    /// A frame has the seq of the previous frame.
    RepeatSeq,
    /// A frame is left out.
    Omit,
    /// The consumer hangs and does not end.
    Hang,
}

/// A job of the producer and the consumers of one run.
pub trait RunJob: Serialize {
    /// The hidden commands that execute the job.
    const PRODUCE: &str;
    const CONSUME: &str;

    fn transport(&self) -> Transport;

    fn readers(&self) -> u32;

    fn endpoint(&self) -> &Endpoint;

    /// Stores the port that the producer has chosen.
    fn set_port(&mut self, port: u16);

    /// Whether the command line tools run beside the consumers.
    fn has_tools(&self) -> bool {
        false
    }

    /// Number of frames that count, if the system calls of the processes are counted.
    fn traced_frames(&self) -> Option<u64> {
        None
    }

    /// How long the producer takes at least. It is 0 if it works as fast as it can.
    fn duration(&self) -> Duration;
}

/// The job of one process, with frames of raw video.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    pub transport: Transport,
    pub case: Case,
    /// Number of frames that count, that is, are measured.
    pub frames: u64,
    /// Number of frames that are sent at the rate of the case before the frames that count.
    pub warm: u64,
    pub endpoint: Endpoint,
    pub sabotage: Option<Sabotage>,
    /// Whether strace counts the system calls of the processes.
    pub traced: bool,
    /// ID of the benchmark's main process. If that process ends, the process with this job ends too.
    pub parent: i32,
}

impl Job {
    pub fn caps(&self) -> String {
        let (width, height) = self.case.size.width_height();
        // The caps need a rate, so those of an unthrottled case have 60 frames per second.
        let rate = if self.case.is_paced() { self.case.rate } else { 60 };
        format!("video/x-raw,format=NV12,width={width},height={height},framerate={rate}/1")
    }

    /// Whether this job breaks the frame `seq` in the way `how`. It breaks the middle one of the frames that count,
    /// which begin at `first`.
    pub fn sabotages(&self, how: Sabotage, seq: u64, first: u64) -> bool {
        self.sabotage == Some(how) && first.checked_add(self.frames / 2) == Some(seq)
    }
}

impl RunJob for Job {
    const PRODUCE: &str = "produce";
    const CONSUME: &str = "consume";

    fn transport(&self) -> Transport {
        self.transport
    }

    fn readers(&self) -> u32 {
        self.case.readers
    }

    fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    fn set_port(&mut self, port: u16) {
        self.endpoint.port = port;
    }

    fn has_tools(&self) -> bool {
        self.case.tools
    }

    fn traced_frames(&self) -> Option<u64> {
        self.traced.then_some(self.frames)
    }

    fn duration(&self) -> Duration {
        Duration::from_secs(
            (self.frames + self.warm)
                .checked_div(self.case.rate.into())
                .unwrap_or(0),
        )
    }
}

type Body = fn(&Job) -> Result<(), String>;

/// Executes a job. `with_gstreamer` executes it if its transport needs GStreamer; otherwise `bare` does.
pub fn execute(json: &str, with_gstreamer: Body, bare: Body) -> Result<(), String> {
    let job: Job = serde_json::from_str(json).map_err(|error| error.to_string())?;
    end_with_parent(job.parent)?;
    if job.transport.is_bare() {
        bare(&job)
    } else {
        gst::init().map_err(|error| error.to_string())?;
        with_gstreamer(&job)
    }
}

/// Makes the kernel kill this process if its parent, the benchmark, is killed.
pub fn end_with_parent(parent: i32) -> Result<(), String> {
    set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    if getppid().as_raw() == parent {
        Ok(())
    } else {
        Err("the benchmark has ended".into())
    }
}
