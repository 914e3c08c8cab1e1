// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of `clean`, `doctor`, `completions` and `man`.

use std::{env, fs, path::Path, process::Command};

use rsshm_testkit::{need_program, need_root, privileges::NOBODY};
use serde_json::Value;

use crate::support::{Channel, Run, run, run_as};

#[test]
fn clean_removes_only_what_nobody_has() {
    let channel = Channel::new();
    let name = channel.to_string();
    assert!(
        run(&format!("clean {name}"))
            .expect(1)
            .stderr
            .contains("there is no channel")
    );
    let mut writer = channel.writer();
    assert!(
        run(&format!("clean {name}"))
            .expect(1)
            .stderr
            .contains("stays: its writer is alive")
    );
    writer.stop();
    assert!(
        run(&format!("clean {name}"))
            .expect(1)
            .stderr
            .contains("stays: its writer is alive")
    );
    let mut reader = channel.reader();
    writer.kill();
    assert!(
        run(&format!("clean {name}"))
            .expect(1)
            .stderr
            .contains("a reader is alive")
    );
    reader.kill();
    assert!(channel.exists());
    let would = run(&format!("clean {name} --dry-run")).expect(0).stdout;
    assert!(would.starts_with(&format!("would remove {name} (")), "{would}");
    assert!(channel.exists());
    let removed = run(&format!("clean {name} --json")).expect(0).json();
    assert_eq!(
        (&removed["channel"], &removed["result"]),
        (&name.as_str().into(), &"removed".into())
    );
    assert!(removed["bytes"].as_u64() > Some(0), "{removed}");
    channel.assert_removed();
    run("clean").expect(2);
}

#[test]
fn clean_all_lists_dead_channels_only() {
    let [alive, dead] = std::array::from_fn(|_| Channel::new());
    let _writer = alive.writer();
    dead.writer().kill();
    // Without --dry-run, this would remove the channels of other tests.
    let would = run("clean --all --dry-run --format csv").expect(0).stdout;
    assert!(would.starts_with("channel,result,bytes\n"), "{would}");
    assert!(
        would.contains(&format!("{},would remove,", dead.0)) && !would.contains(alive.as_str()),
        "{would}"
    );
}

#[test]
fn clean_needs_permission() {
    need_root!("another user cleans");
    let channel = Channel::new();
    channel.writer_with("0644").kill();
    let run = run_as(NOBODY, &format!("clean {}", channel.0)).expect(4);
    assert!(run.stderr.contains("no permission") && channel.exists(), "{run:?}");
}

#[test]
fn doctor_names_the_remedy() {
    let [dead, stopped, damaged] = std::array::from_fn(|_| Channel::new());
    dead.writer().kill();
    let writer = stopped.writer();
    writer.stop();
    let reader = Channel::new();
    let findings = || -> Vec<Value> {
        let run = run("doctor --quick --json");
        // Another program of this machine may have a damaged channel.
        assert!(matches!(run.code, 0 | 1), "{run:?}");
        run.json().as_array().unwrap().clone()
    };
    let about = |findings: &[Value], words: &str| -> Option<(Value, Value)> {
        let found = findings
            .iter()
            .find(|finding| finding["text"].as_str().is_some_and(|text| text.contains(words)))?;
        Some((found["level"].clone(), found["remedy"].clone()))
    };
    let found = findings();
    let remedy = format!("rsshm clean {}", dead.0);
    assert_eq!(
        about(&found, &format!("{} has no writer", dead.0)),
        Some(("warn".into(), remedy.into()))
    );
    let remedy = format!("kill -CONT {}", writer.pid());
    assert_eq!(
        about(&found, &format!("{}: its writer", stopped.0)),
        Some(("warn".into(), remedy.into()))
    );
    for check in ["shared memory", "memory", "clocks", "channel"] {
        assert!(
            found.iter().any(|finding| finding["check"] == check),
            "{check}: {found:?}"
        );
    }
    assert!(about(&found, reader.as_str()).is_none());
    damaged.writer().kill();
    fs::File::options()
        .write(true)
        .open(damaged.segment())
        .unwrap()
        .set_len(100)
        .unwrap();
    let text = run("doctor --quick").expect(1).stdout;
    let line = text.lines().find(|line| line.contains(damaged.as_str())).unwrap();
    assert!(line.starts_with("fail") && line.contains("  ->  "), "{line}");
}

