// SPDX-License-Identifier: MIT OR Apache-2.0

//! The time without a writer. Muxers and mixers behind a reader continue with their other inputs.

use std::{thread::sleep, time::Duration};

use gst::prelude::*;
use rsshm_channel::{Caps, FrameDescriptor, Writer, WriterOptions, monotonic_ns};
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{CAPS, Item, SourceRecorder, command, launch, live_writer},
};

use crate::pipelines::streams_of;

const SOUND: &str = "audiotestsrc is-live=true samplesperbuffer=441 ! audio/x-raw,format=F32LE,rate=44100,channels=1";
const PICTURE: &str = "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1";
const H264: &str = "x264enc tune=zerolatency speed-preset=ultrafast key-int-max=30 ! h264parse";
const AAC: &str = "avenc_aac ! aacparse";

/// The start and the end of each filling, in nanoseconds. A filling is a GAP event or a buffer of silence.
fn fillings(reader: &SourceRecorder) -> Vec<(u64, u64)> {
    let span = |start: Option<gst::ClockTime>, duration: Option<gst::ClockTime>| {
        let (start, duration) = (start.unwrap().nseconds(), duration.unwrap().nseconds());
        (start, start + duration)
    };
    reader
        .items()
        .iter()
        .filter_map(|item| match item {
            Item::Frame(frame) if frame.flags.contains(gst::BufferFlags::GAP) => Some(span(frame.pts, frame.duration)),
            Item::Event(event) => match event.view() {
                gst::EventView::Gap(gap) => {
                    let (start, duration) = gap.get();
                    Some(span(Some(start), duration))
                }
                _ => None,
            },
            Item::Frame(_) => None,
        })
        .collect()
}

/// Checks that fillings follow each other without a hole, from the end of the last frame on.
#[track_caller]
fn assert_gapless(fillings: &[(u64, u64)], last_frame_end: u64) {
    assert!(
        fillings[0].0.abs_diff(last_frame_end) < 1000,
        "{last_frame_end} {fillings:?}"
    );
    for pair in fillings.windows(2) {
        assert_eq!(pair[0].1, pair[1].0, "{fillings:?}");
    }
}

#[test]
fn gap_events_fill_time_without_writer() {
    let channel = Channel::new();
    let mut writer = live_writer(&channel);
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(10);
    assert_eq!(fillings(&reader), []);
    writer.kill();
    eventually("ten gaps", || fillings(&reader).len() >= 10);
    let last = reader.last_frame().unwrap();
    let running_time = || reader.pipeline.current_running_time().unwrap().nseconds();
    let before = running_time();
    let fillings_before = fillings(&reader);
    assert_gapless(
        &fillings_before,
        (last.pts.unwrap() + last.duration.unwrap()).nseconds(),
    );
    // Gaps reach the time of a frame that would arrive now, and no further. They come at a bounded rate.
    let after = running_time();
    let end = fillings_before[fillings_before.len() - 1].1;
    assert!(end <= after && end + 1_000_000_000 > before, "{before} {end} {after}");
    assert!(
        fillings_before[1..]
            .iter()
            .all(|(start, end)| end - start >= 39_000_000)
    );
    let _writer = live_writer(&channel);
    reader.wait_for_frames(10);
    // Frames and gaps continue in the order of their times.
    let mut time = 0;
    for item in reader.items() {
        let start = match &item {
            Item::Frame(frame) => frame.pts.unwrap().nseconds(),
            Item::Event(event) => match event.view() {
                gst::EventView::Gap(gap) => gap.get().0.nseconds() + gap.get().1.unwrap().nseconds(),
                _ => continue,
            },
        };
        assert!(start >= time, "{start} {time}");
        time = start;
    }
    let count = fillings(&reader).len();
    reader.wait_for_frames(10);
    assert_eq!(fillings(&reader).len(), count);
}

