// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory of the processes of a run.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

/// The size in bytes of the blocks that stat counts.
const BLOCK_SIZE: u64 = 512;

/// The memory of all processes of a run, after the frames that count. All processes still run then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// The memory of all files in /dev/shm and memfds that the processes have open or mapped. Each file counts once.
    pub shared_bytes: u64,
    /// The processes' proportional set sizes: all memory of each process, where shared memory is divided by the number
    /// of processes that map it.
    pub pss_bytes: u64,
}

impl Memory {
    /// Measures the processes with these IDs. `None` if /proc has too little of one of them.
    pub fn of(processes: impl IntoIterator<Item = u32>) -> Option<Self> {
        let mut files = BTreeMap::new();
        let mut pss_bytes = 0;
        for process in processes {
            let directory = PathBuf::from(format!("/proc/{process}"));
            pss_bytes += pss(&fs::read_to_string(directory.join("smaps_rollup")).ok()?)?;
            for file in shared_files(&directory) {
                if let Ok(metadata) = fs::metadata(&file) {
                    files.insert((metadata.dev(), metadata.ino()), metadata.blocks() * BLOCK_SIZE);
                }
            }
        }
        Some(Self {
            shared_bytes: files.values().sum(),
            pss_bytes,
        })
    }
}

/// The proportional set size in bytes in a text of smaps_rollup.
fn pss(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = rest.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

/// The paths of the shared memory that a process has open or mapped. `directory` is the directory of the process in
/// /proc.
fn shared_files(directory: &Path) -> Vec<PathBuf> {
    let is_shared = |target: &str| target.starts_with("/dev/shm/") || target.starts_with("/memfd:");
    let open = fs::read_dir(directory.join("fd")).into_iter().flatten().flatten();
    let open = open.map(|entry| entry.path()).filter(|path| {
        // The link of a memfd names no file, but the descriptor itself leads to it.
        fs::read_link(path).is_ok_and(|target| target.to_str().is_some_and(is_shared))
    });
    // A program may close the file after it has mapped it.
    let maps = fs::read_to_string(directory.join("maps")).unwrap_or_default();
    let mapped = maps.lines().filter_map(|line| {
        let path = line.splitn(6, ' ').nth(5)?.trim_start();
        path.starts_with("/dev/shm/").then(|| PathBuf::from(path))
    });
    open.chain(mapped).collect()
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::fd::AsRawFd};

    use nix::sys::memfd::{MFdFlags, memfd_create};

    use super::*;

    #[test]
    fn open_shared_memory_counts_once() {
        let process = std::process::id();
        let before = Memory::of([process]).unwrap();
        let mut file = fs::File::from(memfd_create(c"rsshm-bench-test", MFdFlags::empty()).unwrap());
        file.write_all(&vec![1; 4 << 20]).unwrap();
        let _second = file.try_clone().unwrap();
        assert!(shared_files(Path::new("/proc/self")).contains(&format!("/proc/self/fd/{}", file.as_raw_fd()).into()));
        let private = vec![1_u8; 32 << 20];
        let after = Memory::of([process]).unwrap();
        assert_eq!(after.shared_bytes - before.shared_bytes, 4 << 20);
        // Other tests of this process may release memory meanwhile.
        assert!(after.pss_bytes > before.pss_bytes + (16 << 20), "{before:?} {after:?}");
        assert!(private.iter().all(|byte| *byte == 1));
        let twice = Memory::of([process, process]).unwrap();
        assert_eq!(twice.shared_bytes, after.shared_bytes, "two processes share the file");
    }

    #[test]
    fn process_that_has_ended_has_no_memory() {
        assert_eq!(Memory::of([u32::MAX]), None);
        assert_eq!(pss("Rss: 12 kB\nPss:      7 kB\n"), Some(7 << 10));
    }
}
