// SPDX-License-Identifier: MIT OR Apache-2.0

//! The checks of `rsshm doctor` that look at the system: shared memory, limits, logout and namespaces.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::{User, geteuid};
use rsshm_channel::{Directory, Space};

use super::doctor::Finding;
use crate::units;

/// The least size of the shared memory that is enough for a camera: nine frames of 1920x1080 NV12 and the tables.
const LEAST_SPACE: u64 = 40 << 20;
/// The least user id of people; those below belong to services, whose shared memory systemd keeps.
const FIRST_PERSON: u32 = 1000;

pub(super) fn findings() -> Vec<Finding> {
    let mut findings = vec![variable(), shared_memory(), space()];
    findings.extend(logout());
    findings.extend(container());
    findings.push(clocks(
        &fs::read_to_string("/proc/self/timens_offsets").unwrap_or_default(),
    ));
    findings
}

/// Whether `RSSHM_DIR` names a directory, so that a user sees which one the channels are in.
fn variable() -> Finding {
    let directory = Directory::current();
    let text = if directory.is_chosen() {
        format!("is set; channels are in {directory}, and programs without it do not see them")
    } else {
        format!("is not set; channels are in {directory}")
    };
    Finding::ok("RSSHM_DIR", text)
}

/// The directory of shared memory: it exists, is a safe tmpfs, and may be written.
fn shared_memory() -> Finding {
    const CHECK: &str = "shared memory";
    let directory = Directory::current();
    match (directory.check(), directory.check_writable()) {
        (Err(fault), _) => Finding::fail(CHECK, fault.what, fault.remedy),
        // An observer needs no more.
        (_, Err(fault)) if directory.is_chosen() => Finding::warn(CHECK, fault.what, fault.remedy),
        (_, Err(fault)) => Finding::fail(CHECK, fault.what, fault.remedy),
        _ => Finding::ok(CHECK, format!("{directory} is a tmpfs that this user may write to")),
    }
}

/// The tightest limit of the memory that channels can have: the size of shared memory, or the limit of a control group.
fn space() -> Finding {
    const CHECK: &str = "memory";
    let space = Space::now();
    let text = format!(
        "{} leaves {} of {}",
        space.limit,
        units::bytes(space.free),
        units::bytes(space.total)
    );
    // A tmpfs without a limit has the size 0.
    if space.total != 0 && space.free < LEAST_SPACE {
        Finding::warn(CHECK, text, format!("rsshm clean --all, or {}", space.limit.remedy()))
    } else {
        Finding::ok(CHECK, text)
    }
}

/// Whether systemd removes the shared memory of this user at logout.
fn logout() -> Option<Finding> {
    const CHECK: &str = "logout";
    let user = User::from_uid(geteuid()).ok().flatten()?;
    let is_person = user.uid.as_raw() >= FIRST_PERSON;
    if !Path::new("/run/systemd/sessions").exists() || !is_person {
        return None;
    }
    let lingers = Path::new("/var/lib/systemd/linger").join(&user.name).exists();
    if lingers || !removes_ipc(&logind_settings()) {
        return Some(Finding::ok(CHECK, "shared memory stays when this user logs out"));
    }
    let text = format!(
        "RemoveIPC=yes: the channels of {} go when this user logs out",
        user.name
    );
    Some(Finding::warn(
        CHECK,
        text,
        format!("loginctl enable-linger {}", user.name),
    ))
}

/// The settings of logind, in the order in which later ones count.
fn logind_settings() -> String {
    let mut files: Vec<PathBuf> = vec!["/etc/systemd/logind.conf".into()];
    for directory in ["/usr/lib/systemd/logind.conf.d", "/etc/systemd/logind.conf.d"] {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let mut found: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        found.sort();
        files.extend(found);
    }
    files
        .iter()
        .filter_map(|file| fs::read_to_string(file).ok())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Whether these settings remove shared memory at logout, which is systemd's default.
fn removes_ipc(settings: &str) -> bool {
    let value = settings
        .lines()
        .rev()
        .find_map(|line| line.trim().strip_prefix("RemoveIPC="));
    value.is_none_or(|value| !matches!(value.trim(), "no" | "false" | "0" | "off"))
}

/// Whether this is a container, which may have a shared memory of its own.
fn container() -> Option<Finding> {
    let is_container = Path::new("/.dockerenv").exists()
        || Path::new("/run/.containerenv").exists()
        || fs::read("/proc/1/environ").is_ok_and(|text| {
            text.split(|byte| *byte == 0)
                .any(|word| word.starts_with(b"container="))
        });
    let directory = Directory::current();
    is_container.then(|| {
        if directory.is_chosen() {
            let text = format!("this is a container, which shares {directory} with others");
            return Finding::ok("container", text);
        }
        Finding::warn(
            "container",
            "this is a container; unless it was started for it, its shared memory is not the host's",
            "share a directory and set RSSHM_DIR to it, or docker run --ipc=host; --pid=host shows the names of programs",
        )
    })
}

/// Whether CLOCK_MONOTONIC of this time namespace is that of the machine. `offsets` is the text of timens_offsets.
fn clocks(offsets: &str) -> Finding {
    const CHECK: &str = "clocks";
    let monotonic = offsets.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let seconds = (words.next()? == "monotonic").then(|| words.next())??;
        seconds.parse::<i64>().ok().zip(words.next()?.parse::<i64>().ok())
    });
    match monotonic {
        None => Finding::ok(CHECK, "this kernel has no time namespaces"),
        Some((0, 0)) => Finding::ok(CHECK, "CLOCK_MONOTONIC is that of the machine"),
        Some((seconds, _)) => Finding::fail(
            CHECK,
            format!(
                "time namespace: CLOCK_MONOTONIC differs by {seconds} s, so timestamps of other programs are wrong here"
            ),
            "start the container without a time namespace",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_setting_of_logind_counts() {
        assert!(removes_ipc(""));
        assert!(removes_ipc("#RemoveIPC=no\n"));
        assert!(!removes_ipc("[Login]\nRemoveIPC=no\n"));
        assert!(removes_ipc("RemoveIPC=no\nRemoveIPC=yes\n"));
    }

    #[test]
    fn offset_of_time_namespace_is_a_failure() {
        let found = |text| serde_json::to_value(clocks(text)).map(|found| found["level"].as_str().map(str::to_owned));
        let level = |text| found(text).ok().flatten().unwrap_or_default();
        assert_eq!(
            level("monotonic           0         0\nboottime            0         0\n"),
            "ok"
        );
        assert_eq!(
            level("monotonic       86400         0\nboottime            0         0\n"),
            "fail"
        );
        assert_eq!(level(""), "ok");
    }
}
