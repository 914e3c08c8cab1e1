// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas about sound.

use gst_audio::{AudioFormat, AudioInfo, AudioLayout, AudioMeta};

use super::*;
use raw::audio::{Clipping, Downmix, DsdLayout, Level};

/// The format of planes of sound: 4 bytes a sample, two channels.
fn planar(channels: u32) -> AudioInfo {
    init();
    let info = AudioInfo::builder(AudioFormat::F32le, 48000, channels);
    info.layout(AudioLayout::NonInterleaved).build().unwrap()
}

fn audio_format(info: &AudioInfo) -> Format<'_> {
    Format {
        audio: Some(info),
        ..Format::default()
    }
}

/// Encodes the metas of a buffer of `size` bytes.
fn encoded_audio(info: &AudioInfo, size: usize, add: impl FnOnce(&mut gst::BufferRef)) -> (Vec<u8>, u64) {
    let mut buffer = gst::Buffer::from_slice(vec![0_u8; size]);
    add(buffer.get_mut().unwrap());
    let mut bytes = Vec::new();
    let left_out = super::super::encode(&buffer, audio_format(info), &mut bytes).count();
    (bytes, left_out)
}

/// Decodes the metas of a buffer of `size` bytes, and completes its layout. Returns the samples and the offsets, whether
/// the layout is complete, and the number of refused metas.
fn decoded_audio(info: &AudioInfo, size: usize, bytes: &[u8]) -> (Option<(usize, Vec<usize>)>, bool, u64) {
    let mut buffer = gst::Buffer::from_slice(vec![0_u8; size]);
    let target = buffer.get_mut().unwrap();
    let refused = Decoder::default().decode(bytes, audio_format(info), target).refused;
    let is_complete = complete_audio_layout(target, info);
    let meta = buffer.meta::<AudioMeta>();
    let layout = meta.map(|meta| (meta.samples(), meta.offsets().to_vec()));
    (layout, is_complete, refused)
}

/// The record of a layout.
fn layout(samples: u64, offsets: &[u64]) -> Vec<u8> {
    let numbers = [&[samples], offsets].concat();
    let content: Vec<u8> = numbers.into_iter().flat_map(u64::to_ne_bytes).collect();
    record(kind::AUDIO_LAYOUT, &content)
}

#[test]
fn layouts_of_planes_are_sent() {
    let info = planar(2);
    for (samples, offsets, sent) in [
        (4, vec![], layout(4, &[])),
        (4, vec![0, 16], layout(4, &[])),
        (4, vec![16, 0], layout(4, &[16, 0])),
        (3, vec![4, 20], layout(3, &[4, 20])),
        (0, vec![], layout(0, &[])),
    ] {
        let (bytes, left_out) = encoded_audio(&info, 32, |buffer| {
            AudioMeta::add(buffer, &info, samples, &offsets).unwrap();
        });
        assert_eq!((&bytes, left_out), (&sent, 0), "{samples} {offsets:?}");
        let expected = match offsets[..] {
            [] => vec![0, samples * 4],
            _ => offsets,
        };
        assert_eq!(decoded_audio(&info, 32, &bytes), (Some((samples, expected)), true, 0));
    }
}

#[test]
fn layouts_of_many_channels_are_sent() {
    for channels in [1, 2, 6, 8, 64] {
        let info = planar(channels);
        let size = channels as usize * 40 + 8;
        // Each plane begins two samples later than the end of the one before it would say.
        let offsets: Vec<usize> = (0..channels as usize).rev().map(|plane| plane * 40 + 8).collect();
        let (bytes, left_out) = encoded_audio(&info, size, |buffer| {
            AudioMeta::add(buffer, &info, 10, &offsets).unwrap();
        });
        assert_eq!(left_out, 0);
        assert_eq!(decoded_audio(&info, size, &bytes), (Some((10, offsets)), true, 0));
    }
}

#[test]
fn number_of_samples_of_interleaved_sound_is_sent() {
    init();
    let info = AudioInfo::builder(AudioFormat::S16le, 8000, 2).build().unwrap();
    let (bytes, left_out) = encoded_audio(&info, 32, |buffer| {
        AudioMeta::add(buffer, &info, 7, &[]).unwrap();
    });
    assert_eq!((&bytes, left_out), (&layout(7, &[]), 0));
    let (found, is_complete, refused) = decoded_audio(&info, 32, &bytes);
    assert_eq!((found.unwrap().0, is_complete, refused), (7, true, 0));
    for hostile in [layout(9, &[]), layout(7, &[0, 16]), layout(u64::MAX, &[])] {
        assert_eq!(decoded_audio(&info, 32, &hostile), (None, true, 1));
    }
}

