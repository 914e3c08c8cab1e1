// SPDX-License-Identifier: MIT OR Apache-2.0

//! librsshm: the C interface of the channel crate.
//!
//! `include/rsshm.h` documents each function for users, and `docs/C.md` is the introduction. This crate has no rules of
//! the protocol. It turns C arguments into calls of `rsshm-channel`, and the results into status codes.
//!
//! ```text
//!  reader.rs  writer.rs  slot.rs  observer.rs  frame.rs  events.rs     the C functions, by the type of handle
//!  descriptor.rs  convert.rs  formats.rs  library.rs                  those for descriptors, pictures, formats, the library
//!      |          |        |         |           |
//!  delivery.rs    |        |         |           |                     frames of one reader, with their caps
//!  pump.rs        |        |         |           |                     the thread behind rsshm_reader_fd
//!      |      writing.rs   |         |           |                     a writer with its service thread
//!      |      format.rs  publish_info.rs         |                     the layout of its frames; what it says of a frame
//!      +----------+--------+----+----+-----------+
//!                               |
//!      handles.rs   arguments.rs   stream.rs   status.rs
//! ```
//!
//! Three rules hold for each C function:
//!
//! - Its body runs in [`status::enter`], which stops panics and stores the text of an error.
//! - A handle is looked up in [`handles`]. It is never an address, so a wrong handle is an error and not a crash.
//! - A structure of the caller begins with its size, which [`arguments`] checks before it touches other fields.

// Nothing that a peer, a user or the system does may end the program (docs/STYLE.md).
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unreachable)
)]

mod arguments;
mod convert;
mod delivery;
mod descriptor;
mod events;
mod format;
mod formats;
mod frame;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod handles;
mod library;
mod observer;
mod publish_info;
mod pump;
mod reader;
mod slot;
mod status;
mod stream;
mod writer;
mod writing;
