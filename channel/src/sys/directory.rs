// SPDX-License-Identifier: MIT OR Apache-2.0

//! The directory of the files of all channels: /dev/shm, or the directory that `RSSHM_DIR` names.
//!
//! No other file of this crate knows the path, so all peers and tools follow the variable in the same way.

use std::{
    ffi::OsString,
    fmt,
    fs::{self, DirEntry, Metadata},
    io,
    os::unix::fs::MetadataExt,
    sync::OnceLock,
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        stat::{major, minor},
        statfs::{TMPFS_MAGIC, statfs},
        statvfs::{FsFlags, statvfs},
    },
    unistd::{AccessFlags, access, geteuid},
};

use super::errno;

/// The environment variable.
const VARIABLE: &str = "RSSHM_DIR";

/// The directory of POSIX shared memory objects and named semaphores (shm_overview(7), sem_overview(7)).
const DEFAULT: &str = "/dev/shm";

/// The user id that a user namespace shows for users who have no id there (user_namespaces(7)), if the system has no
/// other.
const OVERFLOW_UID: u32 = 65534;

/// The directory in which this process finds and creates the files of all channels.
///
/// It is /dev/shm, or the directory that the environment variable `RSSHM_DIR` names. The variable is read once, when
/// the process first uses a channel. An empty value counts as unset. A program with more rights than its caller
/// (set-user-ID, set-group-ID or file capabilities) ignores the variable.
///
/// # Examples
///
/// ```
/// use rsshm_channel::Directory;
///
/// let directory = Directory::current();
/// println!("the files of channels are in {directory}");
/// if let Err(fault) = directory.check() {
///     eprintln!("{fault}");
/// }
/// ```
#[derive(Debug, PartialEq, Eq)]
pub struct Directory {
    path: String,
    /// Whether `RSSHM_DIR` names the directory.
    is_chosen: bool,
    /// Why the value of `RSSHM_DIR` cannot be the path of a directory.
    invalid: Option<DirectoryFault>,
}

/// Why the [`Directory`] cannot have the files of channels. The text names the directory, and says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct DirectoryFault {
    /// What is wrong.
    pub what: String,
    /// What a user can do about it.
    pub remedy: String,
}

impl fmt::Display for DirectoryFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

impl std::error::Error for DirectoryFault {}

impl fmt::Display for Directory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)
    }
}

