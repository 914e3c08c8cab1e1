// SPDX-License-Identifier: MIT OR Apache-2.0

//! The formats in which several pixels share words, so that no pixel has bytes of its own.

use super::shape::{
    Coding,
    ColourModel::{Gray, Yuv},
    Component, Padding, PlaneShape, Shape, Subsampling, Word,
};

/// The positions of three components of ten bits in a word of 32 bits; the upper two bits are unused.
const THREE_IN_32: &[(u8, u8)] = &[(0, 0), (0, 10), (0, 20)];
/// The positions of four components of ten bits in five bytes.
const FOUR_IN_40: &[(u8, u8)] = &[(0, 0), (1, 2), (2, 4), (3, 6)];

const LE32: Coding = Coding::new(10, 0, Word::Le32);
const LE40: Coding = Coding::new(10, 0, Word::Le16);

/// Six pixels in sixteen bytes: words of 32 bits with three components of ten bits.
pub(super) const fn v210() -> Shape {
    let component = Component::new(LE32, 0, 16);
    let chroma = component.subsampled(Subsampling::S422);
    Shape::new(
        Yuv,
        Word::Le32,
        &[PlaneShape::new(6, 16).align(128)],
        &[
            component.at(&[(0, 10), (4, 0), (4, 20), (8, 10), (12, 0), (12, 20)]),
            chroma.at(&[(0, 0), (4, 10), (8, 20)]),
            chroma.at(&[(0, 20), (8, 0), (12, 10)]),
        ],
    )
}

/// Two pixels in five bytes: four components of ten bits, the most significant bit first.
pub(super) const fn uyvp() -> Shape {
    let component = Component::new(Coding::new(10, 0, Word::Be16), 0, 5);
    let chroma = component.subsampled(Subsampling::S422);
    Shape::new(
        Yuv,
        Word::Be16,
        &[PlaneShape::new(2, 5)],
        &[
            component.at(&[(1, 4), (3, 0)]),
            chroma.at(&[(0, 6)]),
            chroma.at(&[(2, 2)]),
        ],
    )
}

/// Four pixels in six bytes.
pub(super) const fn iyu1() -> Shape {
    let component = Component::new(Coding::U8, 0, 6);
    let chroma = component.subsampled(Subsampling::S411);
    Shape::new(
        Yuv,
        Word::Byte,
        &[PlaneShape::new(4, 6)],
        &[
            component.at(&[(1, 0), (2, 0), (4, 0), (5, 0)]),
            chroma.at(&[(0, 0)]),
            chroma.at(&[(3, 0)]),
        ],
    )
}

/// Three pixels of luma in a word of 32 bits.
pub(super) const fn gray_in_32() -> Shape {
    let plane = PlaneShape::new(3, 4).rows(0, Padding::EVEN.luma);
    Shape::new(
        Gray,
        Word::Le32,
        &[plane],
        &[Component::new(LE32, 0, 4).at(THREE_IN_32)],
    )
}

/// A plane of luma and a plane of chroma, both with three components in a word of 32 bits.
pub(super) const fn semi_planar_in_32(subsampling: Subsampling, padding: Padding) -> Shape {
    let plane = PlaneShape::new(3, 4);
    // Two words have three pairs of Cb and Cr. If the width is 3 more than a multiple of 6, the last pair needs one
    // word more than GStreamer's rows have.
    let chroma = Component::new(LE32, 0, 8).in_plane(1).subsampled(subsampling);
    Shape::new(
        Yuv,
        Word::Le32,
        &[plane.rows(0, padding.luma), plane.rows(subsampling.y, padding.chroma)],
        &[
            Component::new(LE32, 0, 4).at(THREE_IN_32),
            chroma.at(&[(0, 0), (0, 20), (4, 10)]),
            chroma.at(&[(0, 10), (4, 0), (4, 20)]),
        ],
    )
}

/// A plane of luma and a plane of chroma, both with four components in five bytes.
pub(super) const fn semi_planar_in_40(subsampling: Subsampling, padding: Padding) -> Shape {
    let plane = PlaneShape::new(4, 5).align(1);
    let chroma = Component::new(LE40, 0, 5).in_plane(1).subsampled(subsampling);
    Shape::new(
        Yuv,
        Word::Le16,
        &[plane.rows(0, padding.luma), plane.rows(subsampling.y, padding.chroma)],
        &[
            Component::new(LE40, 0, 5).at(FOUR_IN_40),
            chroma.at(&[(0, 0), (2, 4)]),
            chroma.at(&[(1, 2), (3, 6)]),
        ],
    )
}
