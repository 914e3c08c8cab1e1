// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas about sound: the layout of the channels, clipping, level, downmix and the layout of DSD.

use std::ops::RangeInclusive;

use gst::MetaRef;
use gst_audio::{AudioInfo, AudioLayout, AudioMeta};

use super::{
    raw::{
        self,
        audio::{Clipping, Downmix, DsdLayout, Level},
    },
    record::{Input, Output},
};

/// The maximum number of channels of sound that is not interleaved. Positions exist for 64 channels.
const MAX_CHANNELS: usize = 1024;

/// The maximum number of channels that have positions, as in GStreamer.
const MAX_POSITIONED_CHANNELS: usize = 64;

/// The highest level, in -dB.
const MAX_LEVEL: u32 = 127;

/// The formats of positions that GStreamer has. 0 is no format, and GStreamer prints a critical warning about it.
const FORMATS: RangeInclusive<u32> = 1..=5;

/// Planes of equal size in a buffer, one for each channel.
#[derive(Debug, PartialEq, Eq)]
struct Planes {
    channels: usize,
    size: usize,
    /// The offsets of the planes; empty if each plane begins where the one before it ends.
    offsets: Vec<usize>,
}

impl Planes {
    fn new(channels: usize, size: usize, offsets: &[usize]) -> Self {
        let is_packed = offsets.len() == channels
            && offsets
                .iter()
                .enumerate()
                .all(|(plane, offset)| plane.checked_mul(size) == Some(*offset));
        Self {
            channels,
            size,
            offsets: if is_packed { Vec::new() } else { offsets.to_vec() },
        }
    }

    /// Whether the planes lie inside `size` bytes, and none overlaps another.
    fn fit(&self, size: usize) -> bool {
        if self.channels == 0 || self.channels > MAX_CHANNELS {
            return false;
        }
        if self.offsets.is_empty() {
            return self.size.checked_mul(self.channels).is_some_and(|end| end <= size);
        }
        let mut offsets = self.offsets.clone();
        offsets.sort_unstable();
        let ends_inside = |offset: &usize| offset.checked_add(self.size).is_some_and(|end| end <= size);
        offsets.len() == self.channels
            && offsets.last().is_some_and(ends_inside)
            && offsets.windows(2).all(|pair| pair[1] - pair[0] >= self.size)
    }

    fn put_offsets(&self, to: &mut Output) {
        for offset in &self.offsets {
            to.u64(*offset as u64);
        }
    }

    /// Reads the offsets up to the end of the record.
    fn read(input: &mut Input, channels: usize, size: usize) -> Option<Self> {
        let mut offsets = Vec::new();
        while !input.record.0.is_empty() {
            offsets.push(usize::try_from(input.record.u64()?).ok()?);
        }
        Some(Self {
            channels,
            size,
            offsets,
        })
    }
}

fn is_interleaved(info: &AudioInfo) -> bool {
    info.layout() == AudioLayout::Interleaved
}

fn channels_of(info: &AudioInfo) -> usize {
    info.channels() as usize
}

/// The bytes of one sample of one channel; `None` for formats without samples of a fixed size.
fn sample_size(info: &AudioInfo) -> Option<usize> {
    Some(info.width() as usize / 8).filter(|size| *size > 0)
}

/// Whether a buffer of `size` bytes has room for `samples` samples of each channel.
fn has_room(info: &AudioInfo, samples: usize, size: usize) -> bool {
    sample_size(info)
        .and_then(|sample| sample.checked_mul(channels_of(info)))
        .and_then(|frame| frame.checked_mul(samples))
        .is_some_and(|bytes| bytes <= size)
}

fn planes_of(info: &AudioInfo, samples: usize, offsets: &[usize]) -> Option<Planes> {
    let size = sample_size(info)?.checked_mul(samples)?;
    Some(Planes::new(channels_of(info), size, offsets))
}

pub(super) fn encode_layout(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let layout = meta.downcast_ref::<AudioMeta>()?;
    // The reader gets the format from the caps, so the meta and the caps must agree.
    let info = to.format.audio?;
    let of_meta = layout.info();
    let is_same =
        (of_meta.format(), of_meta.channels(), of_meta.layout()) == (info.format(), info.channels(), info.layout());
    let size = to.buffer.size();
    if !is_same || !has_room(info, layout.samples(), size) {
        return None;
    }
    to.u64(layout.samples() as u64);
    if !is_interleaved(info) {
        let planes = planes_of(info, layout.samples(), layout.offsets()).filter(|planes| planes.fit(size))?;
        planes.put_offsets(to);
    }
    Some(())
}

pub(super) fn decode_layout(input: &mut Input) -> Option<()> {
    let info = input.format.audio?;
    let samples = usize::try_from(input.record.u64()?).ok()?;
    let size = input.buffer.size();
    let is_first = input.buffer.meta::<AudioMeta>().is_none();
    if !is_first || !has_room(info, samples, size) {
        return None;
    }
    let planes = Planes::read(input, channels_of(info), sample_size(info)?.checked_mul(samples)?)?;
    let is_valid = match is_interleaved(info) {
        true => planes.offsets.is_empty(),
        false => planes.fit(size),
    };
    if !is_valid {
        return None;
    }
    AudioMeta::add(input.buffer, info, samples, &planes.offsets)
        .ok()
        .map(drop)
}

