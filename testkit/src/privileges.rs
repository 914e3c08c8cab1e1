//! Processes of other users.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};

/// The user "nobody", who owns nothing. The group of this number is "nogroup".
pub const NOBODY: u32 = 65534;

/// Whether this process may become another user.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Makes this process one of another user and group. There is no way back: only a role process may do this.
pub fn become_user(user: u32, group: u32) {
    setgroups(&[]).expect("no groups");
    setgid(Gid::from_raw(group)).expect("another group");
    setuid(Uid::from_raw(user)).expect("another user");
}

/// This test program where every user may execute it, in a directory that every user may write. Removed at the end.
#[derive(Debug)]
pub struct ProgramForAll(PathBuf);

impl ProgramForAll {
    /// Links or copies the program to a new directory in /tmp.
    pub fn new() -> std::io::Result<Self> {
        // Orders nothing: only the values have to differ.
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

    fn program(&self) -> PathBuf {
        self.0.join("test")
    }

    /// The arguments and the environment of `command`, which starts this program, for another user.
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
