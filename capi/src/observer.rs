// SPDX-License-Identifier: MIT OR Apache-2.0

//! Observers: the functions `rsshm_observer_...`.

use std::{
    ffi::{c_char, c_int},
    sync::Arc,
};

use rsshm_channel::{ChannelName, Observer, layout::flags};

use crate::{
    arguments::{self, Sized32},
    delivery::PooledCopy,
    frame::{FrameBytes, FrameObject},
    handles::{self, Handle},
    status::{Failure, Status, enter},
    stream::Stream,
};

/// A view of a channel that a program opened.
pub(crate) struct ObserverObject {
    observer: Observer,
    stream: Arc<Stream>,
}

/// `rsshm_channel_info`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CChannelInfo {
    struct_size: u32,
    current: u32,
    head: u64,
    caps: *const c_char,
    format: *const c_char,
    width: i32,
    height: i32,
    fps_n: i32,
    fps_d: i32,
    writer_pid: u32,
    lossless: u32,
    slot_count: u32,
    history: u32,
    slot_size: u64,
    created_ns: u64,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers and raw pointers.
unsafe impl Sized32 for CChannelInfo {
    const NAME: &str = "rsshm_channel_info";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// `rsshm_observer_open`.
///
/// # Safety
/// `name` is NULL or a text that ends with NUL. `observer` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_observer_open(name: *const c_char, observer: *mut Handle<ObserverObject>) -> c_int {
    enter("rsshm_observer_open", || {
        arguments::check_out(observer, "the result")?;
        // SAFETY: `observer` is not NULL, so the caller guarantees a variable.
        unsafe { observer.write(Handle::NULL) };
        // SAFETY: as the caller guarantees.
        let name = unsafe { arguments::text(name, "the name of the channel") }?;
        let Some(found) = Observer::open(&ChannelName::new(name)?)? else {
            return Ok(Status::NoWriter);
        };
        let stream = Arc::new(Stream::new(found.caps()));
        let handle = handles::insert(Arc::new(ObserverObject {
            observer: found,
            stream,
        }))?;
        // SAFETY: as above.
        unsafe { observer.write(handle) };
        Ok(Status::Ok)
    })
}

/// `rsshm_observer_get`.
///
/// # Safety
/// `info` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_observer_get(observer: Handle<ObserverObject>, info: *mut CChannelInfo) -> c_int {
    enter("rsshm_observer_get", || {
        let object = handles::get(observer)?;
        let header = object.observer.header();
        let values = object.stream.values();
        let value = CChannelInfo {
            struct_size: 0,
            current: object.observer.is_current().into(),
            head: object.observer.head(),
            caps: values.caps,
            format: values.format,
            width: values.width,
            height: values.height,
            fps_n: values.fps_n,
            fps_d: values.fps_d,
            writer_pid: header.writer_pid,
            lossless: (header.flags & flags::LOSSLESS != 0).into(),
            slot_count: header.slot_count,
            history: header.history,
            slot_size: header.slot_size,
            created_ns: header.created_ns,
        };
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(info, value) }?;
        Ok(Status::Ok)
    })
}

/// `rsshm_observer_newest`.
///
/// # Safety
/// `frame` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_observer_newest(
    observer: Handle<ObserverObject>,
    frame: *mut Handle<FrameObject>,
) -> c_int {
    enter("rsshm_observer_newest", || {
        arguments::check_out(frame, "the result")?;
        // SAFETY: `frame` is not NULL, so the caller guarantees a variable.
        unsafe { frame.write(Handle::NULL) };
        let object = handles::get(observer)?;
        let mut target = Target::default();
        let found = object.observer.newest(&mut target);
        if let Some(size) = target.failed_size {
            return Err(Failure::new(
                Status::NoMemory,
                format!("no memory to copy a frame of {size} bytes to"),
            ));
        }
        let Some((seq, descriptor)) = found else {
            return Ok(Status::Nothing);
        };
        let handle = handles::insert(Arc::new(FrameObject {
            seq,
            missed: 0,
            discontinuity: false,
            descriptor,
            metadata: Vec::new(),
            bytes: FrameBytes::Copied(PooledCopy::single(target.bytes)),
            stream: Arc::clone(&object.stream),
        }))?;
        // SAFETY: as above.
        unsafe { frame.write(handle) };
        Ok(Status::Ok)
    })
}

/// The memory of a copy, and the size for which there was no memory.
#[derive(Default)]
struct Target {
    bytes: Vec<u8>,
    failed_size: Option<usize>,
}

impl rsshm_channel::CopyTarget for Target {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        let memory = self.bytes.prepare(size);
        if memory.is_none() {
            self.failed_size = Some(size);
        }
        memory
    }
}

/// `rsshm_observer_close`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_observer_close(observer: Handle<ObserverObject>) -> c_int {
    enter("rsshm_observer_close", || {
        handles::release(observer).map(|_| Status::Ok)
    })
}