impl Directory {
    /// The directory of this process.
    pub fn current() -> &'static Self {
        static CURRENT: OnceLock<Directory> = OnceLock::new();
        CURRENT.get_or_init(|| {
            let value = std::env::var_os(VARIABLE).filter(|_| !is_privileged());
            Self::new(value)
        })
    }

    fn new(value: Option<OsString>) -> Self {
        let Some(value) = value.filter(|value| !value.is_empty()) else {
            return Self {
                path: DEFAULT.to_owned(),
                is_chosen: false,
                invalid: None,
            };
        };
        let invalid = |why| DirectoryFault {
            what: format!("{VARIABLE}={} {why}", value.to_string_lossy()),
            remedy: "set it to the absolute path of a tmpfs".to_owned(),
        };
        let (path, invalid) = match value.to_str() {
            None => (value.to_string_lossy().into_owned(), Some(invalid("is not UTF-8"))),
            Some(path) if !path.starts_with('/') => (path.to_owned(), Some(invalid("is not an absolute path"))),
            Some(path) if path.trim_end_matches('/').is_empty() => ("/".to_owned(), None),
            Some(path) => (path.trim_end_matches('/').to_owned(), None),
        };
        Self {
            path,
            is_chosen: true,
            invalid,
        }
    }

    /// The path of the directory, without a slash at the end.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether `RSSHM_DIR` names the directory.
    pub fn is_chosen(&self) -> bool {
        self.is_chosen
    }

    /// The path of a file in the directory.
    pub(crate) fn join(&self, name: &str) -> String {
        format!("{}/{name}", self.path)
    }

    /// The names of all files in the directory. If the directory cannot have the files of channels, there are none.
    pub(crate) fn entries(&self) -> impl Iterator<Item = DirEntry> + use<> {
        let entries = self.require().ok().and_then(|()| fs::read_dir(&self.path).ok());
        entries.into_iter().flatten().flatten()
    }

    /// Checks that the directory can have the files of channels.
    ///
    /// It must exist, and be a directory of a tmpfs. If `RSSHM_DIR` names it, it must also be as safe as /dev/shm:
    /// - Only its owner may write to it, or it has the sticky bit. Otherwise other users could rename the files of a
    ///   channel.
    /// - It belongs to root or to this user, because its owner could rename them too. Root may use the directory of any
    ///   user. In a user namespace, an owner who has no id there counts as root.
    ///
    /// # Errors
    /// [`DirectoryFault`] says what is wrong, and what to do.
    pub fn check(&self) -> Result<(), DirectoryFault> {
        if let Some(fault) = &self.invalid {
            return Err(fault.clone());
        }
        let metadata = self.present()?;
        self.check_file_system(&metadata)?;
        if self.is_chosen {
            self.check_mode(metadata.mode())?;
            self.check_owner(metadata.uid())?;
        }
        Ok(())
    }

    /// Checks also that this user may create files in the directory, as a writer does.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn check_writable(&self) -> Result<(), DirectoryFault> {
        self.check()?;
        if statvfs(self.path.as_str()).is_ok_and(|system| system.flags().contains(FsFlags::ST_RDONLY)) {
            return Err(self.read_only());
        }
        let metadata = self.present()?;
        access(self.path.as_str(), AccessFlags::W_OK | AccessFlags::X_OK).map_err(|_| self.denied(&metadata))
    }

    /// The [`check`](Self::check) of a directory that `RSSHM_DIR` names. Each call on a channel does this first, so
    /// that a mistake in the variable is an error and not a channel without a writer. The result for /dev/shm is always
    /// `Ok`, because a reader also waits there for a channel that does not exist yet.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub fn require(&self) -> Result<(), DirectoryFault> {
        if self.is_chosen { self.check() } else { Ok(()) }
    }

    /// What is wrong with the directory, if that can be the reason why a file in it could not be created or opened,
    /// which failed with `errno`.
    pub(crate) fn cause_of(&self, errno: Errno) -> Option<DirectoryFault> {
        let metadata = match self.present() {
            Ok(metadata) => metadata,
            Err(fault) => return Some(fault),
        };
        // A file system other than tmpfs may refuse to create, allocate or map a file, or to rename a file without
        // replacing another one.
        let is_refusal = errno::is_denied(errno)
            || matches!(
                errno,
                Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::ENODEV | Errno::EINVAL | Errno::ENOENT
            );
        match self.check_file_system(&metadata) {
            Err(fault) if is_refusal => Some(fault),
            _ if errno == Errno::EROFS => Some(self.read_only()),
            _ if errno::is_denied(errno) => Some(self.denied(&metadata)),
            _ => None,
        }
    }

    /// Whether the directory exists.
    fn present(&self) -> Result<Metadata, DirectoryFault> {
        match fs::metadata(&self.path) {
            Ok(metadata) if metadata.is_dir() => Ok(metadata),
            Ok(_) => Err(self.fault("is not a directory", format!("replace it ({})", self.mount()))),
            Err(error) if self.is_chosen && error.kind() != io::ErrorKind::NotFound => {
                let what = format!("cannot be reached ({})", errno::of(&error));
                Err(self.fault(
                    &what,
                    "give this user the right to enter the directories above it".to_owned(),
                ))
            }
            Err(_) if self.is_chosen => {
                let remedy = format!("mkdir -p {} && {}", self.path, self.mount());
                Err(self.fault("does not exist", remedy))
            }
            Err(_) => Err(DirectoryFault {
                what: format!("there is no {}", self.path),
                remedy: format!("create it and mount it ({})", self.mount()),
            }),
        }
    }

    fn check_file_system(&self, metadata: &Metadata) -> Result<(), DirectoryFault> {
        if statfs(self.path.as_str()).is_ok_and(|system| system.filesystem_type() == TMPFS_MAGIC) {
            return Ok(());
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let what = match file_system(&mounts, metadata.dev()) {
            Some(other) => format!("is not a tmpfs, but {other}"),
            None => "is not a tmpfs".to_owned(),
        };
        Err(self.fault(&what, self.mount()))
    }

    fn check_mode(&self, mode: u32) -> Result<(), DirectoryFault> {
        if mode & 0o022 == 0 || mode & libc::S_ISVTX != 0 {
            return Ok(());
        }
        let what = format!(
            "has the mode {:04o}, which lets other users rename the files of a channel",
            mode & 0o7777
        );
        Err(self.fault(&what, format!("chmod +t {}", self.path)))
    }

    fn check_owner(&self, owner: u32) -> Result<(), DirectoryFault> {
        let user = geteuid();
        if user.is_root() || owner == 0 || owner == user.as_raw() || (owner == overflow_uid() && is_in_user_namespace())
        {
            return Ok(());
        }
        let what = format!("belongs to user {owner}, who could rename the files of channels of user {user}");
        Err(self.fault(&what, format!("chown root {0} && chmod 1777 {0}", self.path)))
    }

    fn read_only(&self) -> DirectoryFault {
        let mut remedy = format!("mount -o remount,rw {}", self.path);
        if self.is_chosen {
            remedy += "; in a container, share it without :ro; observers can read as it is";
        }
        self.fault("is mounted read-only", remedy)
    }

    fn denied(&self, metadata: &Metadata) -> DirectoryFault {
        DirectoryFault {
            what: format!(
                "this user may not create or open files in {self} (its mode is {:04o}, its owner user {})",
                metadata.mode() & 0o7777,
                metadata.uid(),
            ),
            remedy: format!(
                "chmod 1777 {self}, or {}; in a snap, a plug of the interface shared-memory with private: true",
                self.mount()
            ),
        }
    }

    /// How to make the directory one that channels can use.
    fn mount(&self) -> String {
        let container = if self.is_chosen {
            format!("docker run -v DIRECTORY:{self} with a tmpfs of the host")
        } else {
            "docker run --shm-size=... or --ipc=...".to_owned()
        };
        format!("mount -t tmpfs -o mode=1777 tmpfs {self}; in a container, {container}")
    }

    fn fault(&self, what: &str, remedy: String) -> DirectoryFault {
        let variable = if self.is_chosen { "RSSHM_DIR=" } else { "" };
        DirectoryFault {
            what: format!("{variable}{self} {what}"),
            remedy,
        }
    }
}

