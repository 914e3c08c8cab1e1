// SPDX-License-Identifier: MIT OR Apache-2.0

//! The options of a reader, and the limits of one read.

/// How to attach to a channel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReaderOptions {
    /// Whether the reader is an observer, which never writes to the segment. An observer needs read permission only; it
    /// pins nothing and copies each frame.
    pub read_only: bool,
    /// Whether [`Reader::next`](crate::Reader::next) leaves out events.
    pub ignore_events: bool,
}

impl ReaderOptions {
    /// Sets [`read_only`](Self::read_only).
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets [`ignore_events`](Self::ignore_events).
    #[must_use]
    pub fn ignore_events(mut self, ignore_events: bool) -> Self {
        self.ignore_events = ignore_events;
        self
    }
}

/// The limits of one call of [`Reader::next`](crate::Reader::next).
///
/// # Examples
///
/// ```
/// use rsshm_channel::ReadLimits;
///
/// // Always the newest frame, and at most two frames in place at a time.
/// let limits = ReadLimits::default().max_behind(1).max_held(2);
/// assert_eq!(limits.max_held, 2);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ReadLimits {
    /// How many published frames may wait for the reader. It skips older ones. With 1, the reader always gets the
    /// newest frame; with 0, it gets all frames that are left.
    pub max_behind: u32,
    /// How many frames may be held in place at a time; further frames are copied.
    pub max_held: u32,
    /// Whether frames of objects are delivered as objects
    /// ([`FrameData::Objects`](crate::FrameData::Objects)). Otherwise the reader copies them.
    pub accepts_objects: bool,
    /// Whether a frame of objects is copied unless its bytes are one range of one object. For programs that need all
    /// bytes at one address.
    pub needs_one_range: bool,
}

impl Default for ReadLimits {
    fn default() -> Self {
        Self {
            max_behind: 0,
            max_held: 4,
            accepts_objects: false,
            needs_one_range: false,
        }
    }
}

impl ReadLimits {
    /// Sets [`max_behind`](Self::max_behind).
    #[must_use]
    pub fn max_behind(mut self, max_behind: u32) -> Self {
        self.max_behind = max_behind;
        self
    }

    /// Sets [`max_held`](Self::max_held).
    #[must_use]
    pub fn max_held(mut self, max_held: u32) -> Self {
        self.max_held = max_held;
        self
    }

    /// Sets [`accepts_objects`](Self::accepts_objects).
    #[must_use]
    pub fn accepts_objects(mut self, accepts_objects: bool) -> Self {
        self.accepts_objects = accepts_objects;
        self
    }

    /// Sets [`needs_one_range`](Self::needs_one_range).
    #[must_use]
    pub fn needs_one_range(mut self, needs_one_range: bool) -> Self {
        self.needs_one_range = needs_one_range;
        self
    }

    /// How many of the newest frames the reader wants.
    pub(super) fn reach(self) -> u64 {
        match self.max_behind {
            0 => u64::MAX,
            behind => behind.into(),
        }
    }

    pub(super) fn wants_only_newest(self) -> bool {
        self.max_behind == 1
    }
}
