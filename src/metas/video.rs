// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas about the picture: crops, regions of interest, time codes and transformations.

use gst::MetaRef;
use gst_video::{
    ValidVideoTimeCode, VideoCropMeta, VideoInfo, VideoRegionOfInterestMeta, VideoTimeCode, VideoTimeCodeFlags,
    VideoTimeCodeMeta,
};

use super::{
    raw,
    record::{Input, Output},
};
use crate::codec::MAX_NAME_SIZE;

type Rect = (u32, u32, u32, u32);

pub(super) fn encode_crop(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let rect = meta.downcast_ref::<VideoCropMeta>()?.rect();
    put_rect(to, rect);
    is_inside(rect, to.format.video).then_some(())
}

pub(super) fn decode_crop(input: &mut Input) -> Option<()> {
    let rect = input
        .record
        .rect()
        .filter(|rect| is_inside(*rect, input.format.video))?;
    VideoCropMeta::add(input.buffer, rect);
    Some(())
}

/// Whether the rectangle lies inside the picture, or inside the field if a buffer holds one field. Elements that crop
/// do not check this.
fn is_inside((x, y, width, height): Rect, info: Option<&VideoInfo>) -> bool {
    let ends_inside = |from: u32, size: u32, whole: u32| from.checked_add(size).is_some_and(|end| end <= whole);
    info.is_none_or(|info| ends_inside(x, width, info.width()) && ends_inside(y, height, info.field_height()))
}

fn put_rect(to: &mut Output, (x, y, width, height): Rect) {
    to.numbers(&[x, y, width, height]);
}

pub(super) fn encode_region(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let region = meta.downcast_ref::<VideoRegionOfInterestMeta>()?;
    put_rect(to, region.rect());
    to.i32(region.id());
    to.i32(region.parent_id());
    let name = if raw::has_type(region) { region.roi_type() } else { "" };
    to.text(Some(name).filter(|name| name.len() <= MAX_NAME_SIZE)?)?;
    for param in region.params() {
        // A region is useful even without some of its parameters.
        to.part(|to| to.structure(param));
    }
    Some(())
}

pub(super) fn decode_region(input: &mut Input) -> Option<()> {
    let record = &mut input.record;
    let rect = record.rect()?;
    let (id, parent) = (record.i32()?, record.i32()?);
    let name = record.text().filter(|name| name.len() <= MAX_NAME_SIZE)?;
    if !input.names.admit(name) {
        return None;
    }
    let mut params = Vec::new();
    while !record.0.is_empty() {
        params.push(input.names.structure(record.text()?)?);
    }
    let mut meta = VideoRegionOfInterestMeta::add(input.buffer, name, rect);
    meta.set_id(id);
    meta.set_parent_id(parent);
    for param in params {
        meta.add_param(param);
    }
    Some(())
}

pub(super) fn encode_time_code(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let meta = meta.downcast_ref::<VideoTimeCodeMeta>()?;
    let (numerator, denominator) = raw::frame_rate(meta);
    let code = meta.tc();
    // The bindings do not check the time codes of metas.
    if denominator == 0 || !VideoTimeCode::from(code.clone()).is_valid() {
        return None;
    }
    to.numbers(&[
        numerator,
        denominator,
        code.flags().bits(),
        code.hours(),
        code.minutes(),
        code.seconds(),
        code.frames(),
        code.field_count(),
    ]);
    match code.latest_daily_jam() {
        None => to.text(""),
        Some(time) => {
            let (date, zone) = (time.format("%Y-%m-%dT%H:%M:%S").ok()?, time.format("%:z").ok()?);
            to.text(&format!("{date}.{:06}{zone}", time.microsecond()))
        }
    }
}

pub(super) fn decode_time_code(input: &mut Input) -> Option<()> {
    let [numerator, denominator, flags, hours, minutes, seconds, frames, fields] = input.record.numbers()?;
    let numerator = i32::try_from(numerator).ok()?;
    let denominator = i32::try_from(denominator).ok().filter(|number| *number > 0)?;
    let daily_jam = match input.record.text()? {
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
    VideoTimeCodeMeta::add(input.buffer, &code.ok()?);
    Some(())
}

pub(super) fn encode_affine_transformation(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    to.floats(raw::video::affine_matrix(meta)?)
}

pub(super) fn decode_affine_transformation(input: &mut Input) -> Option<()> {
    let matrix = input.floats()?;
    raw::video::add_affine_transformation(input.buffer, matrix)
}
