// SPDX-License-Identifier: MIT OR Apache-2.0

//! Test kit: the code that the tests of the channel and of the elements share.
//!
//! A test names its channel with [`Channel`], starts programs as [`Process`]es, and runs parts of itself in other
//! processes with [`role`]. It waits with [`eventually`] or [`wait_until`], which fail with a message. The macros
//! [`need_root!`], [`need_program!`], [`need_real_machine!`] and [`skip!`] skip a test, and record that it was skipped.
//!
//! The feature `gst` adds two modules. `gst` has pipelines, sources and checks of frames. `chaos` is the code of the
//! program `rsshm-chaos`.

pub mod caps_texts;
pub mod cgroup;
pub mod channel;
#[cfg(feature = "gst")]
pub mod chaos;
#[cfg(feature = "gst")]
pub mod compatibility;
pub mod container;
pub mod emulation;
pub mod frames;
#[cfg(feature = "gst")]
pub mod gst;
pub mod privileges;
pub mod process;
pub mod random;
pub mod role;
pub mod shm;
pub mod skip;
pub mod wait;

pub use cgroup::Cgroup;
pub use channel::Channel;
pub use container::{Container, SharedDirectory};
#[doc(hidden)]
pub use ctor;
pub use emulation::on_this_machine;
pub use process::Process;
pub use random::Random;
pub use wait::{PATIENCE, eventually, timed, wait_until};
