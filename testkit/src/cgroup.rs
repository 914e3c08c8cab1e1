// SPDX-License-Identifier: MIT OR Apache-2.0

//! Control groups with memory limits (cgroups(7)).

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

/// A control group of the version that the system uses for memory. It is removed on drop, after its processes have
/// ended.
#[derive(Debug)]
pub struct Cgroup {
    directory: PathBuf,
    is_v2: bool,
}

impl Cgroup {
    /// Makes a group for the test.
    ///
    /// # Errors
    /// The reason why this process may not make a group, for [`skip!`](crate::skip!).
    pub fn new() -> Result<Self, String> {
        let mountinfo = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
        let mounts = |kind: &str, option: &str| {
            mountinfo.lines().find_map(|line| {
                let (mount, system) = line.split_once(" - ")?;
                let mut system = system.split(' ');
                let is_wanted = system.next()? == kind && system.nth(1)?.split(',').any(|name| name == option);
                is_wanted.then(|| PathBuf::from(mount.split(' ').nth(4).unwrap_or_default()))
            })
        };
        // The system uses either version 1 or version 2 for memory. The options of a cgroup2 mount do not say which.
        let (root, is_v2) = match (mounts("cgroup", "memory"), mounts("cgroup2", "rw")) {
            (Some(root), _) => (root, false),
            (None, Some(root)) => (root, true),
            (None, None) => return Err("no control groups for memory are mounted".to_owned()),
        };
        Self::below(&root, is_v2).map_err(|error| format!("a control group below {}: {error}", root.display()))
    }

    /// Makes a group below this one. Only one of the two may have processes.
    #[track_caller]
    pub fn child(&self) -> Self {
        Self::below(&self.directory, self.is_v2).expect("a control group")
    }

    fn below(parent: &Path, is_v2: bool) -> io::Result<Self> {
        // Relaxed, because the values only have to differ from each other.
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        if is_v2 {
            fs::write(parent.join("cgroup.subtree_control"), "+memory")?;
        }
        let directory = parent.join(format!("rsshm-test-{}-{count}", std::process::id()));
        fs::create_dir(&directory)?;
        Ok(Self { directory, is_v2 })
    }

    /// Whether the group has `memory.high`, which slows processes down.
    pub fn has_high(&self) -> bool {
        self.is_v2
    }

    /// The file with the limit beyond which the kernel kills processes.
    pub fn limit_file(&self) -> PathBuf {
        self.directory.join(if self.is_v2 {
            "memory.max"
        } else {
            "memory.limit_in_bytes"
        })
    }

    /// Sets the limit beyond which the kernel kills processes.
    #[track_caller]
    pub fn set_limit(&self, bytes: u64) {
        fs::write(self.limit_file(), bytes.to_string()).expect("a memory limit");
    }

    /// The file with the limit beyond which the kernel slows processes down.
    pub fn high_file(&self) -> PathBuf {
        self.directory.join("memory.high")
    }

    /// Sets the limit beyond which the kernel slows processes down.
    #[track_caller]
    pub fn set_high(&self, bytes: u64) {
        fs::write(self.high_file(), bytes.to_string()).expect("memory.high");
    }

    /// The bytes that the processes of the group use now.
    #[track_caller]
    pub fn usage(&self) -> u64 {
        let name = if self.is_v2 {
            "memory.current"
        } else {
            "memory.usage_in_bytes"
        };
        let text = fs::read_to_string(self.directory.join(name)).expect("the usage of a control group");
        text.trim().parse().expect("a number")
    }

    /// The bytes of files on disks that the group keeps in memory.
    #[track_caller]
    pub fn page_cache(&self) -> u64 {
        self.value("memory.stat", "inactive_file") + self.value("memory.stat", "active_file")
    }

    /// How often the kernel killed a process of the group, or slowed the group down.
    #[track_caller]
    pub fn kills(&self) -> u64 {
        let file = if self.is_v2 {
            "memory.events"
        } else {
            "memory.oom_control"
        };
        self.value(file, "oom_kill") + self.value(file, "high")
    }

    /// The value `name` in a file with one value a line; 0 if there is none.
    #[track_caller]
    fn value(&self, file: &str, name: &str) -> u64 {
        let text = fs::read_to_string(self.directory.join(file)).expect("a file of a control group");
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().expect("a number"))
    }

    /// The command that mounts the groups that a process may see, and the directory with the root of these groups.
    pub fn mount_command(&self) -> (&'static str, &'static str) {
        if self.is_v2 {
            // cgroup2 cannot be mounted over itself.
            (
                "mount -t tmpfs tmpfs /sys/fs/cgroup && mount -t cgroup2 cgroup2 /sys/fs/cgroup",
                "/sys/fs/cgroup",
            )
        } else {
            (
                "mount -t tmpfs tmpfs /sys/fs/cgroup && mkdir /sys/fs/cgroup/memory \
                 && mount -t cgroup -o memory cgroup /sys/fs/cgroup/memory",
                "/sys/fs/cgroup/memory",
            )
        }
    }

    /// A command that runs the rest of its command line in this group.
    pub fn wrapper(&self) -> [String; 4] {
        let enter = format!("echo $$ >{}/cgroup.procs && exec \"$@\"", self.directory.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let started = Instant::now();
        // A killed process stays in the group for a moment.
        while fs::remove_dir(&self.directory).is_err() && started.elapsed() < Duration::from_secs(5) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}
