// SPDX-License-Identifier: MIT OR Apache-2.0

//! Raw sound of every format and layout.

use std::sync::{Arc, Mutex};

use gst::prelude::*;
use gst_audio::{AudioChannelPosition, AudioFormat, AudioInfo, AudioLayout, AudioMeta};
use rsshm_testkit::{
    Channel, eventually,
    gst::{LOSSLESS, Pipeline, SinkHarness, init, launch, run_to_end},
};

/// The samples and the offsets of the channels, if a buffer has a GstAudioMeta.
type Layout = Option<(usize, Vec<usize>)>;

/// A buffer of sound.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sound {
    bytes: Vec<u8>,
    layout: Layout,
}

impl Sound {
    fn of(buffer: &gst::BufferRef) -> Self {
        Self {
            bytes: buffer.map_readable().unwrap().to_vec(),
            layout: buffer
                .meta::<AudioMeta>()
                .map(|meta| (meta.samples(), meta.offsets().to_vec())),
        }
    }

    fn to_buffer(&self, info: &AudioInfo) -> gst::Buffer {
        let mut buffer = gst::Buffer::from_slice(self.bytes.clone());
        if let Some((samples, offsets)) = &self.layout {
            AudioMeta::add(buffer.get_mut().unwrap(), info, *samples, offsets).unwrap();
        }
        buffer
    }
}

/// Records the buffers that reach the first fakesink of a pipeline.
fn record(pipeline: &Pipeline) -> Arc<Mutex<Vec<Sound>>> {
    let sounds = Arc::new(Mutex::new(Vec::new()));
    let in_probe = Arc::clone(&sounds);
    let pad = pipeline.pad("fakesink", "sink");
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        in_probe.lock().unwrap().push(Sound::of(info.buffer().unwrap()));
        gst::PadProbeReturn::Ok
    });
    sounds
}

/// A reader that records the buffers that it gets.
fn recording_reader(channel: &Channel) -> (Pipeline, Arc<Mutex<Vec<Sound>>>) {
    let reader = Pipeline::new(&format!("rsshmsrc channel={channel} ! fakesink sync=false"));
    let sounds = record(&reader);
    reader.play();
    (reader, sounds)
}

/// The formats of these channels, with positions if GStreamer has a usual order for so many, and without.
fn infos(format: AudioFormat, channels: u32) -> Vec<AudioInfo> {
    let mut positions = vec![AudioChannelPosition::None; channels as usize];
    let mut all = vec![positions.clone()];
    let mask = AudioChannelPosition::fallback_mask(channels);
    if mask != 0 && AudioChannelPosition::positions_from_mask(mask, &mut positions).is_ok() {
        all.push(positions);
    }
    let layouts = [AudioLayout::Interleaved, AudioLayout::NonInterleaved];
    let with_layout = |positions: &Vec<AudioChannelPosition>| {
        layouts.map(|layout| {
            let info = AudioInfo::builder(format, 48000, channels).layout(layout);
            info.positions(positions).build().unwrap()
        })
    };
    all.iter().flat_map(with_layout).collect()
}

/// Buffers of noise of this format: with planes one after the other, in the opposite order, and with gaps.
fn sounds(info: &AudioInfo) -> Vec<Sound> {
    const SAMPLES: usize = 10;
    let channels = info.channels() as usize;
    let plane = SAMPLES * info.width() as usize / 8;
    let noise = |size: usize, seed: usize| {
        (0..size)
            .map(|at| (((at + seed) * 2_654_435_761) >> 13) as u8)
            .collect()
    };
    if info.layout() == AudioLayout::Interleaved {
        let bytes = [1, 2].map(|seed| noise(plane * channels, seed));
        return bytes.map(|bytes| Sound { bytes, layout: None }).into();
    }
    let with_offsets = |seed, size, offsets: Vec<usize>| Sound {
        bytes: noise(size, seed),
        layout: Some((SAMPLES, offsets)),
    };
    vec![
        with_offsets(
            1,
            plane * channels,
            (0..channels).map(|channel| channel * plane).collect(),
        ),
        with_offsets(
            2,
            plane * channels,
            (0..channels).rev().map(|channel| channel * plane).collect(),
        ),
        with_offsets(
            3,
            (plane + 5) * channels,
            (0..channels).map(|channel| channel * (plane + 5) + 3).collect(),
        ),
    ]
}

