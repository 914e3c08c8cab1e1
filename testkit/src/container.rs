// SPDX-License-Identifier: MIT OR Apache-2.0

//! A directory that programs share through `RSSHM_DIR`, and containers that have only this directory.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::{privileges, privileges::NOBODY, skip};

/// The environment variable that names the directory of channels.
pub const RSSHM_DIR: &str = "RSSHM_DIR";

/// Where a container has the directory. All systems have this directory.
const IN_CONTAINER: &str = "/mnt";

/// The namespaces that are not those of the host. Programs in a container have no process in common with others, no
/// network, and a mount namespace of their own.
const NAMESPACES: [&str; 9] = [
    "--mount",
    "--propagation",
    "private",
    "--ipc",
    "--net",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
];

/// A kind of container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// The users are those of the host.
    Plain,
    /// The directory is mounted read-only.
    ReadOnly,
    /// The user of the test has the id 1000, and no other user has an id. Only root can start it.
    OtherIds,
    /// The host's user "nobody" is root in the container, and no other user has an id. Only root can start it.
    Rootless,
}

impl Container {
    /// The shell commands that finish the container and become the program.
    fn script(self) -> String {
        let read_only = match self {
            Self::ReadOnly => format!("mount -o remount,bind,ro {IN_CONTAINER} && "),
            _ => String::new(),
        };
        let program = match self {
            // A new user namespace clears the signal at the parent's death, which --kill-child has set.
            Self::OtherIds => "unshare --map-user=1000 --map-group=1000 setpriv --pdeathsig KILL \"$@\"",
            _ => "\"$@\"",
        };
        format!(
            "mount --bind \"$1\" {IN_CONTAINER} && {read_only}mount -t tmpfs -o mode=1777 tmpfs /dev/shm && \
             shift && exec {program}"
        )
    }
}

/// A directory of a tmpfs, for the channels of one test. Dropping the value removes the directory and its files.
#[derive(Debug)]
pub struct SharedDirectory(PathBuf);

impl SharedDirectory {
    /// Makes a directory that only this user may use.
    #[expect(clippy::new_without_default, reason = "each value is another one")]
    pub fn new() -> Self {
        Self::with_mode(0o700)
    }

    /// Makes a directory with this mode.
    #[track_caller]
    pub fn with_mode(mode: u32) -> Self {
        // Relaxed, because the values only have to differ from each other.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = PathBuf::from(format!("/dev/shm/rsshm-test-directory-{}-{count}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("the mode is set");
        Self(path)
    }

    /// The path on the host.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The names of the files in the directory, sorted.
    pub fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).expect("the directory").flatten();
        let mut names: Vec<_> = entries
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// The command as a program of the host, whose channels are in the directory.
    pub fn outside(&self, mut command: Command) -> Command {
        command.env(RSSHM_DIR, &self.0);
        command
    }

    /// The command as a program in a container, which has the directory under another path, and an empty /dev/shm. `None`
    /// if the system does not allow such a container.
    pub fn inside(&self, container: Container, command: &Command) -> Option<Command> {
        let wrapped = |program: &Command| {
            let mut wrapped = match container {
                Container::Rootless => {
                    let user = NOBODY.to_string();
                    let mut setpriv = Command::new("setpriv");
                    setpriv.args([
                        "--reuid",
                        &user,
                        "--regid",
                        &user,
                        "--clear-groups",
                        "unshare",
                        "--map-root-user",
                    ]);
                    setpriv
                }
                _ => Command::new("unshare"),
            };
            if !privileges::is_root() {
                wrapped.arg("--map-root-user");
            }
            wrapped
                .args(NAMESPACES)
                .args(["sh", "-c", &container.script(), "sh"])
                .arg(&self.0)
                .arg(program.get_program())
                .args(program.get_args())
                .envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))))
                .env(RSSHM_DIR, IN_CONTAINER);
            wrapped
        };
        let is_possible = privileges::is_root() || !matches!(container, Container::OtherIds | Container::Rootless);
        (is_possible && skip::succeeds(&mut wrapped(&Command::new("true")))).then(|| wrapped(command))
    }
}

impl Drop for SharedDirectory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
