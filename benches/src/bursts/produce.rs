// SPDX-License-Identifier: MIT OR Apache-2.0

//! A producer of bursts. It pushes into the sink's pad from a pad of its own, so that no source element adds work.

use std::{net::UdpSocket, time::Duration};

use gst::prelude::*;

use super::{
    BurstCase, BurstJob, CAPS, Push,
    figures::WriterReport,
    packet::{self, FIRST_SEQ},
};
use crate::{
    ipc,
    job::Sabotage,
    pace::{Usage, now_ns},
    pipeline::{counts, wait_for_end},
    transport::Transport,
};

/// The period of the buffers before and after the bursts.
const IDLE_PERIOD: Duration = Duration::from_millis(20);

/// shmsink gets this many buffers of a burst at a time, with [`SHM_PAUSE`] between them.
///
/// If a reader is about 270 buffers behind, shmsink waits for room in the reader's socket. Meanwhile it takes nothing from
/// the reader, so soon the reader waits for shmsink too, and neither of them ever continues.
const SHM_GROUP: usize = 64;
const SHM_PAUSE: Duration = Duration::from_millis(3);

/// Room for the buffers that a slow reader of shmsink has not taken yet. It is shmsink's default.
const SHM_SIZE: usize = 32 << 20;

pub fn run(job: &BurstJob) -> Result<(), String> {
    let mut endpoint = job.endpoint.clone();
    if job.transport == Transport::Udp {
        endpoint.port = free_port().map_err(|error| format!("no free UDP port: {error}"))?;
    }
    let pipeline = gst::Pipeline::new();
    let bus = pipeline.bus().ok_or("the pipeline has no bus")?;
    let commands = ipc::receive_commands(|| {});
    let pad = connect(&pipeline, &job.transport.sink(true, SHM_SIZE, &endpoint))?;
    if pipeline.set_state(gst::State::Playing).is_err() {
        return wait_for_end(&bus, false);
    }
    let producer = Producer { job, pipeline, pad };
    producer.begin()?;
    ipc::send(&format!("{} {}", ipc::READY, endpoint.port));
    let outcome = producer.push_all(&commands);
    let stopped = producer.pipeline.set_state(gst::State::Null);
    // An error message of the sink says more than the result of a push.
    outcome.map_err(|error| wait_for_end(&bus, false).err().unwrap_or(error))?;
    stopped.map(|_| ()).map_err(|error| error.to_string())
}

