// SPDX-License-Identifier: MIT OR Apache-2.0

//! The caps that the elements accept, in order of preference.

use std::{collections::BTreeSet, sync::LazyLock};

use gst::prelude::*;
use gst_video::VideoFormat;
use rsshm_channel::caps_text::canonical_caps;

use crate::dmabuf;

/// The preferred raw formats, most preferred first. Screens and encoders take these formats without a conversion.
const PREFERRED_FORMATS: [VideoFormat; 12] = [
    VideoFormat::I420,
    VideoFormat::Nv12,
    VideoFormat::Yuy2,
    VideoFormat::Uyvy,
    VideoFormat::Bgrx,
    VideoFormat::Rgbx,
    VideoFormat::Bgra,
    VideoFormat::Rgba,
    VideoFormat::Rgb,
    VideoFormat::Bgr,
    VideoFormat::Gray8,
    VideoFormat::P01010le,
];

/// The media types that cameras, encoders and muxers mostly deliver besides raw video. Upstream elements that have no
/// preference of their own take the first that they can deliver.
const OTHER_MEDIA_TYPES: [&str; 36] = [
    "image/jpeg",
    "video/x-h264",
    "video/x-h265",
    "video/x-vp8",
    "video/x-vp9",
    "video/x-av1",
    "video/mpeg",
    "video/mpegts",
    "video/x-bayer",
    "image/png",
    "audio/x-raw",
    "audio/mpeg",
    "audio/x-opus",
    "application/x-rtp",
    "video/x-theora",
    "video/x-h263",
    "video/x-dirac",
    "video/x-dv",
    "video/x-prores",
    "video/x-flv",
    "video/x-matroska",
    "video/webm",
    "video/quicktime",
    "image/x-jpc",
    "image/x-j2c",
    "image/jp2",
    "image/webp",
    "audio/x-vorbis",
    "audio/x-flac",
    "audio/x-speex",
    "audio/x-alaw",
    "audio/x-mulaw",
    "audio/x-ac3",
    "application/ogg",
    "text/x-raw",
    "meta/x-klv",
];

/// The sink's answer to a CAPS query without a filter.
static ANSWER: LazyLock<gst::Caps> = LazyLock::new(|| {
    // Each format has its own structure, because elements in between intersect these caps with their own caps. The
    // intersection keeps the order of structures, but not the order of the formats in one structure.
    let mut caps = gst::Caps::new_empty();
    for format in PREFERRED_FORMATS {
        caps.merge(gst_video::VideoCapsBuilder::new().format(format).build());
    }
    let rest = VideoFormat::iter_raw().filter(|format| !PREFERRED_FORMATS.contains(format));
    caps.merge(gst_video::VideoCapsBuilder::new().format_list(rest).build());
    let installed = installed_media_types();
    let others = installed
        .iter()
        .filter(|name| !OTHER_MEDIA_TYPES.contains(&name.as_str()));
    for name in OTHER_MEDIA_TYPES.into_iter().chain(others.map(String::as_str)) {
        caps.merge_structure(gst::Structure::new_empty(name));
    }
    // Single fields come last, so that an upstream element that can send whole frames does not send fields.
    let fields = gst_video::VideoCapsBuilder::new()
        .features([gst_video::CAPS_FEATURE_FORMAT_INTERLACED])
        .format_list(VideoFormat::iter_raw())
        .field("interlace-mode", "alternate");
    caps.merge(fields.build());
    // Upstream that can also send frames in system memory does so, because each program can read these.
    caps.merge(gst::Caps::builder("video/x-raw").features([dmabuf::FEATURE]).build());
    // These caps live until the program ends, so a leak tracer must not report them.
    caps.make_mut().mark_may_be_leaked();
    caps
});

