// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `list` and `info`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    os::{fd::AsFd, unix::fs::FileExt},
};

use nix::sys::signal::Signal;
use rsshm_channel::{Caps, FrameDescriptor, Object, ObjectPart, Writer, WriterOptions};
use rsshm_testkit::{PATIENCE, need_root, privileges::NOBODY, wait_until};
use serde_json::Value;

use crate::support::{CAPS, Channel, files, run, run_as};

/// The report of `info --json`.
#[track_caller]
fn info(channel: &Channel) -> Value {
    run(&format!("info {} --json", channel.0)).expect(0).json()
}

/// The report of `list --json` on one channel.
#[track_caller]
fn listed(channel: &Channel) -> Value {
    run(&format!("list {} --json", channel.0)).expect(0).json()[0].clone()
}

#[test]
fn info_shows_channel_and_its_reader() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    let reader = channel.reader();
    for frame in 2..=4 {
        writer.send("");
        writer.expect(&frame.to_string());
    }
    let report = info(&channel);
    assert_eq!(report["channel"], channel.as_str());
    assert_eq!((&report["state"], &report["problem"]), (&"alive".into(), &Value::Null));
    assert_eq!((&report["format"], &report["width"]), (&"GRAY8".into(), &64.into()));
    assert_eq!((&report["framerate"], &report["head"]), (&"30/1".into(), &4.into()));
    assert!(report["caps"].as_str().unwrap().contains("GRAY8"), "{CAPS}");
    assert!(report["newest_age_ns"].as_u64().unwrap() < 20_000_000_000);
    assert_eq!(report["writer"]["pid"], writer.pid().as_raw());
    assert_eq!(
        (&report["writer"]["alive"], &report["writer"]["stopped"]),
        (&true.into(), &false.into())
    );
    assert_eq!(
        (&report["memory"]["mode"], &report["memory"]["slots_held"]),
        (&"0600".into(), &1.into())
    );
    assert_eq!(report["reader_count"], 1);
    let only = &report["readers"][0];
    assert_eq!(
        (&only["pid"], &only["state"]),
        (&reader.pid().as_raw().into(), &"attached".into())
    );
    assert_eq!((&only["behind"], &only["holds"]), (&3.into(), &1.into()));
    assert_eq!((&only["alive"], &only["stopped"]), (&true.into(), &false.into()));
    assert!(
        only["program"]
            .as_str()
            .is_some_and(|program| program.starts_with("it-")),
        "{only}"
    );
    assert!(only["quota"].as_u64().is_some_and(|quota| quota >= 1));

    let text = run(&format!("info {}", channel.0)).expect(0).stdout;
    for part in [
        "video/x-raw GRAY8 64x48 30/1",
        "BEHIND",
        "reading",
        "newest is 4",
        "gst-launch-1.0 rsshmsrc channel=",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn info_shows_stopped_and_killed_readers() {
    let channel = Channel::new();
    let _writer = channel.writer();
    let mut reader = channel.reader();
    reader.stop();
    assert_eq!(info(&channel)["readers"][0]["stopped"], true);
    assert!(run(&format!("info {}", channel.0)).stdout.contains("stopped (T)"));
    reader.resume();
    wait_until("continues", PATIENCE, || {
        info(&channel)["readers"][0]["stopped"] == false
    });
    reader.kill();
    assert_eq!(info(&channel)["reader_count"], 0);
}

#[test]
fn looking_changes_no_byte() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    let _reader = channel.reader();
    // The service of the writer would write to the segment.
    writer.stop();
    let before = files(&channel);
    run(&format!("info {}", channel.0)).expect(0);
    run("list").expect(0);
    assert!(files(&channel) == before, "the files have changed");
    writer.resume();
    writer.send("");
    writer.expect("2");
}

