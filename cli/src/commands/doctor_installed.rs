// SPDX-License-Identifier: MIT OR Apache-2.0

//! The checks of `rsshm doctor` that look for the other parts of rsshm: the plugin, the C library, the Python package.

use std::{
    io::Read,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use super::doctor::Finding;

/// How long another program may take. GStreamer reads all its plugins when it starts for the first time.
const PATIENCE: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub(super) fn findings() -> Vec<Finding> {
    vec![plugin(), library(), python()]
}

/// What a program printed, and whether it succeeded.
enum Answer {
    Yes(String),
    No,
    /// The program is not installed.
    Missing,
    TimedOut,
}

/// Runs a program and waits for its answer. The answers are short, so they fit the pipe.
fn ask(program: &str, arguments: &[&str]) -> Answer {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::piped());
    let Ok(mut child) = command.spawn() else {
        return Answer::Missing;
    };
    let Some(mut stdout) = child.stdout.take() else {
        return Answer::No;
    };
    // A thread reads, because a program that prints more than the pipe takes would wait for ever.
    let reading = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stdout.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let started = Instant::now();
    loop {
        match child.try_wait() {
            Ok(Some(status)) if status.success() => return Answer::Yes(reading.join().unwrap_or_default()),
            Ok(Some(_)) | Err(_) => return Answer::No,
            Ok(None) if started.elapsed() > PATIENCE => {
                let _ = child.kill();
                let _ = child.wait();
                return Answer::TimedOut;
            }
            Ok(None) => std::thread::sleep(POLL_INTERVAL),
        }
    }
}

fn plugin() -> Finding {
    const CHECK: &str = "GStreamer";
    match ask("gst-inspect-1.0", &["rsshmsink"]) {
        Answer::Yes(text) => {
            let field = |name: &str| {
                let line = text.lines().find(|line| line.trim_start().starts_with(name))?;
                line.split_ascii_whitespace().last().map(str::to_owned)
            };
            let version = field("Version ").unwrap_or_default();
            let file = field("Filename ").unwrap_or_default();
            let own = env!("CARGO_PKG_VERSION");
            if version.starts_with(own) {
                Finding::ok(CHECK, format!("plugin {version} in {file}"))
            } else {
                let text = format!("plugin {version} in {file}, but this program is {own}");
                Finding::warn(CHECK, text, "install the same version of both")
            }
        }
        Answer::No => Finding::warn(
            CHECK,
            "GStreamer does not find rsshmsink",
            "make install, or GST_PLUGIN_PATH=DIRECTORY of libgstrsshm.so",
        ),
        Answer::Missing => Finding::ok(CHECK, "gst-inspect-1.0 is not installed; only pipelines need it"),
        Answer::TimedOut => Finding::warn(CHECK, "gst-inspect-1.0 does not answer", "rm -r ~/.cache/gstreamer-1.0"),
    }
}

fn library() -> Finding {
    const CHECK: &str = "C library";
    match ask("pkg-config", &["--modversion", "rsshm"]) {
        Answer::Yes(version) => Finding::ok(CHECK, format!("librsshm {}", version.trim())),
        _ => Finding::ok(
            CHECK,
            "librsshm is not installed; only programs in C and C++ need it (make install-capi)",
        ),
    }
}

fn python() -> Finding {
    const CHECK: &str = "Python";
    const PROGRAM: &str = "import sys, numpy, rsshm\n\
        print(getattr(rsshm, '__version__', ''), 'with NumPy', numpy.__version__, 'in', sys.executable)";
    match ask("python3", &["-c", PROGRAM]) {
        Answer::Yes(text) => Finding::ok(CHECK, format!("package rsshm {}", text.trim())),
        Answer::Missing => Finding::ok(CHECK, "python3 is not installed; only programs in Python need it"),
        Answer::TimedOut => Finding::warn(CHECK, "python3 does not answer", "python3 -c 'import rsshm'"),
        Answer::No => Finding::ok(
            CHECK,
            "python3 has no package rsshm; only programs in Python need it (pip install ./python)",
        ),
    }
}
