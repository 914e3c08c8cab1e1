// SPDX-License-Identifier: MIT OR Apache-2.0

//! A process that uses the socket of a channel wrongly: it sends rubbish and descriptors, or nothing, leaves without its
//! answer, and holds connections. It is killed and stopped in it too.

use std::{
    fs::File,
    io::IoSlice,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::MetadataExt,
    },
    sync::atomic::Ordering::Relaxed,
};

use nix::sys::{
    socket::{
        AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, sendmsg, setsockopt,
        socket, sockopt,
    },
    time::TimeVal,
};
use rsshm_channel::{ChannelName, layout::OBJECT_MAGIC};

use super::{
    assignment::{Assignment, ProcessContext},
    board::request,
};
use crate::Random;

/// How many connections the process holds at most. They are more than the writer keeps.
const MAX_HELD: usize = 100;
/// The largest message.
const MAX_SIZE: u64 = 3000;
/// The most descriptors that one message can carry.
const MAX_FILES: u64 = 254;

/// Plays a stranger until the run asks it to end.
pub fn play(assignment: Assignment) {
    let mut random = Random::new(assignment.seed ^ 5);
    let context = ProcessContext::new(assignment);
    let name = ChannelName::new(context.assignment.channel.clone()).unwrap();
    let null = File::open("/dev/null").unwrap();
    let mut held: Vec<OwnedFd> = Vec::new();
    while context.board.request.load(Relaxed) == request::CONTINUE {
        if let Ok(connection) = connect_to(&name) {
            if random.permille(800) {
                let files = vec![null.as_raw_fd(); random.within(0..MAX_FILES) as usize];
                let _ = send(&connection, &message(&name, &mut random), &files);
            }
            if random.permille(500) {
                // The answer, and the descriptor that may come with it, end with this buffer and the connection.
                let _ = recv(connection.as_raw_fd(), &mut [0; 64], MsgFlags::empty());
            }
            context.counters.frames.fetch_add(1, Relaxed);
            if random.permille(200) {
                held.push(connection);
            }
        }
        while held.len() > MAX_HELD || random.permille(50) && !held.is_empty() {
            held.swap_remove(random.within(0..held.len() as u64) as usize);
        }
        std::thread::sleep(random.millis(0..4));
    }
}

fn connect_to(name: &ChannelName) -> nix::Result<OwnedFd> {
    let connection = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    let limit = TimeVal::new(0, 50_000);
    setsockopt(&connection, sockopt::ReceiveTimeout, &limit)?;
    setsockopt(&connection, sockopt::SendTimeout, &limit)?;
    connect(connection.as_raw_fd(), &UnixAddr::new(name.socket_path().as_str())?)?;
    Ok(connection)
}

/// Bytes of any number, or a request for an object that may exist.
fn message(name: &ChannelName, random: &mut Random) -> Vec<u8> {
    let Some(segment) = std::fs::metadata(name.segment_path())
        .ok()
        .filter(|_| random.permille(500))
    else {
        return vec![random.number() as u8; random.within(0..MAX_SIZE) as usize];
    };
    let words = [OBJECT_MAGIC, segment.dev(), segment.ino(), random.within(0..100)];
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

fn send(connection: &OwnedFd, bytes: &[u8], files: &[RawFd]) -> nix::Result<usize> {
    let rights = [ControlMessage::ScmRights(files)];
    let messages = if files.is_empty() { &[][..] } else { &rights[..] };
    let flags = MsgFlags::MSG_NOSIGNAL;
    sendmsg::<()>(connection.as_raw_fd(), &[IoSlice::new(bytes)], messages, flags, None)
}
