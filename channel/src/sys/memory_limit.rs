// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory limits of this process's control groups (cgroups(7)).
//!
//! The pages of a file in /dev/shm count as memory of the control group whose process touches them first, whatever
//! group mounted /dev/shm. If a group is at its limit, the kernel does not refuse a page. It kills a process of the
//! group. Therefore a writer asks what the limits leave before it commits memory.
//!
//! A group's limit counts for all groups below it, so the tightest of all ancestors decides. Limits that this process
//! cannot see do not count. In a container, those are the limits above the container's own group, and all limits if
//! the container has no /sys/fs/cgroup.
//!
//! Swap does not count as free, because a frame in swap is too slow to be of use.

use std::{collections::HashMap, fs};

/// A limit leaves at least this part of itself to other memory: to the rest of this program, to other programs of the
/// control group, and to writers that commit memory at the same moment.
const RESERVED_PART: u64 = 8;
/// The most bytes that are left to other memory.
const MAX_RESERVED: u64 = 64 << 20;
/// A limit of version 1 that is at least this large means that there is no limit.
const UNLIMITED: u64 = 1 << 62;

/// A memory limit, and what it leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MemoryLimit {
    /// The file that contains the limit.
    pub(crate) file: String,
    /// The limit in bytes.
    pub(crate) total: u64,
    /// How many bytes a writer may still commit. This is less than the limit leaves, because a part is reserved.
    pub(crate) free: u64,
}