#[test]
fn doctor_finds_the_plugin() {
    need_program!("gst-inspect-1.0");
    let plugins = rsshm_testkit::gst::command("true");
    let mut command = crate::support::rsshm("doctor --json");
    command.envs(plugins.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let findings = Run::of(command).json();
    let plugin = findings
        .as_array()
        .unwrap()
        .iter()
        .find(|finding| finding["check"] == "GStreamer")
        .unwrap();
    assert_eq!(plugin["level"], "ok", "{plugin}");
    let text = plugin["text"].as_str().unwrap();
    assert!(
        text.contains(env!("CARGO_PKG_VERSION")) && text.contains("libgstrsshm.so"),
        "{text}"
    );
}

/// Runs a program that finds `rsshm`, and returns its output.
fn shell(program: &str, arguments: &[&str]) -> String {
    let directory = Path::new(env!("CARGO_BIN_EXE_rsshm")).parent().unwrap();
    let path = env::join_paths(
        [directory.to_owned()]
            .into_iter()
            .chain(env::split_paths(&env::var_os("PATH").unwrap())),
    );
    let mut command = Command::new(program);
    command.args(arguments).env("PATH", path.unwrap());
    Run::of(command).expect(0).stdout
}

#[test]
fn bash_completes_channels_and_commands() {
    need_program!("bash");
    let channel = Channel::new();
    let _writer = channel.writer();
    let script = run("completions bash").expect(0).stdout;
    let complete = |words: &[&str]| -> Vec<String> {
        let list = words.join("' '");
        let (last, before) = (words[words.len() - 1], words[words.len() - 2]);
        let ask = format!(
            "{script}\nCOMP_WORDS=('{list}'); COMP_CWORD={}\n_rsshm_channels rsshm '{last}' '{before}'\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"",
            words.len() - 1
        );
        shell("bash", &["-c", &ask]).lines().map(str::to_owned).collect()
    };
    let beginning = &channel.as_str()[..channel.as_str().len() - 1];
    assert!(complete(&["rsshm", "info", beginning]).contains(&channel.to_string()));
    assert!(complete(&["rsshm", "wait", "--for", "frame", ""]).contains(&channel.to_string()));
    assert_eq!(complete(&["rsshm", "sna"]), ["snapshot"]);
    assert!(complete(&["rsshm", "wait", "--t"]).contains(&"--timeout".to_owned()));
    let goals = complete(&["rsshm", "wait", "--for", ""]);
    assert!(
        goals.contains(&"reader".to_owned()) && !goals.contains(&channel.to_string()),
        "{goals:?}"
    );
    assert!(
        !complete(&["rsshm", "man", ""]).contains(&channel.to_string()),
        "it takes no channel"
    );
}

#[test]
fn zsh_and_fish_complete_channels() {
    let channel = Channel::new();
    let _writer = channel.writer();
    let directory = env::temp_dir();
    let file = |shell: &str| {
        let file = directory.join(format!("{}.{shell}", channel.0)).display().to_string();
        fs::write(&file, run(&format!("completions {shell}")).expect(0).stdout).unwrap();
        file
    };
    let (zsh, fish) = (file("zsh"), file("fish"));
    let zsh_text = fs::read_to_string(&zsh).unwrap();
    assert!(
        zsh_text.matches(":_rsshm_channels'").count() >= 10
            && !zsh_text.contains("channel -- A name or a URI:_default")
    );
    need_program!("zsh");
    need_program!("fish");
    let ask = format!("compdef() {{ }}; compadd() {{ print -l -- ${{(P)2}} }}; source {zsh}; _rsshm_channels");
    assert!(
        shell("zsh", &["-f", "-c", &ask])
            .lines()
            .any(|line| line == channel.as_str())
    );
    let ask = format!(
        "source {fish}; complete -C 'rsshm info {}'",
        &channel.as_str()[..channel.as_str().len() - 1]
    );
    assert!(shell("fish", &["--no-config", "-c", &ask]).contains(channel.as_str()));
    [zsh, fish].iter().for_each(|file| fs::remove_file(file).unwrap());
}

/// The commands in the text of --help.
fn commands() -> Vec<String> {
    let help = run("--help").expect(0).stdout;
    let section = help.split("Commands:\n").nth(1).unwrap().split("\n\n").next().unwrap();
    // Lines that begin with more than two spaces belong to the description before them.
    let lines = section
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|line| !line.starts_with(' ')));
    let names = lines
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "help");
    names.map(str::to_owned).collect()
}

#[test]
fn manual_has_a_page_for_each_command() {
    let directory = env::temp_dir().join(Channel::new().to_string());
    run(&format!("man --out {}", directory.display())).expect(0);
    let main = fs::read_to_string(directory.join("rsshm.1")).unwrap();
    assert!(main.contains(".TH rsshm 1") && main.contains("130 Ctrl"), "{main}");
    let commands = commands();
    assert!(
        commands.len() > 14 && commands.contains(&"doctor".to_owned()),
        "{commands:?}"
    );
    for command in &commands {
        let page = fs::read_to_string(directory.join(format!("rsshm-{command}.1"))).unwrap();
        assert!(
            page.contains(&format!(".TH rsshm-{command} 1")) && page.contains("Examples:"),
            "{page}"
        );
    }
    fs::remove_dir_all(directory).unwrap();
    assert_eq!(run("man").expect(0).stdout, main);
}

/// docs/CLI.md names every command, and no other.
#[test]
fn documentation_has_every_command() {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/CLI.md")).unwrap();
    let section = text.split("## Commands").nth(1).unwrap();
    let mut documented: Vec<&str> = section
        .lines()
        .skip_while(|line| !line.starts_with("| command"))
        .skip(2)
        .map_while(|line| line.strip_prefix("| `"))
        .filter_map(|line| line.split(['`', ' ']).next())
        .collect();
    let mut commands = commands();
    commands.sort_unstable();
    documented.sort_unstable();
    assert_eq!(documented, commands);
}