/// Whether this program has more rights than its caller, who has set the variables.
fn is_privileged() -> bool {
    // SAFETY: the call has no preconditions; it reads a value that the kernel gave the process at its start.
    unsafe { libc::getauxval(libc::AT_SECURE) != 0 }
}

/// The type of the file system with the device number `device`, as the text of /proc/self/mountinfo (proc(5)) has it.
fn file_system(mounts: &str, device: u64) -> Option<&str> {
    let device = format!("{}:{}", major(device), minor(device));
    mounts
        .lines()
        .filter(|line| line.split(' ').nth(2) == Some(&device))
        .find_map(|line| line.split_once(" - ")?.1.split(' ').next())
}

fn overflow_uid() -> u32 {
    let text = fs::read_to_string("/proc/sys/kernel/overflowuid").unwrap_or_default();
    text.trim().parse().unwrap_or(OVERFLOW_UID)
}

/// Whether some users of the system have no id in the user namespace of this process.
fn is_in_user_namespace() -> bool {
    // Without /proc, nobody knows the map. The owner then counts as a stranger, because this choice is the safe one.
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| is_partial(&map))
}

/// Whether the map of a user namespace leaves out users of the system.
fn is_partial(map: &str) -> bool {
    map.split_ascii_whitespace().ne(["0", "0", "4294967295"])
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;

    #[test]
    fn map_without_all_users_is_partial() {
        assert!(!is_partial("         0          0 4294967295\n"));
        assert!(is_partial("         0       1000          1\n"));
        assert!(is_partial("0 100000 1000\n1000 1000 1\n"));
    }

    #[test]
    fn unset_and_empty_variable_mean_the_default() {
        for value in [None, Some(OsString::new())] {
            let directory = Directory::new(value);
            assert_eq!((directory.path(), directory.is_chosen()), (DEFAULT, false));
        }
    }

    #[test]
    fn path_has_no_slash_at_its_end() {
        for (value, path) in [("/cams", "/cams"), ("/cams//", "/cams"), ("/a b/", "/a b")] {
            let directory = Directory::new(Some(value.into()));
            assert!(directory.is_chosen() && directory.invalid.is_none());
            assert_eq!(directory.join("cam0"), format!("{path}/cam0"));
        }
    }

    #[test]
    fn relative_path_and_other_bytes_are_refused() {
        for (value, word) in [(b"cams".to_vec(), "absolute"), (b"/\xff".to_vec(), "UTF-8")] {
            let fault = Directory::new(Some(OsString::from_vec(value))).check().unwrap_err();
            assert!(fault.to_string().contains(word), "{fault}");
            assert!(fault.to_string().contains("RSSHM_DIR="), "{fault}");
        }
    }

    #[test]
    fn type_of_file_system_is_found() {
        let mounts = "22 1 252:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
                      30 22 0:25 / /dev/shm rw,nosuid - tmpfs tmpfs rw\n";
        assert_eq!(file_system(mounts, nix::sys::stat::makedev(252, 0)), Some("ext4"));
        assert_eq!(file_system(mounts, nix::sys::stat::makedev(0, 25)), Some("tmpfs"));
        assert_eq!(file_system(mounts, nix::sys::stat::makedev(0, 26)), None);
    }
}
