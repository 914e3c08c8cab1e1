// SPDX-License-Identifier: MIT OR Apache-2.0

//! The checks of `rsshm doctor` that look at cameras: their devices, and the services that publish them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use nix::unistd::{AccessFlags, access, geteuid};
use rsshm_channel::ChannelName;

use super::{
    doctor::Finding,
    doctor_program::{Answer, ask},
};
use crate::{
    camera::settings::{DIRECTORY, EXTENSION, Settings, SettingsError},
    process::{group_name, program_name, user_name},
};

const DEVICE: &str = "camera";
const SERVICE: &str = "service";

pub(super) fn findings() -> Vec<Finding> {
    let mut findings = devices(Path::new("/dev"), Path::new("/proc"));
    findings.extend(services(Path::new(DIRECTORY)));
    findings
}

/// The camera devices: whether this user may open them, and which process has opened them.
fn devices(directory: &Path, processes: &Path) -> Vec<Finding> {
    let mut paths: Vec<PathBuf> = entries(directory)
        .into_iter()
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let number = name.strip_prefix("video").unwrap_or_default();
            !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
        })
        .collect();
    paths.sort();
    paths.iter().flat_map(|path| device(path, processes)).collect()
}

fn device(path: &Path, processes: &Path) -> Vec<Finding> {
    use std::os::unix::fs::MetadataExt;
    let shown = path.display();
    if access(path, AccessFlags::R_OK | AccessFlags::W_OK).is_err() {
        let group = fs::metadata(path).map_or_else(|_| "video".to_owned(), |device| group_name(device.gid()));
        let user = user_name(geteuid().as_raw());
        return vec![Finding::warn(
            DEVICE,
            format!("{user} may not open {shown}, which belongs to the group {group}"),
            format!("usermod -aG {group} {user}, and log in again"),
        )];
    }
    let users: Vec<String> = openers(path, processes)
        .into_iter()
        .map(|pid| match program_name(pid) {
            Some(program) => format!("process {pid} ({program})"),
            None => format!("process {pid}"),
        })
        .collect();
    let text = if users.is_empty() {
        format!("{shown} can be opened")
    } else {
        // Most drivers let one program stream at a time, so this is why another one finds the device busy.
        format!("{shown} is open in {}", users.join(", "))
    };
    vec![Finding::ok(DEVICE, text)]
}

/// The processes that have opened the file `path`, as far as this user may see that.
fn openers(path: &Path, processes: &Path) -> Vec<u32> {
    let mut pids: Vec<u32> = entries(processes)
        .into_iter()
        .filter_map(|process| {
            let pid = process.file_name()?.to_str()?.parse().ok()?;
            let is_open = entries(&process.join("fd"))
                .iter()
                .any(|descriptor| fs::read_link(descriptor).is_ok_and(|target| target == path));
            is_open.then_some(pid)
        })
        .collect();
    pids.sort_unstable();
    pids
}

/// The configured cameras: their files, their sources and their units.
fn services(directory: &Path) -> Vec<Finding> {
    if fs::read_dir(directory).is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied) {
        let text = format!(
            "{} may not be read, so its cameras are not checked",
            directory.display()
        );
        return vec![Finding::warn(SERVICE, text, "sudo rsshm doctor")];
    }
    let mut paths = entries(directory);
    paths.retain(|path| path.extension().is_some_and(|extension| extension == EXTENSION));
    paths.sort();
    paths.iter().flat_map(|path| service(path)).collect()
}

