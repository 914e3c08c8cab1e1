// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every command on channels in every state, and the exit code that docs/CLI.md promises.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    process::Command,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use rsshm_channel::{ChannelName, Writer, WriterOptions};
use rsshm_testkit::{PATIENCE, Process, Random, need_root, on_this_machine, privileges::NOBODY, wait_until};

use crate::{
    support::{Channel, Run, rsshm, run, run_as, waits_for_ctrl_c},
    terminal::typescript,
};

/// The commands that answer at once or after a time-out. `CH` is the channel.
const COMMANDS: [&str; 14] = [
    "list CH",
    "info CH",
    "top -b -n 1 -d 50ms CH",
    "wait CH --timeout 50ms",
    "wait CH --for caps --timeout 50ms",
    "wait CH --for reader --timeout 50ms",
    "snapshot CH -o - --type raw --timeout 50ms",
    "cat CH -n 1 --timeout 50ms",
    "check CH",
    "check CH --min-fps 1 --during 50ms",
    "clean CH --dry-run",
    "metrics CH",
    "hz CH -n 1",
    "echo CH -n 1 -v",
];

/// Checks the codes of [`COMMANDS`]; 130 stands for a command that waits until Ctrl-C.
#[track_caller]
fn expect(channel: &Channel, user: Option<u32>, codes: [i32; COMMANDS.len()], words: &str) {
    for (arguments, code) in COMMANDS.iter().zip(codes) {
        let arguments = arguments.replace("CH", channel.as_str());
        if code == 130 {
            let mut waiting = Process::start(rsshm(&arguments));
            // `echo` says nothing while it waits.
            if arguments.starts_with("hz") {
                wait_until("it waits", PATIENCE, || {
                    waiting.output().contains("waiting for a writer")
                });
            } else {
                wait_until("it waits", PATIENCE, || waits_for_ctrl_c(waiting.pid().as_raw() as u32));
            }
            waiting.signal(Signal::SIGINT);
            assert_eq!(waiting.wait().code(), Some(130), "{arguments}: {}", waiting.output());
            continue;
        }
        let run = match user {
            Some(user) => run_as(user, &arguments),
            None => run(&arguments),
        };
        assert_eq!(run.code, code, "{arguments}: {run:?}");
        // A command that fails says why, on stderr, or in its one line if it is `check`.
        let said = if arguments.starts_with("check") {
            &run.stdout
        } else {
            &run.stderr
        };
        let is_explained = matches!(code, 1 | 4 | 5) && !arguments.starts_with("clean");
        assert!(!is_explained || said.contains(words), "{arguments}, {words}: {run:?}");
        assert!(code == 0 || !said.is_empty(), "{arguments}: {run:?}");
    }
}

fn overwrite(channel: &Channel, offset: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(channel.segment()).unwrap();
    file.write_all_at(bytes, offset).unwrap();
}

/// A channel whose writer was killed.
fn stale() -> Channel {
    let channel = Channel::new();
    channel.writer().kill();
    channel
}

#[test]
fn absent_and_stale_channels_have_their_codes() {
    let absent = Channel::new();
    expect(
        &absent,
        None,
        [1, 1, 0, 3, 3, 3, 3, 3, 1, 1, 1, 0, 130, 130],
        "there is no channel",
    );
    expect(
        &stale(),
        None,
        [0, 0, 0, 3, 3, 3, 3, 3, 1, 1, 0, 0, 130, 130],
        "its writer is dead",
    );
    // A writer without a format has no segment.
    let waiting = Channel::new();
    let _writer = Writer::open((*waiting).clone(), WriterOptions::default()).unwrap();
    expect(&waiting, None, [0, 0, 0, 3, 3, 3, 3, 3, 1, 1, 1, 0, 130, 130], "");
}

