// SPDX-License-Identifier: MIT OR Apache-2.0

//! The formats of raw video: one line for each.

use std::{fmt, str::FromStr};

use super::{
    error::VideoError,
    grouped::{gray_in_32, iyu1, semi_planar_in_32, semi_planar_in_40, uyvp, v210},
    patterns::{bit_fields, packed, packed_422, palette, planar, semi_planar},
    shape::{
        Coding as C,
        ColourModel::{Gray, Rgb, Yuv},
        Padding as P, Shape, Subsampling as S, Word,
    },
};

macro_rules! formats {
    ($($variant:ident = $name:literal: $shape:expr,)*) => {
        /// A format of raw video. The variants are named after GStreamer's formats.
        ///
        /// # Examples
        /// ```
        /// use rsshm_channel::video::VideoFormat;
        ///
        /// let format: VideoFormat = "NV12".parse().unwrap();
        /// assert_eq!(format, VideoFormat::Nv12);
        /// assert_eq!((format.name(), format.plane_count(), format.bits()), ("NV12", 2, 8));
        /// assert!(VideoFormat::from_name("nv12").is_none());
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum VideoFormat {
            $(
                #[doc = concat!("GStreamer's `", $name, "`.")]
                $variant,
            )*
        }

        impl VideoFormat {
            /// All formats.
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// The name of the format in caps, such as `NV12`.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// The description of the format.
            pub(super) fn shape(self) -> &'static Shape {
                match self {
                    $(Self::$variant => {
                        static SHAPE: Shape = $shape;
                        &SHAPE
                    })*
                }
            }
        }
    };
}

