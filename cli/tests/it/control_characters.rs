// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests with names and texts that would control the terminal that shows them. Any program may write them into shared
//! memory.

use std::{
    fs::File,
    os::unix::fs::{FileExt, symlink},
    process::Stdio,
};

use rsshm_testkit::{PATIENCE, wait_until};

use crate::{
    line::{FAST, Line, find},
    support::{Channel, Running, rsshm, run},
};

/// Sets the title of the window, sounds an alarm, begins a sequence with a single character, and changes the direction.
const EVIL: &str = "\x1b]0;EVIL\x07\u{9b}31m\u{202e}\u{7f}";

/// Replaces text in the segment, also in what is only read once, such as caps. Both texts have the same size.
fn replace(channel: &Channel, from: &[u8], to: &[u8]) {
    assert_eq!(from.len(), to.len());
    let bytes = std::fs::read(channel.segment()).unwrap();
    let file = File::options().write(true).open(channel.segment()).unwrap();
    let mut start = 0;
    let mut count = 0;
    while let Some(found) = find(&bytes[start..], from) {
        start += found;
        file.write_all_at(to, start as u64).unwrap();
        start += from.len();
        count += 1;
    }
    assert!(count > 0, "the segment has no {:?}", String::from_utf8_lossy(from));
}

/// Checks that there are no control characters but those of `rsshm` itself: the ends of lines, tabs and colours.
#[track_caller]
fn check(arguments: &str, bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut characters = text.chars().peekable();
    while let Some(character) = characters.next() {
        let is_colour = character == '\x1b' && characters.peek() == Some(&'[') && {
            let sequence: String = characters.by_ref().take_while(|character| *character != 'm').collect();
            sequence.len() > 1
                && sequence[1..]
                    .chars()
                    .all(|character| character.is_ascii_digit() || character == ';')
        };
        let is_text = !character.is_control() && character != '\u{202e}';
        assert!(
            is_text || is_colour || "\n\r\t".contains(character),
            "{arguments}: {character:?} in {text:?}"
        );
    }
}

/// Runs each command on the channel in a terminal, and checks what the terminal gets. The commands that follow the frames
/// need a writer that is not stopped.
fn check_commands(channel: &Channel, has_frames: bool) {
    let name = channel.as_str();
    let file = std::env::temp_dir().join(format!("rsshm-cli-test-{}.png", std::process::id()));
    let commands = [
        "list",
        "list NAME",
        "list -q",
        "list --json NAME",
        "list --format csv NAME",
        "info NAME",
        "info NAME --json",
        "info NAME --format csv",
        "top -b -n 1 -d 50ms NAME",
        "top -b -n 1 -d 50ms NAME --json",
        "top -b -n 1 -d 50ms NAME --format csv",
        "hz NAME -n 1",
        "bw NAME -n 1",
        "delay NAME -n 1",
        "echo NAME -n 3 -v",
        "echo NAME -n 3 -v --json",
        "echo NAME -n 3 -v --format csv",
        "snapshot NAME -o FILE --timeout 200ms",
        "cat NAME -n 1 --timeout 200ms",
        "metrics NAME",
        "wait NAME --timeout 50ms",
        "check NAME --max-age 1ms --min-fps 1000 --during 50ms",
        "check NAME --max-age 1ms --min-fps 1000 --during 50ms --json",
        "doctor --quick",
        "doctor --quick --json",
        "clean NAME --dry-run",
        "publish NAME /dev/null --caps application/x-test --frame-size 3",
    ];
    let follows = |arguments: &str| {
        ["hz", "bw", "delay", "echo"]
            .iter()
            .any(|command| arguments.starts_with(command))
    };
    for arguments in commands
        .into_iter()
        .filter(|arguments| has_frames || !follows(arguments))
    {
        let arguments = arguments
            .replace("NAME", name)
            .replace("FILE", &file.display().to_string());
        let (code, received) = Line::start(&rsshm(&arguments), (200, 50), FAST, &[]).finish();
        // A usage error would say that the command line above is wrong.
        assert!(
            code != Some(2) || arguments.starts_with("cat"),
            "{arguments}: {}",
            String::from_utf8_lossy(&received)
        );
        assert!(!received.is_empty() || arguments.starts_with("wait"), "{arguments}");
        check(&arguments, &received);
    }
    let _ = std::fs::remove_file(file);
    for arguments in ["top -d 50ms", "watch --as blocks"] {
        let mut line = Line::start(&rsshm(&format!("{arguments} {name}")), (200, 50), FAST, &[]);
        line.wait_for("rsshm-cli");
        line.type_keys("q");
        let (code, received) = line.finish();
        let received = String::from_utf8_lossy(&received).into_owned();
        assert!(code.is_some(), "{arguments}: {received:?}");
        for part in ["\x1b]", "\x07", "\u{9b}", "\u{202e}", "\x7f"] {
            assert!(!received.contains(part), "{arguments}: {part:?} in {received:?}");
        }
    }
}

#[test]
fn names_do_not_control_the_terminal() {
    let channel = Channel::named(&format!("rsshm-cli-test-{}-{EVIL}", std::process::id()));
    let _writer = channel.live_writer(20);
    // The reader is a program with such a name.
    let program = std::env::temp_dir().join(format!("rsshm-cli-{}-{EVIL}", std::process::id()));
    symlink(env!("CARGO_BIN_EXE_rsshm"), &program).unwrap();
    let mut reader = std::process::Command::new(&program);
    reader
        .args(["cat", channel.as_str()])
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let _reader = Running::start(reader);
    wait_until("the reader", PATIENCE, || {
        let report = run(&format!("info {} --json", channel.0)).json();
        report["readers"][0]["program"]
            .as_str()
            .is_some_and(|name| name.contains("EVIL"))
    });
    check_commands(&channel, true);
    std::fs::remove_file(program).unwrap();
}

#[test]
fn metadata_and_events_do_not_control_the_terminal() {
    let channel = Channel::new();
    let _writer = channel.writer_of_evil(EVIL);
    check_commands(&channel, true);
    // The texts are there, so that this test checks something.
    let text = run(&format!("echo {} -n 3 -v --json", channel.0)).expect(0).stdout;
    assert!(text.matches("EVIL").count() >= 3, "{text}");
}

#[test]
fn caps_do_not_control_the_terminal() {
    for evil in ["GR\x1b]0;", "A\u{9b}2J"] {
        let channel = Channel::new();
        let mut writer = channel.writer();
        // A writer that runs would repair its caps.
        writer.stop();
        replace(&channel, &b"GRAY8,w"[..evil.len()], evil.as_bytes());
        check_commands(&channel, false);
        writer.kill();
    }
}

#[test]
fn wide_names_keep_the_columns() {
    let channel = Channel::named(&format!("rsshm-cli-test-日本語-{}", std::process::id()));
    let _writer = channel.live_writer(20);
    let text = run(&format!("list {}", channel.0)).expect(0).stdout;
    let lines: Vec<_> = text.lines().collect();
    // The name has three characters of two columns, so the next column begins three characters earlier.
    let column = |line: &str, word: &str| line.split(word).next().map(|before| before.chars().count());
    assert_eq!(
        column(lines[0], "FORMAT"),
        column(lines[1], "GRAY8").map(|column| column + 3),
        "{text}"
    );
    let mut line = Line::start(&rsshm(&format!("top -d 50ms {}", channel.0)), (100, 20), FAST, &[]);
    line.wait_for("日本語");
    wait_until("the rate", PATIENCE, || line.text().contains("alive"));
    line.type_keys("q");
    assert_eq!(line.wait_for_end().0, Some(0));
}
