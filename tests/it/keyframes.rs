// SPDX-License-Identifier: MIT OR Apache-2.0

//! Compressed streams. A reader that joins late or misses frames continues at a keyframe.

use std::{
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gst::{BufferFlags, prelude::*};
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{SinkHarness, SourceRecorder, command, launch},
    on_this_machine, wait_until,
};

/// An encoder with a keyframe every 300 frames (ten seconds) unless one is requested, and a decoder.
struct Codec {
    encoder: &'static str,
    decoder: &'static str,
}

const H264: Codec = Codec {
    encoder: "x264enc key-int-max=300 tune=zerolatency speed-preset=ultrafast",
    decoder: "avdec_h264",
};
const H264_BYTE_STREAM: Codec = Codec {
    encoder: "x264enc key-int-max=300 tune=zerolatency speed-preset=ultrafast ! video/x-h264,stream-format=byte-stream",
    decoder: "openh264dec",
};
/// A codec whose order of frames in the stream differs from the order of display.
const H264_REORDERED: Codec = Codec {
    encoder: "x264enc key-int-max=300 bframes=2 rc-lookahead=0 mb-tree=false sync-lookahead=0 threads=1",
    decoder: "avdec_h264",
};
const VP8: Codec = Codec {
    encoder: "vp8enc keyframe-max-dist=300 deadline=1",
    decoder: "vp8dec",
};
const THEORA: Codec = Codec {
    encoder: "theoraenc keyframe-auto=false keyframe-force=300 speed-level=2",
    decoder: "theoradec",
};

impl Codec {
    #[track_caller]
    fn writer(&self, channel: &Channel) -> Process {
        launch(&format!(
            "videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=30/1 ! {} ! rsshmsink name={channel}",
            self.encoder
        ))
    }

    /// A program that decodes the channel and prints the warnings of all elements. `slow` is an element that may delay
    /// each frame.
    #[track_caller]
    fn reader(&self, channel: &Channel, options: &str, slow: &str) -> Reader {
        let mut command = command("gst-launch-1.0");
        command.env("GST_DEBUG", "*:2").env("GST_DEBUG_NO_COLOR", "1");
        let pipeline = format!(
            "rsshmsrc name={channel} {options} ! identity name=frames silent=false ! {slow} {} ! fakesink name=pictures silent=false \
             sync=false",
            self.decoder
        );
        command.arg("-v").args(pipeline.split_whitespace());
        Reader {
            process: Process::start(command),
        }
    }
}

/// A frame as the reader printed it.
#[derive(Clone, Copy, Debug)]
struct EncodedFrame {
    flags: BufferFlags,
    /// The timestamp in seconds; `None` for headers.
    pts: Option<f64>,
}

impl EncodedFrame {
    fn is_delta(self) -> bool {
        self.flags.contains(BufferFlags::DELTA_UNIT)
    }

    fn is_discont(self) -> bool {
        self.flags.contains(BufferFlags::DISCONT)
    }
}

struct Reader {
    process: Process,
}

impl Reader {
    /// The frames that have arrived at an element.
    fn passed(&self, element: &str) -> Vec<EncodedFrame> {
        let output = self.process.output();
        let lines = output
            .lines()
            .filter(|line| line.contains(&format!(":{element}: last-message = chain")));
        lines.filter_map(parse).collect()
    }

    fn frames(&self) -> Vec<EncodedFrame> {
        self.passed("frames")
    }

    fn pictures(&self) -> usize {
        self.passed("pictures").len()
    }

    /// Checks that no element has complained, and that the first frame after each gap is a keyframe.
    #[track_caller]
    fn assert_clean(&self) {
        let output = self.process.output();
        let is_complaint = |line: &&str| {
            ["WARN", "ERROR", "CRITICAL", "FIXME"]
                .iter()
                .any(|word| line.contains(word))
        };
        // theoraenc repeats its headers with a requested keyframe, and theoradec prints that it ignores them. From 1.26 on,
        // GStreamer's encoders put a chroma-site into their caps, and its decoders warn of it, in each pipeline.
        let is_known = |line: &&str| line.contains("Ignoring header") || line.contains("chroma-site");
        let complaints: Vec<_> = output
            .lines()
            .filter(is_complaint)
            .filter(|line| !is_known(line))
            .collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        let frames = self.frames();
        assert!(frames[0].is_discont());
        let wrong = frames.iter().position(|frame| frame.is_discont() && frame.is_delta());
        assert_eq!(wrong, None, "{:?}", wrong.map(|wrong| frames[wrong]));
    }
}

