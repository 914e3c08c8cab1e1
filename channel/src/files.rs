//! The two files of a channel in /dev/shm, and how a new one is made aside and put under its name.

use std::{
    fs::{File, OpenOptions},
    hash::{BuildHasher, Hasher, RandomState},
    io::{self, Read},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    path::Path,
    time::{Duration, SystemTime},
};

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2},
    libc,
    sys::stat::{FileStat, Mode, fchmod, fstat, stat},
    unistd::{Gid, getegid, geteuid, getgroups, unlink},
};

use crate::{
    Error, layout,
    name::SHM_DIR,
    points::{At, point},
    sys,
};

/// How the files of segments in the making are called, which nobody looks for.
pub(crate) const ASIDE_PREFIX: &str = ".rsshm-";

/// Which file it is, whatever it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

impl From<&FileStat> for Identity {
    fn from(stat: &FileStat) -> Self {
        Self {
            device: stat.st_dev,
            inode: stat.st_ino,
        }
    }
}

/// The file that has the name `path` now.
pub(crate) fn identity_of(path: &str) -> Option<Identity> {
    stat(path).ok().as_ref().map(Identity::from)
}

/// Opens a file of the channel that is there. `None` when there is none. Never creates (O_CREAT of somebody else's file
/// fails where fs.protected_regular is set), never follows a link, never hangs on a pipe.
pub(crate) fn open(path: &str, writable: bool) -> io::Result<Option<OwnedFd>> {
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

/// Turns a failed `open` into what a user can act on.
pub(crate) fn open_error(channel: &str, path: &str, action: &'static str, error: &io::Error) -> Error {
    let errno = Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO));
    match (errno, std::fs::symlink_metadata(path)) {
        (Errno::EACCES | Errno::EPERM, Ok(meta)) => Error::Denied {
            channel: channel.to_owned(),
            path: path.to_owned(),
            action,
            mode: meta.mode() & 0o7777,
            owner: meta.uid(),
        },
        (_, Ok(meta)) if !meta.file_type().is_file() => Error::Foreign {
            channel: channel.to_owned(),
            path: path.to_owned(),
            what: describe(&meta.file_type()).to_owned(),
        },
        _ => Error::system(channel, format!("open {path}"), errno),
    }
}

fn describe(kind: &std::fs::FileType) -> &'static str {
    if kind.is_symlink() {
        "is a symbolic link"
    } else if kind.is_dir() {
        "is a folder"
    } else if kind.is_fifo() || kind.is_socket() {
        "is a pipe or a socket"
    } else {
        "is not a plain file"
    }
}

/// Says no to a file that a writer must not touch: one of another user, or one that is no plain file.
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

/// Whether a reader may trust a file enough to attach to it: its writer is this user or root, or somebody of a group that
/// this user is in and that may write it. Write permission is trust.
pub(crate) fn is_trusted(stat: &FileStat) -> bool {
    let our_group = |gid: u32| {
        getegid() == Gid::from_raw(gid) || getgroups().is_ok_and(|groups| groups.contains(&Gid::from_raw(gid)))
    };
    stat.st_mode & libc::S_IFMT == libc::S_IFREG
        && (stat.st_uid == geteuid().as_raw()
            || stat.st_uid == 0
            || (stat.st_mode & 0o020 != 0 && our_group(stat.st_gid)))
}

/// Bytes free for this user, and all bytes, of the file system that `file` lies in.
pub(crate) fn space(file: &OwnedFd) -> (u64, u64) {
    nix::sys::statvfs::fstatvfs(file).map_or((0, 0), |vfs| {
        let block = vfs.fragment_size();
        (
            vfs.blocks_available().saturating_mul(block),
            vfs.blocks().saturating_mul(block),
        )
    })
}

/// A file in the making: it has a name that nobody looks for, and loses it if it does not get a better one.
#[derive(Debug)]
pub(crate) struct Aside {
    path: String,
    pub(crate) file: OwnedFd,
    placed: bool,
}

