//! What runs leave behind when their programs are killed: files whose names say whose they are.

use std::path::{Path, PathBuf};

const PREFIX: &str = "rsshm-bench-";
const SHM: &str = "/dev/shm";

/// The folder of this program's runs; removed in the end.
pub struct Folder(pub PathBuf);

impl Folder {
    pub fn new() -> Result<Self, String> {
        let path = std::env::temp_dir().join(channel(None));
        std::fs::create_dir_all(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The name of a run's channel.
pub fn channel(run: Option<u32>) -> String {
    let own = format!("{PREFIX}{}", std::process::id());
    run.map_or(own.clone(), |run| format!("{own}-{run}"))
}

fn names(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.to_owned(), entry.path())))
}

/// Removes what is left of a channel; yields whether there was something.
pub fn remove_channel(channel: &str) -> bool {
    let files = [format!("{SHM}/{channel}"), format!("{SHM}/sem.{channel}")];
    files.iter().filter(|file| std::fs::remove_file(file).is_ok()).count() > 0
}

/// Removes the memory of a shmsink that was killed.
pub fn remove_pipes(pid: u32) {
    let pid = pid.to_string();
    for (name, path) in names(Path::new(SHM)) {
        // shmpipe.   17.    0
        if name
            .strip_prefix("shmpipe.")
            .and_then(|rest| rest.split('.').next())
            .is_some_and(|of| of.trim() == pid)
        {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Removes what benchmarks have left that were killed themselves.
pub fn remove_old() {
    let owner = |name: &str| -> Option<u32> {
        let rest = name.strip_prefix("sem.").unwrap_or(name).strip_prefix(PREFIX)?;
        rest.split('-').next()?.parse().ok()
    };
    let is_dead = |pid: u32| !Path::new(&format!("/proc/{pid}")).exists();
    for folder in [std::env::temp_dir(), SHM.into()] {
        for (name, path) in names(&folder) {
            if owner(&name).is_some_and(is_dead) {
                let _ = std::fs::remove_file(&path).or_else(|_| std::fs::remove_dir_all(&path));
            }
        }
    }
}
