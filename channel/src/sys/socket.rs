// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sockets of the type SOCK_SEQPACKET that have a name in a directory and carry file descriptors. No call of this file
//! blocks, except [`wait`].

use core::{ffi::c_void, ptr::null_mut};
use std::{
    io::IoSlice,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, Backlog, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr, bind, connect,
            getsockopt, listen, sendmsg, shutdown, socket, sockopt,
        },
        stat::Mode,
    },
};

use super::files::FileId;

/// How many connections wait in the kernel until the writer accepts them. A reader whose connection does not fit tries
/// again.
const BACKLOG: i32 = 128;
/// The longest path that fits into the address of a socket (unix(7)), without its NUL.
const MAX_PATH: usize = 107;
/// The most descriptors that one message can carry (SCM_MAX_FD of the kernel).
const MAX_DESCRIPTORS: usize = 253;

/// A new socket without a name.
fn new_socket() -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
}

/// Creates a socket with the name `path` in `directory`. Nobody can connect before [`start`].
pub(crate) fn create(directory: &str, name: &str) -> nix::Result<OwnedFd> {
    let listener = new_socket()?;
    let path = format!("{directory}/{name}");
    if path.len() <= MAX_PATH {
        bind(listener.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    } else {
        let directory = open(directory, OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        bind(listener.as_raw_fd(), &UnixAddr::new(path.as_str())?)?;
    }
    Ok(listener)
}

/// Lets peers connect.
pub(crate) fn start(listener: &OwnedFd) -> nix::Result<()> {
    listen(listener, Backlog::new(BACKLOG)?)
}

/// Ends a socket in all threads and processes that have it: nobody can connect, and a [`wait`] for it ends.
pub(crate) fn stop(listener: &OwnedFd) {
    // The call fails only if the socket has ended already.
    let _ = shutdown(listener.as_raw_fd(), Shutdown::Both);
}

/// The next connection; `None` if no peer waits.
pub(crate) fn accept(listener: &OwnedFd) -> nix::Result<Option<OwnedFd>> {
    // SAFETY: the call accepts null for the address, because nobody asks for the address.
    let accepted = unsafe {
        libc::accept4(
            listener.as_raw_fd(),
            null_mut(),
            null_mut(),
            libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK,
        )
    };
    match Errno::result(accepted) {
        // SAFETY: the call has just opened this descriptor, so nobody else owns it.
        Ok(descriptor) => Ok(Some(unsafe { OwnedFd::from_raw_fd(descriptor) })),
        // The other errors are those of connections that ended before they were accepted.
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED | Errno::EPROTO) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Connects to the socket with the name `path`, if `is_expected` accepts its file. `None` if another file has the name.
///
/// # Errors
/// EAGAIN if too many peers wait already, ENOENT and ECONNREFUSED if nobody answers, ENOTSOCK if the file is not a
/// socket.
pub(crate) fn connect_to(path: &str, is_expected: impl Fn(FileId) -> bool) -> nix::Result<Option<OwnedFd>> {
    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = open(path, flags, Mode::empty())?;
    let stat = nix::sys::stat::fstat(&file)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFSOCK {
        return Err(Errno::ENOTSOCK);
    }
    if !is_expected(FileId::from(&stat)) {
        return Ok(None);
    }
    // This path leads to the opened file, also if another file gets the name now. It is short even if the name is long.
    let by_file = format!("/proc/self/fd/{}", file.as_raw_fd());
    let has_proc = Path::new(&by_file).exists();
    let address = UnixAddr::new(if has_proc { by_file.as_str() } else { path })?;
    let connection = new_socket()?;
    connect(connection.as_raw_fd(), &address)?;
    // Without /proc, another file may have got the name before the connection was made.
    let is_same = has_proc || is_expected(FileId::from(&nix::sys::stat::lstat(path)?));
    Ok(is_same.then_some(connection))
}

/// The user of the process that listens at the other end of `connection`.
pub(crate) fn peer_user(connection: &OwnedFd) -> nix::Result<u32> {
    getsockopt(connection, sockopt::PeerCredentials).map(|peer| peer.uid())
}

/// Sends a message, with a descriptor if there is one.
pub(crate) fn send(connection: &OwnedFd, bytes: &[u8], descriptor: Option<BorrowedFd<'_>>) -> nix::Result<()> {
    let descriptors: Vec<RawFd> = descriptor.iter().map(AsRawFd::as_raw_fd).collect();
    let message = ControlMessage::ScmRights(&descriptors);
    let messages = if descriptors.is_empty() {
        &[][..]
    } else {
        std::slice::from_ref(&message)
    };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    let sent = sendmsg::<()>(connection.as_raw_fd(), &[IoSlice::new(bytes)], messages, flags, None)?;
    if sent == bytes.len() {
        Ok(())
    } else {
        Err(Errno::EMSGSIZE)
    }
}

/// A message that was received.
#[derive(Debug)]
pub(crate) struct Received {
    /// The size of the message; more than the memory for it had if the message was cut off.
    pub(crate) size: usize,
    /// All descriptors that came with it. They are closed when the value is dropped.
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Whether descriptors were lost, because this process has too many open files.
    pub(crate) has_lost_descriptors: bool,
}

/// Memory for the control messages of one message. It has room for as many descriptors as a message can carry, so the
/// kernel never drops any for lack of room.
#[repr(C, align(8))]
struct ControlBuffer([u8; 64 + MAX_DESCRIPTORS * size_of::<RawFd>()]);

/// Receives a message into `bytes`; `None` if there is none. The size is 0 at the end of the connection.
pub(crate) fn receive(connection: &OwnedFd, bytes: &mut [u8]) -> nix::Result<Option<Received>> {
    let received = receive_once(connection, bytes)?;
    // The kernel looks for a message, and then for the end. If the peer sends its last message and closes in between,
    // the first call returns the end, and the second one returns the message.
    match received {
        Some(end) if end.size == 0 => Ok(Some(receive_once(connection, bytes)?.unwrap_or(end))),
        received => Ok(received),
    }
}

fn receive_once(connection: &OwnedFd, bytes: &mut [u8]) -> nix::Result<Option<Received>> {
    let mut control = ControlBuffer([0; 64 + MAX_DESCRIPTORS * size_of::<RawFd>()]);
    let mut part = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast::<c_void>(),
        iov_len: bytes.len(),
    };
    // SAFETY: all bytes 0 are a valid `msghdr`, whose pointers are then null.
    let mut header: libc::msghdr = unsafe { core::mem::zeroed() };
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = (&raw mut control).cast();
    header.msg_controllen = size_of::<ControlBuffer>() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_CMSG_CLOEXEC | libc::MSG_TRUNC;
    // SAFETY: the header refers to `bytes` and to `control`, with their sizes. Both live until the end of this
    // function, and nobody else uses them.
    let received = unsafe { libc::recvmsg(connection.as_raw_fd(), &raw mut header, flags) };
    let size = match Errno::result(received) {
        Ok(size) => size as usize,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        Err(errno) => return Err(errno),
    };
    Ok(Some(Received {
        size,
        descriptors: take_descriptors(&header),
        has_lost_descriptors: header.msg_flags & libc::MSG_CTRUNC != 0,
    }))
}

/// The descriptors in the control messages of a message that was just received.
fn take_descriptors(header: &libc::msghdr) -> Vec<OwnedFd> {
    let mut descriptors = Vec::new();
    // SAFETY: the kernel has filled the control messages that the header refers to, and the header has their size. So
    // the macros of the C library find only whole headers inside them.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !message.is_null() {
        // SAFETY: `message` is a control message of this header. If it carries descriptors, the kernel has opened each
        // of them for this process, and its data are as many of them as its length says. Nobody else owns them.
        unsafe {
            if (*message).cmsg_level == libc::SOL_SOCKET && (*message).cmsg_type == libc::SCM_RIGHTS {
                let data = libc::CMSG_DATA(message);
                let size = ((*message).cmsg_len as usize).saturating_sub(data.addr() - message.addr());
                for index in 0..size / size_of::<RawFd>() {
                    let descriptor = data.cast::<RawFd>().add(index).read_unaligned();
                    descriptors.push(OwnedFd::from_raw_fd(descriptor));
                }
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    descriptors
}

/// Sleeps until one of `sockets` has a message, a connection or its end, at most for `timeout` (`None`: without a
/// limit). Returns which of them have. A signal may end the sleep early.
pub(crate) fn wait(sockets: &[BorrowedFd<'_>], timeout: Option<Duration>) -> Vec<Ready> {
    let mut entries: Vec<PollFd<'_>> = sockets
        .iter()
        .map(|socket| PollFd::new(socket.as_fd(), PollFlags::POLLIN))
        .collect();
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
        // Rounded up, because a sleep of 0 ms would be a busy loop.
        PollTimeout::try_from(timeout.as_micros().div_ceil(1000)).unwrap_or(PollTimeout::MAX)
    });
    // After an error no event is set, so nothing is ready.
    let _ = poll(&mut entries, timeout);
    let ended = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    let flags = entries
        .iter()
        .map(|entry| entry.revents().unwrap_or(PollFlags::empty()));
    flags
        .map(|flags| Ready {
            has_news: !flags.is_empty(),
            has_ended: flags.intersects(ended),
        })
        .collect()
}

/// What [`wait`] has found out about a socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ready {
    /// Whether it has a message, a connection or its end.
    pub(crate) has_news: bool,
    /// Whether its other end is closed, or it was stopped.
    pub(crate) has_ended: bool,
}

/// Sleeps until `socket` has a message or its end, at most for `longest`; `false` if the deadline has passed.
pub(crate) fn wait_for(socket: &OwnedFd, longest: Duration, deadline: Instant) -> bool {
    let left = deadline.saturating_duration_since(Instant::now());
    wait(&[socket.as_fd()], Some(longest.min(left)));
    !left.is_zero()
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::socketpair;

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags).unwrap()
    }

    #[test]
    fn message_brings_its_descriptor() {
        let (here, there) = pair();
        assert!(receive(&there, &mut [0; 8]).unwrap().is_none(), "nothing was sent");
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        send(&here, b"hello", Some(file.as_fd())).unwrap();
        let mut bytes = [0; 8];
        let received = receive(&there, &mut bytes).unwrap().unwrap();
        assert_eq!((received.size, &bytes[..5]), (5, &b"hello"[..]));
        let [descriptor] = &received.descriptors[..] else {
            panic!("{received:?}");
        };
        let id = |file: BorrowedFd<'_>| crate::sys::files::file_id(file).unwrap();
        assert_eq!(id(descriptor.as_fd()), id(file.as_fd()));
        let flags = nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_GETFD).unwrap();
        assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
    }

    #[test]
    fn size_of_a_long_message_exceeds_the_memory() {
        let (here, there) = pair();
        send(&here, &[1; 100], None).unwrap();
        let received = receive(&there, &mut [0; 8]).unwrap().unwrap();
        assert_eq!(received.size, 100);
        assert!(received.descriptors.is_empty());
    }
}
