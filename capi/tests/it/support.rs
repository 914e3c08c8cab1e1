// SPDX-License-Identifier: MIT OR Apache-2.0

//! Builds librsshm.so.0 and C programs that use it, and runs these programs.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use rsshm_testkit::{Channel, Process};

/// The flags of each C program.
const C_FLAGS: &[&str] = &["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1", "-g"];
/// The flags of each C++ program.
const CPP_FLAGS: &[&str] = &["-std=c++17", "-pedantic", "-Wall", "-Wextra", "-Werror", "-O1", "-g"];

/// A command that runs each program, such as valgrind. `make test-capi-sanitizers` sets it.
const WRAPPER_VARIABLE: &str = "RSSHM_TEST_WRAPPER";

/// A static library, with which all programs are linked instead of the shared one. `make test-capi-sanitizers` sets it,
/// because rustc does not link a shared library with ThreadSanitizer.
const ARCHIVE_VARIABLE: &str = "RSSHM_TEST_ARCHIVE";

/// Compiler flags for all programs, such as those of a sanitizer. `make test-capi-sanitizers` sets them.
const FLAGS_VARIABLE: &str = "RSSHM_TEST_CFLAGS";

/// The directory of this crate.
pub fn crate_directory() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}

/// The static library beside the test program, which cargo has built.
pub fn archive() -> PathBuf {
    let program = std::env::current_exe().expect("the path of this program");
    let archive = program.with_file_name("librsshm.a");
    assert!(archive.exists(), "{} is missing", archive.display());
    archive
}

/// The directory for programs, and for the shared library.
pub fn directory() -> PathBuf {
    let directory = archive()
        .parent()
        .expect("a directory")
        .with_file_name("rsshm-test-capi");
    fs::create_dir_all(&directory).expect("a directory");
    directory
}

/// The directory of librsshm.so.0, which is linked as `make install-capi` links it. Tests in several processes may call
/// this function at the same time.
pub fn library() -> PathBuf {
    let directory = directory();
    let lock = File::create(directory.join("lock")).expect("a lock file");
    lock.lock().expect("the lock");
    let library = directory.join("librsshm.so.0");
    let time = |path: &Path| fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let sources = [
        archive(),
        crate_directory().join("link"),
        crate_directory().join("rsshm.map"),
    ];
    if sources.iter().any(|source| time(source) > time(&library)) {
        let mut link = Command::new(crate_directory().join("link"));
        run(link.arg(archive()).arg(&directory));
    }
    directory
}

/// A file name that no other test of this process or of another process uses.
pub fn unique(name: &str) -> String {
    // Relaxed, because the values only have to differ from each other.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!(
        "{name}-{}-{}",
        std::process::id(),
        COUNT.fetch_add(1, Ordering::Relaxed)
    )
}

/// Runs a command that must succeed, and returns its output.
#[track_caller]
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{text}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    text
}

/// Compiles `source`, whose path is relative to the crate, and links it with the shared library. Returns the program.
#[track_caller]
pub fn compile(source: &str, flags: &[&str]) -> PathBuf {
    let library = library();
    let source = crate_directory().join(source);
    let is_c = source.extension().is_some_and(|extension| extension == "c");
    let name = source.file_stem().expect("a name").to_string_lossy().into_owned();
    let program = library.join(unique(&name));
    let mut compiler = Command::new(if is_c { "cc" } else { "c++" });
    compiler
        .args(if is_c { C_FLAGS } else { CPP_FLAGS })
        .arg("-I")
        .arg(crate_directory().join("include"))
        .arg(&source)
        .arg("-o")
        .arg(&program);
    let more_flags = std::env::var(FLAGS_VARIABLE).unwrap_or_default();
    match std::env::var_os(ARCHIVE_VARIABLE) {
        Some(archive) => compiler
            .args(flags)
            .args(more_flags.split_whitespace())
            .arg(archive)
            .args(["-lpthread", "-ldl", "-lm"]),
        None => compiler
            .arg(format!("-L{}", library.display()))
            .arg(format!("-Wl,-rpath,{}", library.display()))
            .arg("-lrsshm")
            .args(flags)
            .args(more_flags.split_whitespace()),
    };
    run(&mut compiler);
    program
}

/// A compiled program. Its file is removed with the value.
pub struct Program(PathBuf);

impl Program {
    /// Compiles `source`, whose path is relative to the crate.
    #[track_caller]
    pub fn new(source: &str) -> Self {
        Self(compile(source, &["-pthread"]))
    }

    /// Compiles `source` with more flags.
    #[track_caller]
    pub fn with(source: &str, flags: &[&str]) -> Self {
        Self(compile(source, flags))
    }

    /// The command of the program.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let wrapper = std::env::var(WRAPPER_VARIABLE).unwrap_or_default();
        let mut words = wrapper.split_whitespace();
        let mut command = match words.next() {
            Some(program) => {
                let mut command = Command::new(program);
                command.args(words).arg(&self.0);
                command
            }
            None => Command::new(&self.0),
        };
        command.args(arguments);
        command
    }

    /// Starts the program.
    #[track_caller]
    pub fn start(&self, arguments: &[&str]) -> Process {
        Process::start(self.command(arguments))
    }

    /// Starts a reader, and waits until it has opened the channel.
    #[track_caller]
    pub fn converse(&self, channel: &Channel, arguments: &[&str]) -> Process {
        let mut all = vec![channel.as_str()];
        all.extend(arguments);
        let mut process = Process::converse(self.command(&all));
        process.expect("ready");
        process
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
