//! The name of a channel, checked once.

use crate::{
    Error,
    sys::files::{SHM_DIR, STAGING_PREFIX},
};

/// A channel's name: 1 to 250 bytes, no `/`, no NUL, not beginning `sem.` and not `.` or `..`.
///
/// 250 leaves room for the `sem.` that the C library puts before a semaphore's name (NAME_MAX is 255); a name beginning
/// with it would be the file of another channel's semaphore.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChannelName(String);

impl ChannelName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`Error::Name`] says what is wrong with it.
    pub fn new(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        let reason = if name.is_empty() {
            "it is empty"
        } else if name.len() > 250 {
            "it is longer than 250 bytes"
        } else if name.contains('/') {
            "it contains a slash"
        } else if name.contains('\0') {
            "it contains a NUL"
        } else if name.starts_with("sem.") {
            "it begins with \"sem.\", which is how the files of semaphores are called"
        } else if name.starts_with(STAGING_PREFIX) {
            "it begins with \".rsshm-\", which is how segments in the making are called"
        } else if name == "." || name == ".." {
            "it is the name of a directory"
        } else {
            return Ok(Self(name));
        };
        Err(Error::Name { name, reason })
    }

    /// The name as given.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn segment_path(&self) -> String {
        format!("{SHM_DIR}/{}", self.0)
    }

    pub(crate) fn semaphore_path(&self) -> String {
        format!("{SHM_DIR}/sem.{}", self.0)
    }
}

impl std::fmt::Display for ChannelName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_names() {
        for name in [
            "cam0",
            "rsshmsink0",
            "a b",
            "ünï",
            ".hidden",
            "cam-0_1.x",
            &"x".repeat(250),
        ] {
            assert_eq!(ChannelName::new(name).map(|name| name.to_string()), Ok(name.to_owned()));
        }
    }

    #[test]
    fn bad_names_say_why() {
        for (name, word) in [
            ("", "empty"),
            (&*"x".repeat(251), "250"),
            ("a/b", "slash"),
            ("a\0b", "NUL"),
            ("sem.cam0", "sem."),
            (".", "directory"),
            ("..", "directory"),
            (".rsshm-1-0", "making"),
        ] {
            let error = ChannelName::new(name).expect_err(name).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