#[test]
fn damaged_channels_have_code_5() {
    const CODES: [i32; COMMANDS.len()] = [0, 5, 0, 5, 5, 5, 5, 5, 5, 5, 0, 0, 5, 5];
    let [truncated, field, version] = std::array::from_fn(|_| stale());
    let file = File::options().write(true).open(truncated.segment()).unwrap();
    file.set_len(100).unwrap();
    expect(&truncated, None, CODES, "100 bytes");
    overwrite(&field, 92, &63_u32.to_ne_bytes());
    expect(&field, None, CODES, "reader_count");
    overwrite(&version, 8, &7_u32.to_ne_bytes());
    expect(&version, None, CODES, "version is 7");
    // Without the magic number, the file may belong to any program, so it is never removed.
    let foreign = [stale(), stale()];
    let mut noise = [0; 4096];
    noise
        .iter_mut()
        .zip(0_u32..)
        .for_each(|(byte, index)| *byte = (index.wrapping_mul(2_654_435_761) >> 24) as u8);
    overwrite(&foreign[0], 0, &noise);
    File::create(foreign[1].segment()).unwrap();
    for channel in &foreign {
        let codes = CODES.map(|code| if code == 0 { -1 } else { code });
        let codes = [0, 5, 0, codes[3], 5, 5, 5, 5, 5, 5, 5, 0, 5, 5];
        expect(channel, None, codes, "");
        run(&format!("clean {}", channel.0)).expect(5);
        assert!(channel.exists());
    }
    for channel in [&truncated, &field, &version] {
        assert_eq!(typescript(&format!("watch {}", channel.0)).0, 5);
        run(&format!("clean {}", channel.0)).expect(0);
        channel.assert_removed();
    }
}

#[test]
fn another_user_has_code_4_or_looks() {
    need_root!("another user runs the commands");
    let [private, shown] = std::array::from_fn(|_| Channel::new());
    let _private = private.writer();
    const DENIED: [i32; COMMANDS.len()] = [0, 4, 0, 4, 4, 4, 4, 4, 4, 4, 4, 0, 4, 4];
    expect(&private, Some(NOBODY), DENIED, "no permission");
    let publish = run_as(NOBODY, &format!("publish {} - --caps x/y --frame-size 1", private.0)).expect(4);
    assert!(publish.stderr.contains("no permission"), "{publish:?}");
    // With read permission every command that looks works, and what would change the channel does not.
    let mut writer = shown.writer_with("0644");
    let before = shown.segment().metadata().unwrap().len();
    const READABLE: [i32; COMMANDS.len()] = [0, 0, 0, 0, 0, 3, 0, 0, 0, 1, 1, 0, 130, 0];
    for (arguments, code) in COMMANDS.iter().zip(READABLE).filter(|(_, code)| *code != 130) {
        let run = run_as(NOBODY, &arguments.replace("CH", shown.as_str()));
        assert_eq!(run.code, code, "{arguments}: {run:?}");
    }
    run_as(NOBODY, &format!("publish {} - --caps x/y --frame-size 1", shown.0)).expect(4);
    run_as(NOBODY, &format!("clean {}", shown.0)).expect(1);
    writer.send("");
    writer.expect("2");
    assert_eq!(shown.segment().metadata().unwrap().len(), before);
}

