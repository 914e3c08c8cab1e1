// SPDX-License-Identifier: MIT OR Apache-2.0

//! The settings of a camera: what its configuration file and the command line say, and the pipeline that follows.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use rsshm_channel::ChannelName;

/// The directory that has a configuration file for each camera.
pub(crate) const DIRECTORY: &str = "/etc/rsshm";
/// The extension of these files.
pub(crate) const EXTENSION: &str = "conf";
/// The largest configuration file.
const MAX_SIZE: u64 = 64 * 1024;

/// Why there is no valid configuration.
#[derive(Debug)]
pub(crate) enum SettingsError {
    /// The file cannot be read.
    Unreadable(PathBuf, io::Error),
    /// A line of the file, or an option, is wrong.
    Wrong(String),
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable(path, error) => write!(f, "{} cannot be read: {error}", path.display()),
            Self::Wrong(text) => f.write_str(text),
        }
    }
}

/// The settings of a camera. What is `None` has its default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings {
    /// The elements before the sink, as in a command line of gst-launch-1.0.
    pub(crate) source: Option<String>,
    /// The caps between the source and the sink.
    pub(crate) caps: Option<String>,
    /// Further properties of rsshmsink.
    pub(crate) sink: Option<String>,
    pub(crate) perms: Option<u32>,
    pub(crate) on_demand: Option<bool>,
    /// How long nobody reads before the camera is closed.
    pub(crate) idle: Option<Duration>,
    /// How long no frame may come before the pipeline is started again; zero for any time.
    pub(crate) stall: Option<Duration>,
}

impl Settings {
    /// The file of the camera `name`.
    pub(crate) fn path(name: &ChannelName) -> PathBuf {
        Path::new(DIRECTORY).join(format!("{name}.{EXTENSION}"))
    }

    /// Reads a configuration file.
    ///
    /// # Errors
    /// The file cannot be read, or a line is wrong.
    pub(crate) fn read(path: &Path) -> Result<Self, SettingsError> {
        let unreadable = |error| SettingsError::Unreadable(path.to_owned(), error);
        let file = fs::File::open(path).map_err(unreadable)?;
        let text = io::read_to_string(io::Read::take(file, MAX_SIZE)).map_err(unreadable)?;
        Self::parse(&text)
            .map_err(|(line, reason)| SettingsError::Wrong(format!("{}, line {line}: {reason}", path.display())))
    }

    /// Parses the text of a configuration file. An error has the number of the line.
    fn parse(text: &str) -> Result<Self, (usize, String)> {
        let mut settings = Self::default();
        for (index, line) in text.lines().enumerate() {
            settings.set_line(line.trim()).map_err(|reason| (index + 1, reason))?;
        }
        Ok(settings)
    }

    fn set_line(&mut self, line: &str) -> Result<(), String> {
        if line.is_empty() || line.starts_with(['#', ';']) {
            return Ok(());
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| format!("{line:?} is not KEY=VALUE"))?;
        let value = unquote(value.trim());
        let words = || {
            shell_words::split(value).map_err(|_| format!("{value} has a quote without its partner"))?;
            Ok::<_, String>(Some(value.to_owned()))
        };
        match key.trim() {
            "SOURCE" => self.source = words()?,
            "CAPS" => self.caps = Some(value.to_owned()),
            "SINK" => self.sink = words()?,
            "PERMS" => self.perms = Some(parse_mode(value)?),
            "ON_DEMAND" => self.on_demand = Some(parse_bool(value)?),
            "IDLE_SECONDS" => self.idle = Some(parse_seconds(value)?),
            "STALL_SECONDS" => self.stall = Some(parse_seconds(value)?),
            other => {
                return Err(format!(
                    "{other:?} is none of SOURCE, CAPS, SINK, PERMS, ON_DEMAND, IDLE_SECONDS and STALL_SECONDS"
                ));
            }
        }
        Ok(())
    }

    /// These settings; where one is `None`, that of `others`.
    pub(crate) fn or(self, others: Self) -> Self {
        Self {
            source: self.source.or(others.source),
            caps: self.caps.or(others.caps),
            sink: self.sink.or(others.sink),
            perms: self.perms.or(others.perms),
            on_demand: self.on_demand.or(others.on_demand),
            idle: self.idle.or(others.idle),
            stall: self.stall.or(others.stall),
        }
    }

    /// How long no frame may come before the pipeline is started again; `None` for any time.
    pub(crate) fn stall(&self) -> Option<Duration> {
        const DEFAULT: Duration = Duration::from_secs(10);
        Some(self.stall.unwrap_or(DEFAULT)).filter(|stall| !stall.is_zero())
    }

    /// The elements before the sink. A channel with the name of a device, such as `video0`, has this device as its
    /// source.
    pub(crate) fn source(&self, name: &ChannelName) -> Option<String> {
        let device = || {
            let number = name.as_str().strip_prefix("video")?;
            let is_device = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            is_device.then(|| format!("v4l2src device=/dev/{name}"))
        };
        self.source.clone().or_else(device)
    }

