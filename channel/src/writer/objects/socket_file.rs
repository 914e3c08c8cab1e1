// SPDX-License-Identifier: MIT OR Apache-2.0

//! The file of a channel's socket, beside the channel's other files.

use std::os::fd::OwnedFd;

use nix::{
    errno::Errno,
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
    libc,
    sys::stat::{FchmodatFlags, Mode, fchmodat, lstat},
    unistd::{geteuid, unlink},
};

use crate::{
    ChannelName, Error,
    protocol::failpoint::{Failpoint, failpoint},
    segment::{lock_file::lock_file_mode, staging},
    sys::{
        directory::Directory,
        files::{self, FileId},
        socket,
    },
};

/// The file of a socket at which peers can connect. Dropping the value leaves the file; [`remove`](Self::remove)
/// removes it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: String,
    file_id: FileId,
}

impl SocketFile {
    /// Creates the socket of a channel with the mode `perms`. It replaces the socket of a dead writer, because the
    /// caller holds the writer's lock. `announce` gets the inode of the file before the file has its name.
    pub(super) fn create(name: &ChannelName, perms: u32, announce: impl FnOnce(u64)) -> Result<(Self, OwnedFd), Error> {
        let path = name.socket_path();
        let failed = |errno| files::create_error(name.as_str(), format!("creating {path}"), errno);
        let directory = Directory::current();
        directory.require().map_err(Error::Directory)?;
        let staging = Staging::new();
        let listener = socket::create(directory.path(), &staging.name).map_err(failed)?;
        failpoint(Failpoint::SocketMade);
        let mode = Mode::from_bits_truncate(lock_file_mode(perms));
        fchmodat(AT_FDCWD, staging.path.as_str(), mode, FchmodatFlags::FollowSymlink).map_err(failed)?;
        let file_id = find(&staging.path)
            .map_err(failed)?
            .ok_or_else(|| failed(Errno::ENOENT))?
            .1;
        socket::start(&listener).map_err(failed)?;
        Self::require_free_or_own(name, &path)?;
        announce(file_id.inode);
        renameat2(
            AT_FDCWD,
            staging.path.as_str(),
            AT_FDCWD,
            path.as_str(),
            RenameFlags::empty(),
        )
        .map_err(failed)?;
        failpoint(Failpoint::SocketNamed);
        Ok((Self { path, file_id }, listener))
    }

    /// Refuses to replace a file that is not a socket of this user.
    fn require_free_or_own(name: &ChannelName, path: &str) -> Result<(), Error> {
        let foreign = |what: String| Error::Foreign {
            channel: name.to_string(),
            path: path.to_owned(),
            what,
        };
        match find(path).map_err(|errno| Error::system(name.as_str(), format!("stat {path}"), errno))? {
            None => Ok(()),
            Some((Owner::Own, _)) => Ok(()),
            Some((Owner::Other(user), _)) => Err(foreign(format!("belongs to user {user}, not to user {}", geteuid()))),
            Some((Owner::NoSocket, _)) => Err(foreign("is not a socket".to_owned())),
        }
    }

    /// Whether the file still has its name.
    pub(super) fn has_name(&self) -> bool {
        find(&self.path).is_ok_and(|found| found.is_some_and(|(_, file_id)| file_id == self.file_id))
    }

    /// Removes the file, if it still has its name.
    pub(super) fn remove(&self) {
        if self.has_name() {
            let _ = unlink(self.path.as_str());
        }
    }
}

/// Removes the socket that a dead writer of this user has left. The caller holds the writer's lock.
pub(crate) fn remove_leftover(name: &ChannelName) {
    let path = name.socket_path();
    if let Ok(Some((Owner::Own, _))) = find(&path) {
        let _ = unlink(path.as_str());
    }
}

/// Whose file has a name.
enum Owner {
    /// A socket of this user.
    Own,
    /// A socket of another user.
    Other(u32),
    /// Something else.
    NoSocket,
}

/// The file that has the name `path`, without following a symbolic link.
fn find(path: &str) -> nix::Result<Option<(Owner, FileId)>> {
    let stat = match lstat(path) {
        Ok(stat) => stat,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    let owner = if stat.st_mode & libc::S_IFMT != libc::S_IFSOCK {
        Owner::NoSocket
    } else if stat.st_uid == geteuid().as_raw() {
        Owner::Own
    } else {
        Owner::Other(stat.st_uid)
    };
    Ok(Some((owner, FileId::from(&stat))))
}

/// A name that no peer uses, until the file gets its real name. Dropping the value removes the file if it still has it.
struct Staging {
    name: String,
    path: String,
}

impl Staging {
    fn new() -> Self {
        let name = staging::new_name();
        let path = Directory::current().join(&name);
        Self { name, path }
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        let _ = unlink(self.path.as_str());
    }
}
