// SPDX-License-Identifier: MIT OR Apache-2.0

//! Processes, as /proc shows them. A channel names its peers only by process ids.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use serde::Serialize;

/// What is known about a process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Program {
    /// A short name of the program, such as `python3 detect.py`.
    pub(crate) name: String,
    /// Whether a signal or a debugger has stopped it.
    pub(crate) is_stopped: bool,
}

/// Processes that were looked up already, because one process can be a peer of many channels.
#[derive(Debug, Default)]
pub(crate) struct Processes(HashMap<u32, Option<Known>>);

#[derive(Debug)]
struct Known {
    program: Program,
    /// The inode numbers of the files that the process maps; `None` if this user may not know them.
    mapped: Option<HashSet<u64>>,
}

impl Processes {
    /// The process `pid`, which a channel calls a peer of the segment with the inode number `inode`. `None` if there is
    /// no such process, or if it does not map the segment. The pid then comes from another pid namespace, and this
    /// process has the same number by chance.
    pub(crate) fn peer(&mut self, pid: u32, inode: u64) -> Option<Program> {
        let known = self.0.entry(pid).or_insert_with(|| look_up(pid)).as_ref()?;
        // The first process of a pid namespace is a peer only in a container, where it has the number 1 too.
        let is_peer = known.mapped.as_ref().map_or(pid != 1, |mapped| mapped.contains(&inode));
        is_peer.then(|| known.program.clone())
    }
}

fn look_up(pid: u32) -> Option<Known> {
    if pid == 0 {
        return None;
    }
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name is in parentheses, and may contain spaces and parentheses itself.
    let (name, rest) = stat.rsplit_once(')')?;
    let name = name.split_once('(').map_or(name, |(_, name)| name);
    let state = rest.trim_start().chars().next()?;
    if matches!(state, 'Z' | 'X') {
        return None;
    }
    let command_line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let arguments: Vec<String> = command_line
        .split(|byte| *byte == 0)
        .map(|argument| String::from_utf8_lossy(argument).into_owned())
        .collect();
    Some(Known {
        program: Program {
            name: short_name(&arguments).unwrap_or_else(|| name.to_owned()),
            is_stopped: matches!(state, 'T' | 't'),
        },
        mapped: fs::read_to_string(format!("/proc/{pid}/maps"))
            .ok()
            .as_deref()
            .map(inodes),
    })
}

/// The inode numbers in the text of /proc/PID/maps, whose fifth word they are.
fn inodes(maps: &str) -> HashSet<u64> {
    maps.lines()
        .filter_map(|line| line.split_ascii_whitespace().nth(4)?.parse().ok())
        .filter(|inode| *inode != 0)
        .collect()
}

/// The last part of a path.
fn base(path: &str) -> String {
    path.rsplit('/').next().unwrap_or(path).to_owned()
}

/// The arguments of the program that QEMU emulates, if this is QEMU, as in a container for another type of machine.
fn emulated(arguments: &[String]) -> &[String] {
    match arguments {
        [emulator, program, rest @ ..] if base(emulator).starts_with("qemu-") && !program.starts_with('-') => {
            // Linux puts the path of the program before its arguments, or in place of the first one.
            match rest.first() {
                Some(first) if base(first) == base(program) => rest,
                _ => &arguments[1..],
            }
        }
        _ => arguments,
    }
}

/// The name of the program, and the name of the script if the program is an interpreter.
fn short_name(arguments: &[String]) -> Option<String> {
    const INTERPRETERS: [&str; 7] = ["python", "node", "perl", "ruby", "bash", "sh", "dash"];
    let arguments = emulated(arguments);
    let program = base(arguments.first()?);
    if program.is_empty() {
        return None;
    }
    let plain = program.trim_end_matches(|character: char| character.is_ascii_digit() || character == '.');
    let mut rest = arguments[1..].iter();
    let script = match rest.next().map(String::as_str) {
        Some("-m") => rest.next().map(|module| format!("-m {module}")),
        Some("-c" | "-") => None,
        Some(first) if first.starts_with('-') => rest.find(|word| !word.starts_with('-')).map(|word| base(word)),
        first => first.map(base),
    };
    match script.filter(|script| INTERPRETERS.contains(&plain) && !script.is_empty()) {
        Some(script) => Some(format!("{program} {script}")),
        None => Some(program),
    }
}

/// A short name of a process; `None` if there is no such process.
pub(crate) fn program_name(pid: u32) -> Option<String> {
    look_up(pid).map(|known| known.program.name)
}

/// The time that a process has computed since it started, in hundredths of a second, which is Linux's unit for it. `None`
/// if there is no such process.
pub(crate) fn cpu_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program may contain spaces. The fields behind it begin with the third.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    user.checked_add(system)
}

/// The name of a user, or the number if it has no name.
pub(crate) fn user_name(uid: u32) -> String {
    let user = nix::unistd::User::from_uid(nix::unistd::Uid::from_raw(uid));
    user.ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}

/// The name of a group, or the number if it has no name.
pub(crate) fn group_name(gid: u32) -> String {
    let group = nix::unistd::Group::from_gid(nix::unistd::Gid::from_raw(gid));
    group.ok().flatten().map_or_else(|| gid.to_string(), |group| group.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_have_short_names() {
        for (command_line, name) in [
            ("/usr/bin/gst-launch-1.0 videotestsrc ! rsshmsink", "gst-launch-1.0"),
            ("/usr/bin/python3 /home/pi/detect.py --fast", "python3 detect.py"),
            ("python3.11 -u app.py", "python3.11 app.py"),
            ("python3 -m rsshm.tool", "python3 -m rsshm.tool"),
            ("python3 -c pass", "python3"),
            ("./camera", "camera"),
            (
                "/usr/bin/qemu-aarch64 /usr/bin/python3 python3 detect.py",
                "python3 detect.py",
            ),
            ("/usr/bin/qemu-aarch64-static /opt/camera --fast", "camera"),
            ("qemu-system-aarch64 -M virt", "qemu-system-aarch64"),
        ] {
            let arguments: Vec<_> = command_line.split(' ').map(str::to_owned).collect();
            assert_eq!(short_name(&arguments).as_deref(), Some(name), "{command_line}");
        }
        assert_eq!(short_name(&[String::new()]), None);
    }

    #[test]
    fn process_is_peer_only_of_files_that_it_maps() {
        let program = std::env::current_exe().unwrap();
        let inode = std::os::unix::fs::MetadataExt::ino(&fs::metadata(program).unwrap());
        let mut processes = Processes::default();
        assert!(
            processes
                .peer(std::process::id(), inode)
                .is_some_and(|program| !program.is_stopped)
        );
        assert_eq!(processes.peer(std::process::id(), 1), None);
        assert_eq!(processes.peer(0, inode), None);
    }
}
