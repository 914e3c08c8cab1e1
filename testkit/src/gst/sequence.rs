// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sends numbered frames through pipelines. The writer is in this process. Readers in other processes check each
//! frame.
//!
//! The bytes of a frame contain its number (see [`frames`]), so a reader finds frames that are torn, too short, missing
//! or repeated. A test program that starts readers has to list [`ROLES`] among its roles.

use std::{
    collections::VecDeque,
    fmt::Display,
    process::Command,
    sync::{Arc, Mutex},
};

use gst::prelude::*;
use serde::{Deserialize, Serialize};

use super::{Pipeline, error_kind, role_command};
use crate::{
    Process, frames,
    role::{Role, say},
};

const READER: &str = "sequence/reader";

/// The roles that this module needs.
pub const ROLES: &[(&str, Role)] = &[(READER, read)];

/// The beginning of the line that a reader prints when it has received its first frame.
const FIRST_FRAME: &str = "FIRST FRAME ";
/// The beginning of the line that contains a reader's summary.
const SUMMARY: &str = "SUMMARY ";

/// The longest time that a reader runs. The limit ends the readers of a test that was killed.
const MAX_RUN_TIME: gst::ClockTime = gst::ClockTime::from_seconds(100);

/// A pipeline in this process that publishes numbered frames, from number 0 on. It does not play yet.
///
/// `source` contains properties of videotestsrc, `caps` the fields after `video/x-raw,`, and `options` properties of
/// rsshmsink.
#[track_caller]
pub fn writer(channel: impl Display, source: &str, caps: &str, options: &str) -> Pipeline {
    let pipeline = Pipeline::new(&format!(
        "videotestsrc name=source pattern=black {source} ! video/x-raw,{caps} ! rsshmsink name={channel} {options}"
    ));
    pipeline
        .pad("videotestsrc", "src")
        .add_probe(gst::PadProbeType::BUFFER, |_, info| {
            let buffer = info.buffer_mut().unwrap();
            let number = buffer.offset() as u32;
            let mut map = buffer.make_mut().map_writable().unwrap();
            frames::fill(&mut map, number);
            drop(map);
            gst::PadProbeReturn::Ok
        });
    pipeline
}

/// The results of a reader's process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// The number of received frames.
    pub received: u64,
    /// The count of skipped frames. Frames between the first two received frames are not counted.
    pub missed: u64,
    /// The count of frames that were torn when they arrived, or that had changed when they were released.
    pub torn: u64,
    /// The count of frames whose number was not greater than the number before.
    pub backwards: u64,
    /// The number in the first whole frame.
    pub first: u64,
    /// The number in the last whole frame.
    pub last: u64,
    /// The count of frames whose memory was in the segment.
    pub in_place: u64,
    /// The count of frames that the source copied.
    pub copied: u64,
}

impl Summary {
    /// Checks that all frames were whole and in order.
    #[track_caller]
    pub fn assert_exact(&self) {
        assert!(self.received > 0 && self.torn == 0 && self.backwards == 0, "{self:?}");
    }
}

/// The command of a reader. Until EOS, the reader checks each frame that reaches the element `check` of its pipeline.
///
/// The reader holds the last `hold` frames, and checks each frame again on release.
pub fn reader_command(pipeline: &str, hold: usize) -> Command {
    role_command(READER, &[pipeline, &hold.to_string()])
}

/// Starts a reader that checks the frames that leave its source. `options` are properties of rsshmsrc.
#[track_caller]
pub fn reader(channel: impl Display, options: &str, hold: usize) -> Process {
    reader_with(
        &format!("rsshmsrc name={channel} {options} ! fakesink name=check sync=false"),
        hold,
    )
}

/// Starts a reader with this pipeline.
#[track_caller]
pub fn reader_with(pipeline: &str, hold: usize) -> Process {
    Process::start(reader_command(pipeline, hold))
}

/// Whether a reader has received a frame.
pub fn has_frames(reader: &Process) -> bool {
    reader.output().contains(FIRST_FRAME)
}

