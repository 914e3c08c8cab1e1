// SPDX-License-Identifier: MIT OR Apache-2.0

//! The rules of the protocol: names, the layout of a segment, the pin rule, runs, and records that are read without a
//! lock.

pub(crate) mod atomic;
pub mod caps_text;
pub(crate) mod entry;
pub mod event_text;
pub(crate) mod failpoint;
pub(crate) mod keyframe;
pub mod layout;
pub mod metadata;
pub(crate) mod name;
pub(crate) mod pins;
pub(crate) mod record;
pub(crate) mod ring;
pub(crate) mod run;
pub(crate) mod seqlock;
pub(crate) mod status;
