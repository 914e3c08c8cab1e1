//! Frames that carry their number and can be checked as a whole, and the process that reads and checks them.
//!
//! Every eight bytes of a frame are the same word, made of its number: a frame that is torn, short or of a wrong place
//! is not made of one word.
#![allow(dead_code)] // each test program uses a part of it

use std::{
    collections::VecDeque,
    fmt::Display,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gst::prelude::*;

use crate::common::{Pipeline, Process};

fn word(number: u32) -> [u8; 8] {
    (u64::from(number) | u64::from(!number) << 32).to_ne_bytes()
}

/// Makes `bytes` the frame `number`.
pub fn fill(bytes: &mut [u8], number: u32) {
    for (to, from) in bytes.iter_mut().zip(word(number)) {
        *to = from;
    }
    let mut done = 8;
    while done < bytes.len() {
        let more = done.min(bytes.len() - done);
        bytes.copy_within(..more, done);
        done += more;
    }
}

/// The number of the frame in `bytes`, `None` when they are no whole frame.
pub fn check(bytes: &[u8]) -> Option<u32> {
    let first: [u8; 8] = bytes.get(..8)?.try_into().ok()?;
    let number = u64::from_ne_bytes(first) as u32;
    (first == word(number) && bytes[8..] == bytes[..bytes.len() - 8]).then_some(number)
}

/// A pipeline inside the test that publishes numbered frames, from 0 on; it does not play yet. `source` are properties
/// of videotestsrc, `caps` what follows `video/x-raw,`, `options` properties of rsshmsink.
#[track_caller]
pub fn writer(channel: impl Display, source: &str, caps: &str, options: &str) -> Pipeline {
    let pipeline = Pipeline::new(&format!(
        "videotestsrc name=source pattern=black {source} ! video/x-raw,{caps} ! rsshmsink name={channel} {options}"
    ));
    let pad = pipeline.element("source").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        let buffer = info.buffer_mut().unwrap();
        let number = buffer.offset() as u32;
        let mut map = buffer.make_mut().map_writable().unwrap();
        fill(&mut map, number);
        drop(map);
        gst::PadProbeReturn::Ok
    });
    pipeline
}

/// What a reader's process found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub received: u64,
    /// Gaps in the frames' own numbers, but for one after the first frame.
    pub missed: u64,
    /// Frames that were not whole when they came, or not any more when they were let go.
    pub torn: u64,
    /// Frames with a number that is not higher than the one before.
    pub backwards: u64,
    pub first: u64,
    pub last: u64,
    pub in_place: u64,
    pub copied: u64,
}

const FIELDS: [&str; 8] = [
    "received",
    "missed",
    "torn",
    "backwards",
    "first",
    "last",
    "in-place",
    "copied",
];

impl Summary {
    fn print(&self) {
        let values = [
            self.received,
            self.missed,
            self.torn,
            self.backwards,
            self.first,
            self.last,
            self.in_place,
            self.copied,
        ];
        let fields: Vec<String> = FIELDS
            .iter()
            .zip(values)
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        println!("SUMMARY {}", fields.join(" "));
    }

    #[track_caller]
    fn parse(output: &str) -> Self {
        let line = output.lines().find_map(|line| line.strip_prefix("SUMMARY "));
        let line = line.unwrap_or_else(|| panic!("no summary in:\n{output}"));
        let value = |name: &str| {
            let field = line
                .split(' ')
                .find_map(|field| field.strip_prefix(&format!("{name}=")));
            field.unwrap().parse().unwrap()
        };
        let [received, missed, torn, backwards, first, last, in_place, copied] = FIELDS.map(value);
        Self {
            received,
            missed,
            torn,
            backwards,
            first,
            last,
            in_place,
            copied,
        }
    }

    /// Every frame was whole and in order.
    #[track_caller]
    pub fn assert_exact(&self) {
        assert!(self.received > 0 && self.torn == 0 && self.backwards == 0, "{self:?}");
    }
}

/// The command of a process that reads a channel with `pipeline` and checks what passes the element `check` in it; it
/// holds the last `hold` frames. It ends at EOS.
pub fn reader_command(pipeline: &str, hold: usize) -> Command {
    let mut command = entry_command("numbered::reader_process");
    command
        .env("RSSHM_TEST_READER", pipeline)
        .env("RSSHM_TEST_HOLD", hold.to_string());
    command
}

/// The command that runs one ignored test of this program in a process of its own.
pub fn entry_command(entry: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--ignored", "--exact", "--nocapture", entry])
        // The plugin is a part of this program: no other is to be found.
        .env(
            "GST_REGISTRY",
            std::env::temp_dir().join("rsshm-test-registry-static.bin"),
        )
        .env("GST_REGISTRY_FORK", "no")
        .env("G_DEBUG", "fatal_warnings");
    command
}

