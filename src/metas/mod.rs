// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes the metas of a buffer, and the boundaries of its memories, as the metadata of a frame, and decodes them.
//! docs/PROTOCOL.md has the format.
//!
//! GStreamer's own serialisation of metas needs version 1.24, and supports few metas. This module supports the metas
//! that belong to a frame and are of use in other programs. The layout of the planes is in the frame's descriptor.
//!
//! # How to add a meta
//!
//! 1. Describe its record in docs/PROTOCOL.md, and add its number to `kind`.
//! 2. Add a branch to `encode_one`, and a function that appends the fields. Return `None` if a value cannot be
//!    encoded, so that the meta is left out and counted. Use `raw` to read fields that the bindings assume to be valid.
//! 3. Add the kind to [`Decoder::decode`], and a function that reads the fields. It must survive any bytes, so check
//!    everything that GStreamer and the bindings do not check. Text goes through [`Names::structure`], never directly
//!    to GStreamer's parser.
//! 4. In `tests.rs`, add a round-trip test. Add the meta to `all()` too, because the tests for truncated and mutated
//!    bytes use it.

mod raw;

use std::ops::ControlFlow;

use gst::{MetaRef, ReferenceTimestampMeta, glib::translate::IntoGlib, meta::CustomMeta};
use gst_video::{
    ValidVideoTimeCode, VideoAFDMeta, VideoAFDSpec, VideoAFDValue, VideoBarMeta, VideoCaptionMeta, VideoCaptionType,
    VideoCropMeta, VideoInfo, VideoMeta, VideoRegionOfInterestMeta, VideoTimeCodeFlags, VideoTimeCodeMeta,
};
use rsshm_channel::{MAX_METADATA_SIZE, caps_text::MAX_NAME_SIZE};

use crate::codec::{Bytes, Names, put_structure, put_text};

/// The name of the meta that marks a buffer for which there was no slot. It never leaves this process.
pub(crate) const NO_SLOT_META: &str = "RsShmNoSlotMeta";

/// Whether there was no slot when upstream asked for `buffer`.
pub(crate) fn had_no_slot(buffer: &gst::BufferRef) -> bool {
    // This loop looks at all metas, because a search by name uses a global table even if the buffer has no metas.
    buffer.iter_meta::<gst::Meta>().any(|meta| is_no_slot(&meta))
}

fn is_no_slot(meta: &MetaRef<gst::Meta>) -> bool {
    meta.type_().name() == NO_SLOT_META
}

/// The maximum number of records of a frame.
const MAX_RECORDS: usize = 128;

/// The size of the head of a record: its kind and its size.
const RECORD_HEAD_SIZE: usize = 4;

/// The maximum number of memories of a buffer. GStreamer merges memories beyond this limit, and has no constant for it.
const MAX_MEMORIES: usize = 16;

/// The kinds of records.
mod kind {
    pub(super) const CROP: u16 = 1;
    pub(super) const REGION: u16 = 2;
    pub(super) const REFERENCE_TIMESTAMP: u16 = 3;
    pub(super) const TIME_CODE: u16 = 4;
    pub(super) const CUSTOM: u16 = 5;
    pub(super) const CAPTION: u16 = 6;
    pub(super) const ACTIVE_FORMAT: u16 = 7;
    pub(super) const BARS: u16 = 8;
    pub(super) const MEMORIES: u16 = 9;
}

/// Encodes the metas of `buffer` into `to`, and replaces the content of `to`. `info` is the format of raw video.
///
/// Returns how many metas, and parameters of metas, were left out. They are left out if they do not fit, or if their
/// values cannot be encoded.
pub(crate) fn encode(buffer: &gst::BufferRef, info: Option<&VideoInfo>, to: &mut Vec<u8>) -> u64 {
    to.clear();
    let (mut records, mut left_out) = (0, 0);
    if buffer.n_memory() > 1 && keeps_memories(buffer, info) {
        // The sizes of the memories come first, so that they always fit. Without them, the bytes of some frames, such
        // as tensors, are useless.
        encode_memories(buffer, to);
        records = 1;
    }
    // C code calls this closure, so a panic in it would abort the program.
    buffer.foreach_meta(|meta| {
        let begin = to.len();
        match encode_one(&meta, info, to) {
            None => return ControlFlow::Continue(()),
            Some(EncodedMeta {
                is_valid: true,
                params_left_out,
            }) if to.len() <= MAX_METADATA_SIZE && records < MAX_RECORDS => {
                records += 1;
                left_out += params_left_out;
                // The size of the record without its head. It fits 16 bits, because MAX_METADATA_SIZE does.
                let size = (to.len() - begin - RECORD_HEAD_SIZE) as u16;
                to[begin + 2..begin + RECORD_HEAD_SIZE].copy_from_slice(&size.to_ne_bytes());
            }
            Some(_) => {
                left_out += 1;
                to.truncate(begin);
            }
        }
        ControlFlow::Continue(())
    });
    left_out
}