/// Elements read the format from the caps, so a meta with another format would mislead them.
#[test]
fn layout_of_other_format_is_left_out() {
    let (info, other) = (planar(2), planar(1));
    let add = |buffer: &mut gst::BufferRef| {
        AudioMeta::add(buffer, &other, 4, &[]).unwrap();
    };
    assert_eq!(encoded_audio(&info, 32, add), (vec![], 1));
    let mut bytes = Vec::new();
    let video_alone = buffer(|buffer| {
        buffer.append_memory(gst::Memory::from_slice(FRAME));
        AudioMeta::add(buffer, &other, 4, &[]).unwrap();
    });
    assert_eq!(encode(&video_alone, None, &mut bytes), 1);
}

#[test]
fn hostile_layouts_are_refused() {
    let info = planar(2);
    let huge = 1 << 62;
    for bytes in [
        layout(5, &[]),
        layout(u64::MAX, &[]),
        layout(huge, &[0, 0]),
        layout(4, &[0]),
        layout(4, &[0, 16, 32]),
        layout(4, &[0, 17]),
        layout(4, &[0, 15]),
        layout(4, &[u64::MAX, 0]),
        layout(4, &[u64::MAX - 15, 0]),
        layout(0, &[u64::MAX, 0]),
        record(kind::AUDIO_LAYOUT, &[0; 7]),
        record(kind::AUDIO_LAYOUT, &[0; 9]),
    ] {
        // A frame whose layout is refused gets the default one.
        let expected = (Some((4, vec![0, 16])), true, 1);
        assert_eq!(decoded_audio(&info, 32, &bytes), expected, "{bytes:?}");
        assert_eq!(decoded(&bytes).1, 1, "not raw audio: {bytes:?}");
    }
    let twice = [layout(4, &[]), layout(3, &[])].concat();
    assert_eq!(decoded_audio(&info, 32, &twice), (Some((4, vec![0, 16])), true, 1));
}

#[test]
fn frame_without_layout_gets_default_one() {
    let info = planar(2);
    assert_eq!(decoded_audio(&info, 24, &[]), (Some((3, vec![0, 12])), true, 0));
    assert_eq!(decoded_audio(&info, 0, &[]), (Some((0, vec![0, 0])), true, 0));
    assert_eq!(decoded_audio(&info, 25, &[]), (None, false, 0));
    init();
    let interleaved = AudioInfo::builder(AudioFormat::S16le, 8000, 2).build().unwrap();
    assert_eq!(decoded_audio(&interleaved, 25, &[]), (None, true, 0));
}

fn downmix() -> Downmix {
    Downmix {
        from: vec![0, 1, 2, 3, 4, 5],
        to: vec![0, 1],
        matrix: (0..12).map(|number| number as f32 / 4.0).collect(),
    }
}

pub(super) fn add_all(buffer: &mut gst::BufferRef) {
    let clipping = Clipping {
        format: 1,
        start: 5,
        end: u64::MAX,
    };
    raw::audio::add_clipping(buffer, &clipping).unwrap();
    let level = Level {
        level: 127,
        has_voice: true,
    };
    raw::audio::add_level(buffer, &level).unwrap();
    raw::audio::add_downmix(buffer, &downmix()).unwrap();
}

#[test]
fn clipping_level_and_downmix_are_sent() {
    let buffer = transferred(add_all);
    let meta = meta_of(&buffer, "GstAudioClippingMeta");
    let clipping = raw::audio::clipping(&meta).unwrap();
    assert_eq!((clipping.format, clipping.start, clipping.end), (1, 5, u64::MAX));
    let meta = meta_of(&buffer, "GstAudioLevelMeta");
    let level = raw::audio::level(&meta).unwrap();
    assert_eq!((level.level, level.has_voice), (127, true));
    let meta = meta_of(&buffer, "GstAudioDownmixMeta");
    let found = raw::audio::downmix(&meta).unwrap();
    let expected = downmix();
    assert_eq!((found.from, found.to), (expected.from, expected.to));
    assert_eq!(found.matrix, expected.matrix);
}

#[test]
fn downmix_with_infinite_number_is_left_out() {
    let (bytes, left_out) = encoded(&buffer(|buffer| {
        let mut downmix = downmix();
        downmix.matrix[3] = f32::NAN;
        raw::audio::add_downmix(buffer, &downmix).unwrap();
    }));
    assert_eq!((bytes, left_out), (vec![], 1));
}

