// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes the metas of a buffer, and the boundaries of its memories, as the metadata of a frame, and decodes them.
//! docs/PROTOCOL.md has the format, and docs/METAS.md has the metas.
//!
//! GStreamer's own serialisation of metas needs version 1.24, and few metas have it. Therefore this module has a record
//! of its own for each meta of GStreamer's libraries that consists of plain values. GStreamer's serialisation is used
//! for the metas of other libraries.
//!
//! # How to add a meta
//!
//! 1. Describe its record in docs/PROTOCOL.md, add its number to `kind`, and change its row in docs/METAS.md.
//! 2. Write a function that appends the fields, and add it to [`encoder`]. Return `None` if a value cannot be encoded,
//!    so that the meta is left out and counted. Use `raw` for structures and functions of C.
//! 3. Write a function that reads the fields, and add it to [`decoder`]. It must survive any bytes, so check everything
//!    that GStreamer and the bindings do not check. Text goes through [`Names::structure`], never directly to
//!    GStreamer's parser.
//! 4. In `tests/`, add a round-trip test. Add the meta to `all()` too, because the tests for truncated and mutated bytes
//!    use it.

mod analytics;
mod ancillary;
mod audio;
mod general;
mod memories;
mod network;
pub(crate) mod no_slot;
mod raw;
mod record;
mod serialized;
mod video;

use std::ops::ControlFlow;

use gst::MetaRef;
use gst_audio::AudioInfo;
use gst_video::VideoInfo;
use rsshm_channel::MAX_METADATA_SIZE;

use crate::{
    codec::{Bytes, Names},
    dmabuf::OpaquePicture,
    left_out::{LeftOut, Reason},
};
pub(crate) use audio::complete_layout as complete_audio_layout;
use record::{Input, Output};

/// The metas that concern memory or objects of one process, and say nothing about the frame. They are not sent, and
/// nothing is lost without them.
const PROCESS_METAS: [&str; 5] = [
    no_slot::NAME,
    "GstParentBufferMeta",
    "GstVideoGLTextureUploadMeta",
    "GstGLSyncMeta",
    "GstNVMMParentMeta",
];

/// Registers a custom meta for the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(crate) fn register_custom(name: &str) {
    raw::custom::register(name);
}

/// The maximum number of records of a frame.
const MAX_RECORDS: usize = 128;

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
    pub(super) const AUDIO_LAYOUT: u16 = 10;
    pub(super) const AUDIO_CLIPPING: u16 = 11;
    pub(super) const AUDIO_LEVEL: u16 = 12;
    pub(super) const AUDIO_DOWNMIX: u16 = 13;
    pub(super) const DSD_LAYOUT: u16 = 14;
    pub(super) const AFFINE_TRANSFORMATION: u16 = 15;
    pub(super) const SEI_USER_DATA: u16 = 16;
    pub(super) const ANCILLARY: u16 = 17;
    pub(super) const HDR: u16 = 18;
    pub(super) const PROTECTION: u16 = 19;
    pub(super) const NET_ADDRESS: u16 = 20;
    pub(super) const RTP_SOURCE: u16 = 21;
    pub(super) const SCTP_SEND: u16 = 22;
    pub(super) const SCTP_RECEIVE: u16 = 23;
    pub(super) const PES_METADATA: u16 = 24;
    pub(super) const ANALYTICS: u16 = 25;
    pub(super) const SERIALIZED: u16 = 26;
}

/// The format of the frames of a stream, as far as their metas depend on it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Format<'a> {
    /// `None` if the stream is not raw video.
    pub(crate) video: Option<&'a VideoInfo>,
    /// `None` if the stream is not raw audio.
    pub(crate) audio: Option<&'a AudioInfo>,
    /// `None` unless only devices can read the frames.
    pub(crate) opaque: Option<OpaquePicture>,
}

impl Format<'_> {
    /// Whether the descriptor of a frame has the layout of a GstVideoMeta.
    fn has_layout(self) -> bool {
        self.video.is_some() || self.opaque.is_some()
    }
}

/// Appends the fields of a meta; `None` if a value cannot be encoded.
type EncodeFn = fn(&MetaRef<gst::Meta>, &mut Output) -> Option<()>;

/// Adds the meta of a record to the buffer; `None` if the record is not valid.
type DecodeFn = fn(&mut Input) -> Option<()>;

