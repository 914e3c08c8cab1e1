// SPDX-License-Identifier: MIT OR Apache-2.0

//! The end of a stream, and pipelines that stop promptly although they wait for something.

use std::time::Duration;

use gst::prelude::*;
use nix::sys::signal::Signal;
use rsshm_testkit::{
    Channel, PATIENCE, Process, eventually,
    gst::{CAPS, LOSSLESS, Pipeline, SourceRecorder, command, launch, live_writer},
    timed, wait_until,
};

/// The longest time that a state change may take.
const MAX_STATE_CHANGE_TIME: Duration = Duration::from_secs(1);

/// A writer that ends after this number of frames.
fn short_writer(channel: &Channel, frames: u32) -> Process {
    launch(&format!(
        "videotestsrc num-buffers={frames} ! {CAPS} ! rsshmsink name={channel} {LOSSLESS}"
    ))
}

/// Whether an EOS or an error arrives within `time`.
fn ended_within(reader: &Pipeline, time: Duration) -> bool {
    let timeout = gst::ClockTime::from_mseconds(time.as_millis() as u64);
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    reader.bus().unwrap().timed_pop_filtered(timeout, &types).is_some()
}

#[test]
fn reader_receives_eos_after_last_frame() {
    let channel = Channel::new();
    let readers: Vec<SourceRecorder> = (0..3).map(|_| SourceRecorder::of(&channel)).collect();
    // The writer's first frame is blocked until all readers are connected.
    let writer = Pipeline::new(&format!(
        "videotestsrc num-buffers=30 ! {CAPS} ! rsshmsink channel={channel} lossless=true sync=false"
    ));
    let pad = writer.pad("rsshmsink", "sink");
    let block = pad.add_probe(gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER, |_, _| {
        gst::PadProbeReturn::Ok
    });
    writer.play();
    // The segment is created when the source draws the first frame.
    eventually("three readers", || writer.num_clients() == 3);
    pad.remove_probe(block.unwrap());
    writer.wait_eos();
    for reader in &readers {
        reader.pipeline.wait_eos();
        let offsets: Vec<u64> = reader.frames().iter().map(|frame| frame.offset).collect();
        assert_eq!(offsets, (0..30).collect::<Vec<u64>>());
    }
    drop(writer);
    channel.assert_removed();
}

#[test]
fn source_without_forward_eos_follows_next_writer() {
    let channel = Channel::new();
    // A writer that stops after EOS does not count as a disconnect.
    let reader = SourceRecorder::with_options(&channel, "forward-eos=false on-disconnect=error");
    for round in 1..=3 {
        short_writer(&channel, 20).wait_ok();
        eventually("all frames of this writer arrive", || {
            reader.frame_count() >= round * 20
        });
        assert!(!ended_within(&reader.pipeline, Duration::from_millis(400)));
        assert_eq!(reader.frame_count(), round * 20);
        assert!(reader.frames()[(round - 1) * 20].is_discont());
        channel.assert_removed();
    }
}

#[test]
fn source_waits_after_writer_was_killed() {
    let channel = Channel::new();
    let reader = SourceRecorder::of(&channel);
    let mut writer = live_writer(&channel);
    reader.wait_for_frames(5);
    writer.kill();
    wait_until("the source is disconnected", Duration::from_secs(3), || {
        !reader.is_connected()
    });
    assert!(!ended_within(&reader.pipeline, Duration::from_millis(500)));
}

#[test]
fn on_disconnect_eos_ends_stream_of_killed_writer() {
    let channel = Channel::new();
    let reader = SourceRecorder::with_options(&channel, "on-disconnect=eos");
    // Before the first writer, the reader is not connected, so there is no disconnect.
    assert!(!ended_within(&reader.pipeline, Duration::from_millis(500)));
    let mut writer = live_writer(&channel);
    reader.wait_for_frames(5);
    writer.kill();
    reader.pipeline.wait_eos();
}

#[test]
fn on_disconnect_error_reports_killed_writer() {
    let channel = Channel::new();
    let reader = SourceRecorder::with_options(&channel, "on-disconnect=error");
    let mut writer = live_writer(&channel);
    reader.wait_for_frames(5);
    writer.kill();
    let error = reader.pipeline.wait_error();
    assert!(error.matches(gst::ResourceError::Read), "{error:?}");
    assert!(error.message().contains(channel.as_str()), "{error}");
}