/// A UDP port that no program uses.
fn free_port() -> std::io::Result<u16> {
    Ok(UdpSocket::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// Adds the elements of `sink` to the pipeline. Returns a pad that is linked to them and that says that it is live.
fn connect(pipeline: &gst::Pipeline, sink: &str) -> Result<gst::Pad, String> {
    let sink = gst::parse::bin_from_description(sink, true).map_err(|error| error.to_string())?;
    pipeline.add(&sink).map_err(|error| error.to_string())?;
    let pad = gst::Pad::builder(gst::PadDirection::Src)
        .query_function(|pad, parent, query| match query.view_mut() {
            gst::QueryViewMut::Latency(latency) => {
                latency.set(true, gst::ClockTime::ZERO, gst::ClockTime::NONE);
                true
            }
            _ => gst::Pad::query_default(pad, parent, query),
        })
        .build();
    let sink_pad = sink.static_pad("sink").ok_or("the sink has no pad")?;
    pad.link(&sink_pad).map_err(|error| error.to_string())?;
    pad.set_active(true).map_err(|error| error.to_string())?;
    Ok(pad)
}

struct Producer<'a> {
    job: &'a BurstJob,
    pipeline: gst::Pipeline,
    pad: gst::Pad,
}

impl Producer<'_> {
    /// Pushes the events that come before the first buffer.
    fn begin(&self) -> Result<(), String> {
        let caps: gst::Caps = CAPS.parse().map_err(|_| "the caps are invalid")?;
        let segment = gst::FormattedSegment::<gst::ClockTime>::new();
        let events = [
            gst::event::StreamStart::new("bursts"),
            gst::event::Caps::new(&caps),
            gst::event::Segment::new(&segment),
        ];
        match events.into_iter().all(|event| self.pad.push_event(event)) {
            true => Ok(()),
            false => Err("the sink refuses the stream".into()),
        }
    }

    /// Pushes single buffers until the parent process lets the bursts begin, then the bursts, and then single buffers
    /// until it requests the end.
    fn push_all(&self, commands: &ipc::Commands) -> Result<(), String> {
        let mut seq = 0;
        while !commands.has_go() {
            self.push_idle(seq)?;
            seq += 1;
            if commands.has_stop() {
                return Ok(());
            }
        }
        ipc::send_result(&self.push_bursts()?)?;
        let mut seq = FIRST_SEQ + self.job.case.total();
        while !commands.has_stop() {
            self.push_idle(seq)?;
            seq += 1;
        }
        Ok(())
    }

    fn push_idle(&self, seq: u64) -> Result<(), String> {
        let buffer = self.buffer(seq, self.pipeline.current_running_time())?;
        self.pad.push(buffer).map_err(failed)?;
        std::thread::sleep(IDLE_PERIOD);
        Ok(())
    }

    fn push_bursts(&self) -> Result<WriterReport, String> {
        let BurstCase { buffers, bursts, .. } = self.job.case;
        let mut usage = Usage::default();
        let mut starts_ns = Vec::new();
        for burst in 0..bursts {
            let prepared = self.burst(FIRST_SEQ + burst * buffers)?;
            let before = Usage::now();
            starts_ns.push(now_ns());
            self.push_burst(prepared)?;
            // The pause is measured too, because the sink's other threads may still work for the burst.
            std::thread::sleep(Duration::from_millis(self.job.case.pause_ms));
            usage = usage.plus(Usage::now().since(before));
        }
        Ok(WriterReport {
            usage: usage.per_frame(self.job.case.total()),
            starts_ns,
            counts: counts(&self.pipeline),
        })
    }

    fn push_burst(&self, mut buffers: Vec<gst::Buffer>) -> Result<(), String> {
        if self.job.transport != Transport::Shm {
            return self.push_at_once(buffers);
        }
        while !buffers.is_empty() {
            let later = buffers.split_off(SHM_GROUP.min(buffers.len()));
            self.push_at_once(buffers)?;
            std::thread::sleep(SHM_PAUSE);
            buffers = later;
        }
        Ok(())
    }

    fn push_at_once(&self, buffers: Vec<gst::Buffer>) -> Result<(), String> {
        match self.job.case.push {
            Push::Single => buffers
                .into_iter()
                .try_for_each(|buffer| self.pad.push(buffer).map(|_| ())),
            Push::List => self.pad.push_list(buffers.into_iter().collect()).map(|_| ()),
        }
        .map_err(failed)
    }

    /// The buffers of a burst, which begins with the buffer `first`. If the job says so, the middle one is wrong.
    fn burst(&self, first: u64) -> Result<Vec<gst::Buffer>, String> {
        let buffers = self.job.case.buffers;
        let time = self.pipeline.current_running_time();
        let middle = first + buffers / 2;
        let mut burst = Vec::with_capacity(buffers as usize);
        for seq in first..first + buffers {
            let sabotage = self.job.sabotage.filter(|_| seq == middle);
            if sabotage == Some(Sabotage::Omit) {
                continue;
            }
            let mut buffer = self.buffer(seq - u64::from(sabotage == Some(Sabotage::RepeatSeq)), time)?;
            if sabotage == Some(Sabotage::Corrupt) {
                let mut map = buffer.make_mut().map_writable().map_err(|error| error.to_string())?;
                if let Some(last) = map.last_mut() {
                    *last ^= 1;
                }
            }
            burst.push(buffer);
        }
        Ok(burst)
    }

    fn buffer(&self, seq: u64, time: Option<gst::ClockTime>) -> Result<gst::Buffer, String> {
        let mut bytes = vec![0; self.job.case.size as usize];
        packet::draw(&mut bytes, seq);
        let mut buffer = gst::Buffer::from_mut_slice(bytes);
        buffer.make_mut().set_pts(time);
        Ok(buffer)
    }
}

fn failed(error: gst::FlowError) -> String {
    format!("the sink refuses a buffer: {error}")
}
