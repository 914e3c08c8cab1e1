// SPDX-License-Identifier: MIT OR Apache-2.0

//! The description of a format as data: its planes, and the bits of its components.

use crate::protocol::layout::MAX_PLANES;

/// The most components that a pixel can have: three colours and alpha.
pub(super) const MAX_COMPONENTS: usize = 4;

/// The size of a palette: 256 colours of four bytes.
const PALETTE_SIZE: u64 = 256 * 4;

/// In the default layout, the rows of most planes begin at multiples of this number of bytes.
pub(super) const DEFAULT_ALIGN: u8 = 4;

/// What the first components of a pixel are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ColourModel {
    /// Red, green and blue.
    Rgb,
    /// Luma, and two components of chroma (Cb, Cr).
    Yuv,
    /// Luma alone.
    Gray,
}

/// The integer in which a component is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    Byte,
    Le16,
    Be16,
    Le32,
    Be32,
}

impl Word {
    pub(super) const NATIVE_16: Self = if cfg!(target_endian = "little") {
        Self::Le16
    } else {
        Self::Be16
    };

    pub(super) const fn bytes(self) -> u8 {
        match self {
            Self::Byte => 1,
            Self::Le16 | Self::Be16 => 2,
            Self::Le32 | Self::Be32 => 4,
        }
    }

    pub(super) const fn is_big_endian(self) -> bool {
        matches!(self, Self::Be16 | Self::Be32)
    }
}

/// How a component is stored: `depth` bits of a word, above `shift` other bits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Coding {
    pub(super) depth: u8,
    pub(super) shift: u8,
    pub(super) word: Word,
}

impl Coding {
    pub(super) const U8: Self = Self::new(8, 0, Word::Byte);
    pub(super) const LE10: Self = Self::new(10, 0, Word::Le16);
    pub(super) const BE10: Self = Self::new(10, 0, Word::Be16);
    pub(super) const LE12: Self = Self::new(12, 0, Word::Le16);
    pub(super) const BE12: Self = Self::new(12, 0, Word::Be16);
    pub(super) const LE16: Self = Self::new(16, 0, Word::Le16);
    pub(super) const BE16: Self = Self::new(16, 0, Word::Be16);
    pub(super) const NATIVE_16: Self = Self::new(16, 0, Word::NATIVE_16);
    /// Ten bits in the upper part of a word.
    pub(super) const HIGH_LE10: Self = Self::new(10, 6, Word::Le16);
    pub(super) const HIGH_BE10: Self = Self::new(10, 6, Word::Be16);
    pub(super) const HIGH_LE12: Self = Self::new(12, 4, Word::Le16);
    pub(super) const HIGH_BE12: Self = Self::new(12, 4, Word::Be16);

    pub(super) const fn new(depth: u8, shift: u8, word: Word) -> Self {
        Self { depth, shift, word }
    }
}

/// How many bits the width and the height are shifted right for the components of chroma.
#[derive(Clone, Copy, Debug)]
pub(super) struct Subsampling {
    pub(super) x: u8,
    pub(super) y: u8,
}

impl Subsampling {
    pub(super) const S444: Self = Self { x: 0, y: 0 };
    pub(super) const S422: Self = Self { x: 1, y: 0 };
    pub(super) const S420: Self = Self { x: 1, y: 1 };
    pub(super) const S411: Self = Self { x: 2, y: 0 };
    pub(super) const S410: Self = Self { x: 2, y: 2 };
}

/// To what the number of rows of a plane is rounded up in the default layout.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rounding {
    None,
    Even,
    EvenIfInterlaced,
}

/// The rounding of the planes of luma and alpha, and of those of chroma.
#[derive(Clone, Copy, Debug)]
pub(super) struct Padding {
    pub(super) luma: Rounding,
    pub(super) chroma: Rounding,
}

impl Padding {
    pub(super) const NONE: Self = Self::new(Rounding::None, Rounding::None);
    pub(super) const EVEN: Self = Self::new(Rounding::Even, Rounding::Even);
    pub(super) const EVEN_LUMA: Self = Self::new(Rounding::Even, Rounding::None);
    pub(super) const EVEN_FIELDS: Self = Self::new(Rounding::Even, Rounding::EvenIfInterlaced);
    pub(super) const CHROMA_FIELDS: Self = Self::new(Rounding::None, Rounding::EvenIfInterlaced);

    const fn new(luma: Rounding, chroma: Rounding) -> Self {
        Self { luma, chroma }
    }
}

/// The rows of one plane.
#[derive(Clone, Copy, Debug)]
pub(super) struct PlaneShape {
    /// The number of pixels that share `bytes` bytes of a row. A row has whole groups of pixels.
    pixels: u8,
    bytes: u8,
    /// The default stride is a multiple of this number of bytes.
    align: u8,
    /// How many bits the height is shifted right.
    y_shift: u8,
    rounding: Rounding,
    /// The plane is a single row of [`PALETTE_SIZE`] bytes.
    pub(super) is_palette: bool,
}

impl PlaneShape {
    pub(super) const fn new(pixels: u8, bytes: u8) -> Self {
        Self {
            pixels,
            bytes,
            align: DEFAULT_ALIGN,
            y_shift: 0,
            rounding: Rounding::None,
            is_palette: false,
        }
    }

    pub(super) const fn align(mut self, align: u8) -> Self {
        self.align = align;
        self
    }

