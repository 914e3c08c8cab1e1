// SPDX-License-Identifier: MIT OR Apache-2.0

//! The errors of the crate. Each text says what a user can do.

use nix::errno::Errno;

use crate::{
    protocol::caps_text::Mistake,
    sys::{
        directory::DirectoryFault,
        space::{Space, SpaceLimit},
    },
};

/// Why a channel cannot be opened, written or read.
///
/// # Examples
/// ```
/// use rsshm_channel::{ChannelName, Error};
///
/// let error = ChannelName::new("a/b").unwrap_err();
/// assert!(matches!(error, Error::Name { .. }));
/// // The text names the channel, and says what a user can do.
/// assert!(error.to_string().contains("a/b"));
/// ```
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// The name is invalid.
    #[error("{name:?} cannot be the name of a channel: {reason}")]
    Name {
        /// The name.
        name: String,
        /// The rule that the name breaks.
        reason: &'static str,
    },
    /// The value of an option is invalid.
    #[error("channel {channel}: {reason}")]
    Option {
        /// The channel.
        channel: String,
        /// The option, and its valid values.
        reason: String,
    },
    /// The caps are not fixed caps.
    #[error("channel {channel}: caps must be fixed, as GStreamer writes them: {}; the text is {text:.200}",
            mistake.describe(text))]
    Caps {
        /// The channel.
        channel: String,
        /// The caps.
        text: String,
        /// Where the text has a mistake, and what it should have there.
        mistake: Mistake,
    },
    /// The channel has another living writer.
    #[error("channel {channel} already has a writer ({}); stop it, or choose another name",
            .pid.map_or_else(|| "its process is unknown".to_owned(), |pid| format!("process {pid}")))]
    Busy {
        /// The channel.
        channel: String,
        /// The process id of the writer, as the channel's segment names it; `None` if there is no segment.
        pid: Option<u32>,
    },
    /// A file with the channel's name belongs to another user, or is not a file of a channel.
    #[error("channel {channel}: {path} {what}; choose another name, or ask its owner to remove it")]
    Foreign {
        /// The channel.
        channel: String,
        /// The path of the file.
        path: String,
        /// Why the file cannot be used.
        what: String,
    },
    /// The permissions of the channel's files forbid what this user tried.
    #[error(
        "channel {channel}: no permission to {action} {path} (its mode is {mode:04o}, its owner user {owner}); \
             the writer's perms property sets the mode: 0644 lets others observe, 0660 lets its group attach"
    )]
    Denied {
        /// The channel.
        channel: String,
        /// The path of the file.
        path: String,
        /// The action that the permissions forbid.
        action: &'static str,
        /// The file's permission bits.
        mode: u32,
        /// The file's owner.
        owner: u32,
    },
    /// The shared memory file system is full, or a limit leaves too little memory.
    #[error(
        "channel {channel}: {limit} is too small: {wanted} bytes are needed{}, {free} of {total} bytes are free; \
             use smaller frames, or {}",
        if *slots == 0 { String::new() } else { format!(" for {slots} frames of {slot_size} bytes") },
        limit.remedy()
    )]
    NoSpace {
        /// The channel.
        channel: String,
        /// The size in bytes of the smallest segment that the channel can use.
        wanted: u64,
        /// The number of slots of this smallest segment; 0 if even the semaphore does not fit.
        slots: u32,
        /// The size of a slot in bytes.
        slot_size: u64,
        /// What is too small: the file system of the [`Directory`](crate::Directory), or the limit.
        limit: SpaceLimit,
        /// The bytes that are free for the channel. Of a memory limit, a part is reserved for other memory.
        free: u64,
        /// The size of this file system in bytes, or the limit.
        total: u64,
    },
    /// The directory that `RSSHM_DIR` names cannot have the files of channels.
    #[error("{0}")]
    Directory(DirectoryFault),
    /// The directory of shared memory is missing or unsuitable, so no file can be created in it.
    #[error("channel {channel}: {call} failed: {errno}; {what}")]
    NoSharedMemory {
        /// The channel.
        channel: String,
        /// The call, and what it was for.
        call: String,
        /// The system's error.
        errno: Errno,
        /// What is wrong with the directory, and what to do.
        what: String,
    },
    /// The segment has another version of the protocol, or it is damaged.
    #[error("channel {channel}: its segment is not usable: {what}")]
    Damaged {
        /// The channel.
        channel: String,
        /// What is wrong, for example a field and its value.
        what: String,
    },
    /// A frame, its metadata, its caps or an event is too large for a segment.
    #[error("channel {channel}: {what}")]
    TooLarge {
        /// The channel.
        channel: String,
        /// The size that is too large, and the limit.
        what: String,
    },
    /// The slot cannot be published, because it belongs to an older segment or has already been published.
    #[error("channel {channel}: this memory cannot be published in place")]
    NotPublishable {
        /// The channel.
        channel: String,
    },
    /// Memory cannot be an object, or a frame of objects is invalid.
    #[error("channel {channel}: {what}")]
    Object {
        /// The channel.
        channel: String,
        /// What is wrong, and what to do.
        what: String,
    },
    /// There is no free memory to which a frame can be copied.
    #[error("channel {channel}: no memory to copy a frame of {size} bytes to")]
    NoMemory {
        /// The channel.
        channel: String,
        /// The size of the frame in bytes.
        size: usize,
    },
    /// The writer is closed.
    #[error("channel {channel} is closed")]
    Closed {
        /// The channel.
        channel: String,
    },
    /// A system call failed for a reason that no other variant describes.
    #[error("channel {channel}: {call} failed: {errno}")]
    System {
        /// The channel.
        channel: String,
        /// The call and its purpose.
        call: String,
        /// The system's error.
        errno: Errno,
    },
}

impl Error {
    /// The error of too little space. A segment needs `wanted` bytes: `slots` slots of `slot_size` bytes, and the
    /// tables before them.
    pub(crate) fn no_space(channel: &str, wanted: u64, slots: u32, slot_size: u64, space: Space) -> Self {
        let Space { limit, total, free } = space;
        Self::NoSpace {
            channel: channel.to_owned(),
            wanted,
            slots,
            slot_size,
            limit,
            free,
            total,
        }
    }

    pub(crate) fn system(channel: &str, call: impl Into<String>, errno: Errno) -> Self {
        Self::System {
            channel: channel.to_owned(),
            call: call.into(),
            errno,
        }
    }
}