fn parse(line: &str) -> Option<EncodedFrame> {
    let (_, pts) = line.split_once("pts: ")?;
    let (pts, rest) = pts.split_once(',')?;
    let (_, flags) = rest.split_once("flags: ")?;
    let flags = u32::from_str_radix(flags.split(' ').next()?, 16).ok()?;
    let seconds = |text: &str| -> Option<f64> {
        let mut parts = text.split(':').map(|part| part.parse::<f64>().ok());
        Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
    };
    Some(EncodedFrame {
        flags: BufferFlags::from_bits_truncate(flags),
        pts: seconds(pts),
    })
}

/// Checks a reader that joins late. Later, the test stops the reader until it is further behind than it wants to be.
#[track_caller]
fn assert_late_reader_survives_gap(codec: &Codec) {
    let channel = Channel::new();
    let mut writer = codec.writer(&channel);
    eventually("the channel exists", || channel.exists());
    // After this time, the first keyframe is too old for a reader that wants the newest 20 frames.
    std::thread::sleep(Duration::from_millis(1600));
    let mut reader = codec.reader(&channel, "max-buffers=20", "");
    wait_until(
        "pictures come before the next regular keyframe",
        Duration::from_secs(5),
        || reader.pictures() > 10,
    );
    reader.process.stop();
    // After this time, the reader skips frames.
    std::thread::sleep(on_this_machine(Duration::from_millis(1800)));
    let before = reader.pictures();
    reader.process.resume();
    wait_until("pictures come again", Duration::from_secs(5), || {
        reader.pictures() > before + 10
    });
    reader.process.interrupt();
    reader.assert_clean();
    let frames = reader.frames();
    let first = frames.iter().find_map(|frame| frame.pts).unwrap();
    assert!(
        first < on_this_machine(Duration::from_millis(1500)).as_secs_f64(),
        "the first frame is at {first} s"
    );
    assert!(
        frames[1..].iter().any(|frame| frame.is_discont()),
        "the reader has missed no frame"
    );
    writer.interrupt();
}

#[test]
fn late_reader_decodes_h264_byte_stream() {
    assert_late_reader_survives_gap(&H264_BYTE_STREAM);
}

#[test]
fn late_reader_decodes_reordered_h264() {
    assert_late_reader_survives_gap(&H264_REORDERED);
}

#[test]
fn late_reader_decodes_vp8() {
    assert_late_reader_survives_gap(&VP8);
}

#[test]
fn late_reader_decodes_theora() {
    assert_late_reader_survives_gap(&THEORA);
}

#[test]
fn reader_decodes_stream_of_next_writer() {
    let channel = Channel::new();
    let mut reader = None;
    for codec in [&H264, &H264, &H264_REORDERED] {
        let mut writer = codec.writer(&channel);
        let reader = reader.get_or_insert_with(|| codec.reader(&channel, "", ""));
        let before = reader.pictures();
        wait_until("pictures of this writer", Duration::from_secs(8), || {
            reader.pictures() > before + 10
        });
        writer.kill();
    }
    let mut reader = reader.unwrap();
    reader.process.interrupt();
    reader.assert_clean();
}

#[test]
fn slow_reader_of_newest_frames_decodes_cleanly() {
    let channel = Channel::new();
    let mut writer = H264_BYTE_STREAM.writer(&channel);
    let mut reader = H264_BYTE_STREAM.reader(&channel, "max-buffers=1", "identity sleep-time=80000 !");
    wait_until("pictures", Duration::from_secs(8), || reader.pictures() >= 4);
    reader.process.interrupt();
    reader.assert_clean();
    assert!(
        reader.frames()[1..].iter().any(|frame| frame.is_discont()),
        "the reader has missed no frame"
    );
    writer.interrupt();
}

/// The caps of H.264 frames. The frames need not be valid, because nothing decodes them.
const H264_CAPS: &str = "video/x-h264,stream-format=byte-stream,alignment=au";