#[test]
fn list_shows_every_state() {
    let [live, stopped, dead, damaged, other, waiting] = std::array::from_fn(|_| Channel::new());
    let _live = live.writer();
    let held = stopped.writer();
    held.stop();
    dead.writer().kill();
    let mut writers = [damaged.writer(), other.writer()];
    // The names change no more, because the writers are dead.
    writers.iter_mut().for_each(rsshm_testkit::Process::kill);
    let write = |channel: &Channel, offset, value: u32| {
        let file = File::options().write(true).open(channel.segment()).unwrap();
        file.write_all_at(&value.to_ne_bytes(), offset).unwrap();
    };
    write(&damaged, 92, 63);
    write(&other, 8, 7);
    let _waiting = rsshm_channel::Writer::open((*waiting).clone(), rsshm_channel::WriterOptions::default()).unwrap();

    for (channel, state, problem) in [
        (&live, "alive", ""),
        (&stopped, "alive", ""),
        (&dead, "no-writer", "is dead; start it again"),
        (&damaged, "damaged", "reader_count"),
        (&other, "other-version", "version is 7"),
        (&waiting, "no-format", "no format yet"),
    ] {
        let report = listed(channel);
        assert_eq!(report["state"], state, "{report}");
        assert!(
            report["problem"].as_str().unwrap_or_default().contains(problem),
            "{report}"
        );
        assert_eq!(report["problem"].is_null(), problem.is_empty(), "{report}");
    }
    assert_eq!(listed(&stopped)["writer"]["stopped"], true);
    // `info` explains the same, and has the exit code.
    for (channel, code) in [(&dead, 0), (&waiting, 0), (&damaged, 5), (&other, 5)] {
        let run = run(&format!("info {}", channel.0)).expect(code);
        assert_eq!(run.stderr.is_empty(), code == 0, "{run:?}");
        assert!(run.stdout.contains("problem"), "{run:?}");
    }
    let advice = run(&format!("info {}", other.0)).stderr;
    assert!(advice.contains("version"), "{advice}");
    // All of them are in the list without names, and --alive leaves out the others.
    let names =
        |arguments: &str| -> BTreeSet<String> { run(arguments).expect(0).stdout.lines().map(str::to_owned).collect() };
    let (all, alive) = (names("list -q"), names("list -q --alive"));
    for channel in [&live, &stopped, &waiting] {
        assert!(all.contains(channel.as_str()) && alive.contains(channel.as_str()));
    }
    for channel in [&dead, &damaged, &other] {
        assert!(all.contains(channel.as_str()) && !alive.contains(channel.as_str()));
    }
    let table = run("list").expect(0).stdout;
    assert!(table.contains(&format!("{}: its writer (process", dead.0)), "{table}");
}

#[test]
fn other_users_see_what_the_mode_allows() {
    need_root!("another user looks at a channel");
    let [private, shown] = std::array::from_fn(|_| Channel::new());
    let _private = private.writer();
    let mut writer = shown.writer_with("0644");
    let _reader = shown.reader();
    writer.send("");
    writer.expect("2");

    let denied = run_as(NOBODY, &format!("info {}", private.0)).expect(4);
    assert!(
        denied.stderr.contains("no permission to read") && denied.stdout.contains("denied"),
        "{denied:?}"
    );
    let listed = run_as(NOBODY, &format!("list {} --json", private.0)).expect(0).json();
    assert_eq!(listed[0]["state"], "denied");
    assert!(run_as(NOBODY, "list -q").expect(0).stdout.contains(private.as_str()));

    let report = run_as(NOBODY, &format!("info {} --json", shown.0)).expect(0).json();
    assert_eq!((&report["state"], &report["head"]), (&"alive".into(), &2.into()));
    let reader = &report["readers"][0];
    assert_eq!(
        (&reader["behind"], &reader["alive"]),
        (&1.into(), &Value::Null),
        "the lock file is not for others"
    );
}

#[test]
fn pid_of_another_namespace_has_no_program() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    writer.stop();
    // This process exists, but it does not map the segment.
    let other = std::process::id();
    let file = File::options().write(true).open(channel.segment()).unwrap();
    file.write_all_at(&other.to_ne_bytes(), 144).unwrap();
    let report = info(&channel);
    assert_eq!(
        (&report["writer"]["pid"], &report["writer"]["alive"]),
        (&other.into(), &true.into())
    );
    assert_eq!(report["writer"]["program"], Value::Null);
    writer.kill();
}

#[test]
fn reader_of_former_format_is_shown() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    let reader = channel.reader();
    reader.stop();
    writer.send("caps");
    writer.expect("2");
    let report = info(&channel);
    assert_eq!((&report["format"], &report["reader_count"]), (&"BGR".into(), &1.into()));
    let only = &report["readers"][0];
    assert_eq!(
        (&only["state"], &only["pid"], &only["behind"]),
        (&"new".into(), &Value::Null, &Value::Null)
    );
    assert_eq!(only["alive"], true);
    reader.signal(Signal::SIGCONT);
}

/// Every field of JSON and of CSV is in docs/CLI.md, and no other.
#[test]
fn documentation_has_the_schema() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CLI.md")).unwrap();
    let section = text.split("## Fields of list and info").nth(1).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let documented: BTreeSet<String> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split(" | ").next())
        .flat_map(|names| names.split(", "))
        .map(|name| name.trim_matches(['`', ' ']).to_owned())
        .collect();

    let channel = Channel::new();
    let _writer = channel.writer();
    let _reader = channel.reader();
    let report = info(&channel);
    let mut printed = BTreeSet::new();
    collect(&report, "", &mut printed);
    let in_objects = Channel::new();
    let _object_writer = object_writer(&in_objects);
    collect(&info(&in_objects), "", &mut printed);
    // Each of these lists is empty in one of the reports.
    printed.retain(|field| field != "readers" && field != "objects");
    assert_eq!(printed, documented);
    assert_eq!(
        listed(&channel).as_object().unwrap().len(),
        report.as_object().unwrap().len()
    );

    for command in ["list", "info"] {
        let csv = run(&format!("{command} {} --format csv", channel.0)).expect(0).stdout;
        let lines: Vec<_> = csv.lines().collect();
        assert_eq!(lines.len(), 2, "{csv}");
        assert!(section.contains(&format!("```text\n{}\n```", lines[0])), "{csv}");
    }
}

