// SPDX-License-Identifier: MIT OR Apache-2.0

//! Helpers for namespaces, for a small /dev/shm, and for the files in /dev/shm.

use std::{fs::File, io::Write, path::Path, process::Command};

use crate::{privileges, skip};

/// Options of `unshare` for a private mount namespace.
pub const OWN_MOUNTS: [&str; 3] = ["--mount", "--propagation", "private"];

/// A command that runs the rest of its command line in new namespaces. `namespaces` are options of `unshare`. `None` if
/// the system does not allow new namespaces.
pub fn unshared(namespaces: &[&'static str]) -> Option<Vec<&'static str>> {
    let mut wrapper = vec!["unshare"];
    if !privileges::is_root() {
        wrapper.push("--map-root-user");
    }
    wrapper.extend(namespaces);
    skip::succeeds(Command::new(wrapper[0]).args(&wrapper[1..]).arg("true")).then_some(wrapper)
}

/// In a process with a private mount namespace: mounts a tmpfs of `size` on /dev/shm. `size` is in the syntax of mount,
/// such as `64m`.
#[track_caller]
pub fn mount(size: &str) {
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", "/dev/shm"]);
    let status = mount.status().expect("mount runs");
    assert!(status.success(), "{mount:?}: {status}");
}

/// Creates the file `path`, and writes to it until its file system is full.
pub fn fill_up(path: impl AsRef<Path>) {
    let mut file = File::create(path).expect("a new file");
    while file.write_all(&[1; 4096]).is_ok() {}
}

/// The names of all files in /dev/shm.
pub fn names() -> Vec<String> {
    let entries = std::fs::read_dir("/dev/shm").expect("/dev/shm");
    entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect()
}