/// Waits until a reader ends, and returns its results.
#[track_caller]
pub fn summary(reader: &mut Process) -> Summary {
    let output = reader.wait_ok();
    let summary = output.lines().find_map(|line| line.strip_prefix(SUMMARY));
    serde_json::from_str(summary.unwrap_or_else(|| panic!("no summary in:\n{output}"))).unwrap()
}

/// Checks that a writer published `frames` frames, dropped none, and evicted no reader.
#[track_caller]
pub fn assert_nothing_dropped(writer: &Pipeline, frames: u64) {
    let sink = writer.by_factory("rsshmsink");
    let stats = sink.property::<gst::Structure>("channel-stats");
    assert_eq!(writer.stat("rsshmsink", "frames-published"), frames, "{stats}");
    assert_eq!(writer.stat("rsshmsink", "frames-dropped"), 0, "{stats}");
    assert_eq!(writer.stat("rsshmsink", "readers-evicted"), 0, "{stats}");
}

/// Checks that a reader received all frames up to the number `last`, and that they were whole and in order.
#[track_caller]
pub fn assert_complete(found: &Summary, last: u64) {
    found.assert_exact();
    assert!(found.missed == 0 && found.last == last, "{found:?}");
}

/// Checks frames when they arrive and when they are released.
#[derive(Default)]
struct SequenceChecker {
    summary: Summary,
    previous: Option<u32>,
    held: VecDeque<(u32, gst::Buffer)>,
}

impl SequenceChecker {
    fn receive(&mut self, buffer: &gst::Buffer, hold: usize) {
        let number = buffer.map_readable().ok().and_then(|map| frames::check(&map));
        self.summary.received += 1;
        let Some(number) = number else {
            self.summary.torn += 1;
            return;
        };
        match self.previous.replace(number) {
            None => {
                self.summary.first = number.into();
                say(format!("{FIRST_FRAME}{number}"));
            }
            // The gap between the first two frames is not counted. The source first delivers the newest frame, and
            // skips all other frames from before the base time.
            Some(previous) if previous < number && self.summary.received == 2 => {}
            Some(previous) if previous < number => self.summary.missed += u64::from(number - previous - 1),
            Some(_) => self.summary.backwards += 1,
        }
        self.summary.last = number.into();
        self.held.push_back((number, buffer.clone()));
        while self.held.len() > hold {
            self.release();
        }
    }

    fn release(&mut self) {
        if let Some((number, buffer)) = self.held.pop_front() {
            let now = buffer.map_readable().ok().and_then(|map| frames::check(&map));
            self.summary.torn += u64::from(now != Some(number));
        }
    }
}

/// The role of a reader. The arguments are the pipeline, and the number of frames to hold.
fn read(arguments: &[&str]) {
    let (description, hold) = (arguments[0], arguments[1].parse().unwrap());
    let pipeline = Pipeline::new(description);
    let checker = Arc::new(Mutex::new(SequenceChecker::default()));
    let in_probe = Arc::clone(&checker);
    let pad = pipeline.element("check").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        in_probe.lock().unwrap().receive(info.buffer().unwrap(), hold);
        gst::PadProbeReturn::Ok
    });
    pipeline.play();
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.bus().unwrap().timed_pop_filtered(MAX_RUN_TIME, &types);
    if let Some(gst::MessageView::Error(error)) = message.as_ref().map(|message| message.view()) {
        let error = error.error();
        panic!("{}: {error}", error_kind(&error));
    }
    let mut checker = std::mem::take(&mut *checker.lock().unwrap());
    while !checker.held.is_empty() {
        checker.release();
    }
    checker.summary.in_place = pipeline.stat("rsshmsrc", "frames-in-place");
    checker.summary.copied = pipeline.stat("rsshmsrc", "frames-copied");
    say(format!("{SUMMARY}{}", serde_json::to_string(&checker.summary).unwrap()));
}