#[test]
fn writer_stop_without_eos_is_a_disconnect() {
    let channel = Channel::new();
    let reader = SourceRecorder::with_options(&channel, "on-disconnect=eos");
    let mut writer = live_writer(&channel);
    reader.wait_for_frames(5);
    writer.interrupt();
    reader.pipeline.wait_eos();
}

#[test]
fn connection_timeout_without_writer_is_an_error() {
    let (channel, other) = (Channel::new(), Channel::new());
    let _writer = Pipeline::playing(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={other}"));
    eventually("the other channel exists", || other.exists());
    let (time, error) = timed(|| {
        Pipeline::playing(&format!("rsshmsrc channel={channel} connection-timeout=1 ! fakesink")).wait_error()
    });
    assert!(error.matches(gst::ResourceError::NotFound), "{error:?}");
    assert!(error.message().contains(channel.as_str()), "{error}");
    assert!(error.message().contains(other.as_str()), "{error}");
    assert!(time > Duration::from_millis(900), "{time:?}");
}

#[test]
fn connection_timeout_applies_after_writer_was_killed() {
    let channel = Channel::new();
    let reader = SourceRecorder::with_options(&channel, "connection-timeout=2");
    let mut writer = live_writer(&channel);
    reader.wait_for_frames(5);
    // The timeout does not apply while the source is connected.
    assert!(!ended_within(&reader.pipeline, Duration::from_millis(2500)));
    writer.kill();
    let error = reader.pipeline.wait_error();
    assert!(error.matches(gst::ResourceError::NotFound), "{error:?}");
}

#[test]
fn waiting_source_lists_existing_channels_once() {
    let (channel, other) = (Channel::new(), Channel::new());
    let _writer = Pipeline::playing(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={other}"));
    let reader = Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
    let (time, message) = timed(|| reader.message(&[gst::MessageType::Info, gst::MessageType::Error]));
    let gst::MessageView::Info(info) = message.view() else {
        panic!("{message:?}");
    };
    assert!(info.error().message().contains(channel.as_str()), "{info:?}");
    assert!(info.error().message().contains(other.as_str()), "{info:?}");
    assert!(
        time > Duration::from_millis(2500) && time < Duration::from_secs(8),
        "{time:?}"
    );
    // The message must be posted only once.
    let bus = reader.bus().unwrap();
    let again = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(1500), &[gst::MessageType::Info]);
    assert!(again.is_none(), "{again:?}");
}

/// Sets a blocked pipeline to NULL three times: from PLAYING, from PAUSED, and from PLAYING after PAUSED.
///
/// `wait_until_blocked` returns as soon as the pipeline waits for something.
#[track_caller]
fn assert_stops_promptly(make: impl Fn() -> Pipeline, wait_until_blocked: impl Fn(&Pipeline)) {
    for detour in [
        &[][..],
        &[gst::State::Paused],
        &[gst::State::Paused, gst::State::Playing],
    ] {
        let pipeline = make();
        wait_until_blocked(&pipeline);
        for state in detour {
            let (time, result) = timed(|| pipeline.set_state(*state));
            result.unwrap();
            assert!(time < MAX_STATE_CHANGE_TIME, "{state:?} took {time:?}");
            // After this time, the pipeline is blocked again.
            std::thread::sleep(Duration::from_millis(50));
        }
        let (time, result) = timed(|| pipeline.set_state(gst::State::Null));
        result.unwrap();
        assert!(time < MAX_STATE_CHANGE_TIME, "{time:?} after {detour:?}");
    }
}

/// Waits until a source that has just started waits for a frame. The function sleeps, because nothing reports this
/// state.
fn wait_for_source() {
    std::thread::sleep(Duration::from_millis(100));
}

/// Waits until the sink publishes nothing for 0.3 s.
#[track_caller]
fn wait_until_publishing_stops(pipeline: &Pipeline) {
    let published = || pipeline.stat("rsshmsink", "frames-published");
    let mut last = (published(), 0);
    wait_until("the writer is blocked", PATIENCE, || {
        std::thread::sleep(Duration::from_millis(20));
        let now = published();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        last.1 == 15
    });
}

#[test]
fn source_without_writer_stops_promptly() {
    let channel = Channel::new();
    assert_stops_promptly(
        || Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink")),
        |_| wait_for_source(),
    );
    channel.assert_removed();
}

#[test]
fn source_without_frames_stops_promptly() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! video/x-raw,framerate=1/60 ! rsshmsink channel={channel}"
    ));
    assert_stops_promptly(
        || {
            let reader = SourceRecorder::of(&channel);
            // The next frame comes a minute later.
            eventually("the newest frame arrives", || reader.frame_count() == 1);
            reader.pipeline
        },
        |_| wait_for_source(),
    );
    drop(writer);
    channel.assert_removed();
}

