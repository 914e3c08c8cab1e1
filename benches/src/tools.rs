// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line tool `rsshm`, which runs beside the readers of a channel.

use std::{
    fs::File,
    io,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use crate::cleanup;

/// The commands that run at once.
const COMMANDS: [&[&str]; 3] = [&["top", "--batch"], &["hz"], &["echo"]];
/// How long the tools may take to show the channel, before the frames that count.
const START_TIMEOUT: Duration = Duration::from_secs(20);
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A running tool, and the file that gets its output.
struct Tool {
    name: String,
    process: Child,
    output: File,
}

/// The running tools. Dropping this value ends them.
pub struct Tools(Vec<Tool>);

/// The tool, which is beside this program.
pub fn path() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name("rsshm");
    path.is_file().then_some(path)
}

impl Tools {
    /// Starts the tools for a channel, and waits until each of them has printed something about it.
    pub fn start(channel: &str) -> Result<Self, String> {
        let program = path().ok_or("there is no rsshm beside this program")?;
        let mut tools = Self(Vec::new());
        for arguments in COMMANDS {
            let name = format!("rsshm {}", arguments.join(" "));
            let output = new_output().map_err(|error| format!("the output of {name}: {error}"))?;
            let stdout = output
                .try_clone()
                .map_err(|error| format!("the output of {name}: {error}"))?;
            let process = Command::new(&program)
                .args(arguments)
                .arg(channel)
                .stdin(Stdio::null())
                .stdout(stdout)
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("{}: {error}", program.display()))?;
            tools.0.push(Tool { name, process, output });
        }
        let deadline = Instant::now() + START_TIMEOUT;
        while let Some(silent) = tools.0.iter().find(|tool| tool.is_silent()) {
            if Instant::now() > deadline {
                return Err(format!("{} shows nothing of channel {channel}", silent.name));
            }
            std::thread::sleep(POLL_INTERVAL);
            tools.check()?;
        }
        Ok(tools)
    }

    /// Fails if one of the tools has ended.
    pub fn check(&mut self) -> Result<(), String> {
        for tool in &mut self.0 {
            if let Ok(Some(status)) = tool.process.try_wait() {
                return Err(format!("{} has ended: {status}", tool.name));
            }
        }
        Ok(())
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        for tool in &mut self.0 {
            let _ = tool.process.kill();
            let _ = tool.process.wait();
        }
    }
}

impl Tool {
    /// Whether the tool has printed nothing yet.
    fn is_silent(&self) -> bool {
        self.output.metadata().map_or(true, |file| file.len() == 0)
    }
}

/// A file without a name. A pipe would need a thread that reads it while frames are measured.
fn new_output() -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("{}-output", cleanup::channel(None)));
    let file = File::create(&path)?;
    std::fs::remove_file(path)?;
    Ok(file)
}
