// SPDX-License-Identifier: MIT OR Apache-2.0

//! Colorimetry: which red, green and blue the components of a pixel stand for.
//!
//! Only the range and the matrix of the colorimetry matter here. Like GStreamer's videoconvert, the conversion does not
//! change the primaries and the transfer function.

use super::shape::{ColourModel, Shape};

/// The number of binary places of the factors. Components have at most 16 bits, so that all sums fit 32 bits.
const FRACTION_BITS: u32 = 20;

/// Frames of more rows than this are HD, and have the matrix of BT.709 unless their caps say otherwise.
const MAX_SD_HEIGHT: u32 = 576;

/// Which values stand for black and white.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Range {
    /// All values: 0 to 255 in eight bits.
    Full,
    /// 16 to 235 in eight bits, and 16 to 240 for chroma.
    Limited,
}

/// The weights of red and blue in luma.
#[derive(Clone, Copy, Debug, PartialEq)]
struct LumaWeights {
    red: f64,
    blue: f64,
}

impl LumaWeights {
    const FCC: Self = Self { red: 0.30, blue: 0.11 };
    const BT709: Self = Self {
        red: 0.2126,
        blue: 0.0722,
    };
    const BT601: Self = Self {
        red: 0.2990,
        blue: 0.1140,
    };
    const SMPTE240M: Self = Self {
        red: 0.212,
        blue: 0.087,
    };
    const BT2020: Self = Self {
        red: 0.2627,
        blue: 0.0593,
    };
}

/// The names of colorimetries in caps, with the range and, for luma and chroma, the weights.
const NAMES: [(&str, Range, Option<LumaWeights>); 8] = [
    ("bt601", Range::Limited, Some(LumaWeights::BT601)),
    ("bt709", Range::Limited, Some(LumaWeights::BT709)),
    ("smpte240m", Range::Limited, Some(LumaWeights::SMPTE240M)),
    ("sRGB", Range::Full, None),
    ("bt2020", Range::Limited, Some(LumaWeights::BT2020)),
    ("bt2020-10", Range::Limited, Some(LumaWeights::BT2020)),
    ("bt2100-pq", Range::Limited, Some(LumaWeights::BT2020)),
    ("bt2100-hlg", Range::Limited, Some(LumaWeights::BT2020)),
];

/// What the values of components stand for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Colorimetry {
    range: Range,
    weights: LumaWeights,
}

impl Colorimetry {
    /// The colorimetry that `text` names. If it names none that is possible for the format, GStreamer's default.
    pub(super) fn new(text: Option<&str>, model: ColourModel, height: u32) -> Self {
        let default = Self {
            range: if model == ColourModel::Yuv {
                Range::Limited
            } else {
                Range::Full
            },
            weights: if height > MAX_SD_HEIGHT {
                LumaWeights::BT709
            } else {
                LumaWeights::BT601
            },
        };
        let Some((range, weights)) = text.and_then(named).or_else(|| numbers(text?)) else {
            return default;
        };
        match (model, weights) {
            (ColourModel::Yuv, None) => default,
            (_, weights) => Self {
                range,
                weights: weights.unwrap_or(default.weights),
            },
        }
    }

    /// The conversion of the components of `shape` to red, green and blue.
    pub(super) fn to_rgb(self, shape: &Shape) -> Matrix {
        let LumaWeights { red, blue } = self.weights;
        let green = 1.0 - red - blue;
        let factors = match shape.model {
            ColourModel::Rgb => [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
            ColourModel::Gray => [[1.0, 0.0, 0.0]; 3],
            ColourModel::Yuv => [
                [1.0, 0.0, 2.0 * (1.0 - red)],
                [
                    1.0,
                    -2.0 * blue * (1.0 - blue) / green,
                    -2.0 * red * (1.0 - red) / green,
                ],
                [1.0, 2.0 * (1.0 - blue), 0.0],
            ],
        };
        let mut matrix = Matrix {
            factors: [[0; 3]; 3],
            offsets: [0; 3],
        };
        for (row, factors) in factors.iter().enumerate() {
            let mut offset = 0.5;
            for (column, (factor, component)) in factors.iter().zip(shape.components()).enumerate() {
                let is_chroma = shape.model == ColourModel::Yuv && column > 0;
                let (zero, span) = self.zero_and_span(component.depth, is_chroma);
                let factor = factor * 255.0 / span;
                matrix.factors[row][column] = fixed(factor);
                offset -= factor * zero;
            }
            matrix.offsets[row] = fixed(offset);
        }
        matrix
    }

    /// The value of a component that stands for 0, and how much larger the value is that stands for 1.
    fn zero_and_span(self, depth: u8, is_chroma: bool) -> (f64, f64) {
        let values = 2_f64.powi(depth.into());
        match (self.range, is_chroma) {
            (Range::Full, false) => (0.0, values - 1.0),
            (Range::Full, true) => (values / 2.0, values - 1.0),
            (Range::Limited, false) => (values * 16.0 / 256.0, values * 219.0 / 256.0),
            (Range::Limited, true) => (values / 2.0, values * 224.0 / 256.0),
        }
    }
}

fn named(text: &str) -> Option<(Range, Option<LumaWeights>)> {
    let (_, range, weights) = NAMES.iter().find(|(name, ..)| *name == text)?;
    Some((*range, *weights))
}

/// The meaning of `RANGE:MATRIX:TRANSFER:PRIMARIES`, the numbers of GStreamer's enumerations.
fn numbers(text: &str) -> Option<(Range, Option<LumaWeights>)> {
    let numbers: Vec<i32> = text.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    let [range, matrix, _, _] = numbers[..] else {
        return None;
    };
    let range = if range == 2 { Range::Limited } else { Range::Full };
    let weights = match matrix {
        2 => Some(LumaWeights::FCC),
        3 => Some(LumaWeights::BT709),
        4 => Some(LumaWeights::BT601),
        5 => Some(LumaWeights::SMPTE240M),
        6 => Some(LumaWeights::BT2020),
        _ => None,
    };
    Some((range, weights))
}

#[expect(clippy::cast_possible_truncation, reason = "the factors and offsets are below 1024")]
fn fixed(number: f64) -> i32 {
    (number * f64::from(1_u32 << FRACTION_BITS)).round() as i32
}

/// A linear function from three components to red, green and blue in eight bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Matrix {
    factors: [[i32; 3]; 3],
    offsets: [i32; 3],
}