#[test]
fn lossless_sink_stops_promptly_with_stopped_reader() {
    let channel = Channel::new();
    let mut reader = launch(&format!("rsshmsrc name={channel} ! fakesink sync=false"));
    let blocked = |writer: &Pipeline| {
        reader.signal(Signal::SIGSTOP);
        wait_until_publishing_stops(writer);
    };
    assert_stops_promptly(
        || {
            reader.signal(Signal::SIGCONT);
            let writer = Pipeline::playing(&format!(
                "videotestsrc ! {CAPS} ! rsshmsink channel={channel} {LOSSLESS}"
            ));
            eventually("frames flow", || writer.stat("rsshmsink", "frames-published") > 100);
            writer
        },
        blocked,
    );
    channel.assert_removed();
    reader.kill();
}

#[test]
fn sink_waiting_for_connection_stops_promptly() {
    let channel = Channel::new();
    assert_stops_promptly(
        || {
            Pipeline::playing(&format!(
                "videotestsrc ! {CAPS} ! rsshmsink channel={channel} wait-for-connection=true"
            ))
        },
        |writer| {
            eventually("the channel exists", || channel.exists());
            wait_until_publishing_stops(writer);
            assert_eq!(writer.stat("rsshmsink", "frames-published"), 0);
        },
    );
    channel.assert_removed();
}

#[test]
fn sink_continues_when_wait_for_connection_is_unset() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc num-buffers=5 ! {CAPS} ! rsshmsink channel={channel} wait-for-connection=true"
    ));
    eventually("the channel exists", || channel.exists());
    wait_until_publishing_stops(&writer);
    writer
        .by_factory("rsshmsink")
        .set_property("wait-for-connection", false);
    writer.wait_eos();
    assert_eq!(writer.stat("rsshmsink", "frames-published"), 5);
}

#[test]
fn blocked_sink_continues_after_pause() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc num-buffers=50 ! {CAPS} ! rsshmsink channel={channel} {LOSSLESS}"
    ));
    eventually("the channel exists", || channel.exists());
    // Each state lasts long enough for the writer to wait in it.
    std::thread::sleep(Duration::from_millis(100));
    writer.set_state(gst::State::Paused).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    writer.play();
    std::thread::sleep(Duration::from_millis(100));
    let reader = SourceRecorder::of(&channel);
    writer.wait_eos();
    reader.pipeline.wait_eos();
    assert_eq!(reader.frame_count(), 50);
}

/// Elements upstream of a sink that waits for a reader. Each case keeps EOS from the sink in another way.
const WAITING_WRITERS: [&str; 5] = [
    "videotestsrc",
    "videotestsrc ! queue",
    "videotestsrc is-live=true ! identity drop-allocation=true",
    // EOS waits in the queue, or behind the frames that the encoder delays.
    "videotestsrc is-live=true ! queue max-size-buffers=0 ! videoconvert ! x264enc",
    "audiotestsrc is-live=true",
];

#[test]
fn eos_ends_pipeline_that_waits_for_connection() {
    let writers = WAITING_WRITERS.map(|source| {
        let channel = Channel::new();
        let mut command = command("gst-launch-1.0");
        let pipeline = format!("-q -e {source} ! rsshmsink name={channel} wait-for-connection=true");
        command.args(pipeline.split_whitespace());
        (channel, Process::start(command))
    });
    for (channel, mut writer) in writers {
        eventually("the channel exists", || channel.exists());
        std::thread::sleep(Duration::from_millis(500));
        writer.signal(Signal::SIGINT);
        writer.wait_ok();
        channel.assert_removed();
    }
}

#[test]
fn end_of_queued_film_does_not_end_wait_for_connection() {
    let channel = Channel::new();
    let _writer = launch(&format!(
        "videotestsrc num-buffers=5 ! {CAPS} ! queue ! rsshmsink name={channel} wait-for-connection=true"
    ));
    eventually("the channel exists", || channel.exists());
    std::thread::sleep(Duration::from_secs(1));
    let reader = SourceRecorder::of(&channel);
    reader.pipeline.wait_eos();
    assert_eq!(reader.frame_count(), 5);
}
