// SPDX-License-Identifier: MIT OR Apache-2.0

//! Child processes.

use std::{
    ffi::OsString,
    fs::{self, DirEntry, File},
    io::{self, Write},
    os::{
        fd::AsFd,
        unix::{ffi::OsStrExt, fs::FileExt, process::ExitStatusExt},
    },
    path::Path,
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    fcntl::{FcntlArg, OFlag, fcntl},
    libc,
    sys::{
        memfd::{MFdFlags, memfd_create},
        signal::{Signal, kill},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{ForkResult, Pid, fork, pause},
};

use crate::{
    emulation::on_this_machine,
    wait::{PATIENCE, wait_until},
};

/// A running program. It is killed when the value is dropped.
///
/// The program's output goes to a file in memory, because a full pipe would block the program.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdin: Option<ChildStdin>,
    output: File,
    /// The number of bytes of `output` that [`receive`](Self::receive) has returned.
    received: u64,
    command_line: String,
    last_argument: OsString,
}

impl Process {
    /// Starts a program whose stdin is empty. Its stdout and stderr are collected, and are shown if the test fails.
    #[track_caller]
    pub fn start(mut command: Command) -> Self {
        let output = new_output();
        command.stdin(Stdio::null()).stderr(duplicate(&output));
        Self::spawn(command, output)
    }

    /// Starts a program that converses with the test in lines on stdin and stdout. Its stderr is the stderr of the
    /// test.
    #[track_caller]
    pub fn converse(mut command: Command) -> Self {
        command.stdin(Stdio::piped());
        Self::spawn(command, new_output())
    }

    #[track_caller]
    fn spawn(mut command: Command, output: File) -> Self {
        let command_line = format!("{command:?}");
        let last_argument = command.get_args().last().unwrap_or(command.get_program()).to_owned();
        command.stdout(duplicate(&output));
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command_line}: {error}"));
        Self {
            stdin: child.stdin.take(),
            child,
            output,
            received: 0,
            command_line,
            last_argument,
        }
    }

    /// The process ID.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// All output of the program so far.
    pub fn output(&self) -> String {
        String::from_utf8_lossy(&self.read_from(0)).into_owned()
    }

    /// The output from `offset` on. This call does not move the file position at which the process writes.
    fn read_from(&self, offset: u64) -> Vec<u8> {
        let length = self.output.metadata().expect("the size of the output").len();
        let mut bytes = vec![0; length.saturating_sub(offset) as usize];
        self.output.read_exact_at(&mut bytes, offset).expect("the output");
        bytes
    }

    /// Waits for the next line that the program prints, and returns it.
    #[track_caller]
    pub fn receive(&mut self) -> String {
        let started = Instant::now();
        loop {
            // `is_running` is read before the output: if the process has already ended, the file contains all its
            // output.
            let is_running = self.is_running();
            if let Some(line) = self.try_receive() {
                return line;
            }
            assert!(is_running, "{} has ended and says nothing", self.command_line);
            assert!(
                started.elapsed() < on_this_machine(PATIENCE),
                "{} says nothing",
                self.command_line
            );
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The next line, if the program has printed it already.
    pub fn try_receive(&mut self) -> Option<String> {
        let bytes = self.read_from(self.received);
        let length = bytes.iter().position(|byte| *byte == b'\n')?;
        self.received += length as u64 + 1;
        Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
    }

    /// Checks that the next line of the program is `line`.
    #[track_caller]
    pub fn expect(&mut self, line: &str) {
        assert_eq!(self.receive(), line, "{}", self.command_line);
    }

    /// Sends the program a line.
    #[track_caller]
    pub fn send(&mut self, line: &str) {
        let stdin = self.stdin.as_mut().expect("a process that converses");
        writeln!(stdin, "{line}").unwrap_or_else(|error| panic!("{}: {error}", self.command_line));
    }

    /// Sends the program a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap_or_else(|error| panic!("{}: {error}", self.command_line));
    }

    /// Stops the program, and waits until it is stopped.
    #[track_caller]
    pub fn stop(&self) {
        self.signal(Signal::SIGSTOP);
        self.wait_stopped();
    }

    /// Continues the program after a stop.
    #[track_caller]
    pub fn resume(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Waits until a signal has stopped the program.
    #[track_caller]
    pub fn wait_stopped(&self) {
        // WEXITED is not set, so that `wait` can still read the exit status of a process that has ended.
        let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG;
        wait_until(&format!("{} stops", self.command_line), PATIENCE, || {
            matches!(waitid(Id::Pid(self.pid()), flags), Ok(WaitStatus::Stopped(..)))
        });
    }

    /// Waits until the program ends, and checks that SIGKILL killed it.
    #[track_caller]
    pub fn wait_killed(&mut self) {
        let status = self.wait();
        assert_eq!(
            status.signal(),
            Some(Signal::SIGKILL as i32),
            "{}: {status}",
            self.command_line
        );
    }

    /// Waits until the program waits for something.
    #[track_caller]
    pub fn wait_asleep(&mut self) {
        wait_until(&format!("{} sleeps", self.command_line), PATIENCE, || {
            assert!(self.is_running(), "{} has ended:\n{}", self.command_line, self.output());
            self.is_asleep()
        });
    }

    /// Whether all threads of the program sleep. If other programs started it, such as the shell of a container, it is the
    /// last program of the chain, and has the last argument of the command.
    pub fn is_asleep(&self) -> bool {
        let mut pid = self.pid().as_raw();
        while let Some(child) = first_child(pid) {
            pid = child;
        }
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let last = arguments
            .strip_suffix(&[0])
            .and_then(|all| all.rsplit(|byte| *byte == 0).next());
        last == Some(self.last_argument.as_bytes()) && are_threads_asleep(pid)
    }

    /// Waits until the program ends by itself, and returns its exit status.
    #[track_caller]
    pub fn wait(&mut self) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("the status of a child") {
                return status;
            }
            assert!(
                started.elapsed() < on_this_machine(PATIENCE),
                "{} does not end:\n{}",
                self.command_line,
                self.output()
            );
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until the program ends by itself, and returns its output. The program must exit with code 0.
    #[track_caller]
    pub fn wait_ok(&mut self) -> String {
        let status = self.wait();
        assert!(status.success(), "{}: {status}\n{}", self.command_line, self.output());
        self.output()
    }

    /// Waits until the program ends by itself, and returns its output. The program must exit with an error code.
    #[track_caller]
    pub fn wait_error(&mut self) -> String {
        let status = self.wait();
        assert!(
            !status.success() && status.signal().is_none(),
            "{}: {status}\n{}",
            self.command_line,
            self.output()
        );
        self.output()
    }

    /// Sends the program SIGINT, as Ctrl-C does, and waits until it ends. Returns its output.
    #[track_caller]
    pub fn interrupt(&mut self) -> String {
        self.signal(Signal::SIGINT);
        self.wait();
        self.output()
    }

    /// Kills the program and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Whether the program has not ended yet.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("the status of a child").is_none()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}:\n{}", self.command_line, self.output());
        }
        self.kill();
    }
}

