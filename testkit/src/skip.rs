// SPDX-License-Identifier: MIT OR Apache-2.0

//! Skips a test that this machine cannot run. Skipped tests are counted, so that they do not look like passed tests.

use std::{
    env,
    ffi::OsStr,
    fs::File,
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

/// The environment variable that names the file in which skipped tests are recorded.
pub const SKIPPED: &str = "RSSHM_SKIPPED";

/// Returns from the calling test. Prints `SKIPPED <test>: <reason>` and appends this line to the file that
/// `RSSHM_SKIPPED` names.
///
/// Use the macro in the test itself, not in a function that the test calls.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)+) => {{
        fn here() {}
        $crate::skip::record(&here, format_args!($($reason)+));
        return;
    }};
}

/// Skips the test unless it runs as root.
#[macro_export]
macro_rules! need_root {
    ($why:literal) => {
        if !$crate::privileges::is_root() {
            $crate::skip!("not root: {}", $why);
        }
    };
}

/// Skips the test unless the program is installed.
#[macro_export]
macro_rules! need_program {
    ($program:expr) => {
        if !$crate::skip::has_program($program) {
            $crate::skip!("{} is not installed", $program);
        }
    };
}

/// Prints and records a skipped test for [`skip!`]. `_here` is a function inside the test, so the name of its type
/// contains the test's name.
pub fn record<F>(_here: &F, reason: impl std::fmt::Display) {
    let here = std::any::type_name::<F>();
    let test = here.strip_suffix("::here").unwrap_or(here);
    let line = format!("SKIPPED {test}: {reason}\n");
    print!("{line}");
    if let Some(path) = env::var_os(SKIPPED).filter(|path| !path.is_empty()) {
        // One call writes the line in append mode, because tests in other processes write to this file too.
        let file = File::options().create(true).append(true).open(&path);
        let written = file.and_then(|mut file| file.write_all(line.as_bytes()));
        written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

/// Whether a program of this name is found in `PATH`.
pub fn has_program(program: impl AsRef<OsStr>) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| directory.join(Path::new(program.as_ref())).is_file())
}

/// Whether a command runs and succeeds. Its output is discarded.
pub fn succeeds(command: &mut Command) -> bool {
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    status.status().is_ok_and(|status| status.success())
}
