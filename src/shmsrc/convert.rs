// SPDX-License-Identifier: MIT OR Apache-2.0

//! Converts raw video that downstream does not take in the channel's format. A plain X server, for example, takes only
//! BGRx.

use std::sync::Arc;

use gst::prelude::*;
use gst_base::prelude::*;
use gst_video::{
    VideoConverter, VideoConverterConfig, VideoFormat, VideoFormatFlags, VideoFormatInfo, VideoFrameRef, VideoInfo,
};

use super::CAT;
use crate::{caps, dmabuf};

/// The caps fields that a conversion may change.
const FORMAT_FIELDS: [&str; 3] = ["format", "colorimetry", "chroma-site"];

/// The fields whose default value is added to the caps before they are compared with those of downstream.
///
/// Without the fields, an intersection could have any value that downstream takes.
const DEFAULT_FIELDS: [&str; 3] = ["pixel-aspect-ratio", "interlace-mode", "framerate"];

/// What goes downstream for the caps of the channel.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) caps: gst::Caps,
    /// `None` if frames go downstream in the format of the channel.
    pub(super) conversion: Option<Arc<Conversion>>,
}

impl Output {
    /// Chooses what goes downstream for the channel's `caps`. The caps themselves are chosen if downstream takes them,
    /// and also if it takes nothing that they can be converted to.
    ///
    /// `may_hold` is whether downstream may hold frames in place. Without this, frames are copied, and are not in dmabufs.
    /// `present` is the conversion until now. It is used again if nothing has changed.
    pub(super) fn choose(
        pad: &gst::Pad,
        caps: &gst::Caps,
        may_convert: bool,
        may_hold: bool,
        present: Option<Arc<Conversion>>,
    ) -> Self {
        let unconverted = |caps| Self { caps, conversion: None };
        if let Some(caps) = dmabuf::forms(caps)
            .into_iter()
            .find(|caps| may_hold && takes(pad, caps))
        {
            return unconverted(caps);
        }
        // The processor reads frames in dmabufs through a mapping.
        let Some(caps) = &dmabuf::mapped(caps) else {
            return unconverted(caps.clone());
        };
        if takes(pad, caps) {
            return unconverted(caps.clone());
        }
        // Sinks that know the pixel aspect ratio of the screen also need the pixel aspect ratio of the picture. The
        // caps of cameras often have none.
        if let Some(caps) = caps::with_square_pixels(caps).filter(|caps| takes(pad, caps)) {
            return unconverted(caps);
        }
        let target = may_convert.then(|| Target::find(pad, caps)).flatten();
        let conversion = target.and_then(|target| match present {
            Some(present) if present.target == target => Some(present),
            _ => Conversion::new(target).map(Arc::new),
        });
        match conversion {
            Some(conversion) => Self {
                caps: conversion.target.caps.clone(),
                conversion: Some(conversion),
            },
            None => unconverted(caps.clone()),
        }
    }
}

/// Whether downstream takes these caps.
///
/// An answer to an ACCEPT_CAPS query is valid only for the next element; an answer to a CAPS query also for the elements
/// behind it. The elements in between need not know optional fields, so an intersection is enough.
fn takes(pad: &gst::Pad, caps: &gst::Caps) -> bool {
    pad.peer_query_accept_caps(caps) && !pad.peer_query_caps(Some(caps)).is_empty()
}

/// The two formats of a conversion.
#[derive(Debug, PartialEq)]
struct Target {
    from: VideoInfo,
    to: VideoInfo,
    /// The caps for `to`.
    caps: gst::Caps,
}

