// SPDX-License-Identifier: MIT OR Apache-2.0

//! The communication between the parent process and its producers and consumers. It consists of lines on the standard
//! input and output of the children.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::results::FirstFrame;

/// Child to parent: the producer runs. If its sink listens on a port, the line continues with the port.
pub const READY: &str = "ready";
/// Child to parent: the consumer has received its first frame. The line continues with a [`FirstFrame`] as JSON.
pub const FIRST: &str = "first";
/// Child to parent: the line continues with a report as JSON.
pub const RESULT: &str = "result";
/// Parent to child: the frames that count may begin. No line requests the end: the parent closes the child's input, and
/// the child ends.
pub const GO: &str = "go";

/// The commands that have arrived from the parent process.
#[derive(Default)]
pub struct Commands {
    go: AtomicBool,
    stop: AtomicBool,
}

impl Commands {
    /// Whether the frames that count may begin. The parent sends [`GO`] when each consumer has received a frame.
    pub fn has_go(&self) -> bool {
        // Partner: the store in receive_commands. Relaxed is enough, because no other data depends on the flag.
        self.go.load(Ordering::Relaxed)
    }

    /// Whether the parent process requests that this process ends.
    pub fn has_stop(&self) -> bool {
        // Partner: the store in receive_commands. Relaxed is enough, because no other data depends on the flag.
        self.stop.load(Ordering::Relaxed)
    }
}

/// Receives commands in a new thread. The thread calls `on_stop` when the parent process requests the end.
pub fn receive_commands(on_stop: impl FnOnce() + Send + 'static) -> Arc<Commands> {
    let commands = Arc::new(Commands::default());
    let received = Arc::clone(&commands);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if line == GO {
                // Partner: Commands::has_go.
                received.go.store(true, Ordering::Relaxed);
            }
        }
        // Partner: Commands::has_stop.
        received.stop.store(true, Ordering::Relaxed);
        on_stop();
    });
    commands
}

/// Sends a line to the parent process.
pub fn send(line: &str) {
    let mut output = std::io::stdout().lock();
    // An error is ignored: it means that the parent process no longer reads, and it will kill this process.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

/// Tells the parent process that the first frame has arrived.
pub fn send_first(first: FirstFrame) {
    // These three integers can always be written as JSON.
    let json = serde_json::to_string(&first).unwrap_or_default();
    send(&format!("{FIRST} {json}"));
}

/// Sends a report to the parent process.
pub fn send_result(report: &impl serde::Serialize) -> Result<(), String> {
    let json = serde_json::to_string(report).map_err(|error| error.to_string())?;
    send(&format!("{RESULT} {json}"));
    Ok(())
}

/// The rest of a line that begins with `word`, or `None` for other lines.
pub fn payload<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix(word).map(str::trim_start)
}
