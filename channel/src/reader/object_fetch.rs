// SPDX-License-Identifier: MIT OR Apache-2.0

//! A reader gets the descriptor of an object from the writer.

use std::{
    fmt,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use bytemuck::Zeroable;
use nix::{errno::Errno, sys::stat::fstat};

use super::received_object::ReceivedObject;
use crate::{
    ChannelName, Error,
    protocol::{
        failpoint::{Failpoint, failpoint},
        layout::{OBJECT_MAGIC, ObjectReference, ObjectReply, ObjectRequest, object_status},
    },
    segment::Segment,
    sys::{
        errno,
        files::{self, FileId},
        object_file::{NotAnObject, ObjectFile},
        socket,
    },
};

/// How long a reader waits for the answer. A writer answers within a millisecond, unless it is stopped.
const FETCH_TIMEOUT: Duration = Duration::from_secs(1);
/// How often a waiting reader looks whether it was interrupted or the writer is dead.
const LOOK_INTERVAL: Duration = Duration::from_millis(20);
/// How long a reader waits before it connects again, if too many others connect.
const RETRY_INTERVAL: Duration = Duration::from_millis(2);

/// Why an object could not be got.
#[derive(Debug)]
pub(super) enum FetchError {
    /// The reader was interrupted.
    Interrupted,
    /// The permissions of the socket forbid it, so no later attempt helps.
    Denied(Error),
    /// This attempt failed.
    Failed(ObjectFault),
}

/// Why a reader could not get the memory of a frame of objects. The reader has missed this frame.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ObjectFault {
    /// The writer has not answered in time. It may be stopped.
    NoAnswer,
    /// The writer is gone, or has no socket.
    NoSocket,
    /// The writer does not have the object any more, because it has replaced the segment or the frame is too old.
    Gone,
    /// This process, or the whole system, has too many open files.
    TooManyFiles,
    /// The socket is not that of the writer. Another program has put it under the name.
    ForeignSocket,
    /// What the writer has sent is not the object that the frame names.
    Invalid(&'static str),
    /// A system call failed.
    Failed(Errno),
}

impl fmt::Display for ObjectFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoAnswer => f.write_str("the writer did not answer; it may be stopped"),
            Self::NoSocket => {
                f.write_str("the writer has no socket for descriptors; it is gone, or the file was removed")
            }
            Self::Gone => f.write_str("the writer does not have this memory any more"),
            Self::TooManyFiles => f.write_str("too many open files; raise the limit (ulimit -n)"),
            Self::ForeignSocket => {
                f.write_str("another program has put a socket under the channel's name; remove the file")
            }
            Self::Invalid(what) => write!(f, "the writer sent something else: {what}"),
            Self::Failed(errno) => write!(f, "a system call failed: {errno}"),
        }
    }
}

impl ObjectFault {
    /// Whether the writer is stopped, is gone, or has given up the frame. Nothing is wrong then, and nobody has to act:
    /// the reader continues with the next frame of a living writer.
    pub fn is_of_absent_writer(&self) -> bool {
        matches!(self, Self::NoAnswer | Self::NoSocket | Self::Gone)
    }
}

impl std::error::Error for ObjectFault {}

impl From<Errno> for ObjectFault {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EMFILE | Errno::ENFILE | Errno::ETOOMANYREFS => Self::TooManyFiles,
            Errno::ENOENT | Errno::ECONNREFUSED | Errno::ENOTSOCK | Errno::ECONNRESET | Errno::EPIPE => Self::NoSocket,
            errno => Self::Failed(errno),
        }
    }
}

impl<T: Into<ObjectFault>> From<T> for FetchError {
    fn from(fault: T) -> Self {
        Self::Failed(fault.into())
    }
}