    /// The arguments of gst-launch-1.0. They are passed to it without a shell.
    ///
    /// # Errors
    /// There is no source, or a text has a quote without its partner.
    pub(crate) fn arguments(&self, name: &ChannelName) -> Result<Vec<String>, SettingsError> {
        let wrong = SettingsError::Wrong;
        // gst-launch-1.0 has a syntax of its own for values, which knows other characters.
        let is_plain = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if !name.as_str().chars().all(is_plain) {
            return Err(wrong(format!(
                "channel {name}: a camera's name has only a to z, A to Z, 0 to 9, '-', '_' and '.'"
            )));
        }
        let source = self.source(name).ok_or_else(|| {
            let path = Self::path(name);
            wrong(format!(
                "channel {name} has no source: use --source 'v4l2src device=/dev/video0', or SOURCE= in {}",
                path.display()
            ))
        })?;
        let split = |text: &str| shell_words::split(text).map_err(|error| wrong(format!("{text}: {error}")));
        let mut arguments = vec!["-q".to_owned()];
        arguments.extend(split(&source)?);
        arguments.push("!".to_owned());
        if let Some(caps) = &self.caps {
            arguments.extend([caps.clone(), "!".to_owned()]);
        }
        arguments.extend(["rsshmsink".to_owned(), format!("channel={name}")]);
        arguments.push(format!("perms={:04o}", self.perms.unwrap_or(0o660)));
        if self.on_demand == Some(true) {
            arguments.push("on-demand=true".to_owned());
            arguments.extend(self.idle.map(|idle| format!("idle-timeout={}", idle.as_secs())));
        }
        arguments.extend(split(self.sink.as_deref().unwrap_or_default())?);
        Ok(arguments)
    }
}

/// The value without the quotes around it, if they enclose all of it.
fn unquote(value: &str) -> &str {
    for quote in ['"', '\''] {
        let inner = value.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote));
        if let Some(inner) = inner.filter(|inner| !inner.contains(quote)) {
            return inner;
        }
    }
    value
}

/// Parses permissions, such as 0660.
pub(crate) fn parse_mode(text: &str) -> Result<u32, String> {
    u32::from_str_radix(text, 8)
        .ok()
        .filter(|mode| *mode <= 0o777)
        .ok_or_else(|| format!("{text:?} is not a mode such as 0660"))
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "yes" | "true" | "on" | "1" => Ok(true),
        "no" | "false" | "off" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither yes nor no")),
    }
}

fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: Option<u32> = text.parse().ok();
    seconds
        .map(|seconds| Duration::from_secs(seconds.into()))
        .ok_or_else(|| format!("{text:?} is not a number of seconds"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ChannelName {
        ChannelName::new(text).unwrap()
    }

    fn arguments(text: &str) -> Vec<String> {
        Settings::parse(text).unwrap().arguments(&name("cam0")).unwrap()
    }

    #[test]
    fn file_becomes_a_pipeline() {
        let text = "# the door\n\n SOURCE = v4l2src device=\"/dev/front door\" ! jpegdec ! videoflip method='clockwise'\n\
            CAPS=\"video/x-raw, width=1280\"\nPERMS=0640\nON_DEMAND=yes\nIDLE_SECONDS=30\nSINK='lossless=true sync=false'\n";
        assert_eq!(
            arguments(text),
            [
                "-q",
                "v4l2src",
                "device=/dev/front door",
                "!",
                "jpegdec",
                "!",
                "videoflip",
                "method=clockwise",
                "!",
                "video/x-raw, width=1280",
                "!",
                "rsshmsink",
                "channel=cam0",
                "perms=0640",
                "on-demand=true",
                "idle-timeout=30",
                "lossless=true",
                "sync=false",
            ]
        );
        assert_eq!(
            arguments("SOURCE=\"videotestsrc ! identity\"")[1..],
            [
                "videotestsrc",
                "!",
                "identity",
                "!",
                "rsshmsink",
                "channel=cam0",
                "perms=0660"
            ]
        );
    }

    #[test]
    fn quotes_are_removed_only_around_the_whole_value() {
        for (value, inner) in [
            ("\"a b\"", "a b"),
            ("'a b'", "a b"),
            ("\"a\" ! \"b\"", "\"a\" ! \"b\""),
            ("a=\"b\"", "a=\"b\""),
            ("\"a", "\"a"),
            ("'a \"b\"'", "a \"b\""),
            ("", ""),
            ("\"", "\""),
        ] {
            assert_eq!(unquote(value), inner, "{value}");
        }
    }

    #[test]
    fn wrong_lines_are_named() {
        for (text, line, reason) in [
            ("SOURCE", 1, "not KEY=VALUE"),
            ("\nSOURCES=a", 2, "none of SOURCE"),
            ("SOURCE=a \"b", 1, "quote"),
            ("PERMS=999", 1, "not a mode"),
            ("PERMS=1777", 1, "not a mode"),
            ("ON_DEMAND=maybe", 1, "neither yes nor no"),
            ("IDLE_SECONDS=-1", 1, "not a number of seconds"),
        ] {
            let (found, text) = Settings::parse(text).unwrap_err();
            assert!(found == line && text.contains(reason), "{found}: {text}");
        }
    }

    #[test]
    fn devices_are_their_own_source() {
        let source = |text: &str| Settings::default().source(&name(text));
        assert_eq!(source("video2").as_deref(), Some("v4l2src device=/dev/video2"));
        assert_eq!(source("video"), None);
        assert_eq!(source("videowall"), None);
        let error = Settings::default().arguments(&name("cam0")).unwrap_err().to_string();
        assert!(error.contains("/etc/rsshm/cam0.conf"), "{error}");
        assert!(Settings::default().arguments(&name("video0 !")).is_err());
    }
}