/// The kind of the record of a meta, and the function that encodes the meta; `None` if metas of this name are not sent.
fn encoder(name: &str) -> Option<(u16, EncodeFn)> {
    Some(match name {
        "GstVideoCropMeta" => (kind::CROP, video::encode_crop),
        "GstVideoRegionOfInterestMeta" => (kind::REGION, video::encode_region),
        "GstVideoTimeCodeMeta" => (kind::TIME_CODE, video::encode_time_code),
        "GstVideoAffineTransformationMeta" => (kind::AFFINE_TRANSFORMATION, video::encode_affine_transformation),
        "GstVideoCaptionMeta" => (kind::CAPTION, ancillary::encode_caption),
        "GstVideoAFDMeta" => (kind::ACTIVE_FORMAT, ancillary::encode_active_format),
        "GstVideoBarMeta" => (kind::BARS, ancillary::encode_bars),
        "GstVideoSEIUserDataUnregisteredMeta" => (kind::SEI_USER_DATA, ancillary::encode_sei_user_data),
        "GstAncillaryMeta" => (kind::ANCILLARY, ancillary::encode_packet),
        "GstVideoHDRMeta" => (kind::HDR, ancillary::encode_hdr),
        "GstReferenceTimestampMeta" => (kind::REFERENCE_TIMESTAMP, general::encode_reference),
        "GstProtectionMeta" => (kind::PROTECTION, general::encode_protection),
        "GstAudioMeta" => (kind::AUDIO_LAYOUT, audio::encode_layout),
        "GstAudioClippingMeta" => (kind::AUDIO_CLIPPING, audio::encode_clipping),
        "GstAudioLevelMeta" => (kind::AUDIO_LEVEL, audio::encode_level),
        "GstAudioDownmixMeta" => (kind::AUDIO_DOWNMIX, audio::encode_downmix),
        "GstDsdPlaneOffsetMeta" => (kind::DSD_LAYOUT, audio::encode_dsd_layout),
        "GstNetAddressMeta" => (kind::NET_ADDRESS, network::encode_address),
        "GstRTPSourceMeta" => (kind::RTP_SOURCE, network::encode_rtp_source),
        "GstSctpSendMeta" => (kind::SCTP_SEND, network::encode_sctp_send),
        "GstSctpReceiveMeta" => (kind::SCTP_RECEIVE, network::encode_sctp_receive),
        "GstMpegtsPESMetadataMeta" => (kind::PES_METADATA, network::encode_pes_metadata),
        "GstAnalyticsRelationMeta" => (kind::ANALYTICS, analytics::encode),
        _ => return None,
    })
}

/// The function that decodes records of this kind; `None` if the kind is unknown.
fn decoder(kind: u16) -> Option<DecodeFn> {
    Some(match kind {
        kind::CROP => video::decode_crop,
        kind::REGION => video::decode_region,
        kind::TIME_CODE => video::decode_time_code,
        kind::AFFINE_TRANSFORMATION => video::decode_affine_transformation,
        kind::CAPTION => ancillary::decode_caption,
        kind::ACTIVE_FORMAT => ancillary::decode_active_format,
        kind::BARS => ancillary::decode_bars,
        kind::SEI_USER_DATA => ancillary::decode_sei_user_data,
        kind::ANCILLARY => ancillary::decode_packet,
        kind::HDR => ancillary::decode_hdr,
        kind::REFERENCE_TIMESTAMP => general::decode_reference,
        kind::CUSTOM => general::decode_custom,
        kind::PROTECTION => general::decode_protection,
        kind::MEMORIES => memories::decode,
        kind::AUDIO_LAYOUT => audio::decode_layout,
        kind::AUDIO_CLIPPING => audio::decode_clipping,
        kind::AUDIO_LEVEL => audio::decode_level,
        kind::AUDIO_DOWNMIX => audio::decode_downmix,
        kind::DSD_LAYOUT => audio::decode_dsd_layout,
        kind::NET_ADDRESS => network::decode_address,
        kind::RTP_SOURCE => network::decode_rtp_source,
        kind::SCTP_SEND => network::decode_sctp_send,
        kind::SCTP_RECEIVE => network::decode_sctp_receive,
        kind::PES_METADATA => network::decode_pes_metadata,
        kind::ANALYTICS => analytics::decode,
        kind::SERIALIZED => serialized::decode,
        _ => return None,
    })
}

