// SPDX-License-Identifier: MIT OR Apache-2.0

//! The thread that gives readers the descriptors of objects.
//!
//! A reader connects, sends one request, and gets one answer. The thread never waits for a peer: it sleeps until a peer
//! has sent something, and closes the connections of peers that send nothing. No other thread of the writer waits for
//! it, so no peer delays a frame.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use bytemuck::Zeroable;
use nix::errno::Errno;

use super::registry::Registry;
use crate::{
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::ObjectRequest,
    },
    segment::wait::RateLimiter,
    sys::{fork::ForkGuard, socket},
};

/// The name of the thread.
const THREAD_NAME: &str = "rsshm-objects";
/// The most connections that wait for their request. If there are more, the oldest is closed.
const MAX_CONNECTIONS: usize = 64;
/// How long a connection may wait for its request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(1);
/// How many wakes in a row the thread handles without a pause. After these wakes, it handles one in each
/// [`WAKE_INTERVAL`]. 64 readers may begin at once, each with all objects of a pool.
const WAKE_BURST: u32 = 4096;
const WAKE_INTERVAL: Duration = Duration::from_millis(1);

/// A running thread. Dropping the value ends it.
#[derive(Debug)]
pub(crate) struct Server {
    listener: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    fork_guard: ForkGuard,
}

impl Server {
    /// Starts the thread for a socket at which peers may connect.
    pub(super) fn spawn(listener: OwnedFd, registry: Arc<Registry>) -> io::Result<Self> {
        let listener = Arc::new(listener);
        let thread = thread::Builder::new().name(THREAD_NAME.to_owned()).spawn({
            let listener = Arc::clone(&listener);
            move || serve(&listener, &registry)
        })?;
        Ok(Self {
            listener,
            thread: Some(thread),
            fork_guard: ForkGuard::new(),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A forked child has the same socket as its parent, and no thread.
        if self.fork_guard.is_inherited() {
            std::mem::forget(self.thread.take());
            return;
        }
        socket::stop(&self.listener);
        if let Some(thread) = self.thread.take() {
            // The thread ends at once. If it panicked, the panic was printed when it happened.
            let _ = thread.join();
        }
    }
}

/// A connection whose request has not come yet.
struct Connection {
    socket: OwnedFd,
    until: Instant,
}

/// Answers requests until the socket is stopped.
fn serve(listener: &OwnedFd, registry: &Registry) {
    let mut connections: Vec<Connection> = Vec::new();
    let mut limiter = RateLimiter::new(WAKE_BURST, WAKE_INTERVAL);
    loop {
        let now = Instant::now();
        connections.retain(|connection| connection.until > now);
        let sockets: Vec<_> = connections
            .iter()
            .map(|connection| connection.socket.as_fd())
            .chain([listener.as_fd()])
            .collect();
        let wake_at = connections.iter().map(|connection| connection.until).min();
        let ready = socket::wait(&sockets, wake_at.map(|at| at.saturating_duration_since(now)));
        let mut of_connections = ready.iter();
        connections.retain(|connection| {
            let has_news = of_connections.next().is_some_and(|ready| ready.has_news);
            !(has_news && answer(&connection.socket, registry))
        });
        if let Some(of_listener) = of_connections.next() {
            if of_listener.has_ended {
                return;
            }
            if of_listener.has_news {
                accept_all(listener, registry, &mut connections);
            }
        }
        if let Some(pause) = limiter.throttle() {
            thread::sleep(pause);
        }
    }
}

/// Accepts the connections that wait, and answers the requests that have come already.
fn accept_all(listener: &OwnedFd, registry: &Registry, connections: &mut Vec<Connection>) {
    // The loop is limited, so that one round ends although peers connect all the time.
    for _ in 0..MAX_CONNECTIONS {
        // If this process has too many open files, the connections wait in the kernel. The limiter of the caller says
        // how often the thread tries again.
        let Ok(Some(socket)) = socket::accept(listener) else {
            return;
        };
        if answer(&socket, registry) {
            continue;
        }
        if connections.len() >= MAX_CONNECTIONS {
            connections.remove(0);
        }
        connections.push(Connection {
            socket,
            until: Instant::now() + REQUEST_TIMEOUT,
        });
    }
}

/// Answers the request of a connection; `false` if it has not come yet. After `true`, the connection is to be closed.
fn answer(connection: &OwnedFd, registry: &Registry) -> bool {
    let mut request = ObjectRequest::zeroed();
    let received = match socket::receive(connection, bytemuck::bytes_of_mut(&mut request)) {
        Ok(None) => return false,
        Ok(Some(received)) => received,
        Err(_) => return true,
    };
    // Descriptors that came with the request are closed when `received` is dropped.
    if received.size == 0 {
        return true;
    }
    failpoint(Failpoint::RequestReceived);
    let is_whole = received.size == size_of::<ObjectRequest>();
    let (reply, object) = registry.answer(is_whole.then_some(request));
    let descriptor = object.as_ref().map(|object| object.file().as_fd());
    // If the answer cannot be sent, the peer is gone or has filled its own socket. It finds the connection closed.
    let _: Result<(), Errno> = socket::send(connection, bytemuck::bytes_of(&reply), descriptor);
    true
}