#[test]
fn silence_fills_raw_audio_without_writer() {
    let channel = Channel::new();
    let mut writer = launch(&format!("{SOUND} ! rsshmsink name={channel}"));
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(10);
    writer.kill();
    let last_pts = || reader.frames().last().and_then(|frame| frame.pts);
    let is_silent = || {
        reader
            .last_frame()
            .is_some_and(|frame| frame.flags.contains(gst::BufferFlags::GAP))
    };
    eventually("silence", is_silent);
    let since = last_pts();
    eventually("half a second of silence", || {
        last_pts() > since.map(|pts| pts + gst::ClockTime::from_mseconds(500))
    });
    let frames = reader.frames();
    let last = frames
        .iter()
        .rfind(|frame| !frame.flags.contains(gst::BufferFlags::GAP))
        .unwrap();
    assert_gapless(
        &fillings(&reader),
        (last.pts.unwrap() + last.duration.unwrap()).nseconds(),
    );
    for frame in frames
        .iter()
        .filter(|frame| frame.flags.contains(gst::BufferFlags::GAP))
    {
        assert!(frame.bytes.iter().all(|byte| *byte == 0));
        let samples = frame.duration.unwrap().nseconds() * 44_100;
        assert!(samples.abs_diff(frame.bytes.len() as u64 / 4 * 1_000_000_000) < 100_000);
    }
    assert_eq!(reader.events(gst::EventType::Gap).len(), 0);
    let _writer = launch(&format!("{SOUND} ! rsshmsink name={channel}"));
    eventually("sound", || !is_silent());
    let times: Vec<_> = reader.frames().iter().map(|frame| frame.pts).collect();
    assert!(times.is_sorted(), "{times:?}");
}

#[test]
fn nothing_is_filled_before_first_frame() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    sleep(Duration::from_millis(300));
    assert_eq!(reader.words().iter().filter(|word| *word == "gap").count(), 0);
    let _writer = live_writer(&channel);
    reader.wait_for_frames(5);
    assert_eq!(fillings(&reader), []);
}

#[test]
fn stopped_writer_is_not_absent() {
    let channel = Channel::new();
    let writer = live_writer(&channel);
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(5);
    writer.stop();
    sleep(Duration::from_millis(500));
    assert_eq!(fillings(&reader), []);
    writer.resume();
    reader.wait_for_frames(5);
}

#[test]
fn reader_that_ends_without_writer_fills_nothing() {
    let channel = Channel::new();
    let mut writer = live_writer(&channel);
    let reader = SourceRecorder::with_options(&channel, "on-disconnect=eos");
    reader.wait_for_frames(5);
    writer.kill();
    reader.pipeline.wait_eos();
    assert_eq!(fillings(&reader), []);
}

#[test]
fn keyframe_of_slower_writer_is_kept() {
    let channel = Channel::new();
    let mut writer = launch(&format!("{PICTURE} ! {H264} ! rsshmsink name={channel}"));
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(10);
    writer.kill();
    eventually("gaps", || fillings(&reader).len() >= 5);
    let missed = reader.stat("frames-missed");
    reader.clear();
    // This encoder looks a second ahead, so its first frames are from before the last gap.
    let slow = "x264enc speed-preset=ultrafast rc-lookahead=30 sync-lookahead=0 mb-tree=true ! h264parse";
    let _writer = launch(&format!("{PICTURE} ! {slow} ! rsshmsink name={channel}"));
    reader.wait_for_frames(20);
    let frames = reader.frames();
    assert!(frames[0].is_discont() && !frames[0].flags.contains(gst::BufferFlags::DELTA_UNIT));
    // A frame behind missed ones has the flag too.
    let discontinuities = frames[1..].iter().filter(|frame| frame.is_discont()).count() as u64;
    assert!(
        discontinuities <= reader.stat("frames-missed") - missed,
        "{discontinuities}"
    );
    let times: Vec<_> = frames.iter().map(|frame| frame.pts).collect();
    assert!(times.is_sorted(), "{times:?}");
}