/// Encodes the metas of `buffer` into `to`, and replaces the content of `to`.
///
/// Returns the metas that were left out. They are left out if metas of their type are not sent, if they do not fit, or
/// if their values cannot be encoded.
pub(crate) fn encode(buffer: &gst::BufferRef, format: Format, to: &mut Vec<u8>) -> LeftOut {
    to.clear();
    let (mut records, mut left_out) = (0, LeftOut::default());
    if buffer.n_memory() > 1 && memories::are_kept(buffer, format) {
        // The sizes of the memories come first, so that they always fit. Without them, the bytes of some frames, such
        // as tensors, are useless.
        memories::encode(buffer, to);
        records = 1;
    }
    // C code calls this closure, so a panic in it would abort the program.
    buffer.foreach_meta(|meta| {
        match encode_one(&meta, buffer, format, records, to) {
            Encoding::NotForOthers => {}
            Encoding::Done { parts_left_out } => {
                records += 1;
                left_out.add(meta.type_().name(), Reason::Values, parts_left_out);
            }
            Encoding::LeftOut(reason) => left_out.add(meta.type_().name(), reason, 1),
        }
        ControlFlow::Continue(())
    });
    left_out
}

/// The result of encoding one meta.
enum Encoding {
    /// The meta has no record, because it says nothing about the frame, or because the frame's descriptor says it.
    NotForOthers,
    /// The record is complete, apart from some parts of the meta that cannot be sent.
    Done {
        parts_left_out: u64,
    },
    LeftOut(Reason),
}

/// Appends the record of one meta of `buffer`. `records` is the number of records before it.
fn encode_one(
    meta: &MetaRef<gst::Meta>,
    buffer: &gst::BufferRef,
    format: Format,
    records: usize,
    to: &mut Vec<u8>,
) -> Encoding {
    let name = meta.type_().name();
    if PROCESS_METAS.contains(&name) || (name == "GstVideoMeta" && format.has_layout()) {
        return Encoding::NotForOthers;
    }
    let encoder = if raw::custom::is_custom(meta) {
        // The name of a custom meta may be that of any meta, so its name does not say what it consists of.
        Some((kind::CUSTOM, general::encode_custom as EncodeFn))
    } else {
        encoder(name).or_else(|| serialized::is_supported(meta).then_some((kind::SERIALIZED, serialized::encode)))
    };
    let Some((kind, encode)) = encoder else {
        return Encoding::LeftOut(Reason::Type);
    };
    if records == MAX_RECORDS {
        return Encoding::LeftOut(Reason::Size);
    }
    let begin = to.len();
    let mut output = Output::begin(to, kind, buffer, format);
    let is_valid = encode(meta, &mut output).is_some();
    let parts_left_out = output.parts_left_out;
    let reason = match is_valid {
        true if to.len() <= MAX_METADATA_SIZE => {
            record::set_size(&mut to[begin..]);
            return Encoding::Done { parts_left_out };
        }
        true => Reason::Size,
        false => Reason::Values,
    };
    to.truncate(begin);
    Encoding::LeftOut(reason)
}

/// The numbers of records that did not become metas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Skipped {
    /// The records that are not valid.
    pub(crate) refused: u64,
    /// The records that this program cannot turn into metas. Their kind is unknown, their custom meta is not
    /// registered, or this GStreamer does not have their meta.
    pub(crate) unknown: u64,
}

/// Decodes metadata that [`encode`] or any other program wrote.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    names: Names,
}

impl Decoder {
    /// Adds the metas in `bytes` to `buffer`.
    pub(crate) fn decode(&mut self, bytes: &[u8], format: Format, buffer: &mut gst::BufferRef) -> Skipped {
        let mut bytes = Bytes(bytes);
        let mut skipped = Skipped::default();
        for _ in 0..MAX_RECORDS {
            if bytes.0.is_empty() {
                return skipped;
            }
            let Some((kind, record)) = bytes.record() else {
                // The beginning of the next record is unknown.
                skipped.refused += 1;
                return skipped;
            };
            let mut input = Input::new(record, format, buffer, &mut self.names);
            let done = match decoder(kind) {
                Some(decode) => decode(&mut input),
                None => input.skip_unknown(),
            };
            skipped.unknown += u64::from(input.is_unknown());
            skipped.refused += u64::from(done.is_none());
        }
        skipped.refused += u64::from(!bytes.0.is_empty());
        skipped
    }
}

#[cfg(test)]
mod tests;
