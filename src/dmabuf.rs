// SPDX-License-Identifier: MIT OR Apache-2.0

//! Caps with the feature `memory:DMABuf`.
//!
//! They have two forms. Up to version 1.22, they have the field `format` of ordinary raw video. From 1.24
//! on, they have `format=DMA_DRM`, and `drm-format` names a format of the kernel and its modifier. The modifier says how the
//! pixels lie in memory.
//!
//! If the pixels lie in rows (the modifier is 0, "linear"), a channel has caps of the first form. So readers of every version
//! of GStreamer, and programs without GStreamer, know the format. A reader gives its pipeline the form that downstream takes.
//! Other modifiers remain as they are, because only devices can read such frames.

use std::sync::LazyLock;

use gst::glib::translate::FromGlib;
use gst_video::VideoFormat;

use crate::library;

/// The caps feature.
pub(crate) const FEATURE: &str = "memory:DMABuf";
/// The value of `format` in caps with `drm-format`.
const DRM: &str = "DMA_DRM";
const DRM_FORMAT: &str = "drm-format";

/// Whether the caps have the feature.
pub(crate) fn has_feature(caps: &gst::CapsRef) -> bool {
    caps.features(0).is_some_and(|features| features.contains(FEATURE))
}

/// Whether the caps name a format of the kernel, which GStreamer cannot describe as raw video.
pub(crate) fn has_drm_format(structure: &gst::StructureRef) -> bool {
    structure.get::<&str>("format") == Ok(DRM)
}

/// The caps of a channel for upstream's caps: a format of the kernel with linear rows becomes the format of GStreamer.
pub(crate) fn for_channel(caps: &gst::Caps) -> gst::Caps {
    let linear = || {
        let structure = caps.structure(0).filter(|structure| has_drm_format(structure))?;
        let (fourcc, modifier) = parse(structure.get::<&str>(DRM_FORMAT).ok()?)?;
        let format = (modifier == 0).then(|| format_of(fourcc)).flatten()?;
        let mut structure = structure.to_owned();
        structure.remove_field(DRM_FORMAT);
        structure.set("format", format.to_str());
        Some(with_features(structure, caps.features(0)?.to_owned()))
    };
    linear().unwrap_or_else(|| caps.clone())
}

/// The caps of the same frames for the processor, which maps their memory; `None` if their pixels do not lie in rows, or if
/// this GStreamer has no name for their format. The caps are those of a channel.
pub(crate) fn mapped(caps: &gst::Caps) -> Option<gst::Caps> {
    if !has_feature(caps) {
        return Some(caps.clone());
    }
    let structure = caps.structure(0).filter(|structure| !has_drm_format(structure))?;
    let features = caps.features(0)?.iter().filter(|feature| feature.as_str() != FEATURE);
    let features = gst::CapsFeatures::new(features.map(|feature| feature.as_str()));
    Some(with_features(structure.to_owned(), features))
}

/// The forms of a channel's caps with the feature, in the order of preference. The first is that of this version of
/// GStreamer.
pub(crate) fn forms(caps: &gst::Caps) -> Vec<gst::Caps> {
    let drm = || {
        let structure = caps.structure(0).filter(|structure| !has_drm_format(structure))?;
        let format = VideoFormat::from_string(structure.get::<&str>("format").ok()?);
        let name = fourcc_name(fourcc_of(format)?)?;
        let mut structure = structure.to_owned();
        structure.set("format", DRM);
        structure.set(DRM_FORMAT, name);
        Some(with_features(structure, caps.features(0)?.to_owned()))
    };
    if !has_feature(caps) {
        return Vec::new();
    }
    drm().into_iter().chain([caps.clone()]).collect()
}

/// The format of the kernel and its modifier, as the caps name them; `None` if the processor can read the frames.
pub(crate) fn opaque_format(caps: &gst::CapsRef) -> Option<String> {
    let structure = caps.structure(0).filter(|structure| has_drm_format(structure))?;
    let text = structure.get::<&str>(DRM_FORMAT).unwrap_or("none");
    Some(format!("{text:.40}"))
}

/// The picture in frames that only devices can read, as a GstVideoMeta describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpaquePicture {
    pub(crate) format: VideoFormat,
    pub(crate) width: u32,
    pub(crate) height: u32,
}

impl OpaquePicture {
    /// The picture of such caps; `None` for other caps, and if this GStreamer has no name for the format of the kernel.
    pub(crate) fn of_caps(caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps.structure(0).filter(|structure| has_drm_format(structure))?;
        let (fourcc, _) = parse(structure.get::<&str>(DRM_FORMAT).ok()?)?;
        let length = |field| u32::try_from(structure.get::<i32>(field).ok()?).ok();
        Some(Self {
            format: format_of(fourcc)?,
            width: length("width")?,
            height: length("height")?,
        })
    }
}