#[test]
fn every_format_and_layout_arrives_as_it_was() {
    init();
    let channel = Channel::new();
    let (reader, received) = recording_reader(&channel);
    let writer = SinkHarness::lossless(&channel);
    let mut sent = Vec::new();
    for format in AudioFormat::iter_raw() {
        for channels in [1, 2, 6, 8, 64] {
            // Formats differ in the size of a sample, so a few of them are enough for the unusual numbers of channels.
            let is_usual =
                channels <= 2 || [AudioFormat::S16le, AudioFormat::S24be, AudioFormat::F64le].contains(&format);
            for info in infos(format, channels).iter().filter(|_| is_usual) {
                writer.set_caps(&info.to_caps().unwrap().to_string());
                for sound in sounds(info) {
                    writer.push(&sound.to_buffer(info));
                    sent.push(sound);
                }
            }
        }
    }
    assert!(sent.len() > 300, "{}", sent.len());
    eventually("all sounds arrive", || received.lock().unwrap().len() >= sent.len());
    let received = received.lock().unwrap();
    for (received, sent) in received.iter().zip(&sent) {
        assert!(received == sent, "{:?} {:?}", received.layout, sent.layout);
    }
    assert_eq!(received.len(), sent.len());
    assert_eq!(writer.stat("metas-left-out"), 0);
    assert_eq!(reader.stat("rsshmsrc", "metas-refused"), 0);
}

/// The sounds of a whole pipeline that ends with a fakesink.
fn played(description: &str) -> Vec<Sound> {
    let pipeline = Pipeline::new(description);
    let sounds = record(&pipeline);
    pipeline.play();
    pipeline.wait_eos();
    drop(pipeline);
    let sounds = sounds.lock().unwrap().clone();
    assert!(!sounds.is_empty(), "{description}");
    sounds
}

#[test]
fn sound_of_another_program_is_that_of_one_pipeline() {
    for (caps, after) in [
        ("F32LE,channels=2,layout=non-interleaved", "layout=interleaved"),
        ("S16LE,channels=2,layout=non-interleaved", "layout=interleaved"),
        ("F32LE,channels=2,layout=interleaved", "layout=non-interleaved"),
        (
            "S24LE,channels=6,channel-mask=(bitmask)0x3f,layout=non-interleaved",
            "layout=interleaved",
        ),
        (
            "F64LE,channels=8,channel-mask=(bitmask)0,layout=non-interleaved",
            "layout=interleaved",
        ),
        // audioconvert takes at most 63 channels.
        (
            "S32LE,channels=63,channel-mask=(bitmask)0,layout=non-interleaved",
            "layout=interleaved",
        ),
    ] {
        let source = format!(
            "audiotestsrc num-buffers=20 samplesperbuffer=100 wave=ticks ! audioconvert ! audio/x-raw,format={caps}"
        );
        let ending = format!("audioconvert dithering=none ! audio/x-raw,{after} ! fakesink sync=false");
        let expected = played(&format!("{source} ! {ending}"));
        let channel = Channel::new();
        let mut writer = launch(&format!("{source} ! rsshmsink name={channel} {LOSSLESS}"));
        let seen = played(&format!("rsshmsrc channel={channel} ! {ending}"));
        writer.wait_ok();
        assert!(seen == expected, "{caps}: {} of {} buffers", seen.len(), expected.len());
    }
}

/// The example of a user: planes of a live source, and a reader that interleaves them.
#[test]
fn live_planes_play_in_another_program() {
    let channel = Channel::new();
    let mut writer = launch(&format!(
        "audiotestsrc is-live=true ! audio/x-raw,format=F32LE,channels=2,layout=non-interleaved ! rsshmsink name={channel}"
    ));
    // Critical warnings end the reader with an error.
    run_to_end(&format!(
        "rsshmsrc name={channel} ! audioconvert ! audio/x-raw,layout=interleaved ! fakesink num-buffers=30"
    ));
    writer.interrupt();
}

/// Programs without GStreamer write no metas. Their planes follow each other.
#[test]
fn planes_without_meta_are_taken_as_following_each_other() {
    init();
    let channel = Channel::new();
    let (_reader, received) = recording_reader(&channel);
    let writer = SinkHarness::lossless(&channel);
    writer.set_caps("audio/x-raw,format=S16LE,rate=8000,channels=2,layout=non-interleaved");
    // The first buffer is no whole number of samples, so it is not passed on.
    for size in [41, 40] {
        writer.push(&gst::Buffer::from_slice(vec![1_u8; size]));
    }
    eventually("a sound arrives", || !received.lock().unwrap().is_empty());
    let expected = Sound {
        bytes: vec![1; 40],
        layout: Some((10, vec![0, 20])),
    };
    assert_eq!(*received.lock().unwrap(), [expected]);
}
