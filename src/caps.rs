//! Which caps the elements take, and in what order they ask for them.

use std::sync::LazyLock;

use gst_video::VideoFormat;

use crate::codec;

/// What screens and encoders take without a conversion comes first.
const PREFERRED: [VideoFormat; 12] = [
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

/// What cameras deliver beside raw video, for an upstream that has no preference of its own.
const OTHERS: [&str; 14] = [
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
];

/// The sink's answer to an upstream that does not say what it has.
static ANSWER: LazyLock<gst::Caps> = LazyLock::new(|| {
    // A structure for each: the order of structures survives where elements in between intersect with caps of their own,
    // that of a list of formats in one structure does not.
    let mut caps = gst::Caps::new_empty();
    for format in PREFERRED {
        caps.merge(gst_video::VideoCapsBuilder::new().format(format).build());
    }
    let rest = VideoFormat::iter_raw().filter(|format| !PREFERRED.contains(format));
    caps.merge(gst_video::VideoCapsBuilder::new().format_list(rest).build());
    for name in OTHERS {
        caps.merge_structure(gst::Structure::new_empty(name));
    }
    // It lives as long as the program: no news for who looks for leaks.
    caps.make_mut().mark_may_be_leaked();
    caps
});

/// The sink's answer to a CAPS query: never ANY, as an upstream that can also deliver GPU memory would do so then.
///
/// With a filter, whatever lies in system memory is welcome; raw video is asked for in the order of preference.
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
            is_system_memory(&features).then(|| (structure.to_owned(), features))
        })
        .collect();
    let mut caps = ANSWER.intersect_with_mode(&filter, gst::CapsIntersectMode::First);
    caps.merge(filter);
    caps
}

pub(crate) fn is_system_memory(features: &gst::CapsFeaturesRef) -> bool {
    features.is_equal(&gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY)
}

/// Why caps cannot be carried, as a sentence that says what to do; `None` when they can.
pub(crate) fn refusal(caps: &gst::CapsRef) -> Option<String> {
    if !caps.is_fixed() {
        return Some(format!("caps are not fixed: {caps}"));
    }
    let features = caps.features(0).filter(|features| !is_system_memory(features))?;
    let name = features.to_string();
    let remedy = if name.contains("GLMemory") {
        "put gldownload before this element"
    } else if name.contains("CUDAMemory") {
        "put cudadownload before this element"
    } else if name.contains("VAMemory") || name.contains("VASurface") {
        "put vapostproc before this element"
    } else if name.contains("DMABuf") {
        "put vapostproc, glupload ! gldownload, or \"video/x-raw\" as a caps filter before this element"
    } else if name.contains("D3D") || name.contains("NVMM") || name.contains("memory:") {
        "put the element that downloads it to system memory before this element"
    } else {
        "put an element that resolves it before this element"
    };
    Some(format!("only system memory is shared, not {name}: {remedy}"))
}

/// Why an upstream that offers `filter` alone cannot be served; `None` when it can.
pub(crate) fn refusal_of_offer(filter: &gst::CapsRef) -> Option<String> {
    if filter.is_any() || filter.is_empty() || !answer(Some(&filter.to_owned())).is_empty() {
        return None;
    }
    let features = filter.features(0)?.to_owned();
    let offer = gst::Caps::builder("video/x-raw").features(features.iter()).build();
    refusal(&offer)
}

/// The caps that a segment's text names, which may be anything.
pub(crate) fn parse(text: &str) -> Result<gst::Caps, String> {
    // GStreamer complains aloud of some texts, and makes whatever type a text names.
    let caps = Some(text)
        .filter(|text| codec::is_plain_caps(text))
        .and_then(|text| text.parse::<gst::Caps>().ok())
        .ok_or_else(|| format!("its caps cannot be read: {text:.200}"))?;
    if caps.size() != 1 || !caps.is_fixed() {
        return Err(format!("its caps are not fixed: {text:.200}"));
    }
    match refusal(&caps) {
        Some(refusal) => Err(refusal),
        None => Ok(caps),
    }
}

/// The video format of caps in system memory, `None` for all that is not raw video.
pub(crate) fn raw_video(caps: &gst::CapsRef) -> Option<gst_video::VideoInfo> {
    let structure = caps.structure(0)?;
    (structure.name() == "video/x-raw")
        .then(|| gst_video::VideoInfo::from_caps(caps).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(text: &str) -> gst::Caps {
        gst::init().unwrap();
        text.parse().unwrap()
    }

    #[test]
    fn raw_video_is_asked_for_in_the_order_of_preference() {
        let offer = caps("video/x-raw,format={ABGR64_LE,BGRx,NV12,I420},width=[1,max]");
        let answer = answer(Some(&offer));
        let formats: Vec<&str> = answer
            .iter()
            .filter_map(|structure| structure.get("format").ok())
            .collect();
        assert_eq!(formats[..4], ["I420", "NV12", "BGRx", "ABGR64_LE"], "{answer}");
    }

    #[test]
    fn whatever_is_in_system_memory_is_welcome() {
        for offer in [
            "application/x-thing,version=3",
            "audio/x-raw,rate=48000",
            "image/jpeg,width=640",
        ] {
            assert!(answer(Some(&caps(offer))).can_intersect(&caps(offer)), "{offer}");
        }
    }

    #[test]
    fn other_memory_is_refused_by_name() {
        let offer = caps("video/x-raw(memory:GLMemory),format=RGBA");
        assert!(answer(Some(&offer)).is_empty());
        assert!(refusal_of_offer(&offer).unwrap().contains("gldownload"));
        let mixed = caps("video/x-raw(memory:DMABuf),format=DMA_DRM;video/x-raw,format=NV12");
        assert!(refusal_of_offer(&mixed).is_none());
        assert_eq!(answer(Some(&mixed)), caps("video/x-raw,format=NV12"));
        assert!(!answer(None).is_any());
        assert!(answer(None).can_intersect(&caps("video/x-raw,format=GRAY16_LE")));
    }

    #[test]
    fn text_of_a_segment_is_not_believed() {
        gst::init().unwrap();
        for text in [
            "",
            "video/x-raw,width=",
            "video/x-raw,width=[1,2]",
            "ANY",
            "EMPTY",
            "a/b;c/d",
            "video/x-raw(memory:GLMemory)",
            "\u{0}",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        assert!(parse("video/x-raw,format=NV12,width=2,height=2,framerate=30/1").is_ok());
    }
}