#[test]
fn delta_frames_before_start_are_all_delivered() {
    let channel = Channel::new();
    let writer = SinkHarness::live_with_caps(&channel, H264_CAPS, "");
    writer.push_frame(0);
    for number in 1..=20 {
        writer.push_frame_with(number, BufferFlags::DELTA_UNIT);
        // This pause gives the frames different times of capture.
        std::thread::sleep(Duration::from_millis(10));
    }
    let reader = SourceRecorder::of(&channel);
    eventually("the newest frame arrives", || reader.offsets().contains(&20));
    // The next frame is captured later than the frames so far.
    std::thread::sleep(Duration::from_millis(50));
    let sent = reader.pipeline.current_running_time().unwrap();
    writer.push_frame_with(21, BufferFlags::DELTA_UNIT);
    eventually("the next frame arrives", || reader.offsets().contains(&21));
    assert_eq!(reader.offsets(), (0..=21).collect::<Vec<u64>>());
    let frames = reader.frames();
    let times: Vec<_> = frames.iter().map(|frame| frame.pts.unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(
        times[20] <= frames[20].at,
        "the newest frame is not shown at once: {}, arrived at {}",
        times[20],
        frames[20].at
    );
    // The two pipelines read their clocks one after the other.
    assert!(
        times[21] + 20 * gst::ClockTime::MSECOND > sent && times[21] <= frames[21].at,
        "the frame after it has a wrong time: {}, sent at {sent}, arrived at {}",
        times[21],
        frames[21].at
    );
}

#[test]
fn only_newest_keyframe_before_start_is_shown() {
    let channel = Channel::new();
    let writer = SinkHarness::live_with_caps(&channel, "image/jpeg", "");
    writer.push_frame(0);
    eventually("the frame is published", || writer.stat("frames-published") == 1);
    // The time before the reader starts.
    let before = writer.pipeline.current_running_time().unwrap();
    std::thread::sleep(Duration::from_millis(50));
    let reader = SourceRecorder::of(&channel);
    eventually("a frame arrives", || !reader.offsets().is_empty());
    writer.push_frame_at(1, BufferFlags::empty(), Some(before));
    writer.push_frame(2);
    eventually("the next frame arrives", || reader.offsets().contains(&2));
    assert_eq!(reader.offsets(), [0, 2]);
}

#[test]
fn frames_of_new_caps_count_as_keyframes_until_first_delta() {
    let channel = Channel::new();
    let writer = SinkHarness::live_with_caps(&channel, H264_CAPS, "");
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    writer.push_frame_with(1, BufferFlags::DELTA_UNIT);
    eventually("the frame arrives", || reader.offsets().contains(&1));
    writer.set_caps("image/jpeg");
    writer.push_frame_until_seen(2, &reader);
    let before = writer.pipeline.current_running_time();
    reader.pipeline.set_state(gst::State::Paused).unwrap();
    // After this time, the pause has taken effect, and the source waits for a frame.
    std::thread::sleep(Duration::from_millis(100));
    reader.pipeline.play();
    // The source has waited for frame 3 since before the pause. Frame 4 is the first frame for which it waits after the
    // pause.
    writer.push_frame_until_seen(3, &reader);
    writer.push_frame_until_seen(4, &reader);
    writer.push_frame_at(5, BufferFlags::empty(), before);
    writer.push_frame_until_seen(6, &reader);
    assert!(!reader.offsets().contains(&5), "{:?}", reader.offsets());
}

#[test]
fn paused_reader_continues_at_requested_keyframe() {
    let channel = Channel::new();
    let writer = SinkHarness::live_with_caps(&channel, H264_CAPS, "");
    let requested = Arc::new(AtomicBool::new(false));
    let in_probe = Arc::clone(&requested);
    let pad = writer.pipeline.pad("appsrc", "src");
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if gst_video::UpstreamForceKeyUnitEvent::parse(info.event().unwrap()).is_ok() {
            // Relaxed, here and at the load below, because no other data depends on the flag.
            in_probe.store(true, Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
    let reader = SourceRecorder::of(&channel);
    writer.push_frame_until_seen(0, &reader);
    reader.pipeline.set_state(gst::State::Paused).unwrap();
    let push_deltas = |numbers: Range<u64>| {
        for number in numbers {
            writer.push_frame_with(number, BufferFlags::DELTA_UNIT);
            // At this rate, the source can read all frames.
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    push_deltas(1..10);
    reader.pipeline.play();
    let mut number = 10;
    eventually("the reader requests a keyframe", || {
        push_deltas(number..number + 1);
        number += 1;
        requested.load(Ordering::Relaxed)
    });
    writer.push_frame(1000);
    push_deltas(1001..1005);
    eventually("the reader continues", || reader.offsets().contains(&1004));
    let numbers: Vec<_> = reader.offsets().into_iter().filter(|number| *number > 1).collect();
    assert_eq!(
        numbers,
        (1000..1005).collect::<Vec<u64>>(),
        "only frame 1 may have left the source before the pause"
    );
}
