//! Compressed streams, in which most frames cannot be decoded without those before: whoever comes in the middle, or misses a
//! frame, goes on at one that can.

mod common;
mod told;

use std::time::Duration;

use common::{Channel, Process, command, eventually, launch, within};
use gst::{BufferFlags, prelude::*};
use told::{Item, Log, Producer};

/// An encoder that makes a key unit each 300 frames, so ten seconds, unless it is asked for one, and a decoder.
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
/// With frames that come in another order than they are shown.
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

    /// A program that decodes the channel, with what every element has to complain of. `slow` delays each frame.
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
        Reader(Process::start(command))
    }
}

/// A frame before the decoder.
#[derive(Clone, Copy, Debug)]
struct Encoded {
    flags: BufferFlags,
    /// Seconds, `None` for headers.
    pts: Option<f64>,
}

impl Encoded {
    fn needs_others(self) -> bool {
        self.flags.contains(BufferFlags::DELTA_UNIT)
    }

    fn is_discont(self) -> bool {
        self.flags.contains(BufferFlags::DISCONT)
    }
}

struct Reader(Process);

impl Reader {
    /// What passed the element so far.
    fn passed(&self, element: &str) -> Vec<Encoded> {
        let output = self.0.output();
        let lines = output
            .lines()
            .filter(|line| line.contains(&format!(":{element}: last-message = chain")));
        lines.filter_map(parse).collect()
    }

    fn frames(&self) -> Vec<Encoded> {
        self.passed("frames")
    }

    fn pictures(&self) -> usize {
        self.passed("pictures").len()
    }

    /// No element has complained, and each frame can be decoded with those before it.
    #[track_caller]
    fn assert_clean(&self) {
        let output = self.0.output();
        let is_complaint = |line: &&str| {
            ["WARN", "ERROR", "CRITICAL", "FIXME"]
                .iter()
                .any(|word| line.contains(word))
        };
        // theoraenc says its headers again with a key unit that it was asked for, and theoradec says that it knows them.
        let complaints: Vec<_> = output
            .lines()
            .filter(is_complaint)
            .filter(|line| !line.contains("Ignoring header"))
            .collect();
        assert!(complaints.is_empty(), "{complaints:#?}");
        let frames = self.frames();
        assert!(frames[0].is_discont());
        let wrong = frames
            .iter()
            .position(|frame| frame.is_discont() && frame.needs_others());
        assert_eq!(wrong, None, "{:?}", wrong.map(|wrong| frames[wrong]));
    }
}

fn parse(line: &str) -> Option<Encoded> {
    let (_, pts) = line.split_once("pts: ")?;
    let (pts, rest) = pts.split_once(',')?;
    let (_, flags) = rest.split_once("flags: ")?;
    let flags = u32::from_str_radix(flags.split(' ').next()?, 16).ok()?;
    let seconds = |text: &str| -> Option<f64> {
        let mut parts = text.split(':').map(|part| part.parse::<f64>().ok());
        Some(parts.next()?? * 3600.0 + parts.next()?? * 60.0 + parts.next()??)
    };
    Some(Encoded {
        flags: BufferFlags::from_bits_truncate(flags),
        pts: seconds(pts),
    })
}

/// Who comes in the middle, and is stopped for so long that the next frame is gone.
#[track_caller]
fn comes_late_and_misses_frames(codec: &Codec) {
    let channel = Channel::new();
    let mut writer = codec.writer(&channel);
    eventually("the channel", || channel.exists());
    // The key unit that it begins with is gone by then.
    std::thread::sleep(Duration::from_millis(1600));
    let mut reader = codec.reader(&channel, "", "");
    within(
        Duration::from_secs(5),
        "a picture, before the next key unit by itself",
        || reader.pictures() > 10,
    );
    reader.0.signal(nix::sys::signal::Signal::SIGSTOP);
    std::thread::sleep(Duration::from_millis(1800));
    let before = reader.pictures();
    reader.0.signal(nix::sys::signal::Signal::SIGCONT);
    within(Duration::from_secs(5), "pictures again", || {
        reader.pictures() > before + 10
    });
    reader.0.interrupt();
    reader.assert_clean();
    let frames = reader.frames();
    let first = frames.iter().find_map(|frame| frame.pts).unwrap();
    assert!(first < 1.5, "its first frame is at {first} s");
    assert!(
        frames[1..].iter().any(|frame| frame.is_discont()),
        "it has missed nothing"
    );
    writer.interrupt();
}

#[test]
fn h264_as_byte_stream_in_the_middle_and_after_a_miss() {
    comes_late_and_misses_frames(&H264_BYTE_STREAM);
}

#[test]
fn h264_in_another_order_in_the_middle_and_after_a_miss() {
    comes_late_and_misses_frames(&H264_REORDERED);
}

#[test]
fn vp8_in_the_middle_and_after_a_miss() {
    comes_late_and_misses_frames(&VP8);
}

#[test]
fn theora_in_the_middle_and_after_a_miss() {
    comes_late_and_misses_frames(&THEORA);
}

#[test]
fn another_writer_takes_over() {
    let channel = Channel::new();
    let mut reader = None;
    for codec in [&H264, &H264, &H264_REORDERED] {
        let mut writer = codec.writer(&channel);
        let reader = reader.get_or_insert_with(|| codec.reader(&channel, "", ""));
        let before = reader.pictures();
        within(Duration::from_secs(8), "its pictures", || {
            reader.pictures() > before + 10
        });
        writer.kill();
    }
    let mut reader = reader.unwrap();
    reader.0.interrupt();
    reader.assert_clean();
}

