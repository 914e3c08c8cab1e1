// SPDX-License-Identifier: MIT OR Apache-2.0

//! The processes of a run, and the lines that they print.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::Sender,
    time::{Duration, Instant},
};

use crate::{calls, cleanup, ipc, job::RunJob, pace::now_ns, transport::Transport};

/// The number of lines of a process's error output that an error quotes.
const QUOTED_LINES: usize = 10;

/// Something that a process has printed.
pub struct OutputLine {
    /// Index of the process in its run.
    pub process: usize,
    /// The line, or `None` when the process has closed its standard output.
    pub line: Option<String>,
}

/// A producer or consumer process. Dropping this value kills the process and removes the files that it leaves.
pub struct ChildProcess {
    pub name: String,
    process: Child,
    /// When the process was started, of CLOCK_MONOTONIC.
    pub started_ns: u64,
    stdin: Option<ChildStdin>,
    stderr_path: PathBuf,
}

impl ChildProcess {
    /// Starts this program in a new process: as the producer if `index` is 0, and as a consumer otherwise. The lines that
    /// the process prints go to `output`, together with `index`.
    pub fn start<J: RunJob>(index: usize, job: &J, output: Sender<OutputLine>) -> Result<Self, String> {
        let (command, name) = match index {
            0 => (J::PRODUCE, format!("{} producer", job.transport())),
            _ => (J::CONSUME, format!("{} consumer {index}", job.transport())),
        };
        let stderr_path = Path::new(&job.endpoint().dir).join(format!("errors-{index}"));
        let json = serde_json::to_string(job).map_err(|error| error.to_string())?;
        let start = || {
            let mut program = match job.traced_frames() {
                Some(_) => {
                    // The link /proc/self/exe would lead to strace. This one leads to this program even if its file has
                    // been replaced.
                    let program = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
                    calls::traced(&program, &calls::log(&job.endpoint().dir, index))
                }
                None => Command::new("/proc/self/exe"),
            };
            if job.transport() == Transport::Iceoryx2 {
                // iceoryx2 reads its configuration from the current directory.
                program.current_dir(&job.endpoint().dir);
            }
            program
                .arg(command)
                .arg(json)
                // The registry is up to date, because the parent process has just scanned all plugins.
                .env("GST_REGISTRY_UPDATE", "no")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(std::fs::File::create(&stderr_path)?)
                // The child has its own process group, so that Ctrl-C does not reach it. The parent process receives
                // the signal and ends its children.
                .process_group(0)
                .spawn()
        };
        let started_ns = now_ns();
        let mut process = start().map_err(|error| format!("{name}: {error}"))?;
        let stdin = process.stdin.take();
        if let Some(stdout) = process.stdout.take() {
            std::thread::spawn(move || {
                let send = |line| output.send(OutputLine { process: index, line });
                for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                    let _ = send(Some(line));
                }
                let _ = send(None);
            });
        }
        Ok(Self {
            name,
            process,
            started_ns,
            stdin,
            stderr_path,
        })
    }

    /// The ID of the process.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Tells the producer that the frames that count may begin.
    pub fn go(&mut self) -> Result<(), String> {
        let stdin = self.stdin.as_mut().ok_or("the producer has no input")?;
        writeln!(stdin, "{}", ipc::GO).map_err(|error| format!("{}: {error}", self.name))
    }

    /// Requests that the process ends.
    pub fn stop(&mut self) {
        self.stdin = None;
    }

    /// Requests that the process ends, and waits until it has ended. Fails if the process still runs at `deadline`, or
    /// if its exit status reports an error.
    pub fn end(&mut self, deadline: Instant) -> Result<(), String> {
        self.stop();
        loop {
            match self.process.try_wait() {
                Ok(Some(status)) if status.success() => return Ok(()),
                Ok(Some(status)) => return Err(self.error(&status.to_string())),
                Ok(None) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
                Ok(None) => return Err(self.error("it does not end")),
                Err(error) => return Err(self.error(&error.to_string())),
            }
        }
    }

    /// The text of an error: the name of this process, `what`, and the last lines of its error output.
    pub fn error(&self, what: &str) -> String {
        let stderr = std::fs::read(&self.stderr_path).unwrap_or_default();
        let stderr = String::from_utf8_lossy(&stderr);
        let lines: Vec<&str> = stderr.lines().collect();
        let last = lines[lines.len().saturating_sub(QUOTED_LINES)..].join("\n  ");
        format!("{}: {what}\n  {last}", self.name).trim_end().to_owned()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if !matches!(self.process.try_wait(), Ok(Some(_))) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        cleanup::remove_shmsink_memory(self.process.id());
    }
}