// The numbers of `planar` are the plane of each component, those of `semi_planar` the places of Cb and Cr in a pair,
// and those of `packed` the word of each component. `bit_fields` has the depth of each component, and the bits below
// it.
formats! {
I420 = "I420": planar(Yuv, &[0, 1, 2], C::U8, S::S420, P::EVEN_FIELDS),
Yv12 = "YV12": planar(Yuv, &[0, 2, 1], C::U8, S::S420, P::EVEN_FIELDS),
Yuy2 = "YUY2": packed_422([0, 1, 3], C::U8),
Uyvy = "UYVY": packed_422([1, 0, 2], C::U8),
Ayuv = "AYUV": packed(Yuv, &[1, 2, 3, 0], 4, C::U8),
Rgbx = "RGBx": packed(Rgb, &[0, 1, 2], 4, C::U8),
Bgrx = "BGRx": packed(Rgb, &[2, 1, 0], 4, C::U8),
Xrgb = "xRGB": packed(Rgb, &[1, 2, 3], 4, C::U8),
Xbgr = "xBGR": packed(Rgb, &[3, 2, 1], 4, C::U8),
Rgba = "RGBA": packed(Rgb, &[0, 1, 2, 3], 4, C::U8),
Bgra = "BGRA": packed(Rgb, &[2, 1, 0, 3], 4, C::U8),
Argb = "ARGB": packed(Rgb, &[1, 2, 3, 0], 4, C::U8),
Abgr = "ABGR": packed(Rgb, &[3, 2, 1, 0], 4, C::U8),
Rgb = "RGB": packed(Rgb, &[0, 1, 2], 3, C::U8),
Bgr = "BGR": packed(Rgb, &[2, 1, 0], 3, C::U8),
Y41b = "Y41B": planar(Yuv, &[0, 1, 2], C::U8, S::S411, P::NONE),
Y42b = "Y42B": planar(Yuv, &[0, 1, 2], C::U8, S::S422, P::NONE),
Yvyu = "YVYU": packed_422([0, 3, 1], C::U8),
Y444 = "Y444": planar(Yuv, &[0, 1, 2], C::U8, S::S444, P::NONE),
V210 = "v210": v210(),
V216 = "v216": packed_422([1, 0, 2], C::LE16),
Nv12 = "NV12": semi_planar([0, 1], false, C::U8, S::S420, P::EVEN_FIELDS),
Nv21 = "NV21": semi_planar([1, 0], false, C::U8, S::S420, P::EVEN_FIELDS),
Gray8 = "GRAY8": planar(Gray, &[0], C::U8, S::S444, P::NONE),
Gray16Be = "GRAY16_BE": planar(Gray, &[0], C::BE16, S::S444, P::NONE),
Gray16Le = "GRAY16_LE": planar(Gray, &[0], C::LE16, S::S444, P::NONE),
V308 = "v308": packed(Yuv, &[0, 1, 2], 3, C::U8),
Rgb16 = "RGB16": bit_fields(Rgb, &[(5, 11), (6, 5), (5, 0)], Word::NATIVE_16),
Bgr16 = "BGR16": bit_fields(Rgb, &[(5, 0), (6, 5), (5, 11)], Word::NATIVE_16),
Rgb15 = "RGB15": bit_fields(Rgb, &[(5, 10), (5, 5), (5, 0)], Word::NATIVE_16),
Bgr15 = "BGR15": bit_fields(Rgb, &[(5, 0), (5, 5), (5, 10)], Word::NATIVE_16),
Uyvp = "UYVP": uyvp(),
A420 = "A420": planar(Yuv, &[0, 1, 2, 3], C::U8, S::S420, P::EVEN_FIELDS),
Rgb8p = "RGB8P": palette(),
Yuv9 = "YUV9": planar(Yuv, &[0, 1, 2], C::U8, S::S410, P::CHROMA_FIELDS),
Yvu9 = "YVU9": planar(Yuv, &[0, 2, 1], C::U8, S::S410, P::CHROMA_FIELDS),
Iyu1 = "IYU1": iyu1(),
Argb64 = "ARGB64": packed(Rgb, &[1, 2, 3, 0], 4, C::NATIVE_16),
Ayuv64 = "AYUV64": packed(Yuv, &[1, 2, 3, 0], 4, C::NATIVE_16),
R210 = "r210": bit_fields(Rgb, &[(10, 20), (10, 10), (10, 0)], Word::Be32),
I420_10Be = "I420_10BE": planar(Yuv, &[0, 1, 2], C::BE10, S::S420, P::EVEN_FIELDS),
I420_10Le = "I420_10LE": planar(Yuv, &[0, 1, 2], C::LE10, S::S420, P::EVEN_FIELDS),
I422_10Be = "I422_10BE": planar(Yuv, &[0, 1, 2], C::BE10, S::S422, P::EVEN),
I422_10Le = "I422_10LE": planar(Yuv, &[0, 1, 2], C::LE10, S::S422, P::EVEN),
Y444_10Be = "Y444_10BE": planar(Yuv, &[0, 1, 2], C::BE10, S::S444, P::NONE),
Y444_10Le = "Y444_10LE": planar(Yuv, &[0, 1, 2], C::LE10, S::S444, P::NONE),
Gbr = "GBR": planar(Rgb, &[2, 0, 1], C::U8, S::S444, P::NONE),
Gbr10Be = "GBR_10BE": planar(Rgb, &[2, 0, 1], C::BE10, S::S444, P::NONE),
Gbr10Le = "GBR_10LE": planar(Rgb, &[2, 0, 1], C::LE10, S::S444, P::NONE),
Nv16 = "NV16": semi_planar([0, 1], false, C::U8, S::S422, P::NONE),
Nv24 = "NV24": semi_planar([0, 1], false, C::U8, S::S444, P::NONE),
A420_10Be = "A420_10BE": planar(Yuv, &[0, 1, 2, 3], C::BE10, S::S420, P::EVEN_FIELDS),
A420_10Le = "A420_10LE": planar(Yuv, &[0, 1, 2, 3], C::LE10, S::S420, P::EVEN_FIELDS),
A422_10Be = "A422_10BE": planar(Yuv, &[0, 1, 2, 3], C::BE10, S::S422, P::EVEN),
A422_10Le = "A422_10LE": planar(Yuv, &[0, 1, 2, 3], C::LE10, S::S422, P::EVEN),
A444_10Be = "A444_10BE": planar(Yuv, &[0, 1, 2, 3], C::BE10, S::S444, P::NONE),
A444_10Le = "A444_10LE": planar(Yuv, &[0, 1, 2, 3], C::LE10, S::S444, P::NONE),
Nv61 = "NV61": semi_planar([1, 0], false, C::U8, S::S422, P::NONE),
P010_10Be = "P010_10BE": semi_planar([0, 1], false, C::HIGH_BE10, S::S420, P::EVEN_LUMA),
P010_10Le = "P010_10LE": semi_planar([0, 1], false, C::HIGH_LE10, S::S420, P::EVEN_LUMA),
Iyu2 = "IYU2": packed(Yuv, &[1, 0, 2], 3, C::U8),
Vyuy = "VYUY": packed_422([1, 2, 0], C::U8),
Gbra = "GBRA": planar(Rgb, &[2, 0, 1, 3], C::U8, S::S444, P::NONE),
Gbra10Be = "GBRA_10BE": planar(Rgb, &[2, 0, 1, 3], C::BE10, S::S444, P::NONE),
Gbra10Le = "GBRA_10LE": planar(Rgb, &[2, 0, 1, 3], C::LE10, S::S444, P::NONE),
Gbr12Be = "GBR_12BE": planar(Rgb, &[2, 0, 1], C::BE12, S::S444, P::NONE),
Gbr12Le = "GBR_12LE": planar(Rgb, &[2, 0, 1], C::LE12, S::S444, P::NONE),
Gbra12Be = "GBRA_12BE": planar(Rgb, &[2, 0, 1, 3], C::BE12, S::S444, P::NONE),
Gbra12Le = "GBRA_12LE": planar(Rgb, &[2, 0, 1, 3], C::LE12, S::S444, P::NONE),
I420_12Be = "I420_12BE": planar(Yuv, &[0, 1, 2], C::BE12, S::S420, P::EVEN_FIELDS),
I420_12Le = "I420_12LE": planar(Yuv, &[0, 1, 2], C::LE12, S::S420, P::EVEN_FIELDS),
I422_12Be = "I422_12BE": planar(Yuv, &[0, 1, 2], C::BE12, S::S422, P::EVEN),
I422_12Le = "I422_12LE": planar(Yuv, &[0, 1, 2], C::LE12, S::S422, P::EVEN),
Y444_12Be = "Y444_12BE": planar(Yuv, &[0, 1, 2], C::BE12, S::S444, P::NONE),
Y444_12Le = "Y444_12LE": planar(Yuv, &[0, 1, 2], C::LE12, S::S444, P::NONE),
Gray10Le32 = "GRAY10_LE32": gray_in_32(),
Nv12_10Le32 = "NV12_10LE32": semi_planar_in_32(S::S420, P::EVEN_FIELDS),
Nv16_10Le32 = "NV16_10LE32": semi_planar_in_32(S::S422, P::NONE),
Nv12_10Le40 = "NV12_10LE40": semi_planar_in_40(S::S420, P::EVEN_FIELDS),
Y210 = "Y210": packed_422([0, 1, 3], C::HIGH_LE10),
Y410 = "Y410": bit_fields(Yuv, &[(10, 10), (10, 0), (10, 20), (2, 30)], Word::Le32),
Vuya = "VUYA": packed(Yuv, &[2, 1, 0, 3], 4, C::U8),
Bgr10A2Le = "BGR10A2_LE": bit_fields(Rgb, &[(10, 20), (10, 10), (10, 0), (2, 30)], Word::Le32),
Rgb10A2Le = "RGB10A2_LE": bit_fields(Rgb, &[(10, 0), (10, 10), (10, 20), (2, 30)], Word::Le32),
Y444_16Be = "Y444_16BE": planar(Yuv, &[0, 1, 2], C::BE16, S::S444, P::NONE),
Y444_16Le = "Y444_16LE": planar(Yuv, &[0, 1, 2], C::LE16, S::S444, P::NONE),
P016Be = "P016_BE": semi_planar([0, 1], false, C::BE16, S::S420, P::EVEN_LUMA),
P016Le = "P016_LE": semi_planar([0, 1], false, C::LE16, S::S420, P::EVEN_LUMA),
P012Be = "P012_BE": semi_planar([0, 1], false, C::HIGH_BE12, S::S420, P::EVEN_LUMA),
P012Le = "P012_LE": semi_planar([0, 1], false, C::HIGH_LE12, S::S420, P::EVEN_LUMA),
Y212Be = "Y212_BE": packed_422([0, 1, 3], C::HIGH_BE12),
Y212Le = "Y212_LE": packed_422([0, 1, 3], C::HIGH_LE12),
Y412Be = "Y412_BE": packed(Yuv, &[1, 0, 2, 3], 4, C::HIGH_BE12),
Y412Le = "Y412_LE": packed(Yuv, &[1, 0, 2, 3], 4, C::HIGH_LE12),
Rgbp = "RGBP": planar(Rgb, &[0, 1, 2], C::U8, S::S444, P::NONE),
Bgrp = "BGRP": planar(Rgb, &[2, 1, 0], C::U8, S::S444, P::NONE),
Av12 = "AV12": semi_planar([0, 1], true, C::U8, S::S420, P::EVEN_LUMA),
Argb64Le = "ARGB64_LE": packed(Rgb, &[1, 2, 3, 0], 4, C::LE16),
Argb64Be = "ARGB64_BE": packed(Rgb, &[1, 2, 3, 0], 4, C::BE16),
Rgba64Le = "RGBA64_LE": packed(Rgb, &[0, 1, 2, 3], 4, C::LE16),
Rgba64Be = "RGBA64_BE": packed(Rgb, &[0, 1, 2, 3], 4, C::BE16),
Bgra64Le = "BGRA64_LE": packed(Rgb, &[2, 1, 0, 3], 4, C::LE16),
Bgra64Be = "BGRA64_BE": packed(Rgb, &[2, 1, 0, 3], 4, C::BE16),
Abgr64Le = "ABGR64_LE": packed(Rgb, &[3, 2, 1, 0], 4, C::LE16),
Abgr64Be = "ABGR64_BE": packed(Rgb, &[3, 2, 1, 0], 4, C::BE16),
A422 = "A422": planar(Yuv, &[0, 1, 2, 3], C::U8, S::S422, P::EVEN),
A444 = "A444": planar(Yuv, &[0, 1, 2, 3], C::U8, S::S444, P::EVEN),
A444_12Le = "A444_12LE": planar(Yuv, &[0, 1, 2, 3], C::LE12, S::S444, P::NONE),
A444_12Be = "A444_12BE": planar(Yuv, &[0, 1, 2, 3], C::BE12, S::S444, P::NONE),
A422_12Le = "A422_12LE": planar(Yuv, &[0, 1, 2, 3], C::LE12, S::S422, P::EVEN),
A422_12Be = "A422_12BE": planar(Yuv, &[0, 1, 2, 3], C::BE12, S::S422, P::EVEN),
A420_12Le = "A420_12LE": planar(Yuv, &[0, 1, 2, 3], C::LE12, S::S420, P::EVEN_FIELDS),
A420_12Be = "A420_12BE": planar(Yuv, &[0, 1, 2, 3], C::BE12, S::S420, P::EVEN_FIELDS),
A444_16Le = "A444_16LE": planar(Yuv, &[0, 1, 2, 3], C::LE16, S::S444, P::NONE),
A444_16Be = "A444_16BE": planar(Yuv, &[0, 1, 2, 3], C::BE16, S::S444, P::NONE),
A422_16Le = "A422_16LE": planar(Yuv, &[0, 1, 2, 3], C::LE16, S::S422, P::EVEN),
A422_16Be = "A422_16BE": planar(Yuv, &[0, 1, 2, 3], C::BE16, S::S422, P::EVEN),
A420_16Le = "A420_16LE": planar(Yuv, &[0, 1, 2, 3], C::LE16, S::S420, P::EVEN_FIELDS),
A420_16Be = "A420_16BE": planar(Yuv, &[0, 1, 2, 3], C::BE16, S::S420, P::EVEN_FIELDS),
Gbr16Le = "GBR_16LE": planar(Rgb, &[2, 0, 1], C::LE16, S::S444, P::NONE),
Gbr16Be = "GBR_16BE": planar(Rgb, &[2, 0, 1], C::BE16, S::S444, P::NONE),
Rbga = "RBGA": packed(Rgb, &[0, 2, 1, 3], 4, C::U8),
Y216Le = "Y216_LE": packed_422([0, 1, 3], C::LE16),
Y216Be = "Y216_BE": packed_422([0, 1, 3], C::BE16),
Y416Le = "Y416_LE": packed(Yuv, &[1, 0, 2, 3], 4, C::LE16),
Y416Be = "Y416_BE": packed(Yuv, &[1, 0, 2, 3], 4, C::BE16),
Gray10Le16 = "GRAY10_LE16": planar(Gray, &[0], C::LE10, S::S444, P::NONE),
Nv16_10Le40 = "NV16_10LE40": semi_planar_in_40(S::S422, P::EVEN),
Bgr10x2Le = "BGR10x2_LE": bit_fields(Rgb, &[(10, 20), (10, 10), (10, 0)], Word::Le32),
Rgb10x2Le = "RGB10x2_LE": bit_fields(Rgb, &[(10, 0), (10, 10), (10, 20)], Word::Le32),}