impl Target {
    /// The format to which `caps` are converted with the least loss; `None` if downstream takes no raw video of this
    /// size and rate in system memory.
    fn find(pad: &gst::Pad, caps: &gst::Caps) -> Option<Self> {
        let from = caps::raw_video(caps)?;
        let (structure, features) = (caps.structure(0)?, caps.features(0)?);
        let defaults = from.to_caps().ok()?;
        let defaults = defaults.structure(0)?;
        let mut wanted = structure.to_owned();
        wanted.remove_fields(FORMAT_FIELDS);
        for field in DEFAULT_FIELDS {
            if let (false, Ok(value)) = (wanted.has_field(field), defaults.value(field)) {
                wanted.set_value(field, value.clone());
            }
        }
        let wanted = gst::Caps::builder_full()
            .structure_with_features(wanted, features.to_owned())
            .build();
        let answer = pad.peer_query_caps(Some(&wanted));
        let (format, structure) = answer
            .iter_with_features()
            .filter(|(_, offered)| offered.is_equal(features))
            .flat_map(|(structure, _)| formats(structure).map(move |format| (format, structure)))
            .filter(|(format, _)| !is_faulty(&from, format))
            // Of several formats with the same loss, `min_by_key` returns the first.
            .min_by_key(|(format, _)| loss(&from.format_info(), format))?;
        let mut chosen = structure.to_owned();
        chosen.set("format", format.name());
        keep_colours(&mut chosen, caps.structure(0)?, &from, &format);
        chosen.fixate();
        let caps = gst::Caps::builder_full()
            .structure_with_features(chosen, features.to_owned())
            .build();
        let to = caps::raw_video(&caps).filter(|to| (to.width(), to.height()) == (from.width(), from.height()))?;
        Some(Self { from, to, caps })
    }
}

/// The formats in a structure of caps.
fn formats(structure: &gst::StructureRef) -> impl Iterator<Item = VideoFormatInfo> + use<> {
    let names = match structure.get::<gst::List>("format") {
        Ok(list) => list.iter().filter_map(|value| value.get::<String>().ok()).collect(),
        Err(_) => structure.get::<String>("format").into_iter().collect::<Vec<_>>(),
    };
    names
        .into_iter()
        .map(|name| VideoFormat::from_string(&name))
        .filter(|format| !FORMATS_WITHOUT_PIXELS.contains(format))
        .map(VideoFormatInfo::from_format)
}

/// The values of GstVideoFormat that have no pixels which could be converted.
const FORMATS_WITHOUT_PIXELS: [VideoFormat; 2] = [VideoFormat::Unknown, VideoFormat::Encoded];

/// How much a conversion loses: a measure, and the bits of depth that are lost, which decide between equal measures.
///
/// The measure is that of `videoconvert`, so that both choose the same format.
fn loss(from: &VideoFormatInfo, to: &VideoFormatInfo) -> (u32, u32) {
    if from.format() == to.format() {
        return (0, 0);
    }
    let mut loss = 1;
    let mut add = |has_changed: bool, change: u32, is_lost: bool, lost: u32| {
        if has_changed {
            loss += change + if is_lost { lost } else { 0 };
        }
    };
    let colours = VideoFormatFlags::YUV | VideoFormatFlags::RGB | VideoFormatFlags::GRAY;
    let subsampling = |shifts: &[u32]| shifts.get(1).copied().unwrap_or(0);
    let (from_w, to_w) = (subsampling(from.w_sub()), subsampling(to.w_sub()));
    let (from_h, to_h) = (subsampling(from.h_sub()), subsampling(to.h_sub()));
    add(from.has_palette() != to.has_palette(), 1, to.has_palette(), 64);
    add(from.flags() & colours != to.flags() & colours, 2, to.is_gray(), 128);
    add(from.has_alpha() != to.has_alpha(), 1, from.has_alpha(), 8);
    add(from_h != to_h, 1, from_h < to_h, 32);
    add(from_w != to_w, 1, from_w < to_w, 16);
    add(from.bits() != to.bits(), 1, from.bits() > to.bits(), 4);
    (loss, from.bits().saturating_sub(to.bits()))
}

/// Whether GStreamer's converter crashes at this conversion, or writes behind the end of the new frame.
///
/// - If the new format is the one that the converter unpacks to, it unpacks each row directly into the new frame. Its
///   code for formats with subsampled colours writes two pixels at once, to addresses that it takes as aligned. The rows
///   of an odd width are not.
/// - UYVP stores pixels in pairs, and its default layout has no room for the second pixel of the last pair.
fn is_faulty(from: &VideoInfo, to: &VideoFormatInfo) -> bool {
    let format = from.format_info();
    let is_subsampled = format.w_sub().iter().any(|subsampling| *subsampling > 0);
    let is_direct = to.format() == format.unpack_format() && is_subsampled;
    from.width() % 2 == 1 && (is_direct || to.format() == VideoFormat::Uyvp)
}

