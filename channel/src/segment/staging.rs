//! Staging files: a new file of a channel is made under a name that nobody looks for, and renamed when it is complete.

use std::{
    fs::OpenOptions,
    hash::{BuildHasher, Hasher, RandomState},
    io,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt},
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
        files::{SHM_DIR, STAGING_PREFIX, open},
        lock,
    },
};

/// A file in the making: it has a name that nobody looks for, and loses it if it does not get a better one.
#[derive(Debug)]
pub(crate) struct StagingFile {
    path: String,
    pub(crate) file: OwnedFd,
    persisted: bool,
}

impl StagingFile {
    /// Makes a file that only this user can open yet.
    pub(crate) fn create() -> io::Result<Self> {
        let pid = std::process::id();
        // A few tries, though nobody can guess the name to put something in the way.
        for _ in 0..10 {
            let random = RandomState::new().build_hasher().finish();
            let path = format!("{SHM_DIR}/{STAGING_PREFIX}{pid}-{random:016x}");
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

    /// Another open file description of the same file.
    pub(crate) fn open_again(&self) -> io::Result<OwnedFd> {
        open(&self.path, true)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Sets the permission bits, whatever the umask is.
    pub(crate) fn set_mode(&self, mode: u32) -> nix::Result<()> {
        fchmod(&self.file, Mode::from_bits_truncate(mode))
    }

    /// Gives the file the name `path`: in place of what has it now, or only if nothing has.
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

/// Removes what died while it was being made: files of this user that nobody holds a lock on, ten seconds old.
pub(crate) fn sweep_staging_files() {
    for entry in std::fs::read_dir(SHM_DIR).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(path) = name
            .to_str()
            .filter(|name| name.starts_with(STAGING_PREFIX))
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
        if ours && old && lock::is_locked(&file, layout::WRITER_BYTE) == Ok(false) {
            let _ = unlink(path.as_str());
        }
    }
}