/// A program with write permission changes words of the segment all the time. Each command ends by itself, and says
/// something, if anything, that a terminal can show.
#[test]
fn words_that_change_all_the_time_stop_no_command() {
    let channel = Channel::new();
    let _writer = channel.live_writer(1);
    let _reader = channel.reader();
    let file = File::options().read(true).write(true).open(channel.segment()).unwrap();
    let field = |offset| {
        let mut bytes = [0; 8];
        file.read_exact_at(&mut bytes, offset).unwrap();
        u64::from_ne_bytes(bytes)
    };
    // The header, the status, the reader table, the ring, and the records of the first slots.
    let parts = [
        (0, 256),
        (256, 128),
        (field(80), 512),
        (field(96), 512),
        (field(112), 8192),
    ];
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Several words are wrong at each moment, so that the commands meet many of them.
        for seed in 0..6 {
            let (channel, parts, is_over) = (&channel, &parts, &is_over);
            scope.spawn(move || {
                let mut random = Random::new(seed);
                // Relaxed, because the flag orders nothing else.
                while !is_over.load(Ordering::Relaxed) {
                    // The writer makes another segment when it finds its header changed.
                    let Ok(file) = File::options().read(true).write(true).open(channel.segment()) else {
                        continue;
                    };
                    let (start, size) = parts[random.below(parts.len() as u64) as usize];
                    let offset = start + (random.below(size) & !7);
                    let mut former = [0; 8];
                    let _ = file.read_exact_at(&mut former, offset);
                    let is_large = random.permille(500);
                    let value = if is_large {
                        random.number()
                    } else {
                        random.below(1 << 20)
                    };
                    file.write_all_at(&value.to_ne_bytes(), offset).unwrap();
                    std::thread::sleep(Duration::from_millis(2));
                    file.write_all_at(&former, offset).unwrap();
                }
            });
        }
        let outcome = std::panic::catch_unwind(|| {
            for _ in 0..6 {
                for arguments in &COMMANDS[..12] {
                    let started = Instant::now();
                    let run = run(&arguments.replace("CH", channel.as_str()));
                    assert!((0..=5).contains(&run.code), "{arguments}: {run:?}");
                    assert!(
                        started.elapsed() < on_this_machine(Duration::from_secs(15)),
                        "{arguments}: {run:?}"
                    );
                    let is_shown = !run
                        .stderr
                        .contains(|character: char| character.is_control() && character != '\n');
                    assert!(is_shown, "{run:?}");
                }
            }
        });
        is_over.store(true, Ordering::Relaxed);
        outcome.unwrap();
    });
}

/// Names and caps are what another program has written.
#[test]
fn control_characters_of_others_do_not_reach_stderr() {
    let channel = Channel::named(&format!("rsshm-cli-test-{}-\x1b[2J\u{9b}31m", std::process::id()));
    channel.writer().kill();
    for arguments in [
        "check",
        "wait --timeout 10ms",
        "clean --dry-run",
        "snapshot -o a.png --timeout 10ms",
    ] {
        let mut command = rsshm(arguments);
        command.arg(channel.as_str());
        let run = Run::of(command);
        let text = run.stdout + &run.stderr;
        assert!(
            !text.is_empty() && !text.contains(['\x1b', '\u{9b}']),
            "{arguments}: {text:?}"
        );
    }
}

#[test]
fn hundreds_of_channels_are_listed() {
    const COUNT: usize = 300;
    let channels: Vec<Channel> = (0..COUNT).map(|_| Channel::new()).collect();
    let one = |channel: &Channel| {
        let writer = Writer::open(ChannelName::new(channel.as_str()).unwrap(), WriterOptions::default()).unwrap();
        writer
            .set_caps(rsshm_channel::Caps::fixed_size(
                crate::support::CAPS,
                crate::support::SIZE,
            ))
            .unwrap();
        drop(writer.claim(crate::support::SIZE).unwrap());
        writer
    };
    let writers: Vec<Writer> = channels.iter().map(one).collect();
    let started = Instant::now();
    let listed = run("list --json").expect(0).json();
    println!("list of {COUNT} channels: {:?}", started.elapsed());
    for channel in &channels {
        let found = listed
            .as_array()
            .unwrap()
            .iter()
            .find(|report| report["channel"] == channel.as_str());
        let found = found.unwrap_or_else(|| panic!("{} is missing", channel.0));
        assert_eq!(
            (&found["state"], &found["format"], &found["width"]),
            (&"alive".into(), &"GRAY8".into(), &64.into())
        );
        assert_eq!(found["writer"]["pid"], std::process::id());
    }
    let pattern = format!("rsshm-cli-test-{}-*", std::process::id());
    for (arguments, lines) in [
        ("list -q --alive", 0),
        ("metrics", 0),
        ("top -b -n 1 -d 50ms", COUNT + 1),
    ] {
        let text = run(&format!("{arguments} {pattern}")).expect(0).stdout;
        assert!(text.lines().count() >= COUNT.max(lines), "{text}");
        assert!(channels.iter().all(|channel| text.contains(channel.as_str())), "{text}");
    }
    drop(writers);
    let shell = Command::new("sh")
        .args([
            "-c",
            &format!("{} list -q '{pattern}' | head -1", env!("CARGO_BIN_EXE_rsshm")),
        ])
        .output();
    assert!(shell.unwrap().status.success());
}
