// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory into which a reader copies frames.

use super::object_fetch::ObjectFault;
use crate::Error;

/// Memory for the frames that a [`Reader`](crate::Reader) or an [`Observer`](crate::Observer) copies. `Vec<u8>`
/// implements this trait.
///
/// # Examples
///
/// ```
/// use rsshm_channel::CopyTarget;
///
/// /// A buffer that never grows: larger frames are refused.
/// struct FixedBuffer([u8; 4096]);
///
/// impl CopyTarget for FixedBuffer {
///     fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
///         self.0.get_mut(..size)
///     }
/// }
///
/// assert!(FixedBuffer([0; 4096]).prepare(5000).is_none());
/// ```
pub trait CopyTarget {
    /// Returns memory of exactly `size` bytes, or `None` if no memory is available.
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]>;
}

impl CopyTarget for Vec<u8> {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        // `try_reserve` fails if there is no memory; `resize` alone would abort the program.
        self.try_reserve(size.saturating_sub(self.len())).ok()?;
        self.resize(size, 0);
        Some(self)
    }
}

/// Why a frame that exists could not be taken.
#[derive(Debug)]
pub(super) enum TakeFailure {
    /// The target has no memory for the frame, whose size in bytes this is.
    NoTargetMemory(usize),
    /// The reader was interrupted while it waited for the memory of the frame.
    Interrupted,
    /// This user may not have the memory of the frames.
    Denied(Error),
    /// The memory of the frame cannot be got. The reader has given up the frame.
    Fault(ObjectFault),
}

/// A target that remembers whether it had no memory for a frame.
pub(super) struct CheckedTarget<'a> {
    target: &'a mut dyn CopyTarget,
    /// The size for which there was no memory.
    pub(super) failed_size: Option<usize>,
}

impl<'a> CheckedTarget<'a> {
    #[inline]
    pub(super) fn new(target: &'a mut dyn CopyTarget) -> Self {
        Self {
            target,
            failed_size: None,
        }
    }
}

impl CopyTarget for CheckedTarget<'_> {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        let memory = self.target.prepare(size).filter(|memory| memory.len() == size);
        if memory.is_none() {
            self.failed_size = Some(size);
        }
        memory
    }
}
