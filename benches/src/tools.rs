// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line tool `rsshm`, which runs beside the readers of a channel.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// The commands that run at once.
const COMMANDS: [&[&str]; 3] = [&["top", "--batch"], &["hz"], &["echo"]];
/// The time in which the tools find the channel, before the frames that count.
const START_TIME: Duration = Duration::from_millis(500);

/// The running tools. Dropping this value ends them.
pub struct Tools(Vec<Child>);

/// The tool, which is beside this program.
pub fn path() -> Option<PathBuf> {
    let path = std::env::current_exe().ok()?.with_file_name("rsshm");
    path.is_file().then_some(path)
}

impl Tools {
    /// Starts the tools for a channel, and waits until they show it.
    pub fn start(channel: &str) -> Result<Self, String> {
        let program = path().ok_or("there is no rsshm beside this program")?;
        let mut tools = Self(Vec::new());
        for arguments in COMMANDS {
            let tool = Command::new(&program)
                .args(arguments)
                .arg(channel)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .map_err(|error| format!("{}: {error}", program.display()))?;
            tools.0.push(tool);
        }
        std::thread::sleep(START_TIME);
        tools.check()?;
        Ok(tools)
    }

    /// Fails if one of the tools has ended.
    pub fn check(&mut self) -> Result<(), String> {
        for (tool, arguments) in self.0.iter_mut().zip(COMMANDS) {
            if let Ok(Some(status)) = tool.try_wait() {
                return Err(format!("rsshm {} has ended: {status}", arguments.join(" ")));
            }
        }
        Ok(())
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        for tool in &mut self.0 {
            let _ = tool.kill();
            let _ = tool.wait();
        }
    }
}
