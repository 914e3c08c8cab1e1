// SPDX-License-Identifier: MIT OR Apache-2.0

//! Status codes, the error text of a thread, and the border that no panic crosses.

use std::{
    any::Any,
    cell::RefCell,
    ffi::{CString, c_char, c_int},
    panic::{AssertUnwindSafe, catch_unwind},
};

use rsshm_channel::{Error, video::VideoError};

/// The result of a C function. `include/rsshm.h` explains each value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Status {
    Ok = 0,
    TimedOut = 1,
    EndOfStream = 2,
    NoWriter = 3,
    Woken = 4,
    Dropped = 5,
    Evicted = 6,
    Nothing = 7,
    Event = 8,
    Argument = -1,
    Handle = -2,
    Forked = -3,
    State = -4,
    Busy = -5,
    Denied = -6,
    NoSpace = -7,
    NoMemory = -8,
    Damaged = -9,
    Closed = -10,
    System = -11,
    Internal = -12,
    Name = -13,
    Caps = -14,
    Foreign = -15,
}

/// An error with its status code and its text.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(status: Status, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
        }
    }

    /// The failure of an argument that is not allowed.
    pub(crate) fn argument(text: impl Into<String>) -> Self {
        Self::new(Status::Argument, text)
    }

    /// The failure of a call that is not possible now.
    pub(crate) fn state(text: impl Into<String>) -> Self {
        Self::new(Status::State, text)
    }

    /// The failure of a call on a handle that another thread has closed meanwhile.
    pub(crate) fn closed(what: &str) -> Self {
        Self::new(Status::Closed, format!("another thread has closed the {what}"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Name { .. } => Status::Name,
            Error::Option { .. } => Status::Argument,
            Error::Caps { .. } | Error::TooLarge { .. } => Status::Caps,
            Error::Busy { .. } => Status::Busy,
            Error::Foreign { .. } => Status::Foreign,
            Error::Denied { .. } => Status::Denied,
            Error::NoSpace { .. } => Status::NoSpace,
            Error::NoMemory { .. } => Status::NoMemory,
            Error::Damaged { .. } => Status::Damaged,
            Error::NotPublishable { .. } => Status::State,
            Error::Closed { .. } => Status::Closed,
            _ => Status::System,
        };
        Self::new(status, error.to_string())
    }
}

impl From<VideoError> for Failure {
    fn from(error: VideoError) -> Self {
        let status = match &error {
            VideoError::Align { .. } | VideoError::Output { .. } => Status::Argument,
            _ => Status::Caps,
        };
        Self::new(status, error.to_string())
    }
}

thread_local! {
    /// The text of this thread's last error.
    static TEXT: RefCell<CString> = RefCell::default();
}

/// Runs the body of the C function `call`. If the body fails or panics, its text becomes the thread's error text.
pub(crate) fn enter(call: &str, body: impl FnOnce() -> Result<Status, Failure>) -> c_int {
    // The body changes only values whose locks remain usable after a panic, so nobody sees a half-changed value.
    let result = catch_unwind(AssertUnwindSafe(|| {
        let result = body();
        #[cfg(debug_assertions)]
        panic_if_requested(call);
        result
    }));
    let result = result.unwrap_or_else(|panic| {
        Err(Failure::new(
            Status::Internal,
            format!("an internal error, please report it: {}", panic_text(&*panic)),
        ))
    });
    match result {
        Ok(status) => status as c_int,
        Err(failure) => {
            store_text(&format!("{call}: {}", failure.text));
            failure.status as c_int
        }
    }
}

/// What a panic says.
fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no text")
}

/// Panics after the body of the function that the environment variable `RSSHM_TEST_PANIC` names. It is there for the test
/// that no panic reaches C, and only in builds for development.
#[cfg(debug_assertions)]
fn panic_if_requested(call: &str) {
    let is_requested = std::env::var_os("RSSHM_TEST_PANIC").is_some_and(|name| name == call);
    assert!(!is_requested, "requested by RSSHM_TEST_PANIC");
}

/// Stores the error text of this thread. A thread that is ending has no text any more.
fn store_text(text: &str) {
    let text = CString::new(text.replace('\0', "\\0")).unwrap_or_default();
    let _ = TEXT.try_with(|last| last.replace(text));
}

/// The error text of this thread. The pointer is valid until the next failure in this thread.
pub(crate) fn text() -> *const c_char {
    TEXT.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// The name of a status code in C.
pub(crate) fn name(status: c_int) -> &'static std::ffi::CStr {
    match status {
        0 => c"RSSHM_OK",
        1 => c"RSSHM_TIMEOUT",
        2 => c"RSSHM_EOS",
        3 => c"RSSHM_NO_WRITER",
        4 => c"RSSHM_WOKEN",
        5 => c"RSSHM_DROPPED",
        6 => c"RSSHM_EVICTED",
        7 => c"RSSHM_NOTHING",
        8 => c"RSSHM_EVENT",
        -1 => c"RSSHM_E_ARGUMENT",
        -2 => c"RSSHM_E_HANDLE",
        -3 => c"RSSHM_E_FORKED",
        -4 => c"RSSHM_E_STATE",
        -5 => c"RSSHM_E_BUSY",
        -6 => c"RSSHM_E_DENIED",
        -7 => c"RSSHM_E_NO_SPACE",
        -8 => c"RSSHM_E_NO_MEMORY",
        -9 => c"RSSHM_E_DAMAGED",
        -10 => c"RSSHM_E_CLOSED",
        -11 => c"RSSHM_E_SYSTEM",
        -12 => c"RSSHM_E_INTERNAL",
        -13 => c"RSSHM_E_NAME",
        -14 => c"RSSHM_E_CAPS",
        -15 => c"RSSHM_E_FOREIGN",
        _ => c"unknown status",
    }
}