/// Whether the frame will consist of the bytes of the memories of `buffer`, one after the other.
///
/// For raw video, this may be false: the frame has the default layout, and the buffer may have another one.
#[cold]
fn keeps_memories(buffer: &gst::BufferRef, info: Option<&VideoInfo>) -> bool {
    info.is_none_or(|info| buffer.size() == info.size() && buffer.meta::<VideoMeta>().is_none())
}

/// Appends the record with the sizes of the memories of `buffer`.
#[cold]
fn encode_memories(buffer: &gst::BufferRef, to: &mut Vec<u8>) {
    to.extend(kind::MEMORIES.to_ne_bytes());
    // The size is at most MAX_MEMORIES times 8, so it fits 16 bits.
    to.extend((buffer.n_memory() as u16 * 8).to_ne_bytes());
    for memory in buffer.iter_memories() {
        to.extend((memory.size() as u64).to_ne_bytes());
    }
}

/// The result of encoding one meta.
struct EncodedMeta {
    /// The meta has values that can be encoded. Otherwise its record is incomplete.
    is_valid: bool,
    /// How many parameters were left out.
    params_left_out: u64,
}

/// Appends the record of one meta; `None` if metas of this type are not sent. The size of the record is zero until the
/// caller sets it.
fn encode_one(meta: &MetaRef<gst::Meta>, info: Option<&VideoInfo>, to: &mut Vec<u8>) -> Option<EncodedMeta> {
    let mut params_left_out = 0;
    let valid = if let Some(crop) = meta.downcast_ref::<VideoCropMeta>() {
        begin(to, kind::CROP);
        put_rect(to, crop.rect());
        is_inside(crop.rect(), info).then_some(())
    } else if let Some(region) = meta.downcast_ref::<VideoRegionOfInterestMeta>() {
        begin(to, kind::REGION);
        encode_region(region, to, &mut params_left_out)
    } else if let Some(reference) = meta.downcast_ref::<ReferenceTimestampMeta>() {
        begin(to, kind::REFERENCE_TIMESTAMP);
        encode_reference(reference, to)
    } else if let Some(time_code) = meta.downcast_ref::<VideoTimeCodeMeta>() {
        begin(to, kind::TIME_CODE);
        encode_time_code(time_code, to)
    } else if let Some(caption) = meta.downcast_ref::<VideoCaptionMeta>() {
        begin(to, kind::CAPTION);
        put_numbers(to, &[caption.caption_type().into_glib() as u32]);
        to.extend(caption.data());
        Some(())
    } else if let Some(format) = meta.downcast_ref::<VideoAFDMeta>() {
        begin(to, kind::ACTIVE_FORMAT);
        let (spec, value) = (format.spec().into_glib() as u32, format.afd().into_glib() as u32);
        put_numbers(to, &[format.field().into(), spec, value]);
        Some(())
    } else if let Some(bars) = meta.downcast_ref::<VideoBarMeta>() {
        begin(to, kind::BARS);
        let is_letterbox = bars.is_letterbox().into();
        put_numbers(
            to,
            &[bars.field().into(), is_letterbox, bars.bar_data1(), bars.bar_data2()],
        );
        Some(())
    } else {
        let custom = meta.try_as_custom_meta()?;
        if is_no_slot(meta) {
            return None;
        }
        begin(to, kind::CUSTOM);
        put_text(to, meta.type_().name()).and_then(|()| put_structure(to, custom.structure()))
    };
    Some(EncodedMeta {
        is_valid: valid.is_some(),
        params_left_out,
    })
}

fn encode_region(
    region: &MetaRef<VideoRegionOfInterestMeta>,
    to: &mut Vec<u8>,
    params_left_out: &mut u64,
) -> Option<()> {
    put_rect(to, region.rect());
    to.extend(region.id().to_ne_bytes());
    to.extend(region.parent_id().to_ne_bytes());
    let name = if raw::has_type(region) { region.roi_type() } else { "" };
    put_text(to, Some(name).filter(|name| name.len() <= MAX_NAME_SIZE)?)?;
    for param in region.params() {
        // A region is useful even without some of its parameters.
        let begin = to.len();
        if put_structure(to, param).is_none() || to.len() > MAX_METADATA_SIZE {
            to.truncate(begin);
            *params_left_out += 1;
        }
    }
    Some(())
}