/// Keeps the colorimetry and the chroma site of `from`, as far as the format and downstream allow.
fn keep_colours(chosen: &mut gst::Structure, channel: &gst::StructureRef, from: &VideoInfo, format: &VideoFormatInfo) {
    let source = from.format_info();
    let family = |format: &VideoFormatInfo| (format.is_yuv(), format.is_rgb(), format.is_gray());
    let is_same_family = family(&source) == family(format);
    let has_same_subsampling = source.w_sub() == format.w_sub() && source.h_sub() == format.h_sub();
    let mut keep = |field: &str, value: Option<String>| match value {
        Some(value) if chosen.has_field(field) => {
            chosen.fixate_field_str(field, &value);
        }
        Some(value) => chosen.set(field, value),
        None => {}
    };
    // Caps without these fields have the defaults of their format and size, and so have the caps of the result.
    if let Ok(colorimetry) = channel.get::<String>("colorimetry") {
        let kept = if is_same_family {
            Some(colorimetry)
        } else {
            across_families(from, format).map(|colorimetry| colorimetry.to_string())
        };
        keep("colorimetry", kept);
    }
    if let Ok(chroma_site) = channel.get::<String>("chroma-site")
        && source.is_yuv()
        && format.is_yuv()
        && has_same_subsampling
    {
        keep("chroma-site", Some(chroma_site));
    }
}

/// The colorimetry of a conversion between RGB, YUV and grey. The primaries and the transfer function stay. Range and
/// matrix are the defaults of the new format.
fn across_families(from: &VideoInfo, format: &VideoFormatInfo) -> Option<gst_video::VideoColorimetry> {
    let default = VideoInfo::builder(format.format(), from.width(), from.height())
        .build()
        .ok()?
        .colorimetry();
    let kept = from.colorimetry();
    Some(gst_video::VideoColorimetry::new(
        default.range(),
        default.matrix(),
        kept.transfer(),
        kept.primaries(),
    ))
}

/// A conversion of frames by GStreamer's own converter.
#[derive(Debug)]
pub(super) struct Conversion {
    target: Target,
    /// The formats of a single buffer, which is a whole frame or a single field.
    from: VideoInfo,
    to: VideoInfo,
    converter: VideoConverter,
}

impl Conversion {
    /// `None` if GStreamer cannot convert between these formats.
    fn new(target: Target) -> Option<Self> {
        let (from, to) = (buffer_info(&target.from)?, buffer_info(&target.to)?);
        let mut config = VideoConverterConfig::new();
        // 0 means as many threads as there are processors.
        config.set_threads(0);
        // Planes of subsampled colours are scaled as videoconvert scales them: fast, and well enough for so small a step.
        config.set_resampler_method(gst_video::VideoResamplerMethod::Linear);
        config.set("GstVideoResampler.max-taps", 2);
        let converter = VideoConverter::new(&from, &to, Some(config))
            .inspect_err(|error| gst::warning!(CAT, "no conversion to {}: {error}", target.caps))
            .ok()?;
        Some(Self {
            target,
            from,
            to,
            converter,
        })
    }

    /// Configures the pool for the converted frames: the one that downstream proposes, or a new one.
    pub(super) fn configure_pool(&self, query: &mut gst::query::Allocation, takes_meta: bool) {
        let proposed = query.allocation_pools().next();
        let is_proposed = proposed.is_some();
        let (pool, size, min, max) = proposed.unwrap_or_default();
        let size = size.max(u32::try_from(self.target.to.size()).unwrap_or(u32::MAX));
        let pool = pool.unwrap_or_else(|| gst_video::VideoBufferPool::new().upcast());
        let mut config = pool.config();
        config.set_params(Some(&self.target.caps), size, min, max);
        if takes_meta {
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META);
        }
        // If the pool changes or refuses the configuration, the base class, which configures it again, decides.
        let _ = pool.set_config(config);
        if is_proposed {
            query.set_nth_allocation_pool(0, Some(&pool), size, min, max);
        } else {
            query.add_allocation_pool(Some(&pool), size, min, max);
        }
    }

    /// Converts a frame. The memory of `buffer` is released before the function returns.
    fn convert(&self, buffer: gst::Buffer, mut target: gst::Buffer) -> Result<gst::Buffer, gst::glib::BoolError> {
        let writable = target.make_mut();
        let from = VideoFrameRef::from_buffer_ref_readable(&buffer, &self.from)?;
        let mut to = VideoFrameRef::from_buffer_ref_writable(&mut *writable, &self.to)?;
        self.converter.frame_ref(&from, &mut to);
        drop((from, to));
        // Metas that describe memory, such as GstVideoMeta, are not copied, because the memory is another.
        let parts = gst::BufferCopyFlags::FLAGS | gst::BufferCopyFlags::TIMESTAMPS | gst::BufferCopyFlags::META;
        buffer.copy_into(writable, parts, ..)?;
        Ok(target)
    }
}

