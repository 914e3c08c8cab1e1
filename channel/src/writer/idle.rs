// SPDX-License-Identifier: MIT OR Apache-2.0

//! The time in which the source of the frames is closed, because nobody reads.

use std::sync::atomic::Ordering;

use super::{inner::Inner, replace};
use crate::Error;

/// Makes a segment without frames, and marks it as idle. A reader that attaches later would otherwise get the newest frame
/// of the time before, which may be hours old. The current segment, which has that frame, does not get the mark.
pub(super) fn begin(inner: &Inner) -> Result<(), Error> {
    let _replacing = inner.begin_replacing();
    inner.lock().is_idle = true;
    let result = replace::replace(inner, 0);
    if result.is_err() {
        inner.lock().is_idle = false;
    }
    result
}

/// Ends the idle time.
pub(super) fn end(inner: &Inner) {
    let mut state = inner.lock();
    state.is_idle = false;
    if let Some(segment) = state.chain.current_mapped() {
        // Relaxed: observers only show the value.
        segment.tables.status().idle.store(0, Ordering::Relaxed);
    }
    drop(state);
    // The service may sleep for the longer interval of the idle time.
    inner.service().wake();
}
