// SPDX-License-Identifier: MIT OR Apache-2.0

//! The arguments of C functions, which come from the bytes of an input.

use std::ffi::{CStr, c_char};

/// The longest wait of one call.
const WAIT_NS: u64 = 1_000_000;
/// The size of the memory for a structure, of which the library reads and writes at most 4096 bytes.
pub(super) const STRUCTURE_SIZE: usize = 4096;
/// The largest width and height of pictures.
const MAX_PIXELS: i32 = 64;

/// The bytes of the input that were not used yet. After the last byte, there are zeros.
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl Input<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    pub(super) fn number(&mut self) -> u64 {
        let value = u64::from(self.byte()) | u64::from(self.byte()) << 8;
        match self.byte() % 8 {
            0 => u64::MAX - value,
            1 => value << 48,
            2 => 1 << (value % 64),
            3 => value % 5,
            _ => value,
        }
    }

    /// A size of memory: small, or one that no memory has.
    pub(super) fn size(&mut self) -> usize {
        match self.byte() {
            255 => usize::MAX - self.below(16),
            254 => isize::MAX as usize + self.below(16),
            _ => self.number() as usize % (1 << 16),
        }
    }

    /// A wait of at most a millisecond.
    pub(super) fn wait_ns(&mut self) -> i64 {
        (self.number() % WAIT_NS) as i64
    }

    /// An index below `count`.
    pub(super) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// A number of pixels.
    pub(super) fn pixels(&mut self) -> i32 {
        match self.byte() {
            255 => i32::MIN,
            254 => -1,
            value => i32::from(value) % (MAX_PIXELS + 1),
        }
    }

    /// Texts with any bytes except NUL.
    pub(super) fn text(&mut self, choices: &[&CStr]) -> Option<Vec<u8>> {
        match self.byte() % 8 {
            0 => None,
            1 => {
                let size = self.below(40);
                let mut text: Vec<u8> = (0..size).map(|_| self.byte().max(1)).collect();
                text.push(0);
                Some(text)
            }
            _ => Some(choices[self.below(choices.len())].to_bytes_with_nul().to_vec()),
        }
    }
}

pub(super) fn pointer(text: Option<&[u8]>) -> *const c_char {
    text.map_or(std::ptr::null(), |text| text.as_ptr().cast())
}

/// Memory for a structure, aligned as a structure of C is.
#[repr(C, align(16))]
pub(super) struct Structure([u8; STRUCTURE_SIZE]);

impl Structure {
    /// Memory with arbitrary fields.
    pub(super) fn new(input: &mut Input) -> Box<Self> {
        let mut bytes = Box::new(Self([0; STRUCTURE_SIZE]));
        if input.byte() % 4 == 0 {
            for field in bytes.0[8..160].chunks_mut(8) {
                field.copy_from_slice(&input.number().to_ne_bytes());
            }
        }
        bytes.0[4..8].copy_from_slice(&u32::from(input.byte() % 16).to_ne_bytes());
        bytes
    }

    /// The value of the field `struct_size`.
    pub(super) fn stated_size(&self) -> usize {
        u32::from_ne_bytes([self.0[0], self.0[1], self.0[2], self.0[3]]) as usize
    }

    /// Makes a field point to memory that the caller owns.
    pub(super) fn set_pointer(&mut self, offset: usize, pointer: *const u8) {
        self.set_u64(offset, pointer.expose_provenance() as u64);
    }

    /// Sets the size. It is mostly `size`.
    pub(super) fn sized(mut self: Box<Self>, input: &mut Input, size: usize) -> Box<Self> {
        let size = match input.byte() % 16 {
            0 => input.number() as u32,
            1 => size as u32 + 8,
            _ => size as u32,
        };
        self.0[..4].copy_from_slice(&size.to_ne_bytes());
        self
    }

    pub(super) fn set_u64(&mut self, offset: usize, value: u64) {
        self.0[offset..offset + 8].copy_from_slice(&value.to_ne_bytes());
    }

    pub(super) fn at<T>(&mut self) -> *mut T {
        self.0.as_mut_ptr().cast()
    }
}
