// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bursts of small buffers, such as a muxer or a payloader pushes: how many are lost, and what one costs.

mod check;
pub mod consume;
pub mod figures;
mod packet;
pub mod produce;

use std::time::Duration;

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    job::{self, RunJob, Sabotage},
    options::{BenchOptions, Part},
    transport::{
        Endpoint,
        Transport::{self, Fakesink, Rsshm, RsshmLossless, Shm, Udp},
    },
};

const TRANSPORTS: [Transport; 5] = [Fakesink, Rsshm, RsshmLossless, Shm, Udp];
/// Sizes in bytes: a packet of an MPEG transport stream, and an RTP packet.
const SIZES: [u32; 2] = [188, 1400];
/// The caps of the buffers. All sizes have the same caps, because no element here parses the bytes.
const CAPS: &str = "video/mpegts,systemstream=(boolean)true,packetsize=188";

/// How the producer pushes the buffers of a burst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Push {
    /// One buffer after the other
    Single,
    /// All buffers in one GstBufferList
    List,
}

/// One combination of size, way to push, and number of readers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BurstCase {
    /// The size of a buffer in bytes.
    pub size: u32,
    pub push: Push,
    pub readers: u32,
    /// Number of buffers in a burst.
    pub buffers: u64,
    pub bursts: u64,
    /// The pause after each burst, in milliseconds.
    pub pause_ms: u64,
}

impl BurstCase {
    /// Number of buffers in all bursts.
    pub fn total(self) -> u64 {
        self.buffers * self.bursts
    }
}

impl std::fmt::Display for BurstCase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let push = match self.push {
            Push::Single => "single buffers",
            Push::List => "a buffer list",
        };
        let readers = match self.readers {
            1 => "1 reader".to_owned(),
            readers => format!("{readers} readers"),
        };
        write!(
            f,
            "Bursts of {} buffers of {} bytes, {push}, {readers}",
            self.buffers, self.size
        )
    }
}

/// A case, and the transports that are measured in it.
pub struct PlannedBurst {
    pub case: BurstCase,
    pub transports: Vec<Transport>,
}

/// The cases that the options choose. There are none if the options choose frames.
pub fn plan(options: &BenchOptions) -> Vec<PlannedBurst> {
    let is_wanted = options.only != Some(Part::Frames) && (options.only.is_some() || !options.chooses_frames());
    if !is_wanted {
        return Vec::new();
    }
    let readers = match (options.readers.is_empty(), options.full) {
        (false, _) => options.readers.clone(),
        (true, true) => vec![1, 4],
        (true, false) => vec![1],
    };
    let (bursts, pause_ms) = if options.full { (10, 500) } else { (3, 100) };
    let mut planned = Vec::new();
    for readers in readers {
        for (size, push) in SIZES
            .iter()
            .flat_map(|size| [(*size, Push::Single), (*size, Push::List)])
        {
            let case = BurstCase {
                size,
                push,
                readers,
                buffers: options.burst_buffers,
                bursts: options.bursts.unwrap_or(bursts),
                pause_ms,
            };
            // udpsink sends to one port of one host.
            let is_possible = |transport: &Transport| *transport != Udp || readers == 1;
            planned.push(PlannedBurst {
                case,
                transports: TRANSPORTS
                    .into_iter()
                    .filter(|transport| options.wants(*transport) && is_possible(transport))
                    .collect(),
            });
        }
    }
    planned
}

/// The job of a producer or consumer process.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BurstJob {
    pub transport: Transport,
    pub case: BurstCase,
    pub endpoint: Endpoint,
    pub sabotage: Option<Sabotage>,
    /// ID of the benchmark's main process. If that process ends, the process with this job ends too.
    pub parent: i32,
}

impl RunJob for BurstJob {
    const PRODUCE: &str = "produce-bursts";
    const CONSUME: &str = "consume-bursts";

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

    fn duration(&self) -> Duration {
        Duration::from_millis(self.case.bursts * self.case.pause_ms)
    }
}

/// Executes a job.
pub fn execute(json: &str, body: fn(&BurstJob) -> Result<(), String>) -> Result<(), String> {
    let job: BurstJob = serde_json::from_str(json).map_err(|error| error.to_string())?;
    job::end_with_parent(job.parent)?;
    gst::init().map_err(|error| error.to_string())?;
    body(&job)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::options::Options;

    fn plan_of(arguments: &[&str]) -> Vec<PlannedBurst> {
        let arguments = std::iter::once(&"bench").chain(arguments);
        plan(&Options::parse_from(arguments).bench)
    }

    #[test]
    fn usual_plan_has_both_sizes_and_both_ways_to_push() {
        let planned = plan_of(&[]);
        let cases: Vec<_> = planned
            .iter()
            .map(|planned| (planned.case.size, planned.case.push, planned.case.readers))
            .collect();
        let expected = [
            (188, Push::Single, 1),
            (188, Push::List, 1),
            (1400, Push::Single, 1),
            (1400, Push::List, 1),
        ];
        assert_eq!(cases, expected);
        assert!(planned.iter().all(|planned| planned.transports == TRANSPORTS));
    }

    #[test]
    fn choice_of_frames_leaves_out_bursts() {
        assert!(plan_of(&["--sizes", "4k"]).is_empty() && plan_of(&["--only", "frames"]).is_empty());
        assert_eq!(plan_of(&["--only", "bursts", "--readers", "4"]).len(), 4);
    }

    #[test]
    fn udp_has_one_reader() {
        let planned = plan_of(&["--only", "bursts", "--readers", "1,4"]);
        assert!(
            planned
                .iter()
                .all(|planned| planned.transports.contains(&Udp) == (planned.case.readers == 1))
        );
    }
}
