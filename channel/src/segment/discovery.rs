// SPDX-License-Identifier: MIT OR Apache-2.0

//! Discovery of the existing channels.

use std::{collections::BTreeSet, io};

use super::lock_query;
use crate::{
    ChannelName,
    protocol::layout,
    sys::{
        directory::Directory,
        errno,
        files::{open, read_exactly},
    },
};

/// The prefix of the names of lock files.
const LOCK_FILE_PREFIX: &str = "sem.";

/// The names of the existing channels, sorted. A channel exists if the [`Directory`] has a file with the channel's
/// name. This user must be able to read the file, and it must begin with the magic number of a segment.
///
/// # Examples
///
/// ```
/// for channel in rsshm_channel::channels() {
///     println!("{channel}");
/// }
/// ```
pub fn channels() -> Vec<String> {
    // A BTreeSet is sorted.
    let is_channel = |name: &String| {
        let first = first_bytes(name).ok().flatten();
        ChannelName::new(name.as_str()).is_ok() && first.is_some_and(|first| first.magic == layout::MAGIC)
    };
    names().into_iter().filter(is_channel).collect()
}

/// The names of everything that may be a channel, sorted. Beside the [`channels`], these are:
/// - files that this user may not read, and that have a lock file;
/// - channels whose writer has no segment yet, because it does not know the format.
///
/// # Examples
///
/// ```
/// let all = rsshm_channel::possible_channels();
/// assert!(all.is_sorted());
/// ```
pub fn possible_channels() -> Vec<String> {
    let files = names();
    let mut channels: Vec<String> = files
        .iter()
        .filter(|name| ChannelName::new(name.as_str()).is_ok())
        .filter(|name| match first_bytes(name) {
            Ok(first) => first.is_some_and(|first| first.magic == layout::MAGIC),
            Err(error) => errno::is_denied(errno::of(&error)) && files.contains(&format!("{LOCK_FILE_PREFIX}{name}")),
        })
        .cloned()
        .collect();
    let without_segment = files
        .iter()
        .filter_map(|name| name.strip_prefix(LOCK_FILE_PREFIX))
        .filter(|name| !files.contains(*name))
        .filter(|name| ChannelName::new(*name).is_ok_and(|name| lock_query::has_writer(&name) == Some(true)))
        .map(str::to_owned);
    channels.extend(without_segment);
    channels.sort();
    channels
}

/// The version of the protocol that the channel's segment has. `None` if there is no segment, or if this user may not
/// read it.
///
/// The crate reads only segments of its own version, [`layout::VERSION`]. With this function, a program can say which
/// version a segment has that the crate refuses as damaged.
pub fn segment_version(name: &ChannelName) -> Option<u32> {
    let first = first_bytes(name.as_str()).ok().flatten()?;
    (first.magic == layout::MAGIC).then_some(first.version)
}

/// The names of all files in the directory of shared memory.
fn names() -> BTreeSet<String> {
    Directory::current()
        .entries()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// The first fields of a header. They are the same in all versions.
struct FirstBytes {
    magic: u64,
    version: u32,
}

/// Reads the first bytes of a file; `None` if there is no file, or if it is too short.
fn first_bytes(name: &str) -> io::Result<Option<FirstBytes>> {
    let Some(file) = open(&Directory::current().join(name), false)? else {
        return Ok(None);
    };
    let mut bytes = [0; 12];
    if !read_exactly(&file, &mut bytes, 0)? {
        return Ok(None);
    }
    let (magic, version) = bytes.split_at(8);
    Ok(Some(FirstBytes {
        magic: u64::from_ne_bytes(magic.try_into().unwrap_or_default()),
        version: u32::from_ne_bytes(version.try_into().unwrap_or_default()),
    }))
}