impl Matrix {
    /// The function with red and blue exchanged.
    pub(super) fn swapped(mut self) -> Self {
        self.factors.swap(0, 2);
        self.offsets.swap(0, 2);
        self
    }

    /// Converts a row. A value has at most as many bits as its component.
    pub(super) fn convert(&self, components: &[Vec<u16>; 3], out: &mut [u8]) {
        let [first, second, third] = components;
        let values = first.iter().zip(second).zip(third);
        let pixels = out.chunks_exact_mut(3).filter_map(<[u8]>::first_chunk_mut::<3>);
        for (((first, second), third), out) in values.zip(pixels) {
            let [first, second, third] = [*first, *second, *third].map(i32::from);
            *out = std::array::from_fn(|colour| {
                let [one, two, three] = self.factors[colour];
                let sum = one * first + two * second + three * third + self.offsets[colour];
                (sum >> FRACTION_BITS).clamp(0, 255) as u8
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::video::format::VideoFormat;

    fn convert(format: VideoFormat, colorimetry: Option<&str>, height: u32, pixel: [u16; 3]) -> [u8; 3] {
        let shape = format.shape();
        let mut out = [0; 3];
        Colorimetry::new(colorimetry, shape.model, height)
            .to_rgb(shape)
            .convert(&pixel.map(|value| vec![value]), &mut out);
        out
    }

    #[test]
    fn black_and_white_follow_the_range() {
        use VideoFormat::{Gray8, Gray16Le, I420, P010_10Le, Rgb};
        for (format, colorimetry, black, white) in [
            (I420, None, [16, 128, 128], [235, 128, 128]),
            (I420, Some("1:4:0:0"), [0, 128, 128], [255, 128, 128]),
            (I420, Some("bt709"), [16, 128, 128], [235, 128, 128]),
            (P010_10Le, Some("bt2100-pq"), [64, 512, 512], [940, 512, 512]),
            (Gray8, None, [0, 0, 0], [255, 0, 0]),
            (Gray8, Some("bt601"), [16, 0, 0], [235, 0, 0]),
            (Gray16Le, None, [0, 0, 0], [65535, 0, 0]),
            (Rgb, None, [0, 0, 0], [255, 255, 255]),
            (Rgb, Some("2:1:7:1"), [16, 16, 16], [235, 235, 235]),
        ] {
            assert_eq!(
                convert(format, colorimetry, 480, black),
                [0; 3],
                "{format} {colorimetry:?}"
            );
            assert_eq!(
                convert(format, colorimetry, 480, white),
                [255; 3],
                "{format} {colorimetry:?}"
            );
        }
    }

    #[test]
    fn default_matrix_follows_the_height() {
        // Red in BT.601 and in BT.709.
        assert_eq!(convert(VideoFormat::I420, None, 576, [81, 90, 240]), [254, 0, 0]);
        assert_eq!(convert(VideoFormat::I420, None, 577, [63, 102, 240]), [255, 1, 0]);
    }

    #[test]
    fn impossible_colorimetry_means_the_default() {
        let yuv = |text| Colorimetry::new(Some(text), ColourModel::Yuv, 480);
        let default = Colorimetry::new(None, ColourModel::Yuv, 480);
        for text in [
            "",
            "sRGB",
            "1:1:0:0",
            "1:0:0:0",
            "1:77:0:0",
            "1:4:0",
            "1:4:0:0:0",
            "a:b:c:d",
            ":::",
            "-1",
        ] {
            assert_eq!(yuv(text), default, "{text}");
        }
        assert_ne!(yuv("1:4:0:0"), default);
    }

    #[test]
    fn no_values_overflow() {
        for format in VideoFormat::ALL {
            let shape = format.shape();
            for text in ["bt601", "bt709", "bt2020", "1:2:0:0", "2:5:0:0", "sRGB"] {
                let matrix = Colorimetry::new(Some(text), shape.model, 480).to_rgb(shape);
                let largest = |at: usize| shape.components().get(at).map_or(0, |found| (1_u64 << found.depth) - 1);
                for (factors, offset) in matrix.factors.iter().zip(matrix.offsets) {
                    let sum: u64 = (0..3)
                        .map(|at| u64::from(factors[at].unsigned_abs()) * largest(at))
                        .sum();
                    assert!(
                        sum + u64::from(offset.unsigned_abs()) <= i32::MAX as u64,
                        "{format} {text}"
                    );
                }
            }
        }
    }
}
