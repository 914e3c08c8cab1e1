// SPDX-License-Identifier: MIT OR Apache-2.0

//! The options of a writer, and the caps of its stream.

use crate::{
    ChannelName, Error,
    protocol::{
        caps_text::canonical_caps,
        layout::{MAX_CAPS_SIZE, MAX_SLOTS, ReferenceTable},
    },
};

/// The number of slots with which a segment starts, and the least number of slots that it may have.
pub(super) const MIN_SLOTS: u32 = 3;

/// The options of a [`Writer`](crate::Writer).
///
/// # Examples
/// ```
/// use rsshm_channel::WriterOptions;
///
/// // Users in the file's group may attach, and the writer waits for the slowest reader.
/// let options = WriterOptions::default().perms(0o660).max_slots(8).lossless(true);
/// assert!(options.lossless);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct WriterOptions {
    /// The permission bits of the segment's file. They must include the owner's read and write bits.
    pub perms: u32,
    /// The maximum number of slots, 3 to 64. With 0, the writer chooses as many as fit into 1 GiB, into half of the
    /// free shared memory, and into half of what the memory limits of its control group leave.
    pub max_slots: u32,
    /// Whether the writer waits for the slowest attached reader instead of letting it miss a frame.
    pub lossless: bool,
    /// Whether readers may send messages. The writer receives them in
    /// [`ServiceReport::messages`](crate::ServiceReport::messages).
    pub accept_messages: bool,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            perms: 0o600,
            max_slots: 0,
            lossless: false,
            accept_messages: false,
        }
    }
}

impl WriterOptions {
    /// Sets [`perms`](Self::perms).
    #[must_use]
    pub fn perms(mut self, perms: u32) -> Self {
        self.perms = perms;
        self
    }

    /// Sets [`max_slots`](Self::max_slots).
    #[must_use]
    pub fn max_slots(mut self, max_slots: u32) -> Self {
        self.max_slots = max_slots;
        self
    }

    /// Sets [`lossless`](Self::lossless).
    #[must_use]
    pub fn lossless(mut self, lossless: bool) -> Self {
        self.lossless = lossless;
        self
    }

    /// Sets [`accept_messages`](Self::accept_messages).
    #[must_use]
    pub fn accept_messages(mut self, accept_messages: bool) -> Self {
        self.accept_messages = accept_messages;
        self
    }

    /// Checks the values.
    ///
    /// # Errors
    /// [`Error::Option`] names the option and its allowed values.
    pub(super) fn check(&self, name: &ChannelName) -> Result<(), Error> {
        let reason = if self.max_slots != 0 && !(MIN_SLOTS..=MAX_SLOTS as u32).contains(&self.max_slots) {
            format!(
                "max-slots is {}, it may be 0 (automatic) or {MIN_SLOTS} to {MAX_SLOTS}",
                self.max_slots
            )
        } else if self.perms > 0o777 || self.perms & 0o600 != 0o600 {
            format!(
                "perms is {:04o}, it may be 0600 to 0777 and must let the owner read and write",
                self.perms
            )
        } else {
            return Ok(());
        };
        Err(Error::Option {
            channel: name.to_string(),
            reason,
        })
    }
}

/// The format of a stream: its caps and the size of its frames.
///
/// # Examples
/// ```
/// use rsshm_channel::Caps;
///
/// let raw = Caps::fixed_size("video/x-raw,format=GRAY8,width=640,height=360,framerate=30/1", 640 * 360);
/// let encoded = Caps::variable_size("video/x-h264,stream-format=byte-stream,alignment=au");
/// assert_ne!(raw, encoded);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caps {
    text: String,
    frame_size: u64,
    is_variable: bool,
    has_objects: bool,
}

impl Caps {
    /// Caps of frames that have `frame_size` bytes each. The writer checks the text
    /// ([`Writer::set_caps`](crate::Writer::set_caps)); readers get it unchanged.
    pub fn fixed_size(caps: impl Into<String>, frame_size: usize) -> Self {
        Self {
            text: caps.into(),
            frame_size: frame_size as u64,
            is_variable: false,
            has_objects: false,
        }
    }

    /// Caps of frames whose sizes differ, such as those of a compressed stream. The first slots are larger than the
    /// first frame, so that larger frames fit too.
    pub fn variable_size(caps: impl Into<String>) -> Self {
        Self {
            text: caps.into(),
            frame_size: 0,
            is_variable: true,
            has_objects: false,
        }
    }

    /// Caps of frames whose bytes stay in the memory of objects, such as the buffers of a camera. They are published
    /// with [`Writer::objects`](crate::Writer::objects).
    ///
    /// # Examples
    /// ```
    /// use rsshm_channel::Caps;
    ///
    /// let caps = Caps::objects("video/x-raw(memory:DMABuf),format=NV12,width=640,height=360,framerate=30/1");
    /// assert_ne!(caps, Caps::variable_size("video/x-raw"));
    /// ```
    pub fn objects(caps: impl Into<String>) -> Self {
        Self {
            text: caps.into(),
            frame_size: size_of::<ReferenceTable>() as u64,
            is_variable: false,
            has_objects: true,
        }
    }

    /// Whether the text describes fixed caps, and fits into a segment.
    pub(super) fn validate(&self, name: &ChannelName) -> Result<(), Error> {
        if self.text.len() > MAX_CAPS_SIZE {
            return Err(Error::TooLarge {
                channel: name.to_string(),
                what: format!("the caps have {} bytes, more than {MAX_CAPS_SIZE}", self.text.len()),
            });
        }
        canonical_caps(&self.text).map(drop).map_err(|mistake| Error::Caps {
            channel: name.to_string(),
            text: self.text.clone(),
            mistake,
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// The size of every frame in bytes; 0 if the sizes differ.
    pub(super) fn frame_size(&self) -> u64 {
        self.frame_size
    }

    /// Whether the slots have references to objects instead of the bytes of frames.
    pub(super) fn has_objects(&self) -> bool {
        self.has_objects
    }

    pub(super) fn is_variable(&self) -> bool {
        self.is_variable
    }
}
