// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory limits of this process: those of its control groups (cgroups(7)), and the memory of the machine.
//!
//! The pages of a file in /dev/shm count as memory of the control group whose process touches them first, whatever
//! group mounted /dev/shm. If a group is at its limit, the kernel does not refuse a page. It kills a process of the
//! group. Therefore a writer asks what the limits leave before it commits memory.
//!
//! A group's limit counts for all groups below it, so the tightest of all ancestors decides. Limits that this process
//! cannot see do not count. In a container, those are the limits above the container's own group, and all limits if
//! the container has no /sys/fs/cgroup.
//!
//! Swap does not count as free, because a frame in swap is too slow to be of use. If the machine's memory is the
//! limit, its free swap counts, because then only the least used memory of all programs moves to swap.

use std::{collections::HashMap, fs};

/// A limit leaves at least this part of itself to other memory: to the rest of this program, to other programs of the
/// control group, and to writers that commit memory at the same moment.
const RESERVED_PART: u64 = 8;
/// The most bytes that are left to other memory.
const MAX_RESERVED: u64 = 64 << 20;
/// A limit of version 1 that is at least this large means that there is no limit.
const UNLIMITED: u64 = 1 << 62;

const MACHINE: &str = "/proc/meminfo";

/// A memory limit, and what it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// The file that contains the limit; `None` if the limit is the memory of the machine.
    pub(crate) file: Option<String>,
    /// The limit in bytes.
    pub(crate) total: u64,
    /// How many bytes a writer may still commit. This is less than the limit leaves, because a part is reserved.
    pub(crate) free: u64,
}

impl MemoryLimit {
    fn new(file: Option<String>, total: u64, unused: u64) -> Self {
        let reserved = (total / RESERVED_PART).min(MAX_RESERVED);
        Self {
            file,
            total,
            free: unused.saturating_sub(reserved),
        }
    }
}

/// The limit that leaves the least memory to this process. Everything is read again at each call, because limits
/// change, and because processes move to other groups. `None` if no limit can be read.
pub(crate) fn tightest() -> Option<MemoryLimit> {
    tightest_of(|path| fs::read_to_string(path).ok())
}

/// The tightest limit, in files that `read` reads.
fn tightest_of(read: impl Fn(&str) -> Option<String>) -> Option<MemoryLimit> {
    let groups = match (read("/proc/self/cgroup"), read("/proc/self/mountinfo")) {
        (Some(cgroup), Some(mountinfo)) => groups(&cgroup, &mountinfo),
        _ => Vec::new(),
    };
    groups
        .iter()
        .flat_map(|group| group.limits(&read))
        .chain(read(MACHINE).and_then(|meminfo| machine(&meminfo)))
        .min_by_key(|limit| limit.free)
}

