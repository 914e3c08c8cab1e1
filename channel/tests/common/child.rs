//! Other processes: this very test binary, run again for one of its functions.
//!
//! A test binary that uses it has one test called `child`, which calls [`play`]; run by itself it does nothing.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::process::ExitStatusExt,
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use nix::{
    sys::{
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{Pid, Uid},
};

const ROLE: &str = "RSSHM_TEST_ROLE";
const ARGUMENT: &str = "RSSHM_TEST_ARGUMENT";

/// A process in one of the roles of its test binary. It is killed at the end.
pub struct Child {
    process: std::process::Child,
    stdin: std::process::ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Child {
    pub fn start(role: &str, argument: &str) -> Self {
        Self::start_with(role, argument, &[])
    }

    /// `wrapper`: a command that runs the rest of its command line.
    pub fn start_with(role: &str, argument: &str, wrapper: &[&str]) -> Self {
        let binary = std::env::current_exe().unwrap();
        let mut command = match wrapper {
            [] => Command::new(binary),
            [program, arguments @ ..] => {
                let mut command = Command::new(program);
                command.args(arguments).arg(binary);
                command
            }
        };
        let mut process = command
            .args(["--exact", "child", "--nocapture", "--test-threads=1"])
            .env(ROLE, role)
            .env(ARGUMENT, argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdin = process.stdin.take().unwrap();
        let stdout = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // What the test harness prints is in the way, also on the same line.
                if let Some((_, said)) = line.split_once("@@")
                    && sender.send(said.to_owned()).is_err()
                {
                    break;
                }
            }
        });
        Self { process, stdin, lines }
    }

    /// What the child says next, within ten seconds.
    #[track_caller]
    pub fn receive(&self) -> String {
        self.lines
            .recv_timeout(Duration::from_secs(10))
            .expect("the child says nothing")
    }

    #[track_caller]
    pub fn expect(&self, said: &str) {
        assert_eq!(self.receive(), said);
    }

    /// Lets the child go on from [`listen`].
    pub fn tell(&mut self, line: &str) {
        writeln!(self.stdin, "{line}").unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id() as i32)
    }

    /// Waits until it has been stopped by itself, as it was started to be.
    #[track_caller]
    pub fn stops(&self) {
        let began = Instant::now();
        let flags = Some(WaitPidFlag::WUNTRACED | WaitPidFlag::WNOHANG);
        while !matches!(waitpid(self.pid(), flags), Ok(WaitStatus::Stopped(..))) {
            assert!(began.elapsed() < Duration::from_secs(10), "the child does not stop");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Waits until it has been killed by itself, as it was started to be.
    #[track_caller]
    pub fn dies(&mut self) {
        let began = Instant::now();
        let status = loop {
            match self.process.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(began.elapsed() < Duration::from_secs(10), "the child does not die"),
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(status.signal(), Some(Signal::SIGKILL as i32), "{status}");
    }

    /// Kills it and waits until it is gone.
    pub fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command that runs the rest of its command line in namespaces of its own; `None` where that is not allowed, and said.
pub fn unshared(namespaces: &[&'static str]) -> Option<Vec<&'static str>> {
    let mut wrapper = vec!["unshare"];
    if !Uid::effective().is_root() {
        wrapper.push("--map-root-user");
    }
    wrapper.extend(namespaces);
    let allowed = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").status();
    let allowed = allowed.is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("skipped: no namespaces to be had");
    }
    allowed.then_some(wrapper)
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// In the child: says a line to the test.
pub fn say(line: impl std::fmt::Display) {
    println!("@@{line}");
}

/// In the child: waits for a line of the test.
pub fn listen() -> String {
    let mut line = String::new();
    // At the end of the test nobody is there any more.
    if std::io::stdin().read_line(&mut line).unwrap_or(0) == 0 {
        std::process::exit(0);
    }
    line.trim_end().to_owned()
}

/// In the child: the lines of the test, for who does something else meanwhile.
pub fn lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || while sender.send(listen()).is_ok() {});
    lines
}

/// What a process does, with an argument.
pub type Role = fn(&str);

/// The body of the test `child`: plays the role that this process was started for, if it was.
pub fn play(roles: &[(&str, Role)]) {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let argument = std::env::var(ARGUMENT).unwrap();
    let (_, play) = roles.iter().find(|(name, _)| *name == role).expect("no such role");
    play(&argument);
}
