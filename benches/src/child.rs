//! The processes that a run starts, and what they say.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use crate::{order::Order, talk, traces};

/// What the process with this number has said; `None`: it says no more.
pub type Said = (usize, Option<String>);

/// A producer or consumer. It is killed when it is dropped, and what it leaves behind is removed.
pub struct Role {
    pub name: String,
    process: Child,
    stdin: Option<ChildStdin>,
    errors: PathBuf,
}

impl Role {
    /// Starts the program again as `command`; its lines go to `said` with this number.
    pub fn start(command: &str, index: usize, order: &Order, said: Sender<Said>) -> Result<Self, String> {
        let name = match command {
            "consume" => format!("{} consumer {index}", order.transport),
            _ => format!("{} producer", order.transport),
        };
        let errors = Path::new(&order.place.dir).join(format!("errors-{index}"));
        let json = serde_json::to_string(order).map_err(|error| error.to_string())?;
        let start = || {
            Command::new("/proc/self/exe")
                .arg(command)
                .arg(json)
                // The program that starts them has looked at all plugins just now.
                .env("GST_REGISTRY_UPDATE", "no")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(std::fs::File::create(&errors)?)
                // Ctrl-C goes to the program alone, which then ends them.
                .process_group(0)
                .spawn()
        };
        let mut process = start().map_err(|error| format!("{name}: {error}"))?;
        let stdin = process.stdin.take();
        if let Some(stdout) = process.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = said.send((index, Some(line)));
                }
                let _ = said.send((index, None));
            });
        }
        Ok(Self {
            name,
            process,
            stdin,
            errors,
        })
    }

    pub fn go(&mut self) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("a producer without an input")?;
        writeln!(stdin, "{}", talk::GO).map_err(|error| format!("{}: {error}", self.name))
    }

    /// Tells it to end.
    pub fn stop(&mut self) {
        self.stdin = None;
    }

    /// Waits until it has ended by itself, and well.
    pub fn end(&mut self, deadline: Instant) -> Result<(), String> {
        self.stop();
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.blame(&status.to_string())),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => return Err(self.blame("it does not end")),
                Err(error) => return Err(self.blame(&error.to_string())),
            }
        }
    }

    /// An error of this process's, with what it said last.
    pub fn blame(&self, what: &str) -> String {
        let errors = std::fs::read(&self.errors).unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors);
        let lines: Vec<&str> = errors.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n  ");
        format!("{}: {what}\n  {last}", self.name).trim_end().to_owned()
    }
}

impl Drop for Role {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        traces::remove_pipes(self.process.id());
    }
}