/// Starts such a process on `channel`, with nothing between source and check.
#[track_caller]
pub fn reader(channel: impl Display, options: &str, hold: usize) -> Process {
    reader_with(
        &format!("rsshmsrc name={channel} {options} ! fakesink name=check sync=false"),
        hold,
    )
}

/// Starts such a process with a pipeline of its own.
#[track_caller]
pub fn reader_with(pipeline: &str, hold: usize) -> Process {
    Process::start(reader_command(pipeline, hold))
}

/// Waits for the end of a reader's process and yields what it found.
#[track_caller]
pub fn summary(process: &mut Process) -> Summary {
    Summary::parse(&process.wait_ok())
}

/// Whether a reader's process has got a frame.
pub fn has_frames(process: &Process) -> bool {
    process.output().contains("FIRST FRAME")
}

/// The name of an error's kind.
pub fn kind(error: &gst::glib::Error) -> String {
    let resource = error
        .kind::<gst::ResourceError>()
        .map(|kind| format!("ResourceError::{kind:?}"));
    let stream = error
        .kind::<gst::StreamError>()
        .map(|kind| format!("StreamError::{kind:?}"));
    resource.or(stream).unwrap_or_else(|| format!("{error:?}"))
}

#[derive(Default)]
struct Checker {
    summary: Summary,
    previous: Option<u32>,
    held: VecDeque<(u32, gst::Buffer)>,
}

impl Checker {
    fn receive(&mut self, buffer: &gst::Buffer, hold: usize) {
        let number = buffer.map_readable().ok().and_then(|map| check(&map));
        self.summary.received += 1;
        let Some(number) = number else {
            self.summary.torn += 1;
            return;
        };
        match self.previous.replace(number) {
            None => {
                self.summary.first = number.into();
                println!("FIRST FRAME {number}");
            }
            // The first is the newest there was, shown at once; what else was captured before this pipeline began has no
            // place in it.
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
            let now = buffer.map_readable().ok().and_then(|map| check(&map));
            self.summary.torn += u64::from(now != Some(number));
        }
    }
}

/// The reader's process itself.
#[test]
#[ignore = "a process that other tests start"]
fn reader_process() {
    let Ok(description) = std::env::var("RSSHM_TEST_READER") else {
        return;
    };
    let hold = std::env::var("RSSHM_TEST_HOLD").unwrap().parse().unwrap();
    let pipeline = Pipeline::new(&description);
    let checker = Arc::new(Mutex::new(Checker::default()));
    let pad = pipeline.element("check").static_pad("sink").unwrap();
    let in_probe = Arc::clone(&checker);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        in_probe.lock().unwrap().receive(info.buffer().unwrap(), hold);
        gst::PadProbeReturn::Ok
    });
    pipeline.0.set_state(gst::State::Playing).unwrap();
    // Nobody waits so long for it, but nobody has to kill it either.
    let until = Instant::now() + Duration::from_secs(100);
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    let message = pipeline.0.bus().unwrap().timed_pop_filtered(
        gst::ClockTime::from_nseconds((until - Instant::now()).as_nanos() as u64),
        &types,
    );
    if let Some(gst::MessageView::Error(error)) = message.as_ref().map(|message| message.view()) {
        let error = error.error();
        panic!("{}: {error}", kind(&error));
    }
    let mut checker = std::mem::take(&mut *checker.lock().unwrap());
    while !checker.held.is_empty() {
        checker.release();
    }
    checker.summary.in_place = pipeline.stat("rsshmsrc", "frames-in-place");
    checker.summary.copied = pipeline.stat("rsshmsrc", "frames-copied");
    checker.summary.print();
}

/// The writer had a slot for each of its `frames`, and took none from a reader.
#[track_caller]
pub fn assert_nothing_dropped(writer: &Pipeline, frames: u64) {
    let stats = writer
        .by_factory("rsshmsink")
        .property::<gst::Structure>("channel-stats");
    assert_eq!(writer.stat("rsshmsink", "frames-published"), frames, "{stats}");
    assert_eq!(writer.stat("rsshmsink", "frames-dropped"), 0, "{stats}");
    assert_eq!(writer.stat("rsshmsink", "readers-evicted"), 0, "{stats}");
}

/// A reader had every frame up to `last`, whole.
#[track_caller]
pub fn assert_complete(found: &Summary, last: u64) {
    found.assert_exact();
    assert!(found.missed == 0 && found.last == last, "{found:?}");
}
