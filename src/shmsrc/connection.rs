// SPDX-License-Identifier: MIT OR Apache-2.0

//! Measures the time without a writer, and decides which action is due.

use std::time::{Duration, Instant};

use rsshm_channel::Directory;

/// The time without a writer after which a message lists the channels that exist.
const HINT_DELAY: Duration = Duration::from_secs(3);

/// The longest wait for a frame. After it, the streaming thread simply waits again.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// The shortest wait for a frame.
const MIN_WAIT: Duration = Duration::from_millis(1);

/// A measurement of the time without a writer.
pub(super) struct WriterWait {
    since: Instant,
    is_hint_given: bool,
}

/// The action that is due after some time without a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// Show the user which channels exist.
    Hint,
    /// Fail, because no writer has appeared in time.
    Failure,
}

impl WriterWait {
    /// A wait that begins now.
    pub(super) fn start() -> Self {
        Self {
            since: Instant::now(),
            is_hint_given: false,
        }
    }

    /// The time until an action is due. If `connection_timeout` is zero, the wait for a writer never fails.
    pub(super) fn remaining(&self, is_connected: bool, connection_timeout: Duration) -> Duration {
        if is_connected {
            return MAX_WAIT;
        }
        let waited = self.since.elapsed();
        let hint = (!self.is_hint_given).then(|| HINT_DELAY.saturating_sub(waited));
        let timeout = (!connection_timeout.is_zero()).then(|| connection_timeout.saturating_sub(waited));
        hint.into_iter().chain(timeout).min().unwrap_or(MAX_WAIT).max(MIN_WAIT)
    }

    /// The action that is due now. A hint is due only once.
    pub(super) fn due(&mut self, is_connected: bool, connection_timeout: Duration) -> Due {
        if is_connected {
            return Due::Nothing;
        }
        let waited = self.since.elapsed();
        if !connection_timeout.is_zero() && waited >= connection_timeout {
            return Due::Failure;
        }
        if self.is_hint_given || waited < HINT_DELAY {
            return Due::Nothing;
        }
        self.is_hint_given = true;
        Due::Hint
    }
}

/// The part of a message that lists the channels that exist.
pub(super) fn present_channels() -> String {
    if let Err(fault) = Directory::current().check() {
        return fault.to_string();
    }
    match rsshm_channel::channels() {
        names if names.is_empty() => "there are no channels".to_owned(),
        names => format!("existing channels: {}", names.join(", ")),
    }
}
