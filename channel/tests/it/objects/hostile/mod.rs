// SPDX-License-Identifier: MIT OR Apache-2.0

//! Peers that send rubbish over the socket, or nothing, and processes that can open no more files. Nobody crashes, hangs
//! or keeps a descriptor.

pub mod files;
mod requests;
pub mod servers;
mod tables;

use std::{
    fs::File,
    io::IoSlice,
    mem::offset_of,
    os::{
        fd::{AsRawFd, OwnedFd, RawFd},
        unix::fs::FileExt,
    },
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, connect, sendmsg, setsockopt, socket,
    sockopt,
};
use rsshm_channel::layout::{Header, Status};
use rsshm_testkit::{
    Channel,
    role::{Role, listen as listen_line, say},
};

use super::pool::{Pool, object_writer, open_files};
use crate::support::{Service, StopOnDrop, slots};

pub const ROLES: &[(&str, Role)] = &[("objects/hostile/writer", |arguments| writer(arguments[0]))];

/// Publishes frames. At each line, it says how many files it has open.
fn writer(channel: &str) {
    let writer = object_writer(channel, slots(0), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 8);
    let is_over = AtomicBool::new(false);
    assert!(pool.publish(&writer, 1));
    say("published");
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&is_over);
        scope.spawn(|| {
            for value in 2.. {
                // Relaxed: the flag carries no other data.
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                assert!(pool.publish(&writer, value), "the camera has no buffer");
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        while listen_line() != "end" {
            say(open_files("self"));
        }
    });
    drop(service);
}

/// A new socket that connects to the channel's socket.
fn try_connect(channel: &Channel) -> nix::Result<OwnedFd> {
    let socket = socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &nix::sys::time::TimeVal::new(3, 0))?;
    setsockopt(&socket, sockopt::SendTimeout, &nix::sys::time::TimeVal::new(3, 0))?;
    connect(socket.as_raw_fd(), &UnixAddr::new(&channel.socket())?)?;
    Ok(socket)
}

fn send_with(socket: &OwnedFd, bytes: &[u8], files: &[RawFd]) -> nix::Result<usize> {
    let rights = [ControlMessage::ScmRights(files)];
    let messages = if files.is_empty() { &[][..] } else { &rights[..] };
    sendmsg::<()>(
        socket.as_raw_fd(),
        &[IoSlice::new(bytes)],
        messages,
        MsgFlags::MSG_NOSIGNAL,
        None,
    )
}

/// Writes the inode of a socket into the status of the segment.
pub fn store_inode(channel: &Channel, inode: u64) {
    let (segment, header) = open_segment(channel);
    let at = header.status_offset + offset_of!(Status, socket) as u64;
    segment.write_all_at(&inode.to_ne_bytes(), at).unwrap();
}

/// The segment's file, and its header.
fn open_segment(channel: &Channel) -> (File, Header) {
    let segment = File::options().read(true).write(true).open(channel.segment()).unwrap();
    let mut header = Header::default();
    segment.read_exact_at(bytemuck::bytes_of_mut(&mut header), 0).unwrap();
    (segment, header)
}
