//! The atomics of the pin rule, in one place so that loom can take their part in its model.

#[cfg(not(rsshm_loom))]
pub(crate) use core::sync::atomic::{AtomicU64, Ordering, fence};
#[cfg(rsshm_loom)]
pub(crate) use loom::sync::atomic::{AtomicU64, Ordering, fence};