/// The format of a single buffer. A field is converted like a frame of half the height.
fn buffer_info(info: &VideoInfo) -> Option<VideoInfo> {
    if info.interlace_mode() != gst_video::VideoInterlaceMode::Alternate {
        return Some(info.clone());
    }
    VideoInfo::builder(info.format(), info.width(), info.field_height())
        .colorimetry(&info.colorimetry())
        .chroma_site(info.chroma_site())
        .fps(info.fps())
        .build()
        .ok()
}

/// Converts the frames of a stream, and says once that it does.
#[derive(Default)]
pub(super) struct Converter {
    is_reported: bool,
}

impl Converter {
    /// Converts `buffer` into a buffer of the pool that the base class negotiated.
    pub(super) fn apply(
        &mut self,
        element: &gst_base::BaseSrc,
        channel: &str,
        conversion: &Conversion,
        buffer: gst::Buffer,
    ) -> Result<gst::Buffer, gst::FlowError> {
        if !std::mem::replace(&mut self.is_reported, true) {
            report(element, channel, conversion);
        }
        let target = match element.buffer_pool() {
            Some(pool) => pool.acquire_buffer(None)?,
            None => gst::Buffer::with_size(conversion.target.to.size()).map_err(|_| gst::FlowError::Error)?,
        };
        conversion.convert(buffer, target).map_err(|error| {
            gst::element_error!(
                element,
                gst::StreamError::Format,
                (
                    "channel {channel}: a frame could not be converted to {}: {error}",
                    conversion.to.format()
                )
            );
            gst::FlowError::Error
        })
    }
}

/// Says that frames are converted, and what to do about it. gst-launch-1.0 prints only the debug text of an INFO
/// message, so it is the same text.
fn report(element: &gst_base::BaseSrc, channel: &str, conversion: &Conversion) {
    let text = format!(
        "channel {channel}: downstream does not take {}, so this element converts each frame to {}, on all processors; \
         put videoconvert where the conversion is wanted, or set convert=false",
        conversion.from.format(),
        conversion.to.format()
    );
    gst::element_info!(element, gst::CoreError::Negotiation, ("{text}"), ["{text}"]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(format: VideoFormat, width: u32, height: u32) -> VideoInfo {
        gst::init().unwrap();
        VideoInfo::builder(format, width, height).build().unwrap()
    }

    #[test]
    fn every_pair_of_formats_converts_at_any_size() {
        gst::init().unwrap();
        let formats: Vec<VideoFormat> = VideoFormat::iter_raw().collect();
        let mut faulty = 0;
        for (width, height) in [(1, 1), (3, 5), (16, 2), (61, 33)] {
            for from in &formats {
                let from = raw(*from, width, height);
                let mut buffer = gst::Buffer::with_size(from.size()).unwrap();
                buffer.get_mut().unwrap().map_writable().unwrap().fill(77);
                for to in &formats {
                    let to = raw(*to, width, height);
                    if is_faulty(&from, &to.format_info()) {
                        faulty += 1;
                        continue;
                    }
                    let (caps, size) = (to.to_caps().unwrap(), to.size());
                    let target = gst::Buffer::from_mut_slice(vec![0xee_u8; size + 256]);
                    let conversion = Conversion::new(Target {
                        from: from.clone(),
                        to,
                        caps: caps.clone(),
                    });
                    let conversion = conversion.unwrap_or_else(|| panic!("{from:?} {caps}"));
                    let converted = conversion.convert(buffer.clone(), target).unwrap();
                    let map = converted.map_readable().unwrap();
                    let behind = map[size..].iter().rposition(|byte| *byte != 0xee);
                    assert_eq!(behind, None, "{from:?} {caps}");
                }
            }
        }
        assert!(faulty > 0);
    }
}
