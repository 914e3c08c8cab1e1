// SPDX-License-Identifier: MIT OR Apache-2.0

//! The checks of `rsshm doctor` that look at the channels.

use nix::unistd::geteuid;
use rsshm_channel::{ChannelName, layout::MAX_READERS, possible_channels};

use super::doctor::Finding;
use crate::{
    process::{Processes, group_name, user_name},
    report::{Report, State},
    units,
};

const CHECK: &str = "channel";

pub(super) fn findings() -> Vec<Finding> {
    let mut processes = Processes::default();
    let names = possible_channels()
        .into_iter()
        .filter_map(|name| ChannelName::new(name).ok());
    let reports: Vec<Report> = names
        .filter_map(|name| Report::new(&name, &mut processes).ok())
        .collect();
    let mut findings: Vec<Finding> = reports.iter().flat_map(of_channel).collect();
    let alive = reports.iter().filter(|report| report.state.has_writer()).count();
    findings.insert(
        0,
        Finding::ok(
            CHECK,
            format!("{} channels, {alive} of them with a living writer", reports.len()),
        ),
    );
    findings
}

/// What lets this user read a channel that its mode does not let it read.
fn admission(name: &str) -> String {
    use std::os::unix::fs::MetadataExt;
    let path = ChannelName::new(name).map(|name| name.segment_path());
    let file = path.ok().and_then(|path| std::fs::metadata(path).ok());
    match file {
        // Only root may give somebody the group of root.
        Some(file) if file.mode() & 0o060 == 0o060 && file.gid() != 0 => {
            let (group, user) = (group_name(file.gid()), user_name(geteuid().as_raw()));
            format!("usermod -aG {group} {user}, and log in again")
        }
        _ => "start its writer with perms=0644 for observers, or 0660 for its group".to_owned(),
    }
}

/// What is wrong with one channel.
fn of_channel(report: &Report) -> Vec<Finding> {
    let name = &report.channel;
    let problem = report.problem.clone().unwrap_or_default();
    let problem = problem.strip_prefix(&format!("channel {name}: ")).unwrap_or(&problem);
    let mut findings = Vec::new();
    match report.state {
        State::Alive | State::Idle | State::NoFormat => {}
        State::NoWriter | State::Closed => {
            let bytes = report.memory.as_ref().map_or(0, |memory| memory.bytes);
            let text = format!("{name} has no writer, and {}", units::bytes(bytes));
            findings.push(Finding::warn(CHECK, text, format!("rsshm clean {name}")));
        }
        State::Denied => {
            let text = format!("{name} may not be read by this user");
            findings.push(Finding::warn(CHECK, text, admission(name)));
        }
        State::OtherVersion => {
            let text = format!("{name}: {problem}");
            findings.push(Finding::warn(
                CHECK,
                text,
                "install the same version of rsshm for all programs",
            ));
        }
        State::Damaged => {
            let text = format!("{name}: {problem}");
            findings.push(Finding::fail(
                CHECK,
                text,
                format!("restart its writer, or rsshm clean {name}"),
            ));
        }
    }
    if let Some(writer) = report.writer.as_ref().filter(|writer| writer.stopped == Some(true)) {
        let text = format!("{name}: its writer, process {}, is stopped", writer.pid);
        findings.push(Finding::warn(CHECK, text, format!("kill -CONT {}", writer.pid)));
    }
    for reader in report.readers.iter().filter(|reader| reader.stopped == Some(true)) {
        if let Some(pid) = reader.pid {
            let text = format!("{name}: the reader {pid} is stopped, and holds {} slots", reader.holds);
            findings.push(Finding::warn(CHECK, text, format!("kill -CONT {pid}, or kill {pid}")));
        }
    }
    if report.reader_count == Some(MAX_READERS) {
        let text = format!("{name}: all {MAX_READERS} reader entries are taken, so further readers copy");
        findings.push(Finding::warn(
            CHECK,
            text,
            format!("see who reads it: rsshm info {name}"),
        ));
    }
    findings
}
