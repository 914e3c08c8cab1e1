// SPDX-License-Identifier: MIT OR Apache-2.0

//! Data that accompanies a picture: captions, active format, bars, SEI messages, ancillary packets and HDR data.

use gst::{MetaRef, glib::translate::IntoGlib};
use gst_video::{VideoAFDMeta, VideoAFDSpec, VideoAFDValue, VideoBarMeta, VideoCaptionMeta, VideoCaptionType};

use super::{
    raw::{
        self,
        video::{HdrData, Packet, SeiUserData},
    },
    record::{Input, Output},
};

/// The highest number of a dynamic HDR format. GStreamer has two formats so far.
const MAX_HDR_FORMAT: u32 = 15;

pub(super) fn encode_caption(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let caption = meta.downcast_ref::<VideoCaptionMeta>()?;
    to.numbers(&[caption.caption_type().into_glib() as u32]);
    to.bytes(caption.data());
    (caption.caption_type() != VideoCaptionType::Unknown && !caption.data().is_empty()).then_some(())
}

pub(super) fn decode_caption(input: &mut Input) -> Option<()> {
    let kind = raw::known(input.record.u32()?).filter(|kind| *kind != VideoCaptionType::Unknown)?;
    let data = Some(input.record.0).filter(|data| !data.is_empty())?;
    VideoCaptionMeta::add(input.buffer, kind, data);
    Some(())
}

pub(super) fn encode_active_format(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let format = meta.downcast_ref::<VideoAFDMeta>()?;
    let (spec, value) = (format.spec().into_glib() as u32, format.afd().into_glib() as u32);
    to.numbers(&[format.field().into(), spec, value]);
    Some(())
}

pub(super) fn decode_active_format(input: &mut Input) -> Option<()> {
    let [field, spec, value] = input.record.numbers()?;
    let (spec, value): (VideoAFDSpec, VideoAFDValue) = (raw::known(spec)?, raw::known(value)?);
    // For these values GStreamer adds no meta and returns NULL, which the bindings do not expect.
    if field > 1 || (spec, value) == (VideoAFDSpec::DvbEtsi, VideoAFDValue::Unavailable) {
        return None;
    }
    VideoAFDMeta::add(input.buffer, field as u8, spec, value);
    Some(())
}

pub(super) fn encode_bars(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let bars = meta.downcast_ref::<VideoBarMeta>()?;
    let is_letterbox = bars.is_letterbox().into();
    to.numbers(&[bars.field().into(), is_letterbox, bars.bar_data1(), bars.bar_data2()]);
    Some(())
}

pub(super) fn decode_bars(input: &mut Input) -> Option<()> {
    let [field, is_letterbox, first, second] = input.record.numbers()?;
    // For fields above 1, GStreamer returns NULL, as in `decode_active_format`.
    let field = u8::try_from(field).ok().filter(|field| *field <= 1)?;
    VideoBarMeta::add(input.buffer, field, is_letterbox != 0, first, second);
    Some(())
}

pub(super) fn encode_sei_user_data(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let SeiUserData { uuid, data } = raw::video::sei_user_data(meta)?;
    to.bytes(&uuid);
    to.bytes(data);
    Some(())
}

pub(super) fn decode_sei_user_data(input: &mut Input) -> Option<()> {
    let uuid = input.record.array()?;
    let data = input.record.0;
    let added = raw::video::add_sei_user_data(input.buffer, &SeiUserData { uuid, data });
    input.skip_unless(added)
}

pub(super) fn encode_packet(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let packet = raw::video::packet(meta)?;
    to.numbers(&[packet.field, packet.is_chrominance.into()]);
    for word in [
        packet.line,
        packet.offset,
        packet.did,
        packet.sdid,
        packet.count,
        packet.checksum,
    ]
    .iter()
    .chain(packet.words)
    {
        to.u16(*word);
    }
    is_packet(packet.field, packet.count, packet.words).then_some(())
}

/// Whether a packet has a field that exists, and as many words as its count says. Only the low eight bits of the count
/// are the number of words; the others are parity bits.
fn is_packet(field: u32, count: u16, words: &[u16]) -> bool {
    matches!(field, 0 | 0x10 | 0x11) && words.len() == usize::from(count & 0xff)
}

pub(super) fn decode_packet(input: &mut Input) -> Option<()> {
    let record = &mut input.record;
    let [field, is_chrominance] = record.numbers()?;
    let mut next = || record.u16();
    let (line, offset, did, sdid, count, checksum) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let mut words = Vec::new();
    while !record.0.is_empty() {
        words.push(record.u16()?);
    }
    if is_chrominance > 1 || !is_packet(field, count, &words) {
        return None;
    }
    let packet = Packet {
        field,
        is_chrominance: is_chrominance != 0,
        line,
        offset,
        did,
        sdid,
        count,
        checksum,
        words: &words,
    };
    let added = raw::video::add_packet(input.buffer, &packet);
    input.skip_unless(added)
}

pub(super) fn encode_hdr(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let HdrData { format, data } = raw::video::hdr(meta)?;
    to.numbers(&[format]);
    to.bytes(data);
    (format <= MAX_HDR_FORMAT && !data.is_empty()).then_some(())
}

pub(super) fn decode_hdr(input: &mut Input) -> Option<()> {
    let format = input.record.u32().filter(|format| *format <= MAX_HDR_FORMAT)?;
    let data = Some(input.record.0).filter(|data| !data.is_empty())?;
    let added = raw::video::add_hdr(input.buffer, &HdrData { format, data });
    input.skip_unless(added)
}