fn service(path: &Path) -> Vec<Finding> {
    let shown = path.display();
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let name = match ChannelName::new(&*stem) {
        Ok(name) => name,
        Err(error) => return vec![Finding::fail(SERVICE, error.to_string(), format!("rename {shown}"))],
    };
    let settings = match Settings::read(path) {
        Ok(settings) => settings,
        Err(error @ SettingsError::Unreadable(..)) => {
            let remedy = format!("chgrp rsshm {shown} && chmod 0640 {shown}");
            return vec![Finding::fail(SERVICE, error.to_string(), remedy)];
        }
        Err(error) => return vec![Finding::fail(SERVICE, error.to_string(), format!("edit {shown}"))],
    };
    let mut findings = Vec::new();
    match settings.arguments(&name) {
        Ok(arguments) => {
            let missing = arguments
                .iter()
                .filter_map(|argument| argument.strip_prefix("device="))
                // Other sources have devices without a file, such as hw:1 of alsasrc.
                .find(|device| device.starts_with('/') && !Path::new(device).exists());
            findings.push(match missing {
                Some(device) => Finding::warn(
                    SERVICE,
                    format!("{name}: there is no {device}"),
                    format!("plug the camera in, or change SOURCE= in {shown}"),
                ),
                None => Finding::ok(SERVICE, format!("{name}: {shown} is valid")),
            });
        }
        Err(error) => findings.push(Finding::fail(SERVICE, error.to_string(), format!("edit {shown}"))),
    }
    findings.extend(unit(&name));
    findings
}

/// The unit of a camera; `None` if there is no systemd, or if the unit is as it should be.
fn unit(name: &ChannelName) -> Option<Finding> {
    if !Path::new("/run/systemd/system").exists() {
        return None;
    }
    let unit = format!("rsshm-camera@{name}.service");
    // The command succeeds if the unit has failed.
    let has_failed = matches!(ask("systemctl", &["is-failed", &unit]), Answer::Yes(_));
    has_failed.then(|| {
        Finding::fail(
            SERVICE,
            format!("{unit} has failed"),
            format!("journalctl -u {unit} -n 20, then systemctl restart {unit}"),
        )
    })
}

/// The paths in a directory; none if it cannot be read.
fn entries(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    entries.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A directory that is removed at the end.
    struct Directory(PathBuf);

    impl Directory {
        fn new(test: &str) -> Self {
            let path = std::env::temp_dir().join(format!("rsshm-doctor-{test}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn text(findings: &[Finding]) -> String {
        serde_json::to_string(findings).unwrap()
    }

    #[test]
    fn busy_device_is_shown_with_its_process() {
        let directory = Directory::new("device");
        let device = directory.0.join("video7");
        fs::write(&device, "").unwrap();
        fs::write(directory.0.join("videowall"), "").unwrap();
        let own = std::process::id();
        let free = text(&devices(&directory.0, Path::new("/proc")));
        assert!(
            free.contains("video7 can be opened") && !free.contains("videowall"),
            "{free}"
        );
        let _open = fs::File::open(&device).unwrap();
        let busy = text(&devices(&directory.0, Path::new("/proc")));
        assert!(busy.contains(&format!("video7 is open in process {own} (")), "{busy}");
    }

    #[test]
    fn configurations_are_checked() {
        let directory = Directory::new("service");
        for (file, content) in [
            ("good.conf", "SOURCE=videotestsrc is-live=true\n"),
            ("typo.conf", "SORCE=videotestsrc\n"),
            ("gone.conf", "SOURCE=v4l2src device=/dev/video4711\n"),
            ("sound.conf", "SOURCE=alsasrc device=hw:4711\n"),
            ("empty.conf", ""),
            ("README", "no configuration"),
        ] {
            fs::write(directory.0.join(file), content).unwrap();
        }
        symlink("/nowhere", directory.0.join("lost.conf")).unwrap();
        let found = text(&services(&directory.0));
        for words in [
            "good.conf is valid",
            "sound.conf is valid",
            "typo.conf, line 1: \\\"SORCE\\\" is none of SOURCE",
            "gone: there is no /dev/video4711",
            "channel empty has no source",
            "lost.conf cannot be read",
        ] {
            assert!(found.contains(words), "{words} is not in {found}");
        }
        assert!(!found.contains("README"), "{found}");
    }
}