impl Aside {
    /// Makes a file that only this user can open yet.
    pub(crate) fn create() -> io::Result<Self> {
        let pid = std::process::id();
        // A few tries, though nobody can guess the name to put something in the way.
        for _ in 0..10 {
            let random = RandomState::new().build_hasher().finish();
            let path = format!("{SHM_DIR}/{ASIDE_PREFIX}{pid}-{random:016x}");
            let created = OpenOptions::new()
                .read(true)
                .write(true)
                .create_new(true)
                .mode(0o600)
                .custom_flags(OFlag::O_CLOEXEC.bits())
                .open(&path);
            match created {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
                Ok(file) => {
                    point(At::AsideMade);
                    return Ok(Self {
                        path,
                        file: file.into(),
                        placed: false,
                    });
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Another open file description of the same file.
    pub(crate) fn open_again(&self) -> io::Result<OwnedFd> {
        open(&self.path, true)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Sets the permission bits, whatever the umask is.
    pub(crate) fn set_mode(&self, mode: u32) -> nix::Result<()> {
        fchmod(&self.file, Mode::from_bits_truncate(mode))
    }

    /// Gives the file the name `path`: in place of what has it now, or only if nothing has.
    pub(crate) fn place(&mut self, path: &str, replace: bool) -> nix::Result<()> {
        let flags = if replace {
            RenameFlags::empty()
        } else {
            RenameFlags::RENAME_NOREPLACE
        };
        renameat2(AT_FDCWD, self.path.as_str(), AT_FDCWD, path, flags)?;
        self.placed = true;
        Ok(())
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if !self.placed {
            let _ = unlink(self.path.as_str());
        }
    }
}

/// Removes what died while it was being made: files of this user that nobody holds a lock on, ten seconds old.
pub(crate) fn sweep_asides() {
    for entry in std::fs::read_dir(SHM_DIR).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(path) = name
            .to_str()
            .filter(|name| name.starts_with(ASIDE_PREFIX))
            .map(|name| format!("{SHM_DIR}/{name}"))
        else {
            continue;
        };
        let Ok(Some(file)) = open(&path, true) else {
            continue;
        };
        let old = entry
            .metadata()
            .and_then(|meta| meta.modified())
            .is_ok_and(|at| SystemTime::now().duration_since(at).unwrap_or_default() > Duration::from_secs(10));
        let ours = fstat(&file).is_ok_and(|stat| stat.st_uid == geteuid().as_raw());
        if ours && old && sys::is_locked(&file, layout::WRITER_BYTE) == Ok(false) {
            let _ = unlink(path.as_str());
        }
    }
}

/// The names of the channels that are there, sorted: of all files in /dev/shm that this user may read and that begin as
/// a segment does.
pub fn channels() -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(SHM_DIR)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| crate::ChannelName::new(name.as_str()).is_ok() && begins_as_segment(name))
        .collect();
    names.sort();
    names
}

fn begins_as_segment(name: &str) -> bool {
    let path = Path::new(SHM_DIR).join(name);
    let Some(Ok(Some(file))) = path.to_str().map(|path| open(path, false)) else {
        return false;
    };
    let mut magic = [0; 8];
    File::from(file).read_exact(&mut magic).is_ok() && u64::from_ne_bytes(magic) == layout::MAGIC
}

/// Removes the name `path` if it still is that of `identity`.
///
/// Only the holder of the channel's writer byte calls this, so nobody else changes the name between look and removal.
pub(crate) fn remove_if(path: &str, identity: Identity) {
    if identity_of(path) == Some(identity) {
        let _ = unlink(path);
    }
}

/// The identity of an open file.
pub(crate) fn identity(file: impl AsFd) -> nix::Result<Identity> {
    fstat(file).as_ref().map(Identity::from).map_err(|errno| *errno)
}
