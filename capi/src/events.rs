// SPDX-License-Identifier: MIT OR Apache-2.0

//! Events between frames, and messages of readers: `rsshm_reader_get_event`, `rsshm_writer_event` and the functions for
//! messages.

use std::{
    borrow::Cow,
    ffi::{CString, c_char, c_int},
    ptr,
    sync::PoisonError,
};

use rsshm_channel::{
    Event, MAX_EVENT_SIZE, MAX_MESSAGE_SIZE, NewEvent, STICKY_EVENT_COUNT, TIME_NONE,
    event_text::{self, STREAM_START},
};

use crate::{
    arguments::{self, Sized32},
    handles::{self, Handle},
    reader::ReaderObject,
    status::{Failure, Status, enter},
    writing::WriterObject,
};

/// The event that a reader got last. Its memory stays where it is until the value is dropped.
pub(crate) struct EventObject {
    event: Event,
    text: CString,
}

impl EventObject {
    pub(crate) fn new(event: Event) -> Self {
        let text = event_text::text_of(event.kind, &event.bytes).unwrap_or_default();
        Self {
            text: CString::new(text).unwrap_or_default(),
            event,
        }
    }
}

/// `rsshm_event`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CEvent {
    struct_size: u32,
    kind: u32,
    time_ns: u64,
    duration_ns: u64,
    data: *const u8,
    size: usize,
    text: *const c_char,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers and raw pointers.
unsafe impl Sized32 for CEvent {
    const NAME: &str = "rsshm_event";
    const FIRST_SIZE: usize = size_of::<Self>();
}

impl CEvent {
    const DEFAULT: Self = Self {
        struct_size: 0,
        kind: 0,
        time_ns: TIME_NONE,
        duration_ns: TIME_NONE,
        data: ptr::null(),
        size: 0,
        text: ptr::null(),
    };

    /// The bytes of the event, which may be those of its text.
    ///
    /// # Safety
    /// `data` is NULL, or points to `size` bytes that do not change during `'a`. `text` is NULL or a text that ends with
    /// NUL.
    unsafe fn bytes<'a>(&self) -> Result<Cow<'a, [u8]>, Failure> {
        if self.size > 0 || self.text.is_null() {
            // SAFETY: as the caller guarantees.
            return unsafe { arguments::bytes(self.data, self.size, "the data of the event") }.map(Cow::Borrowed);
        }
        // SAFETY: as the caller guarantees.
        let text = unsafe { arguments::text(self.text, "the text of the event") }?;
        match event_text::bytes_of(self.kind, text) {
            Some(bytes) => Ok(Cow::Owned(bytes)),
            None if text.is_empty() => Ok(Cow::Borrowed(&[])),
            None => Err(Failure::argument(format!(
                "an event of the kind {} has no such text; pass its bytes as data",
                self.kind
            ))),
        }
    }
}

/// `rsshm_reader_get_event`.
///
/// # Safety
/// `event` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_reader_get_event(reader: Handle<ReaderObject>, event: *mut CEvent) -> c_int {
    enter("rsshm_reader_get_event", || {
        let reader = handles::get(reader)?;
        let last = reader.last_event().lock().unwrap_or_else(PoisonError::into_inner);
        let Some(found) = &*last else {
            // SAFETY: as the caller guarantees.
            unsafe { arguments::check(event.cast_const()) }?;
            return Ok(Status::Nothing);
        };
        let value = CEvent {
            struct_size: 0,
            kind: found.event.kind,
            time_ns: found.event.time,
            duration_ns: found.event.duration,
            data: found.event.bytes.as_ptr(),
            size: found.event.bytes.len(),
            text: found.text.as_ptr(),
        };
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(event, value) }?;
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_event`.
///
/// # Safety
/// `event` is NULL, or points to a structure of the size in its first field. Its `data` is NULL or points to `size`
/// readable bytes, and its `text` is NULL or a text that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_event(writer: Handle<WriterObject>, event: *const CEvent, sticky: i32) -> c_int {
    enter("rsshm_writer_event", || {
        let writer = handles::get(writer)?;
        writer.check_failure()?;
        // SAFETY: as the caller guarantees.
        let event = unsafe { arguments::read(event, CEvent::DEFAULT) }?;
        let index = usize::try_from(sticky).ok();
        if sticky < -1 || index.is_some_and(|index| index >= STICKY_EVENT_COUNT) {
            return Err(Failure::argument(format!(
                "sticky is {sticky}, it may be -1 or 0 to {}",
                STICKY_EVENT_COUNT - 1
            )));
        }
        // SAFETY: as the caller guarantees.
        let bytes = unsafe { event.bytes() }?;
        if bytes.len() > MAX_EVENT_SIZE {
            return Err(Failure::argument(format!(
                "the event has {} bytes, it may have {MAX_EVENT_SIZE}",
                bytes.len()
            )));
        }
        if event.kind == STREAM_START && index == Some(0) {
            writer.channel().forget_events();
        }
        let new = NewEvent::new(event.kind, &bytes)
            .with_time(event.time_ns)
            .with_duration(event.duration_ns);
        writer.channel().publish_event(new, index)?;
        Ok(Status::Ok)
    })
}

/// `rsshm_reader_send_message`.
///
/// # Safety
/// `data` is NULL, or points to `size` readable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_reader_send_message(
    reader: Handle<ReaderObject>,
    data: *const u8,
    size: usize,
) -> c_int {
    enter("rsshm_reader_send_message", || {
        let reader = handles::get(reader)?;
        if size > MAX_MESSAGE_SIZE {
            return Err(Failure::argument(format!(
                "the message has {size} bytes, it may have {MAX_MESSAGE_SIZE}"
            )));
        }
        // SAFETY: as the caller guarantees.
        let message = unsafe { arguments::bytes(data, size, "the message") }?;
        if reader.handle().send_message(message) {
            return Ok(Status::Ok);
        }
        Ok(Status::NoWriter)
    })
}

/// `rsshm_writer_next_message`.
///
/// # Safety
/// `data` is NULL, or points to `size` writable bytes. `needed` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_next_message(
    writer: Handle<WriterObject>,
    data: *mut u8,
    size: usize,
    needed: *mut usize,
) -> c_int {
    enter("rsshm_writer_next_message", || {
        let writer = handles::get(writer)?;
        arguments::check_out(needed, "the size of the message")?;
        // SAFETY: `needed` is not NULL, so the caller guarantees a variable.
        unsafe { needed.write(0) };
        let taken = writer.take_message(|message| {
            // SAFETY: as above.
            unsafe { needed.write(message.len()) };
            if message.len() > size || data.is_null() {
                return Err(Failure::argument(format!(
                    "the message has {} bytes, the memory has {}",
                    message.len(),
                    if data.is_null() { 0 } else { size }
                )));
            }
            // SAFETY: `data` is not NULL, so the caller guarantees `size` bytes; the message has at most as many.
            unsafe { ptr::copy_nonoverlapping(message.as_ptr(), data, message.len()) };
            Ok(())
        })?;
        Ok(if taken.is_some() { Status::Ok } else { Status::Nothing })
    })
}
