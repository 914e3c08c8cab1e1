// SPDX-License-Identifier: MIT OR Apache-2.0

//! Reports to the service manager that has started this program, as sd_notify(3) describes them.

use std::{
    env, io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    time::Duration,
};

use crate::output::warn;

const SOCKET: &str = "NOTIFY_SOCKET";
const WATCHDOG: &str = "WATCHDOG_USEC";
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// The variables that are for this program only, and not for its children.
pub(crate) const VARIABLES: [&str; 3] = [SOCKET, WATCHDOG, WATCHDOG_PID];

/// The socket of the service manager.
#[derive(Debug)]
pub(crate) struct Manager(Option<UnixDatagram>);

impl Manager {
    /// The service manager that the environment names, if it names one.
    pub(crate) fn of_environment() -> Self {
        let Some(name) = env::var_os(SOCKET) else {
            return Self(None);
        };
        let connect = || -> io::Result<UnixDatagram> {
            let bytes = name.as_encoded_bytes();
            let address = match bytes.strip_prefix(b"@") {
                Some(name) => SocketAddr::from_abstract_name(name)?,
                None => SocketAddr::from_pathname(&name)?,
            };
            let socket = UnixDatagram::unbound()?;
            socket.connect_addr(&address)?;
            // A manager that does not read must not hold up the camera.
            socket.set_nonblocking(true)?;
            Ok(socket)
        };
        match connect() {
            Ok(socket) => Self(Some(socket)),
            Err(error) => {
                warn(format!("the service manager cannot be reached ({SOCKET}): {error}"));
                Self(None)
            }
        }
    }

    /// Sends lines such as `READY=1`.
    pub(crate) fn send(&self, lines: &str) {
        if let Some(socket) = &self.0 {
            // A report that is lost is replaced by the next one.
            let _ = socket.send(lines.as_bytes());
        }
    }
}

/// How often the service manager expects a sign of life; `None` if it expects none.
pub(crate) fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| env::var(name).ok()?.parse::<u64>().ok();
    if number(WATCHDOG_PID).is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number(WATCHDOG).filter(|time| *time > 0).map(Duration::from_micros)
}