/// A writer of raw video may publish a single picture, which then stays.
#[test]
fn only_picture_of_next_writer_is_shown() {
    let channel = Channel::new();
    let mut writer = live_writer(&channel);
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(10);
    writer.kill();
    eventually("ten gaps", || fillings(&reader).len() >= 10);
    reader.clear();
    let size = 64 * 48;
    let writer = Writer::open((*channel).clone(), WriterOptions::default()).unwrap();
    writer.set_caps(Caps::fixed_size(CAPS, size)).unwrap();
    let mut slot = writer.claim(size).unwrap().expect("a slot");
    slot.as_mut().fill(7);
    // The picture was taken while there was no writer.
    let taken = monotonic_ns() - 200_000_000;
    let descriptor = FrameDescriptor::new(size as u64).with_pts(taken);
    writer.publish(&slot, descriptor, &[]).unwrap();
    eventually("the picture", || reader.frame_count() == 1);
    let frame = reader.last_frame().unwrap();
    assert_eq!(frame.bytes, vec![7; size]);
    let filled = fillings(&reader).last().map_or(0, |(_, end)| *end);
    assert!(frame.pts.unwrap().nseconds() > filled, "{frame:?} {filled}");
    // The next pictures keep their own times.
    drop(slot);
    let slot = writer.claim(size).unwrap().expect("a slot");
    let next = FrameDescriptor::new(size as u64).with_pts(monotonic_ns());
    writer.publish(&slot, next, &[]).unwrap();
    eventually("the next picture", || reader.frame_count() == 2);
    let distance = reader.last_frame().unwrap().pts.unwrap() - frame.pts.unwrap();
    assert!(distance.nseconds() < monotonic_ns() - taken, "{distance}");
}

/// Two writers and a program that records both channels into one file.
struct Recording {
    sound: Process,
    picture: Process,
    recorder: Process,
    directory: std::path::PathBuf,
    channels: (Channel, Channel),
    sources: (String, String),
}

impl Recording {
    /// `encode_in_writer` says whether the channels are raw or compressed.
    #[track_caller]
    fn start(muxer: &str, pads: (&str, &str), encode_in_writer: bool) -> Self {
        let channels = (Channel::new(), Channel::new());
        let directory = std::env::temp_dir().join(format!("rsshm-recording-{}", channels.0));
        std::fs::create_dir_all(&directory).unwrap();
        let (sources, encoders) = match encode_in_writer {
            true => (
                (format!("{SOUND} ! {AAC}"), format!("{PICTURE} ! {H264}")),
                ("aacparse".into(), "h264parse".into()),
            ),
            false => (
                (SOUND.to_owned(), PICTURE.to_owned()),
                (format!("audioconvert ! {AAC}"), H264.to_owned()),
            ),
        };
        let sound = launch(&format!("{} ! rsshmsink name={}", sources.0, channels.0));
        let picture = launch(&format!("{} ! rsshmsink name={}", sources.1, channels.1));
        eventually("both channels exist", || channels.0.exists() && channels.1.exists());
        // Short queues, so that they do not hide a muxer that waits.
        let queue = "queue max-size-time=200000000 max-size-buffers=0 max-size-bytes=0";
        let file = directory.join("file");
        let mut recorder = command("gst-launch-1.0");
        recorder.args(["-e", "-q"]).args(
            format!(
                "{} rsshmsrc channel={} ! {queue} ! {} ! {queue} ! {} rsshmsrc channel={} ! {queue} ! {} ! {queue} ! {}",
                muxer.replace("FILE", &file.display().to_string()),
                channels.0,
                encoders.0,
                pads.0,
                channels.1,
                encoders.1,
                pads.1,
            )
            .split_whitespace(),
        );
        let recorder = Process::start(recorder);
        let recording = Self {
            sound,
            picture,
            recorder,
            directory,
            channels,
            sources,
        };
        recording.wait_until_recorded();
        eventually("the file has data", || {
            std::fs::metadata(&file).is_ok_and(|file| file.len() > 0)
        });
        sleep(Duration::from_secs(1));
        recording
    }

    /// Waits until the recorder takes the frames of both writers.
    #[track_caller]
    fn wait_until_recorded(&self) {
        self.channels.0.wait_for_readers_of(self.sound.pid(), 1);
        self.channels.1.wait_for_readers_of(self.picture.pid(), 1);
    }

