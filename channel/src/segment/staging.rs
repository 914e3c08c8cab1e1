// SPDX-License-Identifier: MIT OR Apache-2.0

//! Staging files: a new file of a channel is created under a name that no peer opens, and renamed when it is complete.

use std::{
    fs::OpenOptions,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    },
    time::{Duration, SystemTime},
};

use nix::{
    fcntl::{AT_FDCWD, OFlag, RenameFlags, renameat2},
    sys::stat::{Mode, fchmod, fstat},
    unistd::{geteuid, unlink},
};

use crate::{
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout,
    },
    sys::{
        directory::Directory,
        files::{self, STAGING_PREFIX, open},
        lock,
    },
};

/// How many random names are tried. Other processes cannot guess these names, so a name is already in use only by
/// chance.
const MAX_ATTEMPTS: u32 = 10;
/// The least age of a staging file that counts as abandoned.
const MIN_SWEEP_AGE: Duration = Duration::from_secs(10);

/// A new name for a file that is being prepared.
pub(crate) fn new_name() -> String {
    let random = RandomState::new().build_hasher().finish();
    format!("{STAGING_PREFIX}{}-{random:016x}", std::process::id())
}

/// A file that is being prepared. It is removed on drop, unless [`persist`](Self::persist) has renamed it.
#[derive(Debug)]
pub(crate) struct StagingFile {
    path: String,
    pub(crate) file: OwnedFd,
    persisted: bool,
}

impl StagingFile {
    /// Creates a file that only this user can open.
    pub(crate) fn create() -> io::Result<Self> {
        let directory = Directory::current();
        directory.require().map_err(io::Error::other)?;
        for _ in 0..MAX_ATTEMPTS {
            let path = directory.join(&new_name());
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
                    failpoint(Failpoint::StagingMade);
                    return Ok(Self {
                        path,
                        file: file.into(),
                        persisted: false,
                    });
                }
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Opens another file description of the staging file.
    pub(crate) fn open_again(&self) -> io::Result<OwnedFd> {
        let file = open(&self.path, true)?.ok_or(io::ErrorKind::NotFound)?;
        // The owner of the directory can put another file under the name, for example one that everybody may read.
        if files::file_id(&file)? != files::file_id(&self.file)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(file)
    }

    /// Sets the permission bits, independent of the umask.
    pub(crate) fn set_mode(&self, mode: u32) -> nix::Result<()> {
        fchmod(&self.file, Mode::from_bits_truncate(mode))
    }

    /// Renames the file to `path`. If `path` exists already, the call replaces that file if `replace` is set, and fails
    /// otherwise.
    pub(crate) fn persist(&mut self, path: &str, replace: bool) -> nix::Result<()> {
        let flags = if replace {
            RenameFlags::empty()
        } else {
            RenameFlags::RENAME_NOREPLACE
        };
        renameat2(AT_FDCWD, self.path.as_str(), AT_FDCWD, path, flags)?;
        self.persisted = true;
        Ok(())
    }
}

impl Drop for StagingFile {
    fn drop(&mut self) {
        if !self.persisted {
            let _ = unlink(self.path.as_str());
        }
    }
}

/// Removes the staging files of processes that died. Such a file belongs to this user, is older than [`MIN_SWEEP_AGE`],
/// and its writer byte is not locked.
pub(crate) fn sweep_staging_files() {
    for entry in Directory::current().entries() {
        let name = entry.file_name();
        let Some(path) = name
            .to_str()
            .filter(|name| name.starts_with(STAGING_PREFIX))
            .map(|name| Directory::current().join(name))
        else {
            continue;
        };
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        let is_old = metadata
            .modified()
            .is_ok_and(|time| SystemTime::now().duration_since(time).unwrap_or_default() > MIN_SWEEP_AGE);
        if metadata.file_type().is_socket() {
            // A socket cannot be opened, so it has no lock. It gets its real name within a few system calls.
            if is_old && metadata.uid() == geteuid().as_raw() {
                let _ = unlink(path.as_str());
            }
            continue;
        }
        let Ok(Some(file)) = open(&path, true) else {
            continue;
        };
        let is_own = fstat(&file).is_ok_and(|stat| stat.st_uid == geteuid().as_raw());
        if is_own && is_old && lock::is_locked(&file, layout::WRITER_BYTE) == Ok(false) {
            let _ = unlink(path.as_str());
        }
    }
}