    pub(super) const fn rows(mut self, y_shift: u8, rounding: Rounding) -> Self {
        self.y_shift = y_shift;
        self.rounding = rounding;
        self
    }

    /// The bytes of a row that hold pixels.
    pub(super) fn row_bytes(&self, width: u32) -> u64 {
        if self.is_palette {
            return PALETTE_SIZE;
        }
        u64::from(width.div_ceil(self.pixels.into())) * u64::from(self.bytes)
    }

    /// The number of bytes from one row to the next, if rows begin at multiples of `align`. With [`DEFAULT_ALIGN`], it
    /// is that of the default layout, in which a few formats have another alignment.
    pub(super) fn stride(&self, width: u32, align: u32) -> u64 {
        if self.is_palette {
            return self.bytes.into();
        }
        // All alignments are powers of 2, so the larger is a multiple of the smaller.
        let align = match (self.align, align) {
            (own, align) if align == DEFAULT_ALIGN.into() => own.into(),
            (DEFAULT_ALIGN, align) => align,
            (own, align) => align.max(own.into()),
        };
        self.row_bytes(width).next_multiple_of(align.into())
    }

    /// The number of rows that hold pixels.
    pub(super) fn row_count(&self, height: u32) -> u32 {
        if self.is_palette {
            return 1;
        }
        height.div_ceil(1 << self.y_shift)
    }

    /// The size of the plane, whose rows begin at multiples of `align`; `None` if it has more than 64 bits.
    pub(super) fn size(&self, width: u32, height: u32, align: u32, is_interlaced: bool) -> Option<u64> {
        if self.is_palette {
            return Some(PALETTE_SIZE);
        }
        let rows = u64::from(self.row_count(height));
        let rows = match self.rounding {
            Rounding::Even => rows.next_multiple_of(2),
            Rounding::EvenIfInterlaced if is_interlaced => rows.next_multiple_of(2),
            _ => rows,
        };
        self.stride(width, align).checked_mul(rows)
    }
}

/// The bits of one component.
#[derive(Clone, Copy, Debug)]
pub(super) struct Component {
    pub(super) plane: u8,
    /// How many bits the coordinates of a pixel are shifted right.
    pub(super) x_shift: u8,
    pub(super) y_shift: u8,
    pub(super) depth: u8,
    /// The offset of the first word, and the bits below the component in it.
    pub(super) offset: u8,
    pub(super) shift: u8,
    /// After this number of bytes, the positions repeat.
    pub(super) period: u8,
    /// The positions of the component within the period, in bytes and bits; they add to `offset` and `shift`.
    pub(super) positions: &'static [(u8, u8)],
}

impl Component {
    pub(super) const fn new(coding: Coding, offset: u8, period: u8) -> Self {
        Self {
            plane: 0,
            x_shift: 0,
            y_shift: 0,
            depth: coding.depth,
            offset,
            shift: coding.shift,
            period,
            positions: &[(0, 0)],
        }
    }

    pub(super) const fn in_plane(mut self, plane: u8) -> Self {
        self.plane = plane;
        self
    }

    pub(super) const fn subsampled(mut self, by: Subsampling) -> Self {
        self.x_shift = by.x;
        self.y_shift = by.y;
        self
    }

    pub(super) const fn at(mut self, positions: &'static [(u8, u8)]) -> Self {
        self.positions = positions;
        self
    }
}

/// All that is to know about a format.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) model: ColourModel,
    pub(super) word: Word,
    planes: [PlaneShape; MAX_PLANES],
    plane_count: u8,
    components: [Component; MAX_COMPONENTS],
    component_count: u8,
}

impl Shape {
    pub(super) fn planes(&self) -> &[PlaneShape] {
        &self.planes[..self.plane_count.into()]
    }

    /// The bytes from one pixel of a plane to the next. `None` if the pixels are not whole bytes, or if there is no
    /// such plane. Pixels of a plane of chroma belong to several pixels of the picture.
    pub(super) fn pixel_bytes(&self, plane: usize) -> Option<u32> {
        if self.planes().get(plane)?.is_palette {
            return Some(self.planes[plane].bytes.into());
        }
        let components = self.components().iter();
        let in_plane = components.filter(|component| usize::from(component.plane) == plane);
        let component = in_plane.max_by_key(|component| component.positions.len())?;
        let count = u8::try_from(component.positions.len()).ok()?;
        let bytes = component.period / count;
        (component.period % count == 0).then_some(bytes.into())
    }

    /// Whether the only component is the index of a colour in the second plane.
    pub(super) fn has_palette(&self) -> bool {
        self.planes().iter().any(|plane| plane.is_palette)
    }

    pub(super) fn components(&self) -> &[Component] {
        &self.components[..self.component_count.into()]
    }

    pub(super) const fn new(model: ColourModel, word: Word, planes: &[PlaneShape], components: &[Component]) -> Self {
        let mut shape = Self {
            model,
            word,
            planes: [PlaneShape::new(1, 0); MAX_PLANES],
            plane_count: planes.len() as u8,
            components: [Component::new(Coding::U8, 0, 1); MAX_COMPONENTS],
            component_count: components.len() as u8,
        };
        let mut plane = 0;
        while plane < planes.len() {
            shape.planes[plane] = planes[plane];
            plane += 1;
        }
        let mut component = 0;
        while component < components.len() {
            shape.components[component] = components[component];
            component += 1;
        }
        shape
    }
}