/// Gives a buffer of planes a GstAudioMeta if it has none, because no element reads such a buffer without one. Its
/// planes then follow each other. Returns `false` if its size is not that of whole samples.
pub(crate) fn complete_layout(buffer: &mut gst::BufferRef, info: &AudioInfo) -> bool {
    if is_interleaved(info) || buffer.meta::<AudioMeta>().is_some() {
        return true;
    }
    let (size, channels) = (buffer.size(), channels_of(info));
    let Some(frame) = sample_size(info).and_then(|sample| sample.checked_mul(channels)) else {
        return false;
    };
    let has_whole_samples = (1..=MAX_CHANNELS).contains(&channels) && size.is_multiple_of(frame);
    has_whole_samples && AudioMeta::add(buffer, info, size / frame, &[]).is_ok()
}

pub(super) fn encode_dsd_layout(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let layout = raw::audio::dsd_layout(meta)?;
    let planes = Planes::new(layout.offsets.len(), layout.plane_size, layout.offsets);
    if !planes.fit(to.buffer.size()) {
        return None;
    }
    to.numbers(&[u32::try_from(planes.channels).ok()?]);
    to.u64(planes.size as u64);
    planes.put_offsets(to);
    Some(())
}

pub(super) fn decode_dsd_layout(input: &mut Input) -> Option<()> {
    let channels = usize::try_from(input.record.u32()?).ok()?;
    let plane_size = usize::try_from(input.record.u64()?).ok().filter(|size| *size > 0)?;
    let mut planes = Planes::read(input, channels, plane_size).filter(|planes| planes.fit(input.buffer.size()))?;
    if planes.offsets.is_empty() {
        planes.offsets = (0..channels).map(|plane| plane * plane_size).collect();
    }
    let layout = DsdLayout {
        plane_size,
        offsets: &planes.offsets,
    };
    let added = raw::audio::add_dsd_layout(input.buffer, &layout);
    input.skip_unless(added)
}

pub(super) fn encode_clipping(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let Clipping { format, start, end } = raw::audio::clipping(meta)?;
    to.numbers(&[format]);
    to.u64(start);
    to.u64(end);
    FORMATS.contains(&format).then_some(())
}

pub(super) fn decode_clipping(input: &mut Input) -> Option<()> {
    let record = &mut input.record;
    let format = record.u32().filter(|format| FORMATS.contains(format))?;
    let (start, end) = (record.u64()?, record.u64()?);
    raw::audio::add_clipping(input.buffer, &Clipping { format, start, end })
}

pub(super) fn encode_level(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let level = raw::audio::level(meta)?;
    to.numbers(&[level.level.into(), level.has_voice.into()]);
    (u32::from(level.level) <= MAX_LEVEL).then_some(())
}

pub(super) fn decode_level(input: &mut Input) -> Option<()> {
    let [level, has_voice] = input.record.numbers()?;
    if level > MAX_LEVEL || has_voice > 1 {
        return None;
    }
    let level = Level {
        level: level as u8,
        has_voice: has_voice != 0,
    };
    let added = raw::audio::add_level(input.buffer, &level);
    input.skip_unless(added)
}

pub(super) fn encode_downmix(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let downmix = raw::audio::downmix(meta)?;
    for positions in [&downmix.from, &downmix.to] {
        are_positions(positions).then_some(())?;
        to.numbers(&[u32::try_from(positions.len()).ok()?]);
        for position in positions {
            to.i32(*position);
        }
    }
    to.floats(&downmix.matrix)
}

pub(super) fn decode_downmix(input: &mut Input) -> Option<()> {
    let (from, to) = (read_positions(input)?, read_positions(input)?);
    let mut matrix = Vec::with_capacity(from.len() * to.len());
    for _ in 0..from.len() * to.len() {
        let [coefficient] = input.floats()?;
        matrix.push(coefficient);
    }
    if !input.record.0.is_empty() {
        return None;
    }
    raw::audio::add_downmix(input.buffer, &Downmix { from, to, matrix })
}

/// Whether these can be the positions of channels. GStreamer takes a position for the number of a bit.
fn are_positions(positions: &[i32]) -> bool {
    (1..=MAX_POSITIONED_CHANNELS).contains(&positions.len())
        && positions
            .iter()
            .all(|position| raw::is_known::<gst_audio::AudioChannelPosition>(*position))
}

/// Reads the number of channels and their positions.
fn read_positions(input: &mut Input) -> Option<Vec<i32>> {
    let channels = usize::try_from(input.record.u32()?).ok()?;
    if channels > MAX_POSITIONED_CHANNELS {
        return None;
    }
    let mut positions = Vec::with_capacity(channels);
    for _ in 0..channels {
        positions.push(input.record.i32()?);
    }
    are_positions(&positions).then_some(positions)
}