/// The media types that the installed elements can deliver in system memory, besides raw video.
///
/// An element can be linked only if the answer without a filter has a media type of the element.
fn installed_media_types() -> BTreeSet<String> {
    let features = gst::Registry::get().features(gst::ElementFactory::static_type());
    let factories = features
        .iter()
        .filter_map(|feature| feature.downcast_ref::<gst::ElementFactory>());
    let mut names = BTreeSet::new();
    for template in factories.flat_map(|factory| factory.static_pad_templates()) {
        if template.direction() == gst::PadDirection::Src {
            let caps = template.caps();
            let structures = caps.iter_with_features();
            let carried =
                structures.filter(|(_, features)| !features.is_any() && unsupported_feature(features).is_none());
            names.extend(carried.map(|(structure, _)| structure.name().to_string()));
        }
    }
    names.remove("video/x-raw");
    names
}

/// The sink's answer to a CAPS query. It is never ANY, because upstream might deliver GPU memory after such an answer.
///
/// With a filter, the answer has all of the filter's caps that are in system memory or in dmabufs. The raw formats of the
/// answer are in the sink's order of preference.
pub(crate) fn answer(filter: Option<&gst::Caps>) -> gst::Caps {
    let Some(filter) = filter else {
        return ANSWER.clone();
    };
    if filter.is_any() {
        return ANSWER.clone();
    }
    let filter: gst::Caps = filter
        .iter_with_features()
        .filter_map(|(structure, features)| {
            let features = if features.is_any() {
                gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY.clone()
            } else {
                features.to_owned()
            };
            unsupported_feature(&features)
                .is_none()
                .then(|| (structure.to_owned(), features))
        })
        .collect();
    let mut caps = ANSWER.intersect_with_mode(&filter, gst::CapsIntersectMode::First);
    caps.merge(filter);
    caps
}

/// The first feature that the channel cannot carry. The channel carries only buffers in system memory and in dmabufs. Each
/// buffer has a whole frame, or a single field (`format:Interlaced`).
fn unsupported_feature(features: &gst::CapsFeaturesRef) -> Option<&str> {
    features
        .iter()
        .map(|feature| feature.as_str())
        .find(|feature| !["memory:SystemMemory", dmabuf::FEATURE, "format:Interlaced"].contains(feature))
}

/// The reason why the channel cannot carry these caps, with a remedy; `None` if it can carry them.
pub(crate) fn refusal(caps: &gst::CapsRef) -> Option<String> {
    if !caps.is_fixed() {
        return Some(format!("caps are not fixed: {caps}"));
    }
    refusal_of_frames(caps).or_else(|| {
        let text = caps.to_string();
        let mistake = canonical_caps(&text).err()?;
        Some(format!(
            "caps with values that not every program may read are not shared: put a capssetter with other caps before \
             this element: {}; the caps are {text}",
            mistake.describe(&text)
        ))
    })
}

/// The reason why the channel cannot carry frames with these fixed caps, with a remedy.
fn refusal_of_frames(caps: &gst::CapsRef) -> Option<String> {
    let has_separate_views = |structure: &gst::StructureRef| {
        structure.name() == "video/x-raw" && structure.get("multiview-mode") == Ok("separated")
    };
    if caps.structure(0).is_some_and(has_separate_views) {
        return Some(
            "views in separate memories (multiview-mode=separated) are not shared: put \
             glviewconvert output-mode-override=side-by-side ! gldownload before this element"
                .to_owned(),
        );
    }
    caps.features(0).and_then(unsupported_feature).map(refusal_of_feature)
}

