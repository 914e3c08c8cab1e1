// SPDX-License-Identifier: MIT OR Apache-2.0

//! The forms of the output: JSON and CSV of every command, pipes that close, full disks, and Ctrl-C.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    process::{Command, Stdio},
};

use nix::sys::signal::Signal;
use rsshm_testkit::{PATIENCE, Process, need_root, shm, wait_until};
use serde_json::Value;

use crate::support::{Channel, Run, Running, rsshm, run, waits_for_ctrl_c};

/// The names in backticks in the row of docs/CLI.md that begins with `row`.
fn documented(row: &str) -> BTreeSet<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CLI.md")).unwrap();
    let section = text.split("## Fields of the other commands").nth(1).unwrap();
    let line = section
        .lines()
        .find(|line| line.starts_with(&format!("| {row} |")))
        .unwrap();
    let fields = line.split('|').nth(2).unwrap();
    fields.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The names of all fields, also of those in lists.
fn names(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| {
            found.insert(name.clone());
            names(value, found);
        }),
        Value::Array(items) => items.iter().for_each(|item| names(item, found)),
        _ => {}
    }
}

/// Checks that every field is documented, and that each row of CSV has as many values as names.
#[track_caller]
fn check_forms(row: &str, arguments: &str) {
    let documented = documented(row);
    let json = run(&format!("{arguments} --json"));
    assert!(json.code <= 1 && !json.stdout.is_empty(), "{arguments}: {json:?}");
    for line in json.stdout.lines() {
        let mut found = BTreeSet::new();
        names(
            &serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")),
            &mut found,
        );
        let unknown: Vec<_> = found.difference(&documented).collect();
        assert!(
            unknown.is_empty() && !found.is_empty(),
            "{arguments}: {unknown:?} of {line} is not in docs/CLI.md"
        );
    }
    let csv = run(&format!("{arguments} --format csv"));
    let rows: Vec<Vec<String>> = csv.stdout.lines().map(fields).collect();
    assert!(rows.len() >= 2, "{arguments}: {csv:?}");
    assert!(
        rows.iter().all(|row| row.len() == rows[0].len()),
        "{arguments}: {csv:?}"
    );
    let is_name = |name: &String| name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    assert!(
        rows[0].iter().all(is_name),
        "{arguments}: the first line has the names: {csv:?}"
    );
}

/// The values of a line of CSV.
fn fields(line: &str) -> Vec<String> {
    let (mut fields, mut is_quoted) = (vec![String::new()], false);
    for character in line.chars() {
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            other => fields.last_mut().unwrap().push(other),
        }
    }
    assert!(!is_quoted, "{line}");
    fields
}

#[test]
fn json_and_csv_have_the_documented_fields() {
    let channel = Channel::new();
    let mut writer = channel.live_writer(5);
    let _reader = channel.reader();
    let name = channel.to_string();
    let file = std::env::temp_dir().join(format!("{name}.png"));
    for (row, arguments) in [
        ("`top`", format!("top -b -n 2 -d 100ms {name}")),
        ("`hz`", format!("hz -n 1 {name}")),
        ("`bw`", format!("bw -n 1 {name}")),
        ("`delay`", format!("delay -n 1 {name}")),
        ("`echo`", format!("echo -n 2 {name}")),
        ("`echo`", format!("echo -n 2 -v {name}")),
        ("`snapshot`", format!("snapshot -o {} {name}", file.display())),
        ("`doctor`", "doctor --quick".to_owned()),
        (
            "`check`",
            format!("check {name} --min-fps 1000000 --max-age 0 --during 100ms"),
        ),
    ] {
        check_forms(row, &arguments);
    }
    writer.kill();
    drop(_reader);
    check_forms("`clean`", &format!("clean --dry-run {name}"));
    fs::remove_file(file).unwrap();
    // Commands without a measurement refuse nothing, and print nothing or their own form.
    for arguments in ["wait --for gone", "metrics"] {
        run(&format!("{arguments} {name} --json")).expect(0);
    }
}

/// A pipe that closes ends every command that goes on, with the code 0 and without a word.
#[test]
fn commands_end_with_their_pipe() {
    let channel = Channel::new();
    let _writer = channel.live_writer(5);
    let channel = channel.as_str();
    let directory = env!("CARGO_BIN_EXE_rsshm");
    let pipes = [
        ("echo", "head -1"),
        ("echo -v --json", "head -1"),
        ("top -b -d 50ms", "head -1"),
        ("hz", "head -1"),
        ("cat", "head -c 1"),
        ("snapshot -n 1000000 -o -", "head -c 1"),
    ];
    std::thread::scope(|scope| {
        for (arguments, head) in pipes {
            scope.spawn(move || {
                let mut shell = Command::new("bash");
                let command = format!("{directory} {arguments} {channel} | {head} >/dev/null; exit ${{PIPESTATUS[0]}}");
                shell.args(["-c", &command]).stdin(Stdio::null());
                let run = Run::of(shell);
                assert_eq!((run.code, &*run.stderr), (0, ""), "{arguments}");
            });
        }
    });
}