fn encode_reference(meta: &MetaRef<ReferenceTimestampMeta>, to: &mut Vec<u8>) -> Option<()> {
    to.extend(raw::timestamp(meta)?.to_ne_bytes());
    to.extend(meta.duration().map_or(u64::MAX, |time| time.nseconds()).to_ne_bytes());
    let reference = meta.reference();
    let without_features =
        |features: &gst::CapsFeaturesRef| features.is_equal(&gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY);
    let is_plain = reference.is_fixed() && reference.features(0).is_none_or(without_features);
    let structure = reference.structure(0).filter(|_| is_plain)?;
    put_structure(to, structure)
}

fn encode_time_code(meta: &MetaRef<VideoTimeCodeMeta>, to: &mut Vec<u8>) -> Option<()> {
    let (numerator, denominator) = raw::frame_rate(meta);
    let code = meta.tc();
    let numbers = [
        numerator,
        denominator,
        code.flags().bits(),
        code.hours(),
        code.minutes(),
        code.seconds(),
        code.frames(),
        code.field_count(),
    ];
    put_numbers(to, &numbers);
    match code.latest_daily_jam() {
        None => put_text(to, ""),
        Some(time) => {
            let (date, zone) = (time.format("%Y-%m-%dT%H:%M:%S").ok()?, time.format("%:z").ok()?);
            put_text(to, &format!("{date}.{:06}{zone}", time.microsecond()))
        }
    }
}

/// Appends the head of a record, with a size of zero.
fn begin(to: &mut Vec<u8>, kind: u16) {
    to.extend(kind.to_ne_bytes());
    to.extend([0; RECORD_HEAD_SIZE - 2]);
}

fn put_rect(to: &mut Vec<u8>, (x, y, width, height): (u32, u32, u32, u32)) {
    put_numbers(to, &[x, y, width, height]);
}

fn put_numbers(to: &mut Vec<u8>, numbers: &[u32]) {
    for number in numbers {
        to.extend(number.to_ne_bytes());
    }
}

/// Whether the rectangle lies inside the picture, or inside the field if a buffer holds one field. Elements that crop
/// do not check this.
fn is_inside((x, y, width, height): (u32, u32, u32, u32), info: Option<&VideoInfo>) -> bool {
    let ends_inside = |from: u32, size: u32, whole: u32| from.checked_add(size).is_some_and(|end| end <= whole);
    info.is_none_or(|info| ends_inside(x, width, info.width()) && ends_inside(y, height, info.field_height()))
}

/// Decodes metadata that [`encode`] or any other program wrote.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    names: Names,
}

impl Decoder {
    /// Adds the metas in `bytes` to `buffer`. Returns how many records were refused. Records of unknown kinds are
    /// skipped.
    pub(crate) fn decode(&mut self, bytes: &[u8], info: Option<&VideoInfo>, buffer: &mut gst::BufferRef) -> usize {
        let mut bytes = Bytes(bytes);
        let mut refused = 0;
        for _ in 0..MAX_RECORDS {
            if bytes.0.is_empty() {
                return refused;
            }
            let Some((kind, record)) = bytes.record() else {
                // The beginning of the next record is unknown.
                return refused + 1;
            };
            let done = match kind {
                kind::CROP => crop(record, info, buffer),
                kind::REGION => self.region(record, buffer),
                kind::REFERENCE_TIMESTAMP => self.reference(record, buffer),
                kind::TIME_CODE => time_code(record, buffer),
                kind::CUSTOM => self.custom(record, buffer),
                kind::CAPTION => caption(record, buffer),
                kind::ACTIVE_FORMAT => active_format(record, buffer),
                kind::BARS => bars(record, buffer),
                kind::MEMORIES => memories(record, buffer),
                _ => Some(()),
            };
            refused += usize::from(done.is_none());
        }
        refused + usize::from(!bytes.0.is_empty())
    }

    fn region(&mut self, mut record: Bytes, buffer: &mut gst::BufferRef) -> Option<()> {
        let rect = record.rect()?;
        let (id, parent) = (record.i32()?, record.i32()?);
        let name = record.text().filter(|name| name.len() <= MAX_NAME_SIZE)?;
        if !self.names.admit(name) {
            return None;
        }
        let mut params = Vec::new();
        while !record.0.is_empty() {
            params.push(self.names.structure(record.text()?)?);
        }
        let mut meta = VideoRegionOfInterestMeta::add(buffer, name, rect);
        meta.set_id(id);
        meta.set_parent_id(parent);
        for param in params {
            meta.add_param(param);
        }
        Some(())
    }