/// Formats of GStreamer that this module leaves out, and why.
const LEFT_OUT: &[(&str, &str)] = &[
    ("NV12_64Z32", TILED),
    ("NV12_4L4", TILED),
    ("NV12_32L32", TILED),
    ("NV12_16L32S", TILED),
    ("NV12_8L128", TILED),
    ("NV12_10BE_8L128", TILED),
    ("NV12_10LE40_4L4", TILED),
    ("MT2110T", TILED),
    ("MT2110R", TILED),
    ("RGBA_F16LE", FLOAT),
    ("RGBA_F16BE", FLOAT),
    ("RGBA_F32LE", FLOAT),
    ("RGBA_F32BE", FLOAT),
    ("DMA_DRM", OPAQUE),
    ("AHARDWARE_BUFFER", OPAQUE),
    ("ENCODED", "its frames are compressed"),
];
const TILED: &str = "its pixels are in tiles and not in rows";
const FLOAT: &str = "its components are floating-point numbers";
const OPAQUE: &str = "its frames are in memory of a device, with a layout that only the device knows";

impl VideoFormat {
    /// The names of GStreamer's formats that this module leaves out, and why.
    pub const LEFT_OUT: &'static [(&'static str, &'static str)] = LEFT_OUT;

    /// The format with this name; `None` if there is none. The text of the error of [`FromStr`] says why.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.name() == name)
    }

    /// The number of planes.
    pub fn plane_count(self) -> usize {
        self.shape().planes().len()
    }

    /// The number of components of a pixel, with alpha. A palette has one component: the index of the colour.
    pub fn component_count(self) -> usize {
        self.shape().components().len()
    }

    /// The number of bits of a component, without unused bits. If the components differ, the largest number.
    pub fn bits(self) -> u32 {
        let depths = self.shape().components().iter().map(|component| component.depth);
        depths.max().unwrap_or_default().into()
    }

    /// The bytes of the integers in which the pixels are stored: 1, 2 or 4.
    pub fn sample_bytes(self) -> u32 {
        self.shape().word.bytes().into()
    }

    /// Whether integers of several bytes begin with their upper byte.
    pub fn is_big_endian(self) -> bool {
        self.shape().word.is_big_endian()
    }

    /// The bytes from one pixel of a plane to the next. `None` if the pixels are not whole bytes, as in `v210`, or if
    /// there is no such plane. A pixel of a plane of chroma belongs to several pixels of the picture.
    ///
    /// # Examples
    /// ```
    /// use rsshm_channel::video::VideoFormat;
    ///
    /// assert_eq!(VideoFormat::Bgr.pixel_bytes(0), Some(3));
    /// // A pair of chroma values belongs to four pixels of the picture.
    /// assert_eq!(VideoFormat::Nv12.pixel_bytes(1), Some(2));
    /// assert_eq!(VideoFormat::V210.pixel_bytes(0), None);
    /// ```
    pub fn pixel_bytes(self, plane: usize) -> Option<u32> {
        self.shape().pixel_bytes(plane)
    }

    /// Whether the components are red, green and blue.
    pub fn is_rgb(self) -> bool {
        self.shape().model == Rgb
    }

    /// Whether the components are luma and chroma.
    pub fn is_yuv(self) -> bool {
        self.shape().model == Yuv
    }

    /// Whether the only component is luma.
    pub fn is_gray(self) -> bool {
        self.shape().model == Gray
    }

    /// Whether pixels have alpha.
    pub fn has_alpha(self) -> bool {
        self.component_count() == 4 || self.has_palette()
    }

    /// Whether the first plane has indices of colours in the second plane.
    pub fn has_palette(self) -> bool {
        self.shape().has_palette()
    }
}

