// SPDX-License-Identifier: MIT OR Apache-2.0

//! The body of the fuzz target `capi`: any sequence of C functions, with any arguments that a program may pass.
//!
//! A program must keep two promises. Memory that it passes has the size that it says. The memory of a frame or a slot is
//! used only until the frame or the slot ends. Handles, numbers, flags, sizes of structures and texts are arbitrary here.

mod call;
mod input;
mod writer;

use std::{
    ffi::{CStr, c_int},
    thread,
};

use self::input::Input;
use crate::{
    frame::{FrameObject, rsshm_frame_release},
    handles::Handle,
    library::{rsshm_error, rsshm_status_name},
    observer::rsshm_observer_close,
    reader::{ReaderObject, rsshm_reader_close, rsshm_reader_next},
    slot::rsshm_slot_release,
    status::Status,
    writer::{rsshm_writer_close, rsshm_writer_readers},
    writing::WriterObject,
};

/// The most functions that one input calls.
const MAX_CALLS: usize = 64;
/// The wait of a thread beside another call.
const WAIT_NS: i64 = 1_000_000;

/// All handles that the functions have returned, also those that have ended.
#[derive(Default)]
struct Handles {
    bits: Vec<u64>,
    /// How often a function returned what a frame has.
    frames_seen: usize,
    /// The writers, and the indices of their channels.
    writers: Vec<(u64, usize)>,
}

impl Handles {
    /// Any handle: one that was returned, NULL, or an invented one.
    fn any<T>(&self, input: &mut Input) -> Handle<T> {
        let choice = input.byte();
        let bits = match (choice, self.bits.len()) {
            (0, _) | (1.., 0) => 0,
            (1, _) => input.number(),
            (2, count) => self.bits[input.below(count)] ^ 1 << (input.byte() % 64),
            (_, count) => self.bits[input.below(count)],
        };
        Handle::from_bits(bits)
    }

    /// Whether the channel has a writer. A second one would wait for two seconds.
    fn has_writer(&self, channel: usize) -> bool {
        self.writers.iter().any(|(bits, index)| {
            *index == channel && rsshm_writer_readers(Handle::from_bits(*bits)) != Status::Handle as c_int
        })
    }

    fn add_writer(&mut self, writer: Handle<WriterObject>, channel: usize) {
        self.add(writer);
        self.writers.push((writer.bits(), channel));
    }

    fn add<T>(&mut self, handle: Handle<T>) {
        if handle.bits() != 0 {
            self.bits.push(handle.bits());
        }
    }
}

/// Checks a status, and the text of an error.
#[track_caller]
fn check(status: c_int) -> c_int {
    assert!((Status::Foreign as c_int..=64).contains(&status), "{status}");
    assert_ne!(status, Status::Internal as c_int);
    if status < 0 {
        // SAFETY: both texts end with NUL and stay valid until the next call in this thread.
        let (text, name) = unsafe { (CStr::from_ptr(rsshm_error()), CStr::from_ptr(rsshm_status_name(status))) };
        assert!(
            text.to_bytes().starts_with(b"rsshm_") && name.to_bytes().starts_with(b"RSSHM_E_"),
            "{text:?}"
        );
    }
    status
}

/// Calls C functions as `data` says.
pub fn calls(data: &[u8]) {
    run(data);
}

/// The same. Returns how many frames were looked at.
fn run(data: &[u8]) -> usize {
    let mut input = Input(data);
    let mut handles = Handles::default();
    for _ in 0..MAX_CALLS {
        if input.is_empty() {
            break;
        }
        if input.byte() % 16 == 0 {
            // Another thread waits with the same handle.
            let reader: Handle<ReaderObject> = handles.any(&mut input);
            let bits = reader.bits();
            let got = thread::scope(|scope| {
                let waiting = scope.spawn(move || {
                    let mut frame = Handle::NULL;
                    // SAFETY: `frame` is a variable.
                    check(unsafe { rsshm_reader_next(Handle::from_bits(bits), WAIT_NS, &mut frame) });
                    frame.bits()
                });
                call::call(&mut input, &mut handles);
                waiting.join().unwrap_or_default()
            });
            handles.add(Handle::<FrameObject>::from_bits(got));
        } else {
            call::call(&mut input, &mut handles);
        }
    }
    // Each handle ends, so that the next input begins with nothing.
    for bits in std::mem::take(&mut handles.bits) {
        rsshm_slot_release(Handle::from_bits(bits));
        rsshm_reader_close(Handle::from_bits(bits));
        rsshm_writer_close(Handle::from_bits(bits));
        rsshm_observer_close(Handle::from_bits(bits));
        while rsshm_frame_release(Handle::from_bits(bits)) == 0 {}
    }
    handles.frames_seen
}

#[cfg(test)]
mod tests {
    #[test]
    fn seeds_reach_frames() {
        let seeds = format!("{}/../fuzz/seeds/capi", env!("CARGO_MANIFEST_DIR"));
        for seed in std::fs::read_dir(seeds).unwrap() {
            let path = seed.unwrap().path();
            assert!(super::run(&std::fs::read(&path).unwrap()) > 0, "{}", path.display());
        }
    }
}
