// SPDX-License-Identifier: MIT OR Apache-2.0

//! The job of a producer or consumer process. The program's hidden commands take it as one JSON argument.

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

/// The job of one process.
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

type Body = fn(&Job) -> Result<(), String>;

/// Executes a job. `with_gstreamer` executes it if its transport needs GStreamer; otherwise `bare` does.
pub fn execute(json: &str, with_gstreamer: Body, bare: Body) -> Result<(), String> {
    let job: Job = serde_json::from_str(json).map_err(|error| error.to_string())?;
    // The kernel kills this process if its parent, the benchmark, is killed.
    set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    if getppid().as_raw() != job.parent {
        return Err("the benchmark has ended".into());
    }
    if job.transport.is_bare() {
        bare(&job)
    } else {
        gst::init().map_err(|error| error.to_string())?;
        with_gstreamer(&job)
    }
}
