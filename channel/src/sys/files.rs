// SPDX-License-Identifier: MIT OR Apache-2.0

//! Files in the directory of shared memory: opening, trust and identity.

use std::{
    fs::OpenOptions,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
};

use nix::{
    errno::Errno,
    fcntl::OFlag,
    libc,
    sys::stat::{FileStat, fstat, stat},
    unistd::{Gid, getegid, geteuid, getgroups, unlink},
};

use crate::{
    Error,
    sys::{directory::Directory, errno},
};

/// The prefix of the names of staging files. The name of a channel cannot begin with it.
pub(crate) const STAGING_PREFIX: &str = ".rsshm-";

/// The identity of a file, independent of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FileId {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl From<&FileStat> for FileId {
    fn from(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// The identity of the file that has the name `path` now.
pub(crate) fn file_id_of(path: &str) -> Option<FileId> {
    stat(path).ok().as_ref().map(FileId::from)
}

/// Opens an existing file; `None` if there is none.
///
/// The call does not use O_CREAT, because O_CREAT fails for another user's file if fs.protected_regular is set. It
/// never follows a symbolic link, and never blocks on a pipe. It fails if `RSSHM_DIR` names an unsuitable directory,
/// also if the file does not exist, because a reader would otherwise wait for a writer in a directory that cannot have
/// one.
pub(crate) fn open(path: &str, writable: bool) -> io::Result<Option<OwnedFd>> {
    Directory::current().require().map_err(io::Error::other)?;
    let opened = OpenOptions::new()
        .read(true)
        .write(writable)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK).bits())
        .open(path);
    match opened {
        Ok(file) => Ok(Some(file.into())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The error of a failed [`open`], as a text that a user can act on.
pub(crate) fn open_error(channel: &str, path: &str, action: &'static str, error: &io::Error) -> Error {
    let errno = errno::of(error);
    if Directory::current().require().is_err() {
        return create_error(channel, format!("opening {path}"), errno);
    }
    match std::fs::symlink_metadata(path) {
        Ok(meta) if errno::is_denied(errno) => Error::Denied {
            channel: channel.to_owned(),
            path: path.to_owned(),
            action,
            mode: meta.mode() & 0o7777,
            owner: meta.uid(),
        },
        Ok(meta) if !meta.file_type().is_file() => Error::Foreign {
            channel: channel.to_owned(),
            path: path.to_owned(),
            what: describe(&meta.file_type()).to_owned(),
        },
        _ => create_error(channel, format!("opening {path}"), errno),
    }
}

/// The error of a file that could not be created or opened, as a text that a user can act on. `call` names the
/// channel's file, because the name of a staging file means nothing to a user.
pub(crate) fn create_error(channel: &str, call: impl Into<String>, errno: Errno) -> Error {
    let directory = Directory::current();
    if let Err(fault) = directory.require() {
        return Error::Directory(fault);
    }
    match directory.cause_of(errno) {
        Some(fault) => Error::NoSharedMemory {
            channel: channel.to_owned(),
            call: call.into(),
            errno,
            what: fault.to_string(),
        },
        None => Error::system(channel, call, errno),
    }
}

fn describe(kind: &std::fs::FileType) -> &'static str {
    if kind.is_symlink() {
        "is a symbolic link"
    } else if kind.is_dir() {
        "is a directory"
    } else if kind.is_fifo() || kind.is_socket() {
        "is a pipe or a socket"
    } else {
        "is not a plain file"
    }
}

/// Refuses a file that a writer must not touch: a file of another user, or one that is not a plain file.
pub(crate) fn require_own(channel: &str, path: &str, file: &OwnedFd) -> Result<FileStat, Error> {
    let stat = fstat(file).map_err(|errno| Error::system(channel, format!("fstat {path}"), errno))?;
    let what = if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        "is not a plain file".to_owned()
    } else if stat.st_uid != geteuid().as_raw() {
        format!("belongs to user {}, not to user {}", stat.st_uid, geteuid())
    } else {
        return Ok(stat);
    };
    Err(Error::Foreign {
        channel: channel.to_owned(),
        path: path.to_owned(),
        what,
    })
}

/// Whether a reader may trust a file enough to attach to it. It must be a plain file, and belong to this user or to
/// root. A file of another user is trusted if a group of this user has write permission for it.
pub(crate) fn is_trusted(stat: &FileStat) -> bool {
    let is_own_group = |gid: u32| {
        getegid() == Gid::from_raw(gid) || getgroups().is_ok_and(|groups| groups.contains(&Gid::from_raw(gid)))
    };
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
        && (stat.st_uid == geteuid().as_raw()
            || stat.st_uid == 0
            || (stat.st_mode & 0o020 != 0 && is_own_group(stat.st_gid)))
}

/// Removes the name `path` if the file `file_id` still has this name.
///
/// Only the process that holds the channel's writer byte calls this. Therefore no other process changes the name
/// between the check and the removal.
pub(crate) fn remove_if(path: &str, file_id: FileId) {
    if file_id_of(path) == Some(file_id) {
        let _ = unlink(path);
    }
}

/// The identity of an open file.
pub(crate) fn file_id(file: impl AsFd) -> nix::Result<FileId> {
    fstat(file).as_ref().map(FileId::from).map_err(|errno| *errno)
}

/// When the file was created, in nanoseconds of CLOCK_REALTIME since 1970; `None` if the file system does not record
/// this time.
pub(crate) fn created_at_ns(file: &OwnedFd) -> Option<u64> {
    let file = std::fs::File::from(file.try_clone().ok()?);
    let created = file.metadata().ok()?.created().ok()?;
    let since = created.duration_since(std::time::UNIX_EPOCH).ok()?;
    u64::try_from(since.as_nanos()).ok()
}

/// Reads `target.len()` bytes of `file` at `offset`; `false` if the file ends earlier.
pub(crate) fn read_exactly(file: impl AsFd, target: &mut [u8], offset: u64) -> nix::Result<bool> {
    let mut done = 0;
    while done < target.len() {
        match nix::sys::uio::pread(&file, &mut target[done..], (offset + done as u64) as i64) {
            Ok(0) => return Ok(false),
            Ok(count) => done += count,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(true)
}
