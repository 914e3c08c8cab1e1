// SPDX-License-Identifier: MIT OR Apache-2.0

//! Shortage: the segment has fewer slots than its readers could use, because a limit leaves too little memory.

use std::fmt;

use crate::sys::space::{Space, SpaceLimit};

/// Why a writer has fewer slots than its readers could use. The text says what to do.
///
/// # Examples
/// ```
/// use rsshm_channel::{ServiceReport, Space};
///
/// fn log(report: &ServiceReport) {
///     if let Some(shortage) = &report.shortage {
///         let Space { limit, total, .. } = &shortage.space;
///         println!("{limit} is only {total} bytes: {shortage}");
///     }
/// }
/// # log(&ServiceReport::default());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortage {
    /// How many slots the current segment can have.
    pub slots: u32,
    /// The size of a slot in bytes.
    pub slot_size: u64,
    /// The limit, and what it left when it limited the slots.
    pub space: Space,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            slots,
            slot_size,
            space,
        } = self;
        write!(
            f,
            "there is memory for only {slots} slots of {slot_size} bytes, because of {} of {} bytes; readers that hold more \
             frames copy or miss further ones; use smaller frames, or {}",
            space.limit,
            space.total,
            space.limit.remedy()
        )
    }
}

/// The limits that kept the current segment from having more slots.
#[derive(Debug, Default)]
pub(super) struct ShortageLog {
    /// What limited the number of slots when the segment was made.
    bound: Option<Space>,
    /// What last left no memory for one more slot.
    refusal: Option<Space>,
    reported: Vec<SpaceLimit>,
}

impl ShortageLog {
    /// Records that a new segment is current. `bound` limited its number of slots.
    pub(super) fn begin_segment(&mut self, bound: Option<Space>) {
        self.bound = bound;
        self.refusal = None;
    }

    /// Records that a slot got no memory.
    pub(super) fn note_refusal(&mut self, space: Space) {
        self.refusal = Some(space);
    }

    /// The limit to report. Each limit is reported once. The limit of the number of slots matters only if readers have
    /// too few slots.
    pub(super) fn take(&mut self, are_readers_short: bool) -> Option<Space> {
        let space = self
            .refusal
            .take()
            .or_else(|| self.bound.clone().filter(|_| are_readers_short))?;
        if self.reported.contains(&space.limit) {
            return None;
        }
        self.reported.push(space.limit.clone());
        Some(space)
    }
}
