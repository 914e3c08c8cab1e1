// SPDX-License-Identifier: MIT OR Apache-2.0

//! `VideoInfo`: what the caps of raw video say.

use super::{colour::Colorimetry, error::VideoError, format::VideoFormat};
use crate::protocol::caps_text::{CanonicalParts, canonical_caps};

/// The memory in which the pixels of a frame are in the channel.
const READABLE_MEMORIES: [&str; 2] = ["memory:SystemMemory", "memory:DMABuf"];
/// The caps feature of single fields.
const INTERLACED_FEATURE: &str = "format:Interlaced";

/// How the fields of interlaced video are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum InterlaceMode {
    /// There are no fields.
    #[default]
    Progressive,
    /// The rows of a frame are from two fields in turn.
    Interleaved,
    /// Some frames are interleaved. The flags of a frame say which.
    Mixed,
    /// Two fields are stored separately.
    Fields,
    /// A frame is a single field, which has half of the height.
    Alternate,
}

impl InterlaceMode {
    /// The mode with this name in caps. As in GStreamer, an unknown name means progressive video.
    fn from_name(name: &str) -> Self {
        match name {
            "interleaved" => Self::Interleaved,
            "mixed" => Self::Mixed,
            "fields" => Self::Fields,
            "alternate" => Self::Alternate,
            _ => Self::Progressive,
        }
    }
}

/// What the caps of raw video say about each frame.
///
/// # Examples
/// ```
/// use rsshm_channel::video::{VideoFormat, VideoInfo};
///
/// let info = VideoInfo::new(VideoFormat::I420, 640, 360, (30, 1))?;
/// assert_eq!(info.to_caps(), "video/x-raw, format=(string)I420, width=(int)640, height=(int)360, framerate=(fraction)30/1");
/// assert_eq!(VideoInfo::from_caps(&info.to_caps())?, info);
/// # Ok::<(), rsshm_channel::video::VideoError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct VideoInfo {
    format: VideoFormat,
    width: u32,
    height: u32,
    framerate: (i32, i32),
    interlace_mode: InterlaceMode,
    colorimetry: Colorimetry,
    caps: String,
}

impl VideoInfo {
    /// Progressive video with GStreamer's default colorimetry. The framerate is a fraction; 0/1 means a variable rate.
    ///
    /// # Errors
    /// [`VideoError::Field`] if caps cannot have such a number.
    pub fn new(format: VideoFormat, width: u32, height: u32, framerate: (i32, i32)) -> Result<Self, VideoError> {
        let (numerator, denominator) = framerate;
        if numerator < 0 || denominator < 1 {
            return Err(VideoError::Field {
                field: "framerate",
                found: format!("framerate={numerator}/{denominator}"),
                expected: "a fraction, such as 30/1, or 0/1 for a variable rate",
            });
        }
        Ok(Self {
            format,
            width: dimension("width", &width.to_string())?,
            height: dimension("height", &height.to_string())?,
            framerate,
            interlace_mode: InterlaceMode::Progressive,
            colorimetry: Colorimetry::new(None, format.shape().model, height),
            caps: format!(
                "video/x-raw, format=(string){format}, width=(int){width}, height=(int){height}, \
                 framerate=(fraction){numerator}/{denominator}"
            ),
        })
    }

    /// What the caps `text` say. `text` has the form that GStreamer writes.
    ///
    /// # Errors
    /// [`VideoError`] if the text is not fixed caps, or if they are not those of raw video with a known format.
    pub fn from_caps(text: &str) -> Result<Self, VideoError> {
        let caps = canonical_caps(text).map_err(|mistake| VideoError::Text {
            text: text.to_owned(),
            mistake,
        })?;
        let parts = CanonicalParts::new(&caps);
        if parts.name != "video/x-raw" {
            return Err(VideoError::NotRaw {
                name: parts.name.to_owned(),
            });
        }
        let is_opaque = |feature: &&str| feature.starts_with("memory:") && !READABLE_MEMORIES.contains(feature);
        if let Some(feature) = parts.features().find(is_opaque) {
            return Err(VideoError::Memory {
                feature: feature.to_owned(),
            });
        }
        let required = |field, kind, expected| {
            parts.value(field, kind).ok_or_else(|| VideoError::Field {
                field,
                found: match parts.field(field) {
                    Some((kind, value)) => format!("{field}=({kind}){value}"),
                    None => format!("no {field}"),
                },
                expected,
            })
        };
        let format: VideoFormat = required("format", "string", "the name of a format, such as NV12")?.parse()?;
        let width = dimension("width", required("width", "int", PIXELS)?)?;
        let height = dimension("height", required("height", "int", PIXELS)?)?;
        let interlace_mode = parts
            .value("interlace-mode", "string")
            .map_or_else(InterlaceMode::default, InterlaceMode::from_name);
        if interlace_mode == InterlaceMode::Alternate && !parts.features().any(|feature| feature == INTERLACED_FEATURE)
        {
            return Err(VideoError::Field {
                field: "interlace-mode",
                found: "interlace-mode=alternate without the feature".to_owned(),
                expected: "with video/x-raw(format:Interlaced)",
            });
        }
        let colorimetry = Colorimetry::new(parts.value("colorimetry", "string"), format.shape().model, height);
        let framerate = parts
            .value("framerate", "fraction")
            .and_then(fraction)
            .unwrap_or((0, 1));
        Ok(Self {
            format,
            width,
            height,
            framerate,
            interlace_mode,
            colorimetry,
            caps,
        })
    }

