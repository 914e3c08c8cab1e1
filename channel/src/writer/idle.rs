// SPDX-License-Identifier: MIT OR Apache-2.0

//! The time in which the source of the frames is closed, because nobody reads.

use std::sync::atomic::Ordering;

use super::{inner::Inner, replace};
use crate::Error;

/// Marks the channel as idle, and makes a segment without frames. A reader that attaches later would otherwise get the
/// newest frame of the time before, which may be hours old.
pub(super) fn begin(inner: &Inner) -> Result<(), Error> {
    let _replacing = inner.begin_replacing();
    set(inner, true);
    let result = replace::replace(inner, 0);
    if result.is_err() {
        set(inner, false);
    }
    result
}

/// Ends the idle time.
pub(super) fn end(inner: &Inner) {
    set(inner, false);
    // The service may sleep for the longer interval of the idle time.
    inner.service().wake();
}

/// Sets the mark here and in the current segment.
fn set(inner: &Inner, is_idle: bool) {
    let mut state = inner.lock();
    state.is_idle = is_idle;
    if let Some(segment) = state.chain.current_mapped() {
        // Relaxed: observers only show the value.
        segment.tables.status().idle.store(is_idle.into(), Ordering::Relaxed);
    }
}
