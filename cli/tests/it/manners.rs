// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of what all commands share: names, usage, exit codes, colours and pipes; and of channels of other programs.

use std::process::{Command, Stdio};

use rsshm_testkit::{PATIENCE, gst::launch, need_program, wait_until};

use crate::support::{Channel, Run, rsshm, run};

#[test]
fn channels_are_named_by_name_uri_and_pattern() {
    let [one, two] = std::array::from_fn(|_| Channel::new());
    let _writers = [one.writer(), two.writer()];
    let prefix = format!("rsshm-cli-test-{}-", std::process::id());
    for (arguments, expected) in [
        (one.to_string(), vec![&one]),
        (format!("rsshm://{}", one.0), vec![&one]),
        (format!("{} {} {}", two.0, one.0, two.0), vec![&two, &one]),
    ] {
        let listed = run(&format!("list -q {arguments}")).expect(0).stdout;
        let expected: Vec<String> = expected.iter().map(|channel| channel.to_string()).collect();
        assert_eq!(listed.lines().collect::<Vec<_>>(), expected, "{arguments}");
    }
    // Other tests of this process may have channels too.
    let listed = run(&format!("list -q {prefix}*")).expect(0).stdout;
    assert!(
        listed.contains(one.as_str()) && listed.contains(two.as_str()),
        "{listed}"
    );
    assert!(listed.lines().all(|name| name.starts_with(&prefix)), "{listed}");
}

#[test]
fn exit_codes_and_errors_say_what_happened() {
    for (arguments, code, words) in [
        (
            "info rsshm-cli-test-none",
            1,
            "there is no channel rsshm-cli-test-none; `rsshm list`",
        ),
        ("list rsshm-cli-test-none*", 1, "no channel matches"),
        ("info a/b", 2, "slash"),
        ("info", 2, "CHANNEL"),
        ("", 2, "Usage"),
        ("lst", 2, "list"),
        ("list --format yaml", 2, "json"),
    ] {
        let run = run(arguments).expect(code);
        assert!(
            run.stderr.contains(words) && run.stdout.is_empty(),
            "{arguments}: {run:?}"
        );
    }
    for arguments in ["--help", "list --help", "info --help"] {
        let run = run(arguments).expect(0);
        assert!(run.stdout.contains("Examples:") && run.stderr.is_empty(), "{run:?}");
    }
    assert!(run("--version").expect(0).stdout.starts_with("rsshm 0."));
}

/// Runs `rsshm` in a terminal of the program `script`, and returns what the terminal received.
fn in_terminal(command: &str, environment: &[(&str, &str)]) -> String {
    let mut script = Command::new("script");
    script
        .args(["--quiet", "--return", "--command", command, "/dev/null"])
        .env_remove("NO_COLOR")
        .env("TERM", "xterm")
        .envs(environment.iter().copied())
        .stdin(Stdio::null());
    Run::of(script).expect(0).stdout
}

#[test]
fn only_terminals_get_colours() {
    need_program!("script");
    let channel = Channel::new();
    let _writer = channel.writer();
    let arguments = format!("list {}", channel.0);
    let command = format!("{} {arguments}", env!("CARGO_BIN_EXE_rsshm"));
    assert!(!run(&arguments).expect(0).stdout.contains('\x1b'));
    assert!(in_terminal(&command, &[]).contains("\x1b[32malive\x1b[0m"));
    assert!(!in_terminal(&command, &[("NO_COLOR", "1")]).contains('\x1b'));
    assert!(!in_terminal(&command, &[("TERM", "dumb")]).contains('\x1b'));
    assert!(!in_terminal(&format!("{command} --no-color"), &[]).contains('\x1b'));
}

#[test]
fn closed_pipe_is_no_error() {
    let mut child = rsshm("list --json")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn name_with_escape_sequence_does_not_reach_the_terminal() {
    let channel = Channel::named(&format!("rsshm-cli-test-{}-\x1b[31m", std::process::id()));
    let _writer = channel.writer();
    let run = run("list").expect(0);
    assert!(
        run.stdout
            .contains(&format!("rsshm-cli-test-{}-?[31m", std::process::id())),
        "{run:?}"
    );
    assert!(!run.stdout.contains('\x1b'));
}

#[test]
fn channels_of_gstreamer_are_shown() {
    need_program!("gst-launch-1.0");
    let [video, audio] = std::array::from_fn(|_| Channel::new());
    let _writers = [
        launch(&format!(
            "videotestsrc is-live=true ! video/x-raw,format=NV12,width=320,height=240,framerate=30/1 ! rsshmsink channel={}",
            video.0
        )),
        launch(&format!(
            "audiotestsrc is-live=true ! audio/x-raw,format=S16LE,rate=48000,channels=2 ! rsshmsink channel={}",
            audio.0
        )),
    ];
    let _reader = launch(&format!("rsshmsrc channel={} ! fakesink", video.0));
    let report = |channel: &Channel| run(&format!("list {} --json", channel.0)).json()[0].clone();
    wait_until("frames and a reader", PATIENCE, || {
        let exists = video.exists() && audio.exists();
        let is_read = || !report(&video)["readers"][0]["program"].is_null();
        exists && is_read() && report(&audio)["head"].as_u64() > Some(2)
    });
    let (video_report, audio_report) = (report(&video), report(&audio));
    assert_eq!(
        (&video_report["format"], &video_report["width"]),
        (&"NV12".into(), &320.into())
    );
    assert_eq!(video_report["writer"]["program"], "gst-launch-1.0");
    assert_eq!(video_report["readers"][0]["program"], "gst-launch-1.0");
    assert_eq!(
        (&audio_report["media"], &audio_report["format"]),
        (&"audio/x-raw".into(), &"S16LE".into())
    );
    let table = run(&format!("list {} {}", video.0, audio.0)).expect(0).stdout;
    assert!(
        table.contains("320x240") && table.contains("S16LE 48 kHz x2"),
        "{table}"
    );
}

/// A channel of the Python package looks like every other one.
#[test]
fn channel_of_python_is_shown() {
    // Debian's own Python, because the tests install its packages.
    need_program!("/usr/bin/python3");
    let channel = Channel::new();
    let text = format!(
        "import rsshm, sys, numpy\n\
         with rsshm.Writer('{}', shape=(4, 6, 3), format='BGR', fps=25) as writer:\n\
         \x20   writer.write(numpy.zeros((4, 6, 3), 'uint8'))\n\
         \x20   print('ready', flush=True)\n\
         \x20   sys.stdin.readline()\n",
        channel.0
    );
    let mut command = Command::new("/usr/bin/python3");
    command
        .args(["-c", &text])
        .env("PYTHONPATH", concat!(env!("CARGO_MANIFEST_DIR"), "/../python"));
    let mut python = rsshm_testkit::Process::converse(command);
    python.expect("ready");
    let report = run(&format!("info {} --json", channel.0)).expect(0).json();
    assert_eq!(
        (&report["format"], &report["width"], &report["framerate"]),
        (&"BGR".into(), &6.into(), &"25/1".into())
    );
    assert_eq!(
        (&report["head"], &report["writer"]["program"]),
        (&1.into(), &"python3".into())
    );
    python.send("");
    assert!(python.wait().success());
}