    /// The seconds of sound and of picture in the file.
    #[track_caller]
    fn end(mut self) -> (f64, f64) {
        self.recorder.interrupt();
        let streams = streams_of(&self.directory.join("file"));
        std::fs::remove_dir_all(&self.directory).unwrap();
        self.sound.kill();
        self.picture.kill();
        let seconds = |kind: &str| {
            let (_, first, last) = streams.iter().find(|(media, ..)| media.starts_with(kind)).unwrap();
            (*last - *first).nseconds() as f64 / 1e9
        };
        (seconds("audio"), seconds("video"))
    }
}

const DEAD: Duration = Duration::from_millis(3000);

#[test]
fn picture_is_recorded_whole_when_raw_sound_dies() {
    for (muxer, pads) in [
        ("mp4mux name=m ! filesink location=FILE", ("m.", "m.")),
        ("matroskamux name=m ! filesink location=FILE", ("m.", "m.")),
        ("mpegtsmux name=m ! filesink location=FILE", ("m.", "m.")),
        ("splitmuxsink name=m location=FILE", ("m.audio_0", "m.video")),
    ] {
        let mut recording = Recording::start(muxer, pads, false);
        recording.sound.kill();
        sleep(DEAD);
        let (sound, picture) = recording.end();
        assert!(sound > 3.0 && picture > 3.0, "{muxer}: {sound} {picture}");
    }
}

#[test]
fn living_stream_is_recorded_whole_when_compressed_one_dies() {
    for sound_dies in [true, false] {
        let mut recording = Recording::start("mpegtsmux name=m ! filesink location=FILE", ("m.", "m."), true);
        match sound_dies {
            true => recording.sound.kill(),
            false => recording.picture.kill(),
        }
        sleep(DEAD);
        let (sound, picture) = recording.end();
        let (alive, dead) = if sound_dies { (picture, sound) } else { (sound, picture) };
        assert!(alive - dead > 2.0, "{sound_dies}: {alive} {dead}");
    }
}

#[test]
fn writers_that_return_are_recorded_again() {
    let muxer = "mp4mux name=m ! filesink location=FILE";
    let mut recording = Recording::start(muxer, ("m.", "m."), false);
    recording.sound.kill();
    recording.picture.kill();
    sleep(Duration::from_secs(1));
    recording.sound = launch(&format!(
        "{} ! rsshmsink name={}",
        recording.sources.0, recording.channels.0
    ));
    recording.picture = launch(&format!(
        "{} ! rsshmsink name={}",
        recording.sources.1, recording.channels.1
    ));
    recording.wait_until_recorded();
    sleep(Duration::from_millis(1500));
    let (sound, picture) = recording.end();
    assert!(sound > 3.0 && picture > 3.0, "{sound} {picture}");
}

#[test]
fn mixers_continue_when_an_input_dies() {
    for (source, mixer) in [
        (SOUND, "audiomixer name=m"),
        (PICTURE, "compositor name=m sink_1::xpos=160"),
    ] {
        let channels = (Channel::new(), Channel::new());
        let mut first = launch(&format!("{source} ! rsshmsink name={}", channels.0));
        let _second = launch(&format!("{source} ! rsshmsink name={}", channels.1));
        let mut mix = command("gst-launch-1.0");
        mix.arg("-v").args(
            format!(
                "{mixer} ! fakesink silent=false name=out rsshmsrc channel={} ! queue ! m. rsshmsrc channel={} ! queue ! m.",
                channels.0, channels.1
            )
            .split_whitespace(),
        );
        let mut mix = Process::start(mix);
        let frames = |mix: &Process| mix.output().matches("last-message = chain").count();
        eventually("the mixer runs", || frames(&mix) > 20);
        first.kill();
        let before = frames(&mix);
        eventually("the mixer continues", || frames(&mix) > before + 60);
        let mut first = launch(&format!("{source} ! rsshmsink name={}", channels.0));
        let before = frames(&mix);
        eventually("the mixer continues", || frames(&mix) > before + 60);
        assert!(first.is_running() && mix.is_running(), "{}", mix.output());
    }
}