#[test]
fn invalid_metas_about_sound_are_refused() {
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_ne_bytes()).collect::<Vec<u8>>();
    let (one, nan) = (1_f32.to_bits(), f32::NAN.to_bits());
    for (kind, content) in [
        (kind::AUDIO_CLIPPING, words(&[6, 0, 0, 0, 0])),
        (kind::AUDIO_CLIPPING, words(&[0, 0, 0, 0, 0])),
        (kind::AUDIO_CLIPPING, words(&[1, 0, 0, 0])),
        (kind::AUDIO_LEVEL, words(&[128, 0])),
        (kind::AUDIO_LEVEL, words(&[u32::MAX, 0])),
        (kind::AUDIO_LEVEL, words(&[0, 2])),
        (kind::AUDIO_DOWNMIX, words(&[0, 1, 0])),
        (kind::AUDIO_DOWNMIX, words(&[1, 0, 65])),
        (kind::AUDIO_DOWNMIX, words(&[u32::MAX, 0, 1, 0, one])),
        (kind::AUDIO_DOWNMIX, words(&[1, 64, 1, 0, one])),
        (kind::AUDIO_DOWNMIX, words(&[1, 0x8000_0000, 1, 0, one])),
        (kind::AUDIO_DOWNMIX, words(&[1, 0, 1, 1, nan])),
        (kind::AUDIO_DOWNMIX, words(&[1, 0, 1, 1])),
        (kind::AUDIO_DOWNMIX, words(&[1, 0, 1, 1, one, one])),
        (kind::DSD_LAYOUT, words(&[0, 1, 0])),
        (kind::DSD_LAYOUT, words(&[2, 0, 0])),
        (kind::DSD_LAYOUT, words(&[2, 17, 0])),
        (kind::DSD_LAYOUT, words(&[u32::MAX, 1, 0])),
        (kind::DSD_LAYOUT, words(&[2, 1, 0, 0, 0])),
        (kind::DSD_LAYOUT, words(&[2, u32::MAX, u32::MAX, 0, 0, 16, 0])),
    ] {
        let (buffer, refused) = decoded(&record(kind, &content));
        assert_eq!((count(&buffer), refused), (0, 1), "{kind} {content:?}");
    }
}

/// Before GStreamer 1.24, the meta does not exist, and readers skip its record.
#[test]
fn layouts_of_dsd_are_sent_if_gstreamer_has_them() {
    for offsets in [[0, 16], [18, 1]] {
        let layout = DsdLayout {
            plane_size: 14 + offsets[0] / 9,
            offsets: &offsets,
        };
        let mut is_added = false;
        let (bytes, left_out) = encoded(&buffer(|buffer| {
            buffer.append_memory(gst::Memory::from_slice(FRAME));
            let layout = DsdLayout {
                plane_size: 14,
                ..layout
            };
            is_added = raw::audio::add_dsd_layout(buffer, &layout).is_some();
        }));
        assert_eq!((is_added, left_out), (gst::version() >= (1, 24, 0, 0), 0));
        let (buffer, refused) = decoded(&bytes);
        assert_eq!(refused, 0);
        if is_added {
            let meta = meta_of(&buffer, "GstDsdPlaneOffsetMeta");
            let found = raw::audio::dsd_layout(&meta).unwrap();
            assert_eq!((found.plane_size, found.offsets), (14, &offsets[..]));
        }
    }
    let content: Vec<u8> = [2_u32, 16, 0].into_iter().flat_map(u32::to_ne_bytes).collect();
    let unknown = u64::from(gst::version() < (1, 24, 0, 0));
    assert_eq!(
        skipped(&record(kind::DSD_LAYOUT, &content)),
        Skipped { refused: 0, unknown }
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoder_survives_any_layout(
        channels in 1..5_u32, size in 0..60_usize,
        samples in prop_oneof![0..10_u64, any::<u64>()],
        offsets in prop::collection::vec(prop_oneof![0..60_u64, any::<u64>()], 0..6),
    ) {
        let info = planar(channels);
        let (found, is_complete, refused) = decoded_audio(&info, size, &layout(samples, &offsets));
        prop_assert_eq!(is_complete, found.is_some());
        prop_assert!(is_complete || refused == 1);
        if let Some((samples, offsets)) = found {
            let mut ranges: Vec<_> = offsets.iter().map(|offset| (*offset, offset + samples * 4)).collect();
            ranges.sort_unstable();
            prop_assert!(ranges.len() == channels as usize && ranges.iter().all(|range| range.1 <= size));
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
        }
    }
}