impl FromStr for VideoFormat {
    type Err = VideoError;

    fn from_str(name: &str) -> Result<Self, VideoError> {
        Self::from_name(name).ok_or_else(|| {
            let left_out = LEFT_OUT.iter().find(|(left_out, _)| *left_out == name);
            VideoError::Format {
                name: name.to_owned(),
                reason: left_out.map_or("it is not a format of this version", |(_, reason)| reason),
            }
        })
    }
}

impl fmt::Display for VideoFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_is_found_by_its_name() {
        for format in VideoFormat::ALL {
            assert_eq!(format.name().parse(), Ok(*format));
            assert_eq!(format.to_string(), format.name());
            assert_eq!(
                [format.is_rgb(), format.is_yuv(), format.is_gray()]
                    .iter()
                    .filter(|is| **is)
                    .count(),
                1
            );
        }
    }

    #[test]
    fn error_says_why_a_format_is_left_out() {
        for (name, reason) in VideoFormat::LEFT_OUT {
            let error = name.parse::<VideoFormat>().unwrap_err().to_string();
            assert!(
                error.contains(name) && error.contains(reason) && error.contains("videoconvert"),
                "{error}"
            );
        }
        assert!("FROB".parse::<VideoFormat>().unwrap_err().to_string().contains("FROB"));
    }

    #[test]
    fn pixels_of_whole_bytes_follow_each_other() {
        for format in VideoFormat::ALL {
            let shape = format.shape();
            for component in shape.components() {
                let Some(bytes) = format.pixel_bytes(component.plane.into()) else {
                    continue;
                };
                assert!(bytes % format.sample_bytes() == 0, "{format}");
                let step = component.period / component.positions.len() as u8;
                for (index, position) in component.positions.iter().enumerate() {
                    assert_eq!(*position, (index as u8 * step, 0), "{format}");
                }
            }
        }
        let bytes = |name: &str| {
            let format = VideoFormat::from_name(name).unwrap();
            let planes = 0..format.plane_count();
            planes.map(|plane| format.pixel_bytes(plane)).collect::<Vec<_>>()
        };
        assert_eq!(bytes("YUY2"), [Some(2)]);
        assert_eq!(bytes("RGB16"), [Some(2)]);
        assert_eq!(bytes("AYUV64"), [Some(8)]);
        assert_eq!(bytes("I420_10LE"), [Some(2), Some(2), Some(2)]);
        assert_eq!(bytes("P010_10LE"), [Some(2), Some(4)]);
        assert_eq!(bytes("RGB8P"), [Some(1), Some(4)]);
        for name in ["v210", "UYVP", "IYU1", "GRAY10_LE32", "NV12_10LE32", "NV16_10LE40"] {
            assert!(bytes(name).iter().all(Option::is_none), "{name}");
        }
    }

    #[test]
    fn every_component_is_inside_its_plane() {
        for format in VideoFormat::ALL {
            let shape = format.shape();
            assert!((1..=4).contains(&format.plane_count()) && (1..=4).contains(&format.component_count()));
            for component in shape.components() {
                assert!(usize::from(component.plane) < format.plane_count(), "{format}");
                let bits = 8 * shape.word.bytes();
                for (byte, shift) in component.positions {
                    assert!(component.offset + byte + bits / 8 <= component.period, "{format}");
                    assert!(component.shift + shift + component.depth <= bits, "{format}");
                }
            }
        }
    }
}
