//! How streams end, and that everything lets go at once, whatever it waits for.

mod common;

use std::time::Duration;

use common::{Channel, PATIENCE, Pipeline, Process, Tap, eventually, launch, timed, within};
use gst::prelude::*;
use nix::sys::signal::Signal;

const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";

/// How long setting a pipeline to NULL may take.
const PROMPTLY: Duration = Duration::from_secs(1);

fn live_writer(channel: &Channel) -> Process {
    launch(&format!(
        "videotestsrc is-live=true ! {CAPS} ! rsshmsink name={channel}"
    ))
}

/// A writer of so many frames, then EOS.
fn short_writer(channel: &Channel, frames: u32) -> Process {
    launch(&format!(
        "videotestsrc num-buffers={frames} ! {CAPS} ! rsshmsink name={channel} lossless=true wait-for-connection=true \
         sync=false"
    ))
}

/// Whether an EOS or an error came within `time`.
fn ended_within(reader: &Pipeline, time: Duration) -> bool {
    let timeout = gst::ClockTime::from_mseconds(time.as_millis() as u64);
    let types = [gst::MessageType::Eos, gst::MessageType::Error];
    reader.0.bus().unwrap().timed_pop_filtered(timeout, &types).is_some()
}

#[test]
fn the_end_of_the_writers_stream_is_the_readers_after_its_last_frame() {
    let channel = Channel::new();
    let readers: Vec<Tap> = (0..3)
        .map(|_| Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false")))
        .collect();
    // All three must be there for all of it.
    let writer = Pipeline::new(&format!(
        "videotestsrc num-buffers=30 ! {CAPS} ! rsshmsink channel={channel} lossless=true sync=false"
    ));
    let pad = writer.by_factory("rsshmsink").static_pad("sink").unwrap();
    let block = pad.add_probe(gst::PadProbeType::BLOCK | gst::PadProbeType::BUFFER, |_, _| {
        gst::PadProbeReturn::Ok
    });
    writer.0.set_state(gst::State::Playing).unwrap();
    // The segment is made when the first frame is drawn.
    let sink = writer.by_factory("rsshmsink");
    eventually("three readers", || sink.property::<u32>("num-clients") == 3);
    pad.remove_probe(block.unwrap());
    writer.wait_eos();
    for reader in &readers {
        reader.pipeline.wait_eos();
        let offsets: Vec<u64> = reader.all().iter().map(|frame| frame.offset).collect();
        assert_eq!(offsets, (0..30).collect::<Vec<u64>>());
    }
    drop(writer);
    channel.assert_gone();
}

#[test]
fn a_reader_that_wants_no_eos_goes_on_with_the_next_writer() {
    let channel = Channel::new();
    // A writer that stops after its end of stream did not go away without one.
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} forward-eos=false on-disconnect=error ! fakesink sync=false"
    ));
    for round in 1..=3 {
        short_writer(&channel, 20).wait_ok();
        eventually("all frames of this writer", || reader.count() >= round * 20);
        assert!(!ended_within(&reader.pipeline, Duration::from_millis(400)));
        assert_eq!(reader.count(), round * 20);
        assert!(reader.all()[(round - 1) * 20].is_discont());
        channel.assert_gone();
    }
}

#[test]
fn a_killed_writer_is_waited_for() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let mut writer = live_writer(&channel);
    reader.wait_for_more(5);
    writer.kill();
    let source = reader.pipeline.by_factory("rsshmsrc");
    within(Duration::from_secs(3), "it is noticed", || {
        !source.property::<bool>("connected")
    });
    assert!(!ended_within(&reader.pipeline, Duration::from_millis(500)));
}

#[test]
fn a_killed_writer_ends_the_stream_where_that_is_wanted() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} on-disconnect=eos ! fakesink sync=false"
    ));
    // Before there is a writer nobody goes away.
    assert!(!ended_within(&reader.pipeline, Duration::from_millis(500)));
    let mut writer = live_writer(&channel);
    reader.wait_for_more(5);
    writer.kill();
    reader.pipeline.wait_eos();
}

#[test]
fn a_killed_writer_is_an_error_where_that_is_wanted() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} on-disconnect=error ! fakesink sync=false"
    ));
    let mut writer = live_writer(&channel);
    reader.wait_for_more(5);
    writer.kill();
    let error = reader.pipeline.wait_error();
    assert!(error.matches(gst::ResourceError::Read), "{error:?}");
    assert!(error.message().contains(&channel.0), "{error}");
}

#[test]
fn a_writer_that_stops_without_eos_goes_away_too() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} on-disconnect=eos ! fakesink sync=false"
    ));
    let mut writer = live_writer(&channel);
    reader.wait_for_more(5);
    writer.interrupt();
    reader.pipeline.wait_eos();
}