/// Streams that are closed from the start, or that nobody reads, crash no command.
#[test]
fn closed_streams_crash_no_command() {
    let channel = Channel::new();
    let _writer = channel.live_writer(5);
    let program = env!("CARGO_BIN_EXE_rsshm");
    let shell = |command: String| {
        let mut shell = Command::new("bash");
        shell.args(["-c", &command]).stdin(Stdio::null());
        Run::of(shell)
    };
    for arguments in ["list", "info", "echo -n 1", "metrics", "cat -n 1"] {
        let run = shell(format!("{program} {arguments} {} >&-", channel.0));
        assert!(run.code <= 1, "{arguments}: {run:?}");
        let run = shell(format!("{program} {arguments} {} >/dev/full", channel.0)).expect(1);
        assert!(
            run.stderr.contains("the output cannot be written: No space left"),
            "{arguments}: {run:?}"
        );
    }
    // The reader of stderr is gone before the error is printed.
    for arguments in ["info rsshm-cli-test-none", "wait rsshm-cli-test-none --timeout 300ms"] {
        let command = format!("{program} {arguments} 2> >(true); echo $?");
        let code = shell(format!("exec 3>&1; {{ sleep 0.2; {command} >&3; }}")).stdout;
        assert!(matches!(code.trim(), "1" | "3"), "{arguments}: {code}");
    }
    let mut child = rsshm("wait rsshm-cli-test-none --timeout 300ms")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(3));
}

#[test]
fn full_disk_leaves_no_part_of_a_picture() {
    need_root!("a small file system is mounted");
    let Some(wrapper) = shm::unshared(&shm::OWN_MOUNTS) else {
        rsshm_testkit::skip!("no new mount namespaces");
    };
    let channel = Channel::new();
    let _writer = channel.writer();
    let script = format!(
        "mount -t tmpfs -o size=8k tmpfs /mnt && cd /mnt && echo old > a.png && {{ {} snapshot {} -o a.raw; echo code $?; \
         head -c 8192 /dev/zero > full; {0} snapshot {1} -o a.png; echo code $?; ls -A; cat a.png; }}",
        env!("CARGO_BIN_EXE_rsshm"),
        channel.0
    );
    let mut command = Command::new(wrapper[0]);
    command
        .args(&wrapper[1..])
        .args(["sh", "-c", &script])
        .stdin(Stdio::null());
    let run = Run::of(command);
    assert!(run.stderr.contains("a.png: No space left on device"), "{run:?}");
    let lines: Vec<_> = run.stdout.lines().skip(1).collect();
    assert_eq!(lines, ["code 0", "code 1", "a.png", "a.raw", "full", "old"], "{run:?}");
}

#[test]
fn every_command_that_goes_on_ends_with_ctrl_c() {
    let channel = Channel::new();
    let _writer = channel.live_writer(5);
    let name = channel.as_str();
    let file = std::env::temp_dir().join(format!("{name}.raw"));
    File::create(&file).unwrap().set_len(64).unwrap();
    let published = Channel::new();
    let commands = [
        format!("echo {name}"),
        format!("echo -v {name}"),
        format!("hz {name}"),
        format!("bw {name}"),
        format!("delay {name}"),
        format!("top -b -d 50ms {name}"),
        format!("cat {name}"),
        format!("snapshot {name} -n 1000000 -o -"),
        format!("check {name} --min-fps 1 --during 1h"),
        format!("wait {name} --for gone"),
        format!(
            "publish {} {} --caps x/y --frame-size 64 --loop",
            published.0,
            file.display()
        ),
        "hz rsshm-cli-test-none".to_owned(),
        "cat rsshm-cli-test-none".to_owned(),
    ];
    let start = |arguments: &String| {
        let mut command = rsshm(arguments);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Running::start(command)
    };
    let mut running: Vec<_> = commands.iter().map(start).collect();
    wait_until("all commands run", PATIENCE, || {
        running.iter().all(|running| waits_for_ctrl_c(running.0.id())) && published.exists()
    });
    for (running, arguments) in running.iter_mut().zip(&commands) {
        let pid = nix::unistd::Pid::from_raw(running.0.id() as i32);
        nix::sys::signal::kill(pid, Signal::SIGINT).unwrap();
        assert_eq!(running.wait(), Some(130), "{arguments}");
    }
    published.assert_removed();
    fs::remove_file(file).unwrap();
}

#[test]
fn usage_errors_have_code_2_in_every_form() {
    for arguments in [
        "hz",
        "hz a/b",
        "echo x -n 0",
        "snapshot x",
        "cat x --as gif",
        "publish x",
        "wait x --for end",
        "check x --max-age 1d",
        "clean",
        "top --sort colour",
        "metrics a/b",
        "completions tcsh",
        "list --format xml",
        "info x --json=1",
        "watch x --fps 0",
    ] {
        let run = run(arguments).expect(2);
        assert!(run.stdout.is_empty() && !run.stderr.is_empty(), "{arguments}: {run:?}");
    }
    let mut process = Process::start(rsshm("help snapshot"));
    assert!(process.wait_ok().contains("Examples:"));
}
