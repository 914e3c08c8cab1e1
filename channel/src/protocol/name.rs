// SPDX-License-Identifier: MIT OR Apache-2.0

//! The name of a channel, and the paths of its files.

use crate::{
    Error,
    sys::{directory::Directory, files::STAGING_PREFIX},
};

/// The name of a channel: 1 to 250 bytes, without `/` and NUL. It does not start with `sem.`, `fds.` or
/// `.rsshm-`, and it is not `.` or `..`.
///
/// The limit of 250 bytes leaves room for the `sem.` that the C library puts before the name of a semaphore (NAME_MAX
/// is 255). A channel whose name starts with `sem.` would use the file of another channel's semaphore. In the same way,
/// a name that starts with `fds.` would be the socket of another channel.
///
/// # Examples
///
/// ```
/// use rsshm_channel::ChannelName;
///
/// let name = ChannelName::new("cam0")?;
/// assert_eq!(name.as_str(), "cam0");
/// assert!(ChannelName::new("a/b").is_err());
/// # Ok::<(), rsshm_channel::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChannelName(String);

impl ChannelName {
    /// Checks `name`.
    ///
    /// # Errors
    /// [`Error::Name`] says what is wrong with the name.
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
            "the prefix \"sem.\" is reserved for the files of semaphores"
        } else if name.starts_with(SOCKET_PREFIX) {
            "the prefix \"fds.\" is reserved for the sockets of channels"
        } else if name.starts_with(STAGING_PREFIX) {
            "the prefix \".rsshm-\" is reserved for staging files"
        } else if name == "." || name == ".." {
            "it is the name of a directory"
        } else {
            return Ok(Self(name));
        };
        Err(Error::Name { name, reason })
    }

    /// The text that a URI of the form `rsshm://NAME` names, without its percent escapes. `None` if it has another
    /// form, or if an escape is invalid. [`new`](Self::new) checks the text.
    ///
    /// # Examples
    ///
    /// ```
    /// use rsshm_channel::ChannelName;
    ///
    /// assert_eq!(ChannelName::text_of_uri("rsshm://a%20b/").as_deref(), Some("a b"));
    /// assert_eq!(ChannelName::text_of_uri("http://cam0"), None);
    /// ```
    pub fn text_of_uri(uri: &str) -> Option<String> {
        let name = uri.strip_prefix("rsshm://")?;
        unescape(name.strip_suffix('/').unwrap_or(name))
    }

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path of the segment, in [`Directory::current`].
    pub fn segment_path(&self) -> String {
        Directory::current().join(&self.0)
    }

    /// The path of the lock file, in [`Directory::current`].
    pub fn lock_file_path(&self) -> String {
        Directory::current().join(&format!("sem.{}", self.0))
    }

    /// The path of the socket, in [`Directory::current`]. Only a channel whose frames are objects has a socket.
    pub fn socket_path(&self) -> String {
        Directory::current().join(&format!("{SOCKET_PREFIX}{}", self.0))
    }
}

/// The prefix of the name of a socket.
const SOCKET_PREFIX: &str = "fds.";

/// Decodes the percent escapes of `text`; `None` if an escape is invalid, or if the result is not UTF-8.
fn unescape(text: &str) -> Option<String> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => digit(rest.next()?)? << 4 | digit(rest.next()?)?,
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
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
    fn valid_names_are_accepted() {
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
    fn invalid_names_are_refused_with_the_reason() {
        for (name, word) in [
            ("", "empty"),
            (&*"x".repeat(251), "250"),
            ("a/b", "slash"),
            ("a\0b", "NUL"),
            ("sem.cam0", "sem."),
            ("fds.cam0", "fds."),
            (".", "directory"),
            ("..", "directory"),
            (".rsshm-1-0", "staging"),
        ] {
            let error = ChannelName::new(name).expect_err(name).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
