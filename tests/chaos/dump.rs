//! What a channel looks like, for who has to find out why it stands still.

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
use rsshm_channel::layout::{FIRST_READER_BYTE, MAX_READERS};

fn number<const N: usize>(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    let _ = file.read_exact_at(&mut bytes[..N], at);
    u64::from_ne_bytes(bytes)
}

/// Seats whose byte of the control file somebody holds.
fn locked(control: &File) -> Vec<usize> {
    let is_locked = |entry: &usize| {
        let mut lock = libc::flock {
            l_type: libc::F_RDLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: FIRST_READER_BYTE + *entry as i64,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(control.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock)).is_ok()
            && lock.l_type == libc::F_WRLCK as libc::c_short
    };
    (0..MAX_READERS).filter(is_locked).collect()
}

/// All segments that a writer's process has open, and the locks.
pub fn dump(channel: &str, writer: Pid) -> String {
    let mut text = String::new();
    if let Ok(control) = File::open(format!("/dev/shm/sem.{channel}")) {
        writeln!(text, "locked seats {:?}", locked(&control)).unwrap();
    }
    let folder = Path::new("/proc").join(writer.to_string()).join("fd");
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = std::fs::read_link(entry.path()).unwrap_or_default();
        let path = path.display().to_string();
        let Ok(file) = File::open(entry.path()) else {
            continue;
        };
        if path.starts_with("/dev/shm/") && number::<8>(&file, 0) == rsshm_channel::layout::MAGIC {
            segment(&mut text, &path, &file);
        }
    }
    text
}

/// By the offsets of docs/PROTOCOL.md.
fn segment(text: &mut String, path: &str, file: &File) {
    let (live, readers, heads) = (number::<8>(file, 64), number::<8>(file, 80), number::<8>(file, 112));
    let (quotas, count) = (number::<8>(file, 72), number::<4>(file, 108));
    writeln!(
        text,
        "{path}: first {} head {} state {} pid {} retain {} waits {} file {}",
        number::<8>(file, 24),
        number::<8>(file, live),
        number::<4>(file, live + 28),
        number::<4>(file, 144),
        number::<4>(file, 140),
        number::<4>(file, live + 68),
        file.metadata().map_or(0, |meta| meta.len())
    )
    .unwrap();
    let numbers: Vec<u64> = (0..count).map(|slot| number::<8>(file, heads + 4096 * slot)).collect();
    writeln!(text, "  numbers {numbers:?}").unwrap();
    for entry in 0..MAX_READERS as u64 {
        let at = readers + 64 * entry;
        if number::<4>(file, at + 16) != 0 {
            let quota = number::<8>(file, quotas + 8 * entry);
            writeln!(
                text,
                "  seat {entry}: pins {:#x} position {} ticket {} state {} pid {} grant {}/{}",
                number::<8>(file, at),
                number::<8>(file, at + 8),
                number::<4>(file, at + 16),
                number::<4>(file, at + 20),
                number::<4>(file, at + 24),
                quota >> 32,
                quota as u32
            )
            .unwrap();
        }
    }
}