/// The reason why the channel cannot carry a caps feature, with a remedy.
fn refusal_of_feature(feature: &str) -> String {
    let remedy = match feature {
        "memory:GLMemory" => "put gldownload before this element",
        "memory:CUDAMemory" => "put cudadownload before this element",
        "memory:VAMemory" | "memory:VASurface" => "put vapostproc before this element",
        "meta:GstVideoOverlayComposition" => {
            return format!(
                "overlays that are not drawn into the picture are not shared: take {feature} out of the caps filter \
                 before this element, so that the element that makes the overlays draws them, or put \
                 glupload ! gloverlaycompositor ! gldownload before this element"
            );
        }
        _ if feature.starts_with("memory:") => "put the element that downloads it to system memory before this element",
        _ if feature.starts_with("meta:") => {
            return format!(
                "{feature} is not shared: put the element that makes use of it, or a caps filter without it, before this \
                 element"
            );
        }
        _ => {
            return format!(
                "the caps feature {feature} is unknown: put the element that resolves it, or a caps filter without it, \
                 before this element"
            );
        }
    };
    format!("only system memory and dmabufs are shared, not {feature}: {remedy}")
}

/// The reason why the channel can carry none of the caps in `filter`; `None` if it can carry some.
pub(crate) fn refusal_of_offer(filter: &gst::CapsRef) -> Option<String> {
    if filter.is_any() || filter.is_empty() || !answer(Some(&filter.to_owned())).is_empty() {
        return None;
    }
    filter.features(0).and_then(unsupported_feature).map(refusal_of_feature)
}

/// Parses the caps of a segment, which may hold any text.
pub(crate) fn parse(text: &str) -> Result<gst::Caps, String> {
    // GStreamer's own parser trusts its input, so it gets only texts that were written here.
    let canonical = canonical_caps(text)
        .map_err(|mistake| format!("its caps cannot be read: {}: {text:.200}", mistake.describe(text)))?;
    let caps: gst::Caps = canonical
        .parse()
        .map_err(|_| format!("its caps have values that this version of GStreamer does not know: {canonical:.200}"))?;
    if caps.size() != 1 || !caps.is_fixed() {
        return Err(format!("its caps are not fixed: {text:.200}"));
    }
    match refusal_of_frames(&caps) {
        Some(refusal) => Err(refusal),
        None => Ok(caps),
    }
}

/// What to do if downstream of a reader does not accept `caps`. `may_convert` is whether the reader converts raw video.
pub(crate) fn remedy_for_reader(caps: Option<&gst::CapsRef>, may_convert: bool) -> String {
    if let Some(format) = caps.and_then(dmabuf::opaque_format) {
        return format!(
            "its frames are in the format {format} of the kernel, whose modifier only devices can read: put an element that \
             imports such dmabufs after this element, for example glupload, or let the writer send rows with \"video/x-raw\" \
             as a caps filter before rsshmsink"
        );
    }
    remedy_of_media_type(caps, may_convert).to_owned()
}

fn remedy_of_media_type(caps: Option<&gst::CapsRef>, may_convert: bool) -> &'static str {
    match caps
        .and_then(|caps| caps.structure(0))
        .map(|structure| structure.name().as_str())
    {
        Some("video/x-raw") if may_convert => {
            "it takes no format of raw video with this size and frame rate: put videoscale, videorate or another element \
             that changes the caps after this element"
        }
        Some("video/x-raw") => "put videoconvert after this element, or set convert=true",
        Some("audio/x-raw") => "put audioconvert ! audioresample after this element",
        _ => "put the parser or the decoder that the caps need after this element",
    }
}

/// Adds the pixel aspect ratio 1/1 to raw video caps that have no ratio, because a missing ratio means square pixels.
/// `None` for all other caps.
pub(crate) fn with_square_pixels(caps: &gst::Caps) -> Option<gst::Caps> {
    const FIELD: &str = "pixel-aspect-ratio";
    let structure = caps.structure(0)?;
    if structure.name() != "video/x-raw" || structure.has_field(FIELD) {
        return None;
    }
    let mut caps = caps.clone();
    caps.make_mut().set(FIELD, gst::Fraction::new(1, 1));
    Some(caps)
}

/// The audio format of caps in system memory; `None` if they are not raw audio.
pub(crate) fn raw_audio(caps: &gst::CapsRef) -> Option<gst_audio::AudioInfo> {
    if caps.structure(0)?.name() != "audio/x-raw" || unsupported_feature(caps.features(0)?).is_some() {
        return None;
    }
    gst_audio::AudioInfo::from_caps(caps).ok()
}