fn with_features(structure: gst::Structure, features: gst::CapsFeatures) -> gst::Caps {
    let builder = gst::Caps::builder_full();
    // The constructor without features means system memory.
    if features.is_empty() {
        return builder.structure(structure).build();
    }
    builder.structure_with_features(structure, features).build()
}

/// The code and the modifier of a text such as `NV12:0x0100000000000002`. Without a modifier, the rows are linear.
fn parse(text: &str) -> Option<(u32, u64)> {
    let (name, modifier) = match text.split_once(':') {
        Some((name, modifier)) => (name, u64::from_str_radix(modifier.strip_prefix("0x")?, 16).ok()?),
        None => (text, 0),
    };
    let mut bytes = [b' '; 4];
    bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    (!name.is_empty()).then(|| (u32::from_le_bytes(bytes), modifier))
}

/// The name of a format of the kernel.
fn fourcc_name(fourcc: u32) -> Option<String> {
    let bytes = fourcc.to_le_bytes();
    let is_text = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    is_text.then(|| bytes.into_iter().map(char::from).collect())
}

/// GStreamer's format for a format of the kernel with linear rows; `None` before version 1.24, and if it has none.
fn format_of(fourcc: u32) -> Option<VideoFormat> {
    type FromFourcc = unsafe extern "C" fn(u32) -> i32;
    static CONVERT: LazyLock<Option<FromFourcc>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::VIDEO, c"gst_video_dma_drm_fourcc_to_format") });
    let convert = (*CONVERT)?;
    // SAFETY: the function takes any number, and the value is one of the enumeration.
    let format = unsafe { VideoFormat::from_glib(convert(fourcc)) };
    (format != VideoFormat::Unknown && format != VideoFormat::Encoded).then_some(format)
}

/// The format of the kernel for GStreamer's format; `None` before version 1.24, and if there is none.
fn fourcc_of(format: VideoFormat) -> Option<u32> {
    type ToFourcc = unsafe extern "C" fn(i32) -> u32;
    static CONVERT: LazyLock<Option<ToFourcc>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::VIDEO, c"gst_video_dma_drm_fourcc_from_format") });
    if matches!(format, VideoFormat::Unknown | VideoFormat::Encoded) {
        return None;
    }
    let convert = (*CONVERT)?;
    // SAFETY: the format is one that this GStreamer knows.
    Some(unsafe { convert(gst::glib::translate::IntoGlib::into_glib(format)) }).filter(|fourcc| *fourcc != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        text.parse().unwrap()
    }

    /// Whether this GStreamer has formats of the kernel.
    fn is_new() -> bool {
        fourcc_of(VideoFormat::Nv12).is_some()
    }

    #[test]
    fn linear_caps_have_plain_caps_for_processor() {
        let channel = caps("video/x-raw(memory:DMABuf),format=NV12,width=64,height=48,framerate=30/1");
        assert_eq!(for_channel(&channel), channel);
        let plain = caps("video/x-raw,format=NV12,width=64,height=48,framerate=30/1");
        assert_eq!(mapped(&channel), Some(plain.clone()));
        assert_eq!(mapped(&plain), Some(plain.clone()));
        let fields = caps("video/x-raw(memory:DMABuf,format:Interlaced),format=NV12,width=64,height=48");
        let expected = caps("video/x-raw(format:Interlaced),format=NV12,width=64,height=48");
        assert_eq!(mapped(&fields), Some(expected));
        assert!(forms(&plain).is_empty());
        let forms = forms(&channel);
        assert_eq!(forms.last(), Some(&channel));
        let drm = caps("video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format=NV12,width=64,height=48,framerate=30/1");
        if is_new() {
            assert_eq!(forms, [drm.clone(), channel.clone()]);
            assert_eq!(for_channel(&drm), channel);
        } else {
            assert_eq!(forms.len(), 1);
            assert_eq!(for_channel(&drm), drm);
        }
    }

    #[test]
    fn modifiers_stay_and_are_opaque() {
        let text = "NV12:0x0100000000000002";
        let tiled = caps(&format!(
            "video/x-raw(memory:DMABuf),format=DMA_DRM,drm-format={text},width=64,height=48"
        ));
        assert_eq!(for_channel(&tiled), tiled);
        assert_eq!(mapped(&tiled), None);
        assert_eq!(forms(&tiled), std::slice::from_ref(&tiled));
        assert_eq!(opaque_format(&tiled).as_deref(), Some(text));
    }

    #[test]
    fn names_of_kernel_formats_are_read() {
        let nv12 = u32::from_le_bytes(*b"NV12");
        assert_eq!(parse("NV12"), Some((nv12, 0)));
        assert_eq!(parse("NV12:0x0"), Some((nv12, 0)));
        assert_eq!(parse("R8"), Some((u32::from_le_bytes(*b"R8  "), 0)));
        for text in [
            "",
            ":0x0",
            "NV12:",
            "NV12:2",
            "NV12:0xg",
            "NV12:0x11111111111111111",
            "NV123",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