/// The paths of all fields of `value`.
fn collect(value: &Value, path: &str, fields: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                collect(value, &path, fields);
            }
        }
        Value::Array(items) if items.first().is_some_and(Value::is_object) => {
            items
                .iter()
                .for_each(|item| collect(item, &format!("{path}[]"), fields));
        }
        _ => {
            fields.insert(path.to_owned());
        }
    }
}

/// The text is that of OpenMetrics: families in one piece, labels in quotes, and the end.
#[test]
fn metrics_are_openmetrics() {
    let channel = Channel::new();
    let mut writer = channel.writer();
    let reader = channel.reader();
    for frame in 2..=3 {
        writer.send("");
        writer.expect(&frame.to_string());
    }
    let text = run(&format!("metrics {}", channel.0)).expect(0).stdout;
    assert!(text.ends_with("# EOF\n"), "{text}");
    let labels = format!("channel=\"{}\"", channel.0);
    for line in [
        format!("rsshm_up{{{labels}}} 1"),
        format!("rsshm_frames_total{{{labels}}} 3"),
        format!("rsshm_readers{{{labels}}} 1"),
        "# TYPE rsshm_frames counter".to_owned(),
    ] {
        assert!(text.lines().any(|found| found == line), "{line}: {text}");
    }
    let behind = text
        .lines()
        .find(|line| line.starts_with("rsshm_reader_behind_frames{"))
        .unwrap();
    assert!(
        behind.contains(&format!("entry=\"0\",pid=\"{}\"", reader.pid())) && behind.ends_with(" 2"),
        "{behind}"
    );
    // Each sample follows the TYPE of its family.
    let mut family = "";
    for line in text.lines().take_while(|line| *line != "# EOF") {
        match line.strip_prefix("# TYPE ") {
            Some(rest) => family = rest.split(' ').next().unwrap(),
            None => assert!(line.starts_with('#') || line.starts_with(family), "{line} in {family}"),
        }
    }
    writer.kill();
    assert!(
        run("metrics")
            .expect(0)
            .stdout
            .contains(&format!("rsshm_up{{{labels}}} 0"))
    );
}

/// A writer that has published a frame in memory outside the segment, and this memory.
fn object_writer(channel: &Channel) -> (Writer, Object) {
    let writer = Writer::open(channel.0.clone(), WriterOptions::default()).unwrap();
    let caps = "video/x-raw,format=GRAY8,width=64,height=64,framerate=30/1";
    writer.set_caps(Caps::objects(caps)).unwrap();
    let path = format!("/dev/shm/.rsshm-test-{}", channel.0);
    let memory = File::options()
        .create_new(true)
        .read(true)
        .write(true)
        .open(&path)
        .unwrap();
    fs::remove_file(path).unwrap();
    memory.write_all_at(&[77; 64 * 64], 0).unwrap();
    let object = writer.objects().register(memory.as_fd()).unwrap();
    let part = ObjectPart::new(&object, 0, 64 * 64);
    let published = writer
        .objects()
        .publish(&[part], FrameDescriptor::default(), &[], Box::new(()));
    assert_eq!(published, Ok(Some(1)));
    (writer, object)
}

/// The frames of this channel are in memory outside the segment. The commands show this, and read the frames.
#[test]
fn channel_of_objects_is_shown_and_read() {
    let channel = Channel::new();
    let (_writer, object) = object_writer(&channel);
    let report = info(&channel);
    assert_eq!(
        (&report["options"]["objects"], &report["newest_bytes"]),
        (&true.into(), &4096.into())
    );
    let shown = serde_json::json!([{"id": object.id(), "kind": "memfd", "seq": 1, "bytes": 4096}]);
    assert_eq!(report["objects"], shown);
    let text = run(&format!("info {}", channel.0)).expect(0);
    assert!(text.stdout.contains("by descriptor"), "{}", text.stdout);
    let line = format!(
        "  objects    1 memfd with the frames that are still there; the newest is in memfd {}\n",
        object.id()
    );
    assert!(text.stdout.contains(&line), "{}", text.stdout);
    let line = run(&format!("echo {} -n 1", channel.0));
    let line = line.expect(0);
    assert!(
        line.stdout.contains("1 pts=") && line.stdout.contains("size=4096"),
        "{}",
        line.stdout
    );
    let bytes = run(&format!("cat {} -n 1", channel.0)).expect(0);
    assert_eq!(bytes.stdout, "M".repeat(4096));
    let picture = format!("/tmp/rsshm-test-objects-{}.raw", std::process::id());
    run(&format!("snapshot {} -o {picture}", channel.0)).expect(0);
    let bytes = fs::read(&picture).unwrap();
    fs::remove_file(picture).unwrap();
    assert!(bytes.windows(64).any(|row| row.iter().all(|pixel| *pixel == 77)));
}