    /// The caps, in the form that all versions of GStreamer read alike. If they came from a text, they have all of its
    /// fields.
    pub fn to_caps(&self) -> String {
        self.caps.clone()
    }

    /// The format of the pixels.
    pub fn format(&self) -> VideoFormat {
        self.format
    }

    /// The width in pixels.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// The height in pixels.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// The number of rows of pixels in a frame: the height, or half of it if a frame is a single field.
    pub fn field_height(&self) -> u32 {
        match self.interlace_mode {
            InterlaceMode::Alternate => self.height.div_ceil(2),
            _ => self.height,
        }
    }

    /// The framerate as a fraction. 0/1 means that the rate is variable or unknown.
    pub fn framerate(&self) -> (i32, i32) {
        self.framerate
    }

    /// How fields are stored.
    pub fn interlace_mode(&self) -> InterlaceMode {
        self.interlace_mode
    }

    pub(super) fn colorimetry(&self) -> Colorimetry {
        self.colorimetry
    }
}

const PIXELS: &str = "a number of pixels from 1 to 2147483647";

fn dimension(field: &'static str, value: &str) -> Result<u32, VideoError> {
    match value.parse::<i32>() {
        Ok(pixels @ 1..) => Ok(pixels.unsigned_abs()),
        _ => Err(VideoError::Field {
            field,
            found: format!("{field}={value}"),
            expected: PIXELS,
        }),
    }
}

fn fraction(value: &str) -> Option<(i32, i32)> {
    let (numerator, denominator) = value.split_once('/')?;
    Some((numerator.parse().ok()?, denominator.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn caps_keep_fields_that_have_no_meaning_here() {
        let text = "video/x-raw(memory:SystemMemory, meta:Anything), format=NV12, width=64, height=48, views=2, \
                    multiview-mode=side-by-side, pixel-aspect-ratio=4/3, chroma-site=mpeg2";
        let info = VideoInfo::from_caps(text).unwrap();
        assert_eq!(info.to_caps(), canonical_caps(text).unwrap());
        assert_eq!(
            (info.format(), info.width(), info.height()),
            (VideoFormat::Nv12, 64, 48)
        );
        assert_eq!(
            (info.framerate(), info.interlace_mode()),
            ((0, 1), InterlaceMode::Progressive)
        );
    }

    #[test]
    fn single_fields_have_half_of_the_height() {
        let caps = |feature: &str, mode: &str| {
            VideoInfo::from_caps(&format!(
                "video/x-raw{feature}, format=GRAY8, width=4, height=5, interlace-mode={mode}, framerate=25/1"
            ))
        };
        let info = caps("(format:Interlaced)", "alternate").unwrap();
        assert_eq!((info.height(), info.field_height(), info.framerate()), (5, 3, (25, 1)));
        assert_eq!(caps("", "interleaved").unwrap().field_height(), 5);
        let error = caps("", "alternate").unwrap_err().to_string();
        assert!(error.contains("format:Interlaced"), "{error}");
    }

    #[test]
    fn bad_caps_get_an_error_that_names_the_mistake() {
        for (text, word) in [
            ("", "a name, such as video/x-raw"),
            ("video/x-raw, width=[1, 5]", "range"),
            ("audio/x-raw, format=S16LE", "audio/x-raw"),
            (
                "video/x-raw(memory:GLMemory), format=RGBA, width=4, height=4",
                "memory:GLMemory",
            ),
            ("video/x-raw, width=4, height=4", "no format"),
            ("video/x-raw, format=(int)4, width=4, height=4", "format=(int)4"),
            ("video/x-raw, format=NV12_4L4, width=4, height=4", "tiles"),
            (
                "video/x-raw, format=DMA_DRM, drm-format=NV12, width=4, height=4",
                "device",
            ),
            ("video/x-raw, format=FROB, width=4, height=4", "FROB"),
            ("video/x-raw, format=RGB, height=4", "no width"),
            ("video/x-raw, format=RGB, width=4, height=-4", "height=-4"),
            ("video/x-raw, format=RGB, width=0, height=4", "width=0"),
            ("video/x-raw, format=RGB, width=4, height=(string)4", "height=(string)4"),
        ] {
            let error = VideoInfo::from_caps(text).unwrap_err().to_string();
            assert!(error.contains(word), "{text}: {error}");
        }
    }

    #[test]
    fn impossible_numbers_are_refused() {
        let new = |width, height, framerate| VideoInfo::new(VideoFormat::Rgb, width, height, framerate).is_ok();
        assert!(new(1, 1, (0, 1)) && new(i32::MAX as u32, i32::MAX as u32, (i32::MAX, i32::MAX)));
        for (width, height, framerate) in [
            (0, 1, (30, 1)),
            (1, 0, (30, 1)),
            (1 << 31, 1, (30, 1)),
            (1, u32::MAX, (30, 1)),
            (1, 1, (-1, 1)),
            (1, 1, (30, 0)),
            (1, 1, (30, -1)),
        ] {
            assert!(!new(width, height, framerate), "{width} {height} {framerate:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_text_is_read_or_refused(
            text in prop_oneof![any::<String>(), "video/x-raw(\\(.{0,20}\\))?(, ?[a-z-]{1,9}=[(a-z0-9)<>\\[\\]{}\",/;:-]{0,12}){0,6}"],
        ) {
            if let Ok(info) = VideoInfo::from_caps(&text) {
                prop_assert_eq!(VideoInfo::from_caps(&info.to_caps()), Ok(info));
            }
        }
    }
}
