// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of the roles and processes of the test kit.

use std::os::unix::process::ExitStatusExt;

use nix::sys::signal::{Signal, raise};
use rsshm_testkit::{
    Process, eventually,
    role::{self, Role, lines, listen, say},
};

const ROLES: &[(&str, Role)] = &[
    ("echo", echo),
    ("is busy after a line", is_busy_after_a_line),
    ("panics", |_| panic!("as it should")),
    ("stops itself", |_| raise(Signal::SIGSTOP).unwrap()),
    ("starts another", starts_another),
    ("writes to a closed pipe", writes_to_a_closed_pipe),
];

rsshm_testkit::roles!(ROLES);

fn echo(arguments: &[&str]) {
    say(arguments.join("|"));
    loop {
        say(listen());
    }
}

fn is_busy_after_a_line(_: &[&str]) {
    // The thread behind `lines` ends the process when the test ends.
    let lines = lines();
    lines.recv().unwrap();
    loop {
        std::hint::spin_loop();
    }
}

fn starts_another(_: &[&str]) {
    let mut echo = role::start("echo", &["from", "another"]);
    say(echo.receive());
}

fn writes_to_a_closed_pipe(_: &[&str]) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    drop(reader);
    say(nix::unistd::write(writer, b"x").unwrap_err());
}

#[test]
fn role_gets_its_arguments_and_converses() {
    let mut echo = role::start("echo", &["one argument", ""]);
    echo.expect("one argument|");
    for line in ["a", "", "b c"] {
        echo.send(line);
        echo.expect(line);
    }
    assert_eq!(echo.try_receive(), None);
    echo.kill();
    assert!(!echo.is_running());
    assert_eq!(echo.wait().signal(), Some(Signal::SIGKILL as i32));
}

/// A shell waits for the program, as that of a container does, and only the program counts.
#[test]
fn waiting_program_is_told_from_a_busy_one() {
    const ROLE: &str = "is busy after a line";
    let shell = ["sh", "-c", "\"$@\"; exit", "sh"];
    for mut process in [role::start(ROLE, &["x"]), role::start_within(&shell, ROLE, &["x"])] {
        process.wait_asleep();
        process.send("go on");
        eventually("the program is busy", || !process.is_asleep());
    }
}

#[test]
fn panic_of_role_is_exit_code_101() {
    let mut process = Process::start(role::command("panics", &[]));
    let output = process.wait_error();
    assert!(output.contains("as it should"), "{output}");
    assert_eq!(process.wait().code(), Some(101));
}

#[test]
fn unknown_role_is_an_error() {
    let output = Process::start(role::command("none", &[])).wait_error();
    assert!(output.contains("there is no role \"none\""), "{output}");
}

#[test]
fn stopped_process_can_be_awaited_and_resumed() {
    let mut process = role::start("stops itself", &[]);
    process.wait_stopped();
    process.resume();
    process.wait_ok();
}

#[test]
fn role_may_start_another_role() {
    assert_eq!(role::start("starts another", &[]).wait_ok(), "from|another\n");
}

#[test]
fn sigpipe_is_ignored_in_role() {
    role::start("writes to a closed pipe", &[]).expect("EPIPE: Broken pipe");
}

#[test]
fn skip_is_recorded_with_test_name() {
    let file = std::env::temp_dir().join(format!("rsshm-testkit-skipped-{}", std::process::id()));
    let mut process = Process::start(skipping(&file));
    process.wait_ok();
    let skipped = std::fs::read_to_string(&file).unwrap();
    std::fs::remove_file(&file).unwrap();
    assert_eq!(
        skipped,
        "SKIPPED roles::skips_on_request: because the role asked for it\n"
    );
}

fn skipping(file: &std::path::Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "skips_on_request"])
        .env("SKIP_NOW", "")
        .env(rsshm_testkit::skip::SKIPPED, file);
    command
}

/// The test `skip_is_recorded_with_test_name` runs this test again, in a process with the variable `SKIP_NOW`.
#[test]
fn skips_on_request() {
    if std::env::var_os("SKIP_NOW").is_some() {
        rsshm_testkit::skip!("because the role {} for it", "asked");
    }
    // An installed program is found, so it causes no skip.
    assert!(rsshm_testkit::skip::has_program("sh"));
    rsshm_testkit::need_program!("sh");
}
