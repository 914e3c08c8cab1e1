// SPDX-License-Identifier: MIT OR Apache-2.0

//! Processes of other users.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// The ID of the user "nobody", who owns no files. It is also the ID of the group "nogroup".
pub const NOBODY: u32 = 65534;

/// Whether this process may become another user.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Changes the user and the group of this process. The process cannot undo the change, so only the process of a role
/// may call this function.
pub fn become_user(user: u32, group: u32) {
    setgroups(&[]).expect("the supplementary groups are dropped");
    setgid(Gid::from_raw(group)).expect("the group changes");
    setuid(Uid::from_raw(user)).expect("the user changes");
}

/// A copy of this test program that every user may execute, in a directory that every user may write to. Dropping the
/// value removes the copy and the directory.
#[derive(Debug)]
pub struct ProgramForAll(PathBuf);

impl ProgramForAll {
    /// Links or copies the program to a new directory in /tmp.
    pub fn new() -> std::io::Result<Self> {
        // Relaxed, because the values only have to differ from each other.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let this = Self(format!("/tmp/rsshm-test-program-{}-{count}", std::process::id()).into());
        fs::create_dir(this.directory())?;
        fs::set_permissions(this.directory(), Permissions::from_mode(0o777))?;
        let program = std::env::current_exe()?;
        fs::hard_link(&program, this.program()).or_else(|_| fs::copy(&program, this.program()).map(drop))?;
        Ok(this)
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.0
    }

    /// The copy of the program.
    pub fn program(&self) -> PathBuf {
        self.0.join("test")
    }

    /// The command that starts the copied program as `user`, with the arguments and the environment of `command`.
    pub fn command(&self, command: &Command, user: u32) -> Command {
        let mut other = Command::new(self.program());
        other
            .args(command.get_args())
            .envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))))
            .env("HOME", &self.0)
            .env("TMPDIR", &self.0)
            .current_dir(&self.0)
            .uid(user)
            .gid(user);
        other
    }
}

impl Drop for ProgramForAll {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
