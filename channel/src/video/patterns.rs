// SPDX-License-Identifier: MIT OR Apache-2.0

//! The patterns that many formats share. `format.rs` has one line for each format, which calls one of these functions.
//!
//! *Planar* formats have a plane for each component, *semi-planar* formats a plane of luma and a plane of chroma, and
//! *packed* formats a single plane.

use super::shape::{
    Coding,
    ColourModel::{self, Rgb, Yuv},
    Component, MAX_COMPONENTS, Padding, PlaneShape, Shape, Subsampling, Word,
};
use crate::protocol::layout::MAX_PLANES;

/// A plane for each component. Component `n` is in plane `order[n]`.
pub(super) const fn planar(
    model: ColourModel,
    order: &[u8],
    coding: Coding,
    subsampling: Subsampling,
    padding: Padding,
) -> Shape {
    let bytes = coding.word.bytes();
    let mut planes = [PlaneShape::new(1, bytes); MAX_PLANES];
    let mut components = [Component::new(coding, 0, bytes); MAX_COMPONENTS];
    let mut index = 0;
    while index < order.len() {
        let is_chroma = index == 1 || index == 2;
        let by = if is_chroma { subsampling } else { Subsampling::S444 };
        let rounding = if is_chroma { padding.chroma } else { padding.luma };
        planes[order[index] as usize] = PlaneShape::new(1 << by.x, bytes).rows(by.y, rounding);
        components[index] = components[index].in_plane(order[index]).subsampled(by);
        index += 1;
    }
    Shape::new(
        model,
        coding.word,
        planes.split_at(order.len()).0,
        components.split_at(order.len()).0,
    )
}

/// A plane of luma, a plane of chroma, and perhaps a plane of alpha. `chroma` are the places of Cb and Cr in a pair.
pub(super) const fn semi_planar(
    chroma: [u8; 2],
    has_alpha: bool,
    coding: Coding,
    subsampling: Subsampling,
    padding: Padding,
) -> Shape {
    let bytes = coding.word.bytes();
    let luma = PlaneShape::new(1, bytes).rows(0, padding.luma);
    let pair = PlaneShape::new(1 << subsampling.x, 2 * bytes).rows(subsampling.y, padding.chroma);
    let count = if has_alpha { 3 } else { 2 };
    let components = [
        Component::new(coding, 0, bytes),
        Component::new(coding, chroma[0] * bytes, 2 * bytes)
            .in_plane(1)
            .subsampled(subsampling),
        Component::new(coding, chroma[1] * bytes, 2 * bytes)
            .in_plane(1)
            .subsampled(subsampling),
        Component::new(coding, 0, bytes).in_plane(2),
    ];
    Shape::new(
        Yuv,
        coding.word,
        [luma, pair, luma].split_at(count).0,
        components.split_at(count + 1).0,
    )
}

/// Pixels of `words` words. Component `n` is word `order[n]`.
pub(super) const fn packed(model: ColourModel, order: &[u8], words: u8, coding: Coding) -> Shape {
    let (bytes, period) = (coding.word.bytes(), coding.word.bytes() * words);
    let mut components = [Component::new(coding, 0, period); MAX_COMPONENTS];
    let mut index = 0;
    while index < order.len() {
        components[index].offset = order[index] * bytes;
        index += 1;
    }
    Shape::new(
        model,
        coding.word,
        &[PlaneShape::new(1, period)],
        components.split_at(order.len()).0,
    )
}

/// Pairs of pixels in four words. `order` are the words of the first luma, of Cb and of Cr.
pub(super) const fn packed_422(order: [u8; 3], coding: Coding) -> Shape {
    let bytes = coding.word.bytes();
    let component = Component::new(coding, 0, 4 * bytes);
    let mut components = [
        component,
        component.subsampled(Subsampling::S422),
        component.subsampled(Subsampling::S422),
    ];
    components[0].positions = if bytes == 1 {
        &[(0, 0), (2, 0)]
    } else {
        &[(0, 0), (4, 0)]
    };
    let mut index = 0;
    while index < order.len() {
        components[index].offset = order[index] * bytes;
        index += 1;
    }
    Shape::new(Yuv, coding.word, &[PlaneShape::new(2, 4 * bytes)], &components)
}

/// Pixels of one word. Component `n` is the field `fields[n]` of this word: its depth, and the bits below it.
pub(super) const fn bit_fields(model: ColourModel, fields: &[(u8, u8)], word: Word) -> Shape {
    let bytes = word.bytes();
    let mut components = [Component::new(Coding::U8, 0, bytes); MAX_COMPONENTS];
    let mut index = 0;
    while index < fields.len() {
        components[index] = Component::new(Coding::new(fields[index].0, fields[index].1, word), 0, bytes);
        index += 1;
    }
    Shape::new(
        model,
        word,
        &[PlaneShape::new(1, bytes)],
        components.split_at(fields.len()).0,
    )
}

/// A plane of indices, and a plane with 256 colours. A colour is a word with red, green and blue in its lower bytes.
pub(super) const fn palette() -> Shape {
    let mut planes = [PlaneShape::new(1, 1), PlaneShape::new(1, 4)];
    planes[1].is_palette = true;
    Shape::new(Rgb, Word::Byte, &planes, &[Component::new(Coding::U8, 0, 1)])
}
