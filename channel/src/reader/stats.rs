// SPDX-License-Identifier: MIT OR Apache-2.0

//! The counts of a reader.

/// The counts of a reader since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderStats {
    /// Frames delivered.
    pub received: u64,
    /// Frames delivered in place.
    pub in_place: u64,
    /// Frames delivered as a copy.
    pub copied: u64,
    /// Frames not delivered.
    pub missed: u64,
    /// Events not delivered.
    pub events_missed: u64,
    /// The process ID of the writer; 0 before the reader has attached to one.
    pub writer_pid: u32,
    /// How many times the reader went on to another segment, of the same writer or of another.
    pub reconnects: u64,
}