/// The limit by the machine's memory. `meminfo` is the text of /proc/meminfo.
fn machine(meminfo: &str) -> Option<MemoryLimit> {
    // A line has the form "MemTotal:       24731876 kB".
    let bytes = |name: &str| {
        let value = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let unused = bytes("MemAvailable")?.saturating_add(bytes("SwapFree").unwrap_or(0));
    Some(MemoryLimit::new(None, bytes("MemTotal")?, unused))
}

/// The version of the interface of control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A control group of this process.
#[derive(Debug, PartialEq, Eq)]
struct Group {
    version: Version,
    directory: String,
    /// Whether the group is not the process's own group, but one above it.
    is_ancestor: bool,
}

impl Group {
    /// The limits of the group that are set.
    fn limits(&self, read: impl Fn(&str) -> Option<String>) -> Vec<MemoryLimit> {
        let read = |name: &str| read(&format!("{}/{name}", self.directory));
        let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
        // Before Linux 5.11, a limit of version 1 counts for the groups below it only if this setting is 1.
        if self.version == Version::V1 && self.is_ancestor && number("memory.use_hierarchy") == Some(0) {
            return Vec::new();
        }
        // Beyond memory.high, the kernel does not kill, but it slows the group's processes down until they hardly run.
        let (limits, stat_prefix) = match self.version {
            Version::V1 => (
                [
                    ("memory.limit_in_bytes", "memory.usage_in_bytes"),
                    ("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"),
                ],
                "total_",
            ),
            Version::V2 => (
                [("memory.max", "memory.current"), ("memory.high", "memory.current")],
                "",
            ),
        };
        let mut reclaimable = None;
        limits
            .into_iter()
            .filter_map(|(limit, usage)| {
                // The value "max" of version 2 is not a number.
                let total = number(limit).filter(|total| *total < UNLIMITED)?;
                let used = number(usage)?;
                let reclaimable = *reclaimable
                    .get_or_insert_with(|| read("memory.stat").map_or(0, |stat| reclaimable_in(&stat, stat_prefix)));
                let unused = total.saturating_sub(used.saturating_sub(reclaimable));
                Some(MemoryLimit::new(
                    Some(format!("{}/{limit}", self.directory)),
                    total,
                    unused,
                ))
            })
            .collect()
    }
}

/// How many bytes the kernel can take back before it has to kill a process: unused pages of files on disks. `stat` is
/// the text of memory.stat, whose names begin with `prefix`.
///
/// Pages in /dev/shm do not count among these pages. Of the pages in use, half count, because taking back all of them
/// would slow down the programs that they belong to. Pages that must be written to a disk first do not count.
fn reclaimable_in(stat: &str, prefix: &str) -> u64 {
    let values: HashMap<&str, u64> = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter_map(|(name, value)| Some((name.strip_prefix(prefix)?, value.trim().parse().ok()?)))
        .collect();
    let value = |name: &str| values.get(name).copied().unwrap_or(0);
    // The prefix of version 1 is part of all names. Version 2 names the pages to be written "file_dirty".
    let unwritten = ["dirty", "file_dirty", "writeback", "file_writeback"].map(value);
    value("inactive_file")
        .saturating_add(value("active_file") / 2)
        .saturating_sub(unwritten.into_iter().fold(0, u64::saturating_add))
}

/// The control groups of a process that its mounts show: its own and all above it. `cgroup` is the text of
/// /proc/self/cgroup, `mountinfo` that of /proc/self/mountinfo.
fn groups(cgroup: &str, mountinfo: &str) -> Vec<Group> {
    let path_of = |version| {
        cgroup.lines().find_map(|line| {
            // A line has the form "4:memory,hugetlb:/path", and in version 2 "0::/path".
            let mut fields = line.splitn(3, ':');
            let (_id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
            let is_wanted = match version {
                Version::V1 => controllers.split(',').any(|controller| controller == "memory"),
                Version::V2 => controllers.is_empty(),
            };
            is_wanted.then(|| path.strip_suffix(" (deleted)").unwrap_or(path))
        })
    };
    let (v1, v2) = (path_of(Version::V1), path_of(Version::V2));
    let mut groups = Vec::new();
    for mount in mountinfo.lines().filter_map(Mount::parse) {
        let path = match mount.version {
            Version::V1 => v1,
            Version::V2 => v2,
        };
        if let Some(names) = path.and_then(|path| names_below(path, &mount.root)) {
            let mut directory = mount.directory;
            let mut names = names.into_iter();
            loop {
                let next = names.next();
                groups.push(Group {
                    version: mount.version,
                    directory: directory.clone(),
                    is_ancestor: next.is_some(),
                });
                let Some(name) = next else {
                    break;
                };
                directory = format!("{}/{name}", directory.trim_end_matches('/'));
            }
        }
    }
    groups
}

/// A mount of a hierarchy of control groups that may limit memory.
struct Mount {
    version: Version,
    /// The group at the mount's directory.
    root: String,
    directory: String,
}

impl Mount {
    /// Parses a line of /proc/self/mountinfo (proc_pid_mountinfo(5)); `None` if it is another mount.
    fn parse(line: &str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let (kind, _source, options) = (system.next()?, system.next()?, system.next()?);
        let version = match kind {
            "cgroup2" => Version::V2,
            "cgroup" if options.split(',').any(|option| option == "memory") => Version::V1,
            _ => return None,
        };
        let mut mount = mount.split(' ').skip(3);
        Some(Self {
            version,
            root: unescape(mount.next()?),
            directory: unescape(mount.next()?),
        })
    }
}

/// Replaces the escapes of a path in mountinfo, such as `\040` for a space.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escape, character)| {
            text.replace(escape, character)
        })
}

/// The names of the groups from the group `root` down to the group `path`; `None` if `path` is not below `root`.
///
/// Both paths are relative to the root of the process's cgroup namespace. If the mount shows groups above that
/// namespace, `root` is `/..`, `/../..` and so on. The names on the way down are then unknown, so only `root` itself
/// counts.
fn names_below<'a>(path: &'a str, root: &'a str) -> Option<Vec<&'a str>> {
    let names = |path: &'a str| path.split('/').filter(|name| !name.is_empty()).collect::<Vec<_>>();
    let path = names(path);
    let root: Vec<&str> = root.split('/').filter(|name| !name.is_empty()).collect();
    let is_above = |names: &[&str]| names.iter().all(|name| *name == "..");
    match path.strip_prefix(root.as_slice()) {
        Some(below) if !below.contains(&"..") => Some(below.to_vec()),
        Some(_) => None,
        None => {
            let ups = path.iter().take_while(|name| **name == "..").count();
            (is_above(&root) && ups < root.len()).then(Vec::new)
        }
    }
}
