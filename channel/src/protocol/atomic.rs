// SPDX-License-Identifier: MIT OR Apache-2.0

//! The atomics of the pin rule. They are in one place, so that the loom model can replace them.

pub(crate) use core::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
