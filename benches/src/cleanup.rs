// SPDX-License-Identifier: MIT OR Apache-2.0

//! Removes the files that killed programs leave. The name of each file contains the ID of the process that created it.

use std::path::{Path, PathBuf};

const PREFIX: &str = "rsshm-bench-";
const SHM_DIR: &str = "/dev/shm";
/// What comes between the name of a channel and the rest of the name of iceoryx2's shared memory.
const ICEORYX2_SUFFIX: &str = "-iox2-";

/// A temporary directory for the runs of this program. Dropping this value removes the directory.
pub struct RunDirectory(pub PathBuf);

impl RunDirectory {
    pub fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(channel(None));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for RunDirectory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The name of a run's channel. For `None`, the prefix that the channels of all runs share.
pub fn channel(run: Option<u32>) -> String {
    let own = format!("{PREFIX}{}", std::process::id());
    run.map_or(own.clone(), |run| format!("{own}-{run}"))
}

/// The names and paths of the files in a directory.
fn files_in(directory: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.to_owned(), entry.path())))
}

/// Removes the files of a channel. Returns whether it removed any.
pub fn remove_channel(channel: &str) -> bool {
    let files = [format!("{SHM_DIR}/{channel}"), format!("{SHM_DIR}/sem.{channel}")];
    files.iter().filter(|file| std::fs::remove_file(file).is_ok()).count() > 0
}

/// Removes the shared memory of a killed shmsink.
pub fn remove_shmsink_memory(pid: u32) {
    let pid = pid.to_string();
    for (name, path) in files_in(Path::new(SHM_DIR)) {
        // shmsink's files have names like "shmpipe.   17.    0", which begin with the process ID (here 17).
        if name
            .strip_prefix("shmpipe.")
            .and_then(|rest| rest.split('.').next())
            .is_some_and(|owner| owner.trim() == pid)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Makes the processes of a run keep iceoryx2's files in `dir`, which is their current directory. The name of its shared
/// memory then begins with that of the channel.
pub fn configure_iceoryx2(dir: &Path, channel: &str) -> Result<(), String> {
    let path = dir.join("config");
    let text = format!(
        "[global]\nroot-path = \"{}\"\nprefix = \"{channel}{ICEORYX2_SUFFIX}\"\n",
        dir.display()
    );
    std::fs::create_dir_all(&path)
        .and_then(|()| std::fs::write(path.join("iceoryx2.toml"), text))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// Removes the shared memory that iceoryx2 has left.
pub fn remove_iceoryx2_memory(channel: &str) {
    let prefix = format!("{channel}{ICEORYX2_SUFFIX}");
    for (name, path) in files_in(Path::new(SHM_DIR)) {
        if name.starts_with(&prefix) {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes the files of earlier benchmarks that were killed.
pub fn remove_leftovers() {
    let owner = |name: &str| -> Option<u32> {
        let rest = name.strip_prefix("sem.").unwrap_or(name).strip_prefix(PREFIX)?;
        rest.split('-').next()?.parse().ok()
    };
    let is_dead = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
    for directory in [std::env::temp_dir(), SHM_DIR.into()] {
        for (name, path) in files_in(&directory) {
            if owner(&name).is_some_and(is_dead) {
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
        }
    }
}