impl MemoryLimit {
    fn new(file: String, total: u64, unused: u64) -> Self {
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
    // A directory whose name is not UTF-8 does not matter here, unless it is one of the groups'.
    tightest_of(|path| Some(String::from_utf8_lossy(&fs::read(path).ok()?).into_owned()))
}

/// The tightest limit, in files that `read` reads.
fn tightest_of(read: impl Fn(&str) -> Option<String>) -> Option<MemoryLimit> {
    groups(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)
        .iter()
        .flat_map(|group| group.limits(&read))
        .min_by_key(|limit| limit.free)
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
        let counts = || self.version == Version::V2 || !self.is_ancestor || number("memory.use_hierarchy") != Some(0);
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
                let total = number(limit).filter(|total| *total < UNLIMITED && counts())?;
                let used = number(usage)?;
                let reclaimable = *reclaimable
                    .get_or_insert_with(|| read("memory.stat").map_or(0, |stat| reclaimable_in(&stat, stat_prefix)));
                let unused = total.saturating_sub(used.saturating_sub(reclaimable));
                Some(MemoryLimit::new(format!("{}/{limit}", self.directory), total, unused))
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// The tightest limit on a system with these files.
    fn tightest_with(files: &[(&str, &str)]) -> Option<MemoryLimit> {
        tightest_of(|path| {
            let (_, text) = files.iter().find(|(name, _)| *name == path)?;
            Some((*text).to_owned())
        })
    }

    /// The directories of all groups.
    fn directories(cgroup: &str, mountinfo: &str) -> Vec<String> {
        groups(cgroup, mountinfo)
            .into_iter()
            .map(|group| group.directory)
            .collect()
    }

    /// Version 2 under systemd.
    const MOUNT_V2: &str = "\
24 30 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 24 0:25 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
29 24 0:26 / /sys/fs/pstore rw,nosuid,nodev,noexec,relatime shared:10 - pstore pstore rw
";
    /// Version 1, with an unused version 2 beside it.
    const MOUNTS_V1: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
    const CGROUP_V1: &str = "9:name=systemd:/\n4:memory:/system/camera\n1:cpu:/\n0::/\n";

    #[test]
    fn all_ancestors_of_version_2_count() {
        let cgroup = "0::/system.slice/camera.service\n";
        let slice = "/sys/fs/cgroup/system.slice";
        assert_eq!(
            directories(cgroup, MOUNT_V2),
            ["/sys/fs/cgroup", slice, &format!("{slice}/camera.service")]
        );
        let limit = |max: &str, high: &str, slice_max: &str| {
            tightest_with(&[
                ("/proc/self/cgroup", cgroup),
                ("/proc/self/mountinfo", MOUNT_V2),
                ("/sys/fs/cgroup/system.slice/memory.max", slice_max),
                ("/sys/fs/cgroup/system.slice/memory.high", "max\n"),
                ("/sys/fs/cgroup/system.slice/memory.current", "104857600\n"),
                ("/sys/fs/cgroup/system.slice/camera.service/memory.max", max),
                ("/sys/fs/cgroup/system.slice/camera.service/memory.high", high),
                (
                    "/sys/fs/cgroup/system.slice/camera.service/memory.current",
                    "10485760\n",
                ),
                (
                    "/sys/fs/cgroup/system.slice/camera.service/memory.stat",
                    "anon 4194304\nfile 6291456\nfile_dirty 1048576\ninactive_file 4194304\nactive_file 2097152\n",
                ),
            ])
        };
        assert_eq!(limit("max\n", "max\n", "max\n"), None);
        let camera = format!("{slice}/camera.service");
        let max = limit("83886080\n", "max\n", "max\n").unwrap();
        assert_eq!(max.file, format!("{camera}/memory.max"));
        assert_eq!(max.total, 80 * MIB);
        // Of the ten MiB in use, four can be taken back. A tenth, an eighth of the limit, is reserved.
        assert_eq!(max.free, (80 - 10 + 4 - 10) * MIB);
        let high = limit("83886080\n", "41943040\n", "max\n").unwrap();
        assert_eq!((high.file, high.total), (format!("{camera}/memory.high"), 40 * MIB));
        let above = limit("83886080\n", "41943040\n", "134217728\n").unwrap();
        assert_eq!(
            (above.file, above.free),
            (format!("{slice}/memory.max"), (128 - 100 - 16) * MIB)
        );
        // The group uses more than a limit that was lowered.
        assert_eq!(limit("83886080\n", "1048576\n", "max\n").unwrap().free, 0);
    }

    #[test]
    fn all_ancestors_of_version_1_count() {
        let memory = "/sys/fs/cgroup/memory";
        // The groups of version 2 have no files for memory here.
        assert_eq!(
            directories(CGROUP_V1, MOUNTS_V1),
            [
                memory,
                &format!("{memory}/system"),
                &format!("{memory}/system/camera"),
                "/sys/fs/cgroup/unified"
            ]
        );
        let limit =
            |hierarchy: &str, memsw: &str| {
                tightest_with(&[
                ("/proc/self/cgroup", CGROUP_V1),
                ("/proc/self/mountinfo", MOUNTS_V1),
                ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ("/sys/fs/cgroup/memory/memory.usage_in_bytes", "22580195328\n"),
                ("/sys/fs/cgroup/memory/system/memory.use_hierarchy", hierarchy),
                ("/sys/fs/cgroup/memory/system/memory.limit_in_bytes", "33554432\n"),
                ("/sys/fs/cgroup/memory/system/memory.usage_in_bytes", "16777216\n"),
                ("/sys/fs/cgroup/memory/system/camera/memory.use_hierarchy", "0\n"),
                ("/sys/fs/cgroup/memory/system/camera/memory.limit_in_bytes", "67108864\n"),
                ("/sys/fs/cgroup/memory/system/camera/memory.usage_in_bytes", "16777216\n"),
                ("/sys/fs/cgroup/memory/system/camera/memory.memsw.limit_in_bytes", memsw),
                ("/sys/fs/cgroup/memory/system/camera/memory.memsw.usage_in_bytes", "67108864\n"),
                (
                    "/sys/fs/cgroup/memory/system/camera/memory.stat",
                    "inactive_file 1048576\ntotal_inactive_file 4194304\ntotal_active_file 2097152\ntotal_dirty 0\n",
                ),
            ])
            .unwrap()
            };
        let above = limit("1\n", "9223372036854771712\n");
        assert_eq!(above.file, format!("{memory}/system/memory.limit_in_bytes"));
        assert_eq!(above.free, (32 - 16 - 4) * MIB);
        let own = limit("0\n", "9223372036854771712\n");
        assert_eq!(own.file, format!("{memory}/system/camera/memory.limit_in_bytes"));
        assert_eq!(own.free, (64 - 16 + 5 - 8) * MIB);
        let with_swap = limit("0\n", "75497472\n");
        assert_eq!(
            with_swap.file,
            format!("{memory}/system/camera/memory.memsw.limit_in_bytes")
        );
        assert_eq!(with_swap.free, (72 - 64 + 5 - 9) * MIB);
    }

    #[test]
    fn groups_of_containers_are_found() {
        // Version 2 with a namespace, as in Docker and Kubernetes.
        let mount = "1524 1520 0:29 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate\n";
        assert_eq!(directories("0::/\n", mount), ["/sys/fs/cgroup"]);
        // Version 1 without a namespace: the mount shows the container's group alone.
        let id = "/docker/57c8e0ab";
        let mount = format!("711 705 0:31 {id} /sys/fs/cgroup/memory ro,nosuid - cgroup cgroup rw,memory\n");
        assert_eq!(
            directories(&format!("11:memory:{id}\n"), &mount),
            ["/sys/fs/cgroup/memory"]
        );
        assert_eq!(
            directories(&format!("11:hugetlb,memory:{id}/inner\n"), &mount),
            ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/memory/inner"]
        );
        // A group with a similar name, and a group elsewhere.
        assert_eq!(directories(&format!("11:memory:{id}9\n"), &mount), [""; 0]);
        assert_eq!(directories("11:memory:/\n", &mount), [""; 0]);
        // No mount, as in many sandboxes.
        assert_eq!(
            directories("0::/user.slice\n", "23 30 0:21 / /proc rw - proc proc rw\n"),
            [""; 0]
        );
    }

    #[test]
    fn groups_outside_namespace_count_as_far_as_they_are_known() {
        // A namespace whose mount was made outside it: the names of the groups in between are unknown.
        let mount = |root: &str| format!("52 48 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
        assert_eq!(directories("4:memory:/\n", &mount("/../..")), ["/sys/fs/cgroup/memory"]);
        assert_eq!(
            directories("4:memory:/../x/y\n", &mount("/..")),
            [
                "/sys/fs/cgroup/memory",
                "/sys/fs/cgroup/memory/x",
                "/sys/fs/cgroup/memory/x/y"
            ]
        );
        assert_eq!(
            directories("4:memory:/../x\n", &mount("/../..")),
            ["/sys/fs/cgroup/memory"]
        );
        assert_eq!(directories("4:memory:/../x\n", &mount("/")), [""; 0]);
        assert_eq!(directories("4:memory:/../..\n", &mount("/..")), [""; 0]);
    }

    #[test]
    fn unusual_texts_are_read() {
        let mount = "52 48 0:32 / /a\\040b\\134 rw - cgroup2 cgroup2 rw\n";
        assert_eq!(directories("0::/x:y (deleted)\n", mount), ["/a b\\", "/a b\\/x:y"]);
        for text in [
            "",
            "\n",
            "0",
            "0:",
            "0:::::",
            "no numbers",
            " - ",
            "1 2 3 - cgroup2",
            "1 2 3 4 5 - cgroup2 x",
        ] {
            groups(text, text);
            assert_eq!(
                tightest_with(&[("/proc/self/cgroup", text), ("/proc/self/mountinfo", text)]),
                None
            );
        }
        let garbage = |text: &'static str| {
            tightest_with(&[
                ("/proc/self/cgroup", "0::/\n"),
                ("/proc/self/mountinfo", MOUNT_V2),
                ("/sys/fs/cgroup/memory.max", text),
                ("/sys/fs/cgroup/memory.current", text),
                ("/sys/fs/cgroup/memory.stat", text),
            ])
        };
        for text in ["", "max", "-1", "99999999999999999999", "1 2"] {
            assert_eq!(garbage(text), None);
        }
        assert_eq!(garbage("1").unwrap().free, 0);
    }
}
