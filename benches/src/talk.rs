//! How producers and consumers and the program that started them talk: lines on their standard input and output.

use std::{
    io::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

pub const READY: &str = "ready";
pub const FIRST: &str = "first";
pub const RESULT: &str = "result";
pub const GO: &str = "go";

/// What the program has told this one.
#[derive(Default)]
pub struct Told {
    go: AtomicBool,
    stop: AtomicBool,
}

impl Told {
    /// Everybody has received a frame: those that are counted may come.
    pub fn go(&self) -> bool {
        // Partner: the store in listen. Nothing else hangs on it.
        self.go.load(Ordering::Relaxed)
    }

    pub fn stop(&self) -> bool {
        // Partner: the store in listen. Nothing else hangs on it.
        self.stop.load(Ordering::Relaxed)
    }
}

/// Listens in a thread of its own; `at_stop` is called when the program wants it to end.
pub fn listen(at_stop: impl FnOnce() + Send + 'static) -> Arc<Told> {
    let told = Arc::new(Told::default());
    let thread = Arc::clone(&told);
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            if line == GO {
                // Partner: Told::go.
                thread.go.store(true, Ordering::Relaxed);
            }
        }
        // Partner: Told::stop.
        thread.stop.store(true, Ordering::Relaxed);
        at_stop();
    });
    told
}

pub fn say(line: &str) {
    let mut output = std::io::stdout().lock();
    // When nobody listens any more, this process is about to be killed.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}

pub fn say_result(report: &impl serde::Serialize) -> Result<(), String> {
    let json = serde_json::to_string(report).map_err(|error| error.to_string())?;
    say(&format!("{RESULT} {json}"));
    Ok(())
}

/// What a line says after the word, if it begins with it.
pub fn after<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.strip_prefix(word).map(str::trim_start)
}