#[test]
fn a_slow_reader_of_the_newest_frames_alone() {
    let channel = Channel::new();
    let mut writer = H264_BYTE_STREAM.writer(&channel);
    let mut reader = H264_BYTE_STREAM.reader(&channel, "max-buffers=1", "identity sleep-time=80000 !");
    within(Duration::from_secs(8), "pictures", || reader.pictures() >= 4);
    reader.0.interrupt();
    reader.assert_clean();
    assert!(
        reader.frames()[1..].iter().any(|frame| frame.is_discont()),
        "it has missed nothing"
    );
    writer.interrupt();
}

const CODED: &str = "video/x-h264,stream-format=byte-stream,alignment=au";

/// Numbers and time stamps of the frames so far.
fn stamps(reader: &Log) -> Vec<(u64, gst::ClockTime)> {
    let stamp = |item: &Item| match item {
        Item::Frame { number, pts, .. } => Some((*number, pts.unwrap())),
        Item::Event(_) => None,
    };
    reader.items().iter().filter_map(stamp).collect()
}

#[test]
fn of_frames_from_before_the_start_that_need_each_other_none_is_left_out() {
    let channel = Channel::new();
    let writer = Producer::of_caps(CODED, &channel, "");
    writer.push(0);
    for number in 1..=20 {
        writer.push_with(number, BufferFlags::DELTA_UNIT);
        std::thread::sleep(Duration::from_millis(10));
    }
    let reader = Log::of(&channel);
    eventually("the newest", || reader.frames().contains(&20));
    std::thread::sleep(Duration::from_millis(50));
    let sent = reader.pipeline.0.current_running_time().unwrap();
    writer.push_with(21, BufferFlags::DELTA_UNIT);
    eventually("the next", || reader.frames().contains(&21));
    let stamps = stamps(&reader);
    let numbers: Vec<_> = stamps.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, (0..=21).collect::<Vec<u64>>());
    assert!(stamps.is_sorted_by_key(|(_, pts)| *pts), "{stamps:?}");
    let of = |number: usize| stamps[number].1;
    assert!(
        of(20) < 100 * gst::ClockTime::MSECOND,
        "the newest is shown at once: {}",
        of(20)
    );
    assert!(
        of(21).absdiff(sent) < 20 * gst::ClockTime::MSECOND,
        "then time is true: {}",
        of(21)
    );
}

#[test]
fn of_frames_from_before_the_start_that_need_no_other_the_newest_is_shown() {
    let channel = Channel::new();
    let writer = Producer::of_caps("image/jpeg", &channel, "");
    writer.push(0);
    std::thread::sleep(Duration::from_millis(200));
    let reader = Log::of(&channel);
    eventually("a frame", || !reader.frames().is_empty());
    let before = writer.pipeline.0.current_running_time().unwrap() - 150 * gst::ClockTime::MSECOND;
    writer.push_at(1, BufferFlags::empty(), Some(before));
    writer.push(2);
    eventually("the next", || reader.frames().contains(&2));
    assert_eq!(reader.frames(), [0, 2]);
}

#[test]
fn other_caps_are_of_frames_that_need_no_other_until_one_does() {
    let channel = Channel::new();
    let writer = Producer::of_caps(CODED, &channel, "");
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    writer.push_with(1, BufferFlags::DELTA_UNIT);
    eventually("it", || reader.frames().contains(&1));
    writer.set_caps("image/jpeg");
    writer.push_until_seen(2, &reader);
    let before = writer.pipeline.0.current_running_time();
    reader.pipeline.0.set_state(gst::State::Paused).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    reader.pipeline.0.set_state(gst::State::Playing).unwrap();
    // The first is waited for since before the pause; the next is the first of those since then.
    writer.push_until_seen(3, &reader);
    writer.push_until_seen(4, &reader);
    writer.push_at(5, BufferFlags::empty(), before);
    writer.push_until_seen(6, &reader);
    assert!(!reader.frames().contains(&5), "{:?}", reader.frames());
}

#[test]
fn a_reader_that_plays_again_after_a_pause_goes_on_at_a_key_unit_that_it_asks_for() {
    let channel = Channel::new();
    let writer = Producer::of_caps(CODED, &channel, "");
    let asked = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let in_probe = std::sync::Arc::clone(&asked);
    let pad = writer.pipeline.element("source").static_pad("src").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if gst_video::UpstreamForceKeyUnitEvent::parse(info.event().unwrap()).is_ok() {
            in_probe.store(true, std::sync::atomic::Ordering::Relaxed);
        }
        gst::PadProbeReturn::Ok
    });
    let reader = Log::of(&channel);
    writer.push_until_seen(0, &reader);
    reader.pipeline.0.set_state(gst::State::Paused).unwrap();
    let push_deltas = |numbers: std::ops::Range<u64>| {
        for number in numbers {
            writer.push_with(number, BufferFlags::DELTA_UNIT);
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    push_deltas(1..10);
    reader.pipeline.0.set_state(gst::State::Playing).unwrap();
    let mut number = 10;
    eventually("it asks", || {
        push_deltas(number..number + 1);
        number += 1;
        asked.load(std::sync::atomic::Ordering::Relaxed)
    });
    writer.push(1000);
    push_deltas(1001..1005);
    eventually("it goes on", || reader.frames().contains(&1004));
    let numbers: Vec<_> = reader.frames().into_iter().filter(|number| *number > 1).collect();
    assert_eq!(
        numbers,
        (1000..1005).collect::<Vec<u64>>(),
        "one may have been on its way before the pause"
    );
}