#[test]
fn a_reader_gives_up_when_no_writer_comes() {
    let (channel, other) = (Channel::new(), Channel::new());
    let _writer = Pipeline::playing(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={other}"));
    eventually("the other channel", || other.exists());
    let (time, error) = timed(|| {
        Pipeline::playing(&format!("rsshmsrc channel={channel} connection-timeout=1 ! fakesink")).wait_error()
    });
    assert!(error.matches(gst::ResourceError::NotFound), "{error:?}");
    assert!(error.message().contains(&channel.0), "{error}");
    assert!(error.message().contains(&other.0), "{error}");
    assert!(time > Duration::from_millis(900), "{time:?}");
}

#[test]
fn a_reader_gives_up_too_when_the_writer_does_not_come_back() {
    let channel = Channel::new();
    let reader = Tap::playing(&format!(
        "rsshmsrc channel={channel} connection-timeout=2 ! fakesink sync=false"
    ));
    let mut writer = live_writer(&channel);
    reader.wait_for_more(5);
    // Connected, it waits as long as it likes.
    assert!(!ended_within(&reader.pipeline, Duration::from_millis(2500)));
    writer.kill();
    let error = reader.pipeline.wait_error();
    assert!(error.matches(gst::ResourceError::NotFound), "{error:?}");
}

#[test]
fn a_waiting_reader_says_which_channels_there_are() {
    let (channel, other) = (Channel::new(), Channel::new());
    let _writer = Pipeline::playing(&format!("videotestsrc ! {CAPS} ! rsshmsink channel={other}"));
    let reader = Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink"));
    let (time, message) = timed(|| reader.message(&[gst::MessageType::Info, gst::MessageType::Error]));
    let gst::MessageView::Info(info) = message.view() else {
        panic!("{message:?}");
    };
    assert!(info.error().message().contains(&channel.0), "{info:?}");
    assert!(info.error().message().contains(&other.0), "{info:?}");
    assert!(
        time > Duration::from_millis(2500) && time < Duration::from_secs(8),
        "{time:?}"
    );
    // Once is enough.
    let bus = reader.0.bus().unwrap();
    let again = bus.timed_pop_filtered(gst::ClockTime::from_mseconds(1500), &[gst::MessageType::Info]);
    assert!(again.is_none(), "{again:?}");
}

/// Sets a pipeline that `wait`s for something to NULL, from PLAYING, from PAUSED, and from PLAYING after PAUSED.
#[track_caller]
fn stops_promptly(make: impl Fn() -> Pipeline, is_blocked: impl Fn(&Pipeline)) {
    for detour in [
        &[][..],
        &[gst::State::Paused],
        &[gst::State::Paused, gst::State::Playing],
    ] {
        let pipeline = make();
        is_blocked(&pipeline);
        for state in detour {
            let (time, result) = timed(|| pipeline.0.set_state(*state));
            result.unwrap();
            assert!(time < PROMPTLY, "{state:?} took {time:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
        let (time, result) = timed(|| pipeline.0.set_state(gst::State::Null));
        result.unwrap();
        assert!(time < PROMPTLY, "{time:?} after {detour:?}");
    }
}

/// Waits until the sink's count of frames stands still.
#[track_caller]
fn stands_still(pipeline: &Pipeline) {
    let published = || pipeline.stat("rsshmsink", "frames-published");
    let mut last = (published(), 0);
    within(PATIENCE, "the writer is blocked", || {
        std::thread::sleep(Duration::from_millis(20));
        let now = published();
        last = if now == last.0 { (now, last.1 + 1) } else { (now, 0) };
        last.1 == 15
    });
}

#[test]
fn a_source_without_a_writer_stops_promptly() {
    let channel = Channel::new();
    stops_promptly(
        || Pipeline::playing(&format!("rsshmsrc channel={channel} ! fakesink")),
        |_| std::thread::sleep(Duration::from_millis(100)),
    );
    channel.assert_gone();
}

#[test]
fn a_source_without_frames_stops_promptly() {
    let channel = Channel::new();
    let _writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! video/x-raw,framerate=1/60 ! rsshmsink channel={channel}"
    ));
    stops_promptly(
        || {
            let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
            // The only one for a minute, and it may be here already.
            eventually("the newest frame", || reader.count() == 1);
            reader.pipeline
        },
        |_| std::thread::sleep(Duration::from_millis(100)),
    );
    drop(_writer);
    channel.assert_gone();
}

#[test]
fn a_lossless_writer_stops_promptly_though_its_reader_stands_still() {
    let channel = Channel::new();
    let mut reader = launch(&format!("rsshmsrc name={channel} ! fakesink sync=false"));
    let blocked = |writer: &Pipeline| {
        reader.signal(Signal::SIGSTOP);
        stands_still(writer);
    };
    stops_promptly(
        || {
            reader.signal(Signal::SIGCONT);
            let writer = Pipeline::playing(&format!(
                "videotestsrc ! {CAPS} ! rsshmsink channel={channel} lossless=true wait-for-connection=true sync=false"
            ));
            eventually("frames flow", || writer.stat("rsshmsink", "frames-published") > 100);
            writer
        },
        blocked,
    );
    channel.assert_gone();
    reader.kill();
}

#[test]
fn a_writer_that_waits_for_a_connection_stops_promptly() {
    let channel = Channel::new();
    stops_promptly(
        || {
            Pipeline::playing(&format!(
                "videotestsrc ! {CAPS} ! rsshmsink channel={channel} wait-for-connection=true"
            ))
        },
        |writer| {
            eventually("the channel", || channel.exists());
            stands_still(writer);
            assert_eq!(writer.stat("rsshmsink", "frames-published"), 0);
        },
    );
    channel.assert_gone();
}

#[test]
fn a_writer_that_is_told_to_wait_no_longer_goes_on() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc num-buffers=5 ! {CAPS} ! rsshmsink channel={channel} wait-for-connection=true"
    ));
    eventually("the channel", || channel.exists());
    stands_still(&writer);
    writer
        .by_factory("rsshmsink")
        .set_property("wait-for-connection", false);
    writer.wait_eos();
    assert_eq!(writer.stat("rsshmsink", "frames-published"), 5);
}

#[test]
fn a_writer_that_was_paused_while_blocked_goes_on() {
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc num-buffers=50 ! {CAPS} ! rsshmsink channel={channel} lossless=true wait-for-connection=true \
         sync=false"
    ));
    eventually("the channel", || channel.exists());
    std::thread::sleep(Duration::from_millis(100));
    writer.0.set_state(gst::State::Paused).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    writer.0.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    writer.wait_eos();
    reader.pipeline.wait_eos();
    assert_eq!(reader.count(), 50);
}
