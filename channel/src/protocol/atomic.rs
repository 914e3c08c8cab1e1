//! The atomics of the pin rule, in one place so that the loom model can put its own in theirs.

pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
