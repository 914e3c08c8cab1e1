// SPDX-License-Identifier: MIT OR Apache-2.0

//! Discovery of the existing channels.

use std::{fs::File, io::Read, path::Path};

use crate::{
    ChannelName,
    protocol::layout,
    sys::files::{SHM_DIR, open},
};

/// The names of the existing channels, sorted. A channel exists if /dev/shm has a file with the channel's name. This
/// user must be able to read the file, and it must begin with the magic number of a segment.
///
/// # Examples
///
/// ```
/// for channel in rsshm_channel::channels() {
///     println!("{channel}");
/// }
/// ```
pub fn channels() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(SHM_DIR)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| ChannelName::new(name.as_str()).is_ok() && starts_as_segment(name))
        .collect();
    names.sort();
    names
}

fn starts_as_segment(name: &str) -> bool {
    let path = Path::new(SHM_DIR).join(name);
    let Some(Ok(Some(file))) = path.to_str().map(|path| open(path, false)) else {
        return false;
    };
    let mut magic = [0; 8];
    File::from(file).read_exact(&mut magic).is_ok() && u64::from_ne_bytes(magic) == layout::MAGIC
}