/// The first process that a process has started and that still runs.
fn first_child(pid: i32) -> Option<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    children.split(' ').next()?.parse().ok()
}

fn are_threads_asleep(pid: i32) -> bool {
    let is_asleep = |thread: DirEntry| {
        stat_fields(thread.path()).is_ok_and(|fields| fields.first().is_some_and(|state| state == "S"))
    };
    fs::read_dir(format!("/proc/{pid}/task")).is_ok_and(|threads| threads.flatten().all(is_asleep))
}

/// What the system tells about a process or a thread. `directory` is its directory in /proc. The first of these fields is
/// the state, which is field 3 in proc(5).
pub fn stat_fields(directory: impl AsRef<Path>) -> io::Result<Vec<String>> {
    let stat = fs::read_to_string(directory.as_ref().join("stat"))?;
    // The name of the program comes before, in parentheses. It may have any character.
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}

/// Forks a child that only waits, and outlives this process.
pub fn fork_sleeper() -> Pid {
    // SAFETY: the child calls nothing but pause(2), which is async-signal-safe.
    match unsafe { fork() }.expect("a child") {
        ForkResult::Child => loop {
            pause();
        },
        ForkResult::Parent { child } => child,
    }
}

/// Runs `action` in a forked child, which then exits with its result and runs no destructors. Waits for the child, and
/// returns the exit code.
///
/// # Safety
/// `action` takes no lock that another thread of this process could hold, because nobody releases this lock in the child.
#[track_caller]
pub unsafe fn in_forked_child(action: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child runs only `action`, for which the caller vouches, and `_exit`.
    let child = match unsafe { fork() }.expect("a child") {
        ForkResult::Child => {
            let code = action();
            // SAFETY: `_exit` ends this process, and uses no memory.
            unsafe { libc::_exit(code) }
        }
        ForkResult::Parent { child } => child,
    };
    let mut code = None;
    wait_until("the forked child ends", PATIENCE, || {
        match waitpid(child, Some(WaitPidFlag::WNOHANG)).expect("the status of a child") {
            WaitStatus::Exited(_, exited) => code = Some(exited),
            WaitStatus::StillAlive => {}
            other => panic!("{other:?}"),
        }
        code.is_some()
    });
    code.expect("the loop ended")
}

/// A file in memory for a program's output. It is in append mode, because stdout and stderr may share the file.
fn new_output() -> File {
    let file = File::from(memfd_create("output", MFdFlags::MFD_CLOEXEC).expect("a file in memory"));
    fcntl(file.as_fd(), FcntlArg::F_SETFL(OFlag::O_APPEND)).expect("append mode");
    file
}

fn duplicate(file: &File) -> File {
    file.try_clone().expect("another descriptor")
}