/// These caps without the stream headers.
pub(crate) fn without_stream_headers(caps: &gst::Caps) -> gst::Caps {
    let mut caps = caps.clone();
    caps.make_mut().iter_mut().for_each(|structure| {
        structure.remove_field("streamheader");
    });
    caps
}

/// The video format of caps; `None` if they are not raw video, or if only devices can read the frames.
pub(crate) fn raw_video(caps: &gst::CapsRef) -> Option<gst_video::VideoInfo> {
    let structure = caps.structure(0)?;
    (structure.name() == "video/x-raw" && !dmabuf::has_drm_format(structure))
        .then(|| gst_video::VideoInfo::from_caps(caps).ok())
        .flatten()
}

/// Whether the caps are encoded video or audio, whose decoder may need frames that are not to be shown.
pub(crate) fn is_encoded(caps: &gst::CapsRef) -> bool {
    caps.structure(0).is_some_and(|structure| {
        let name = structure.name();
        (name.starts_with("video/") || name.starts_with("audio/")) && !name.ends_with("/x-raw")
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::codec::samples;

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        text.parse().unwrap()
    }

    #[test]
    fn answer_has_raw_video_in_order_of_preference() {
        let offer = caps("video/x-raw,format={ABGR64_LE,BGRx,NV12,I420},width=[1,max]");
        let answer = answer(Some(&offer));
        let formats: Vec<&str> = answer
            .iter()
            .filter_map(|structure| structure.get("format").ok())
            .collect();
        assert_eq!(formats[..4], ["I420", "NV12", "BGRx", "ABGR64_LE"], "{answer}");
    }

    #[test]
    fn answer_accepts_everything_in_system_memory() {
        for offer in [
            "application/x-thing,version=3",
            "audio/x-raw,rate=48000",
            "image/jpeg,width=640",
        ] {
            assert!(answer(Some(&caps(offer))).can_intersect(&caps(offer)), "{offer}");
        }
    }

    #[test]
    fn refusal_names_element_that_downloads_other_memory() {
        let offer = caps("video/x-raw(memory:GLMemory),format=RGBA");
        assert!(answer(Some(&offer)).is_empty());
        assert!(refusal_of_offer(&offer).unwrap().contains("gldownload"));
        let mixed = caps("video/x-raw(memory:DMABuf),format=DMA_DRM;video/x-raw,format=NV12");
        assert!(refusal_of_offer(&mixed).is_none());
        let answer_to_mixed = answer(Some(&mixed));
        assert_eq!(answer_to_mixed, mixed);
        assert!(
            !dmabuf::has_feature(&answer_to_mixed),
            "caps in system memory come first"
        );
        assert!(!answer(None).is_any());
        assert!(answer(None).can_intersect(&caps("video/x-raw,format=GRAY16_LE")));
    }

    #[test]
    fn reader_accepts_all_caps_that_writer_accepts() {
        gst::init().unwrap();
        let buffer = gst::Buffer::from_slice([1_u8, 0x64]);
        let info = gst_video::VideoInfo::builder(VideoFormat::Nv12, 64, 48)
            .build()
            .unwrap();
        for caps in [
            gst::Caps::builder("video/x-h264").field("codec_data", &buffer).build(),
            gst::Caps::builder("audio/x-flac")
                .field("streamheader", gst::Array::new([&buffer, &buffer]))
                .field("channel-mask", gst::Bitmask::new(3))
                .field("text", "a \"b\" c=(int)5; ä")
                .field("float", 0.5_f32)
                .build(),
            info.to_caps().unwrap(),
        ] {
            assert_eq!(refusal(&caps), None);
            assert_eq!(parse(&caps.to_string()).as_ref(), Ok(&caps));
        }
        let inner = gst::Structure::builder("inner")
            .field("caps", gst::Caps::new_empty_simple("c/d"))
            .build();
        let caps = gst::Caps::builder("a/b").field("c", inner).build();
        assert_eq!(refusal(&caps), None);
        assert_eq!(parse(&caps.to_string()).as_ref(), Ok(&caps));
        let caps = gst::Caps::builder("a/b")
            .field("c", gst::DateTime::new_now_utc())
            .build();
        assert!(refusal(&caps).unwrap().contains("capssetter"));
        assert!(parse(&caps.to_string()).is_err());
    }

    #[test]
    fn invalid_caps_of_segment_are_refused() {
        gst::init().unwrap();
        for text in [
            "",
            "video/x-raw,width=",
            "video/x-raw,width=[1,2]",
            "a/b;c/d",
            "video/x-raw(memory:GLMemory)",
            "video/x-raw(meta:GstVideoOverlayComposition)",
            "video/x-raw(format:Unheard)",
            "video/x-raw,multiview-mode=separated",
            "\u{0}",
            &format!("a/b, c={}1{}", "<".repeat(30_000), ">".repeat(30_000)),
        ] {
            assert!(parse(text).is_err(), "{text:.60?}");
        }
        for text in [
            "video/x-raw,format=NV12,width=2,height=2,framerate=30/1",
            "video/x-raw(memory:SystemMemory),format=NV12",
            "video/x-raw(format:Interlaced),format=NV12,interlace-mode=alternate",
        ] {
            assert!(parse(text).is_ok(), "{text:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

        /// The texts look like caps, because only such texts can reach GStreamer's own parser. No text may cause a
        /// warning.
        #[test]
        fn parser_survives_any_text(
            text in r#"[a-c/]{1,3}(\([a-c:]{1,5}(, ?[a-c:]{1,5})?\))?(, ?[a-c]=(\((int|i|uint|gint64|float|double|d|string|s|fraction|bitmask|boolean|guchar|buffer|GstFlagSet|GstCaps|GstVideoMultiviewFlagsSet)\))?[{<\[( ]?(-?[0-9]{1,12}([:/]-?[0-9a-f]{1,11}){0,2}|0x[0-9a-f]{1,20}|[ -~]{0,12}|"[ -~]{0,12}"|min|max|NULL|nan)[}>\]) ]?){0,4};?"#,
        ) {
            samples::init();
            let _ = parse(&text);
        }

        #[test]
        fn raw_video_survives_any_fields(
            features in prop::sample::select(vec!["", "(format:Interlaced)"]),
            format in prop::sample::select(vec!["I420", "RGB8P", "NV12_4L4", "v210", "ENCODED", "DMA_DRM", "x"]),
            size in (size(), size()), fraction in (any::<i32>(), any::<i32>()), views in any::<i32>(),
            mode in prop::sample::select(vec!["progressive", "alternate", "fields", "x", ""]),
            view in prop::sample::select(vec!["mono", "frame-by-frame", "multiview-frame-by-frame"]),
            colorimetry in prop::sample::select(vec!["bt709", "1:1:1:1", "9:9:999:-1", "x"]), bytes in 0_usize..5000,
        ) {
            samples::init();
            let ((width, height), (numerator, denominator)) = (size, fraction);
            let text = format!(
                "video/x-raw{features}, format={format}, width=(int){width}, height=(int){height}, views=(int){views}, \
                 framerate=(fraction){numerator}/{denominator}, pixel-aspect-ratio=(fraction){denominator}/{numerator}, \
                 interlace-mode=(string)\"{mode}\", multiview-mode={view}, colorimetry={colorimetry}, chroma-site={mode}"
            );
            if let Ok(caps) = parse(&text)
                && let Some(info) = raw_video(&caps)
            {
                let planes = crate::planes::Planes::default_of(&info);
                prop_assert!(!planes.fit(&info, bytes) || info.size() <= bytes);
            }
        }
    }

    fn size() -> impl Strategy<Value = i32> {
        prop_oneof![0..100, any::<i32>()]
    }
}
