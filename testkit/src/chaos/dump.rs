// SPDX-License-Identifier: MIT OR Apache-2.0

//! A description of a channel. It helps to find out why no frames arrive.

use std::{
    fmt::Write,
    fs::File,
    os::{fd::AsFd, unix::fs::FileExt},
    path::Path,
};

use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    unistd::Pid,
};
use rsshm_channel::{
    Directory,
    layout::{FIRST_PRESENCE_BYTE, FIRST_READER_BYTE, MAGIC, MAX_READERS},
};

/// The integer of N bytes at the offset `at` of a file. It is 0 if the file ends before the offset.
fn number<const N: usize>(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    let _ = file.read_exact_at(&mut bytes[..N], at);
    u64::from_ne_bytes(bytes)
}

/// The reader entries whose byte in the lock file is locked. `first` is the byte of entry 0.
fn locked_entries(lock_file: &File, first: i64) -> Vec<usize> {
    let is_locked = |entry: &usize| {
        let mut lock = libc::flock {
            l_type: libc::F_RDLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: first + *entry as i64,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(lock_file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock)).is_ok()
            && lock.l_type == libc::F_WRLCK as libc::c_short
    };
    (0..MAX_READERS).filter(is_locked).collect()
}

/// Describes the locked reader entries of a channel, and all segments that its writer has open.
pub fn dump(channel: &str, writer: Pid) -> String {
    let mut text = String::new();
    if let Ok(lock_file) = File::open(Path::new(Directory::current().path()).join(format!("sem.{channel}"))) {
        let locked = |first| locked_entries(&lock_file, first);
        writeln!(text, "locked reader entries {:?}", locked(FIRST_READER_BYTE)).unwrap();
        writeln!(text, "entries of present readers {:?}", locked(FIRST_PRESENCE_BYTE)).unwrap();
    }
    let descriptors = Path::new("/proc").join(writer.to_string()).join("fd");
    for entry in std::fs::read_dir(descriptors).into_iter().flatten().flatten() {
        let path = std::fs::read_link(entry.path()).unwrap_or_default();
        let path = path.display().to_string();
        let Ok(file) = File::open(entry.path()) else {
            continue;
        };
        if path.starts_with(Directory::current().path()) && number::<8>(&file, 0) == MAGIC {
            segment(&mut text, &path, &file);
        }
    }
    text
}

/// Describes the main fields of a segment. The offsets of the fields are those in docs/PROTOCOL.md.
fn segment(text: &mut String, path: &str, file: &File) {
    let (status, readers, slots) = (number::<8>(file, 64), number::<8>(file, 80), number::<8>(file, 112));
    let (evictions, entry_size, count) = (number::<8>(file, 72), number::<4>(file, 88), number::<4>(file, 108));
    writeln!(
        text,
        "{path}: first seq {} head {} state {} pid {} history {} waits {} quota {} joins {} file {}",
        number::<8>(file, 24),
        number::<8>(file, status),
        number::<4>(file, status + 28),
        number::<4>(file, 144),
        number::<4>(file, 140),
        number::<4>(file, status + 68),
        number::<4>(file, status + 44),
        number::<4>(file, status + 72),
        file.metadata().map_or(0, |meta| meta.len())
    )
    .unwrap();
    let seqs: Vec<u64> = (0..count).map(|slot| number::<8>(file, slots + 4096 * slot)).collect();
    writeln!(text, "  seqs of the slots {seqs:?}").unwrap();
    for entry in 0..MAX_READERS as u64 {
        let at = readers + entry_size * entry;
        if number::<4>(file, at + 16) != 0 {
            let eviction = number::<8>(file, evictions + 8 * entry);
            writeln!(
                text,
                "  reader {entry}: pins {:#x} cursor {} generation {} state {} pid {} eviction {eviction:#x}",
                number::<8>(file, at),
                number::<8>(file, at + 8),
                number::<4>(file, at + 16),
                number::<4>(file, at + 20),
                number::<4>(file, at + 24)
            )
            .unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rsshm_channel::{
        Caps, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, Writer, WriterOptions, layout::reader_state,
    };

    use super::*;
    use crate::Channel;

    #[test]
    fn dump_has_a_line_for_each_reader() {
        let channel = Channel::new();
        let writer = Writer::open((*channel).clone(), WriterOptions::default()).unwrap();
        writer.set_caps(Caps::fixed_size("a", 64)).unwrap();
        let slot = writer.claim(64).unwrap().expect("a slot");
        writer.publish(&slot, FrameDescriptor::new(64), &[]).unwrap();
        let _readers: Vec<Reader> = (0..3)
            .map(|_| {
                let mut reader = Reader::new((*channel).clone(), ReaderOptions::default());
                let next = reader.next(&mut Vec::new(), ReadLimits::default(), Some(Duration::ZERO));
                assert!(matches!(next, Ok(Next::Frame(_))));
                reader
            })
            .collect();
        let pid = std::process::id();
        let text = dump(channel.as_str(), Pid::this());
        // The readers of this process have opened the segment too, so it appears again.
        let text = text.split(": first seq ").nth(1).unwrap();
        for entry in 0..3 {
            let line = text
                .lines()
                .find(|line| line.contains(&format!("reader {entry}: ")))
                .unwrap();
            let state = format!(" state {} pid {pid} ", reader_state::ATTACHED);
            assert!(line.contains(" cursor 1 ") && line.contains(&state), "{line}");
        }
        assert_eq!(text.matches("  reader ").count(), 3, "{text}");
    }
}
