// SPDX-License-Identifier: MIT OR Apache-2.0

//! Players and recorders continue with the stream of the next writer.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use gst::prelude::*;
use rsshm_testkit::{
    Channel, eventually,
    gst::{CAPS, Pipeline, init, launch},
    on_this_machine,
};

/// A live stream: its source, and the property of a player for the sink that gets it.
type Source = (&'static str, &'static str);

const RAW_VIDEO: Source = (
    "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1",
    "video-sink",
);

const LARGE_RAW_VIDEO: Source = (
    "videotestsrc is-live=true ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1",
    "video-sink",
);

const RAW_AUDIO: Source = (
    "audiotestsrc is-live=true samplesperbuffer=1600 ! audio/x-raw,format=S16LE,rate=48000,channels=2",
    "audio-sink",
);

const H264: Source = (
    "videotestsrc is-live=true ! video/x-raw,format=I420,width=64,height=48,framerate=30/1 ! x264enc tune=zerolatency \
     key-int-max=15 ! h264parse",
    "video-sink",
);

/// A player plays the stream of a writer, and after that writer is killed, the stream of another one. The streams have
/// other ids.
#[track_caller]
fn assert_player_shows_new_writer(factory: &str, (source, sink_property): Source, (next_source, _): Source) {
    let channel = Channel::new();
    let start_writer = |source| launch(&format!("{source} ! rsshmsink name={channel}"));
    let mut writer = start_writer(source);
    init();
    let sink = gst::ElementFactory::make("fakesink")
        .property("sync", true)
        .property("signal-handoffs", true)
        .build()
        .unwrap();
    let shown = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&shown);
    sink.connect("handoff", false, move |_| {
        to.lock().unwrap().push(Instant::now());
        None
    });
    let player = gst::ElementFactory::make(factory)
        .property("uri", format!("rsshm://{channel}"))
        .property(sink_property, sink)
        .build()
        .unwrap();
    let player = Pipeline::from(player.downcast::<gst::Pipeline>().unwrap());
    player.play();
    // The frames of the first writer are displayed for longer than the limit below.
    let show = |frames| eventually("frames are displayed", || shown.lock().unwrap().len() >= frames);
    show(90);
    writer.kill();
    let killed = Instant::now();
    let before = shown.lock().unwrap().len();
    let mut writer = start_writer(next_source);
    channel.wait_for_frame_of(writer.pid());
    let published = Instant::now();
    show(before + 60);
    drop(player);
    writer.interrupt();
    let shown = shown.lock().unwrap();
    // The time without a writer does not count.
    let pauses = shown.windows(2).map(|pair| {
        let begin = if pair[1] > killed {
            pair[0].max(published)
        } else {
            pair[0]
        };
        pair[1].saturating_duration_since(begin)
    });
    assert!(
        pauses.clone().max() < Some(on_this_machine(Duration::from_millis(2500))),
        "{factory}: {:?}",
        pauses.max()
    );
}

#[test]
fn playbin_shows_new_writer_without_pause() {
    assert_player_shows_new_writer("playbin", RAW_VIDEO, RAW_VIDEO);
}

#[test]
fn playbin3_shows_new_writer_without_pause() {
    assert_player_shows_new_writer("playbin3", RAW_VIDEO, RAW_VIDEO);
}

#[test]
fn playbin3_shows_new_writer_of_other_format() {
    assert_player_shows_new_writer("playbin3", RAW_VIDEO, LARGE_RAW_VIDEO);
}

#[test]
fn playbin3_plays_new_writer_of_audio() {
    assert_player_shows_new_writer("playbin3", RAW_AUDIO, RAW_AUDIO);
}

#[test]
fn playbin3_shows_new_writer_of_encoded_video() {
    assert_player_shows_new_writer("playbin3", H264, H264);
}

/// The number of frames in a recording, and the last timestamp.
fn recorded(file: &Path) -> (usize, gst::ClockTime) {
    let player = Pipeline::new(&format!(
        "filesrc location={} ! decodebin ! fakesink name=sink sync=false",
        file.display()
    ));
    let times = Arc::new(Mutex::new(Vec::new()));
    let to = Arc::clone(&times);
    let pad = player.element("sink").static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        to.lock().unwrap().extend(info.buffer().unwrap().pts());
        gst::PadProbeReturn::Ok
    });
    player.play();
    player.wait_eos();
    let times = times.lock().unwrap();
    (times.len(), *times.last().unwrap())
}

#[test]
fn recordings_continue_with_new_writer() {
    let channel = Channel::new();
    let directory = std::env::temp_dir().join(channel.to_string());
    std::fs::create_dir(&directory).unwrap();
    let encoder =
        "videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=ultrafast ! h264parse";
    let at = |name: &str| -> PathBuf { directory.join(name) };
    let mut recorders = [
        format!("mp4mux ! filesink location={}", at("all.mp4").display()),
        format!(
            "splitmuxsink location={} max-size-time=1000000000 send-keyframe-requests=true",
            at("part%d.mp4").display()
        ),
    ]
    .map(|end| launch(&format!("-e rsshmsrc name={channel} ! {encoder} ! {end}")));
    for _ in 0..2 {
        let mut writer = launch(&format!(
            "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel} lossless=true"
        ));
        channel.wait_for_readers_of(writer.pid(), recorders.len());
        // The frames of both writers are recorded for two seconds.
        let frames = || channel.frames_of(writer.pid()).unwrap();
        let before = frames();
        eventually("frames are recorded", || frames() >= before + 60);
        writer.kill();
    }
    for recorder in &mut recorders {
        let output = recorder.interrupt();
        assert!(!output.contains("WARN") && !output.contains("ERROR"), "{output}");
    }
    let (frames, time) = recorded(&at("all.mp4"));
    assert!(
        frames > 60 && time > 3 * gst::ClockTime::SECOND,
        "{frames} frames up to {time}"
    );
    let parts: Vec<_> = (0..)
        .map(|part| at(&format!("part{part}.mp4")))
        .take_while(|file| file.exists())
        .map(|file| recorded(&file).0)
        .collect();
    assert!(parts.len() >= 3 && parts.iter().sum::<usize>() > 60, "{parts:?}");
    std::fs::remove_dir_all(&directory).unwrap();
}