/// Gets the object that `reference` names. The call waits for the answer, but not longer than [`FETCH_TIMEOUT`], and
/// ends early if `is_interrupted` returns `true` or the writer dies.
pub(super) fn fetch(
    name: &ChannelName,
    segment: &Segment,
    reference: &ObjectReference,
    is_interrupted: &dyn Fn() -> bool,
) -> Result<ReceivedObject, FetchError> {
    failpoint(Failpoint::ObjectDue);
    let deadline = Instant::now() + FETCH_TIMEOUT;
    let may_wait = || {
        if is_interrupted() {
            Err(FetchError::Interrupted)
        } else if Instant::now() >= deadline {
            Err(ObjectFault::NoAnswer.into())
        } else if !segment.has_writer() && !segment.tables.status().is_over() {
            // The writer of a superseded segment has no lock there, but still answers.
            Err(ObjectFault::NoSocket.into())
        } else {
            Ok(())
        }
    };
    may_wait()?;
    let path = name.socket_path();
    // A program that may write to the directory can put a socket under the name. The writer stores the inode of its own
    // socket before it gives this file the name.
    let is_own = |file: FileId| {
        // Acquire: pairs with the release store of a writer that makes its socket again.
        let inode = segment.tables.status().socket.load(Ordering::Acquire);
        file.inode == inode && file.device == segment.file_id.device
    };
    let connection = loop {
        match socket::connect_to(&path, is_own) {
            Ok(Some(connection)) => break connection,
            // The socket of a later writer. It stores its inode only in the segments that it has taken over.
            Ok(None) if segment.tables.status().is_over() => return Err(ObjectFault::Gone.into()),
            Ok(None) => return Err(ObjectFault::ForeignSocket.into()),
            Err(Errno::EAGAIN) => {
                thread::sleep(RETRY_INTERVAL);
                may_wait()?;
            }
            Err(errno) if errno::is_denied(errno) => {
                let error = std::io::Error::from(errno);
                return Err(FetchError::Denied(files::open_error(
                    name.as_str(),
                    &path,
                    "use",
                    &error,
                )));
            }
            Err(errno) => return Err(errno.into()),
        }
    };
    // The system may use an inode number again after a long time.
    if socket::peer_user(&connection)? != fstat(&segment.file)?.st_uid {
        return Err(ObjectFault::ForeignSocket.into());
    }
    let request = ObjectRequest {
        magic: OBJECT_MAGIC,
        device: segment.file_id.device,
        inode: segment.file_id.inode,
        object: reference.object,
    };
    socket::send(&connection, bytemuck::bytes_of(&request), None)?;
    failpoint(Failpoint::RequestSent);
    let mut reply = ObjectReply::zeroed();
    let received = loop {
        if let Some(received) = socket::receive(&connection, bytemuck::bytes_of_mut(&mut reply))? {
            break received;
        }
        may_wait()?;
        socket::wait_for(&connection, LOOK_INTERVAL, deadline);
    };
    failpoint(Failpoint::DescriptorReceived);
    check(&reply, received, reference).map_err(FetchError::Failed)
}

/// Receives and checks an answer that has come already.
#[cfg(feature = "fuzzing")]
pub(crate) fn receive_for_fuzzing(
    connection: &std::os::fd::OwnedFd,
    reference: &ObjectReference,
) -> Option<ReceivedObject> {
    let mut reply = ObjectReply::zeroed();
    let received = socket::receive(connection, bytemuck::bytes_of_mut(&mut reply)).ok()??;
    check(&reply, received, reference).ok()
}

/// Checks what the writer has sent. Every descriptor that is not needed is closed.
fn check(
    reply: &ObjectReply,
    received: socket::Received,
    reference: &ObjectReference,
) -> Result<ReceivedObject, ObjectFault> {
    if received.size == 0 {
        return Err(ObjectFault::NoSocket);
    }
    if received.size != size_of::<ObjectReply>() || reply.magic != OBJECT_MAGIC || reply.object != reference.object {
        return Err(ObjectFault::Invalid("the answer is not an answer to the request"));
    }
    match reply.status {
        object_status::OK => {}
        object_status::UNKNOWN_SEGMENT | object_status::UNKNOWN_OBJECT => return Err(ObjectFault::Gone),
        _ => return Err(ObjectFault::Invalid("the status of the answer is unknown")),
    }
    if received.has_lost_descriptors {
        return Err(ObjectFault::TooManyFiles);
    }
    let Ok([file]) = <[_; 1]>::try_from(received.descriptors) else {
        return Err(ObjectFault::Invalid("the answer does not have one descriptor"));
    };
    let file = ObjectFile::new(file).map_err(|error| match error {
        NotAnObject::OtherKind => ObjectFault::Invalid("the descriptor is neither a memfd nor a dmabuf"),
        NotAnObject::Empty => ObjectFault::Invalid("the memory has no bytes"),
        NotAnObject::Failed(errno) => errno.into(),
    })?;
    if file.kind() as u32 != reference.kind || file.kind() as u32 != reply.kind {
        return Err(ObjectFault::Invalid("the memory has another kind"));
    }
    let end = reference.offset.checked_add(reference.size);
    if file.size() < reply.size || end.is_none_or(|end| end > file.size()) {
        return Err(ObjectFault::Invalid("the memory is too small"));
    }
    Ok(ReceivedObject::new(reference.object, file))
}