    fn reference(&mut self, mut record: Bytes, buffer: &mut gst::BufferRef) -> Option<()> {
        let timestamp = gst::ClockTime::try_from(record.u64()?).ok()?;
        let duration = gst::ClockTime::try_from(record.u64()?).ok();
        let structure = self.names.structure(record.text()?)?;
        let caps = gst::Caps::builder_full().structure(structure).build();
        if !caps.is_fixed() {
            return None;
        }
        ReferenceTimestampMeta::add(buffer, &caps, timestamp, duration);
        Some(())
    }

    fn custom(&mut self, mut record: Bytes, buffer: &mut gst::BufferRef) -> Option<()> {
        let name = record.text().filter(|name| !name.is_empty() && *name != NO_SLOT_META)?;
        let text = record.text()?;
        // A meta is never registered on behalf of a peer, because its registration decides what the meta means and how
        // elements treat it.
        if !CustomMeta::is_registered(name) {
            return Some(());
        }
        let structure = self.names.structure(text)?;
        let mut meta = CustomMeta::add(buffer, name).ok()?;
        let to = meta.mut_structure();
        for (field, value) in structure.iter() {
            to.set_value(field, value.clone());
        }
        Some(())
    }
}

fn crop(mut record: Bytes, info: Option<&VideoInfo>, buffer: &mut gst::BufferRef) -> Option<()> {
    let rect = record.rect().filter(|rect| is_inside(*rect, info))?;
    VideoCropMeta::add(buffer, rect);
    Some(())
}

fn time_code(mut record: Bytes, buffer: &mut gst::BufferRef) -> Option<()> {
    let [numerator, denominator, flags, hours, minutes, seconds, frames, fields] = record.numbers()?;
    let numerator = i32::try_from(numerator).ok()?;
    let denominator = i32::try_from(denominator).ok().filter(|number| *number > 0)?;
    let daily_jam = match record.text()? {
        "" => None,
        text => Some(gst::glib::DateTime::from_iso8601(text, None).ok()?),
    };
    let code = ValidVideoTimeCode::new(
        gst::Fraction::new(numerator, denominator),
        daily_jam.as_ref(),
        VideoTimeCodeFlags::from_bits_truncate(flags),
        hours,
        minutes,
        seconds,
        frames,
        fields,
    );
    VideoTimeCodeMeta::add(buffer, &code.ok()?);
    Some(())
}

fn caption(mut record: Bytes, buffer: &mut gst::BufferRef) -> Option<()> {
    let kind = raw::known(record.u32()?).filter(|kind| *kind != VideoCaptionType::Unknown)?;
    let data = Some(record.0).filter(|data| !data.is_empty())?;
    VideoCaptionMeta::add(buffer, kind, data);
    Some(())
}

fn active_format(mut record: Bytes, buffer: &mut gst::BufferRef) -> Option<()> {
    let [field, spec, value] = record.numbers()?;
    let (spec, value): (VideoAFDSpec, VideoAFDValue) = (raw::known(spec)?, raw::known(value)?);
    // For these values GStreamer adds no meta and returns NULL, which the bindings do not expect.
    if field > 1 || (spec, value) == (VideoAFDSpec::DvbEtsi, VideoAFDValue::Unavailable) {
        return None;
    }
    VideoAFDMeta::add(buffer, field as u8, spec, value);
    Some(())
}

fn bars(mut record: Bytes, buffer: &mut gst::BufferRef) -> Option<()> {
    let [field, is_letterbox, first, second] = record.numbers()?;
    // For fields above 1, GStreamer returns NULL, as in `active_format`.
    let field = u8::try_from(field).ok().filter(|field| *field <= 1)?;
    VideoBarMeta::add(buffer, field, is_letterbox != 0, first, second);
    Some(())
}

/// Divides the single memory of `buffer` into several memories, without a copy.
#[cold]
fn memories(mut record: Bytes, buffer: &mut gst::BufferRef) -> Option<()> {
    let mut sizes = [0; MAX_MEMORIES];
    let (mut count, mut end) = (0, 0_usize);
    while !record.0.is_empty() {
        let size = usize::try_from(record.u64()?).ok()?;
        *sizes.get_mut(count)? = size;
        count += 1;
        end = end.checked_add(size)?;
    }
    // A second record of memories is refused, because the first one has already divided the memory.
    if count < 2 || end != buffer.size() || buffer.n_memory() != 1 {
        return None;
    }
    let whole = buffer.peek_memory(0).to_owned();
    buffer.remove_all_memory();
    let mut offset = 0;
    for size in &sizes[..count] {
        buffer.append_memory(match size {
            // An empty part gets a new memory, because the bindings do not share an empty part behind the last byte.
            0 => gst::Memory::from_slice([]),
            _ => whole.share(offset..offset + size),
        });
        offset += size;
    }
    Some(())
}

#[cfg(test)]
mod tests;
