// SPDX-License-Identifier: MIT OR Apache-2.0

//! Readers: the functions `rsshm_reader_...`.

use std::{
    cell::RefCell,
    ffi::{CString, c_char, c_int},
    ptr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rsshm_channel::{ChannelName, KeyframeRequest, ReadLimits, Reader, ReaderHandle, ReaderOptions, TIME_NONE};

use crate::{
    arguments::{self, Sized32},
    delivery::{Delivered, Delivery, Snapshot},
    events::EventObject,
    frame::{CFrameInfo, FrameObject},
    handles::{self, Handle},
    pump::{Pump, SharedDelivery},
    status::{Failure, Status, enter},
};

/// `RSSHM_READ_ONLY`: an observer, which needs read permission only.
const READ_ONLY: u32 = 1;
/// `RSSHM_COPY`: each frame is copied.
const COPY: u32 = 1 << 1;
/// `RSSHM_EVENTS`: events are returned too.
const EVENTS: u32 = 1 << 2;
/// `RSSHM_UNMAPPED`: frames by descriptor are not mapped.
const UNMAPPED: u32 = 1 << 3;
const READER_FLAGS: u32 = READ_ONLY | COPY | EVENTS | UNMAPPED;

/// `rsshm_reader_options`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CReaderOptions {
    struct_size: u32,
    flags: u32,
    max_behind: u32,
    max_held: u32,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized32 for CReaderOptions {
    const NAME: &str = "rsshm_reader_options";
    const FIRST_SIZE: usize = 16;
}

/// `rsshm_reader_stats`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CReaderStats {
    struct_size: u32,
    connected: u32,
    received: u64,
    in_place: u64,
    copied: u64,
    missed: u64,
    reconnects: u64,
    writer_pid: u32,
    observes: u32,
    latency_ns: u64,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized32 for CReaderStats {
    const NAME: &str = "rsshm_reader_stats";
    const FIRST_SIZE: usize = size_of::<Self>();
}

/// A reader that a program opened.
pub(crate) struct ReaderObject {
    delivery: SharedDelivery,
    handle: ReaderHandle,
    wants_newest: bool,
    wants_events: bool,
    /// The thread behind the descriptor, once a program has asked for the descriptor.
    pump: Mutex<Option<Arc<Pump>>>,
    snapshot: Arc<Mutex<Snapshot>>,
    /// What the last call of `rsshm_reader_next` returned, if it was an event.
    last_event: Mutex<Option<EventObject>>,
    is_closed: AtomicBool,
}

impl ReaderObject {
    fn open(name: &str, options: &CReaderOptions) -> Result<Self, Failure> {
        if options.flags & !READER_FLAGS != 0 {
            return Err(Failure::argument(format!(
                "the flags of rsshm_reader_options are {:#x}, it may have RSSHM_READ_ONLY, RSSHM_COPY, RSSHM_EVENTS \
                 and RSSHM_UNMAPPED",
                options.flags
            )));
        }
        let is_unmapped = options.flags & UNMAPPED != 0;
        // A program that gets the bytes needs them all at one address.
        let mut limits = ReadLimits::default()
            .max_behind(options.max_behind)
            .accepts_objects(true)
            .needs_one_range(!is_unmapped);
        if options.max_held != 0 {
            limits = limits.max_held(options.max_held);
        }
        if options.flags & COPY != 0 {
            limits = limits.max_held(0);
        }
        let wants_events = options.flags & EVENTS != 0;
        let options = ReaderOptions::default()
            .read_only(options.flags & READ_ONLY != 0)
            .ignore_events(!wants_events);
        let reader = Reader::new(ChannelName::new(name)?, options);
        let handle = reader.handle();
        let snapshot = Arc::<Mutex<Snapshot>>::default();
        let delivery = Delivery::new(reader, limits, is_unmapped, Arc::clone(&snapshot));
        Ok(Self {
            delivery: Arc::new(Mutex::new(Some(delivery))),
            handle,
            wants_events,
            wants_newest: limits.max_behind == 1,
            pump: Mutex::default(),
            snapshot,
            last_event: Mutex::default(),
            is_closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn last_event(&self) -> &Mutex<Option<EventObject>> {
        &self.last_event
    }

    pub(crate) fn handle(&self) -> &ReaderHandle {
        &self.handle
    }

    /// What the reader said after its last call of `next`.
    fn snapshot(&self) -> Snapshot {
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pump(&self) -> Option<Arc<Pump>> {
        self.pump.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The reader, if no other thread waits for a frame with it.
    fn try_delivery(&self) -> Result<MutexGuard<'_, Option<Delivery>>, Failure> {
        match self.delivery.try_lock() {
            Ok(guard) => Ok(guard),
            Err(TryLockError::Poisoned(poisoned)) => Ok(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Failure::state(
                "another thread is in rsshm_reader_next with this reader; each thread opens a reader of its own",
            )),
        }
    }

    fn next(&self, timeout: Option<Duration>) -> Result<Delivered, Failure> {
        if let Some(pump) = self.pump() {
            return pump.next(timeout, self.wants_newest);
        }
        let mut guard = match self.try_delivery() {
            Ok(guard) => guard,
            // Another thread may have started the pump meanwhile, which then owns the reader.
            Err(failure) => {
                let pump = self.pump().ok_or(failure)?;
                return pump.next(timeout, self.wants_newest);
            }
        };
        let delivery = guard.as_mut().ok_or_else(|| Failure::closed("reader"))?;
        let result = delivery.next(timeout);
        drop(guard);
        // Acquire: pairs with the release store in `close`, which comes before the interruption.
        if matches!(result, Ok(Delivered::Woken)) && self.is_closed.load(Ordering::Acquire) {
            // A further thread may have begun to wait with the reader, and `close` waits for that thread.
            self.handle.interrupt();
            return Err(Failure::closed("reader"));
        }
        result
    }

    fn descriptor(&self) -> Result<c_int, Failure> {
        // The lock is held while the pump starts, so that two threads do not start two pumps. The start does not wait.
        let mut pump = self.pump.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pump) = &*pump {
            return Ok(pump.descriptor());
        }
        if self.try_delivery()?.is_none() {
            return Err(Failure::closed("reader"));
        }
        let started = Pump::start(Arc::clone(&self.delivery))?;
        let descriptor = started.descriptor();
        *pump = Some(Arc::new(started));
        Ok(descriptor)
    }

    fn wake(&self) {
        match self.pump() {
            Some(pump) => pump.wake(),
            None => self.handle.interrupt(),
        }
    }

    fn close(&self) {
        // Release: pairs with the acquire load in `next`.
        self.is_closed.store(true, Ordering::Release);
        if let Some(pump) = self.pump() {
            pump.stop(&self.handle);
        }
        self.handle.interrupt();
        let delivery = self.delivery.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(delivery);
    }
}

/// The time to wait: negative values mean for ever.
pub(crate) fn timeout(timeout_ns: i64) -> Option<Duration> {
    u64::try_from(timeout_ns).ok().map(Duration::from_nanos)
}

/// `rsshm_reader_open`.
///
/// # Safety
/// `name` is NULL or a text that ends with NUL. `options` is NULL or a structure of the size in its first field.
/// `reader` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_reader_open(
    name: *const c_char,
    options: *const CReaderOptions,
    reader: *mut Handle<ReaderObject>,
) -> c_int {
    enter("rsshm_reader_open", || {
        arguments::check_out(reader, "the result")?;
        // SAFETY: `reader` is not NULL, so the caller guarantees a variable.
        unsafe { reader.write(Handle::NULL) };
        // SAFETY: as the caller guarantees.
        let name = unsafe { arguments::text(name, "the name of the channel") }?;
        let mut values = CReaderOptions {
            struct_size: 0,
            flags: 0,
            max_behind: 0,
            max_held: 0,
        };
        if !options.is_null() {
            // SAFETY: as the caller guarantees.
            values = unsafe { arguments::read(options, values) }?;
        }
        let handle = handles::insert(Arc::new(ReaderObject::open(name, &values)?))?;
        // SAFETY: as above.
        unsafe { reader.write(handle) };
        Ok(Status::Ok)
    })
}

/// `rsshm_reader_next`.
///
/// # Safety
/// `frame` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_reader_next(
    reader: Handle<ReaderObject>,
    timeout_ns: i64,
    frame: *mut Handle<FrameObject>,
) -> c_int {
    // SAFETY: as the caller guarantees; NULL means that the program does not want the values.
    enter("rsshm_reader_next", || unsafe {
        next(reader, timeout_ns, frame, ptr::null_mut())
    })
}

/// `rsshm_reader_next_info`.
///
/// # Safety
/// `frame` is NULL or a variable. `info` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_reader_next_info(
    reader: Handle<ReaderObject>,
    timeout_ns: i64,
    frame: *mut Handle<FrameObject>,
    info: *mut CFrameInfo,
) -> c_int {
    enter("rsshm_reader_next_info", || {
        // The structure is checked before the wait, so that no frame is lost.
        // SAFETY: as the caller guarantees.
        unsafe { arguments::check(info.cast_const()) }?;
        // SAFETY: as the caller guarantees.
        unsafe { next(reader, timeout_ns, frame, info) }
    })
}

/// Waits for the next frame, and stores its handle and, unless `info` is NULL, what it has.
///
/// # Safety
/// `frame` is NULL or a variable. `info` is NULL, or points to a structure of the size in its first field.
unsafe fn next(
    reader: Handle<ReaderObject>,
    timeout_ns: i64,
    frame: *mut Handle<FrameObject>,
    info: *mut CFrameInfo,
) -> Result<Status, Failure> {
    arguments::check_out(frame, "the result")?;
    // SAFETY: `frame` is not NULL, so the caller guarantees a variable.
    unsafe { frame.write(Handle::NULL) };
    let reader = handles::get(reader)?;
    let mut event = None;
    let status = match reader.next(timeout(timeout_ns))? {
        Delivered::Frame(object) => {
            if !info.is_null() {
                // SAFETY: as the caller guarantees.
                unsafe { arguments::write(info, object.info()?) }?;
            }
            let handle = handles::insert(object)?;
            // SAFETY: as above.
            unsafe { frame.write(handle) };
            Status::Ok
        }
        Delivered::Event(found) => {
            event = Some(EventObject::new(found));
            Status::Event
        }
        Delivered::EndOfStream => Status::EndOfStream,
        Delivered::NoWriter => Status::NoWriter,
        Delivered::Evicted => Status::Evicted,
        Delivered::TimedOut => Status::TimedOut,
        Delivered::Woken => Status::Woken,
    };
    if reader.wants_events {
        *reader.last_event().lock().unwrap_or_else(PoisonError::into_inner) = event;
    }
    Ok(status)
}

/// `rsshm_reader_wake`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_reader_wake(reader: Handle<ReaderObject>) -> c_int {
    enter("rsshm_reader_wake", || {
        handles::get(reader)?.wake();
        Ok(Status::Ok)
    })
}

/// `rsshm_reader_fd`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_reader_fd(reader: Handle<ReaderObject>) -> c_int {
    let mut descriptor = -1;
    let status = enter("rsshm_reader_fd", || {
        descriptor = handles::get(reader)?.descriptor()?;
        Ok(Status::Ok)
    });
    if status < 0 { status } else { descriptor }
}

/// `rsshm_reader_request_keyframe`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_reader_request_keyframe(reader: Handle<ReaderObject>, at_ns: u64) -> c_int {
    enter("rsshm_reader_request_keyframe", || {
        let reader = handles::get(reader)?;
        let request = match at_ns {
            TIME_NONE => KeyframeRequest::default(),
            time => KeyframeRequest::default().at(time),
        };
        if reader.handle.send_keyframe_request(request) {
            return Ok(Status::Ok);
        }
        Ok(Status::NoWriter)
    })
}

/// `rsshm_reader_get_stats`.
///
/// # Safety
/// `stats` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_reader_get_stats(reader: Handle<ReaderObject>, stats: *mut CReaderStats) -> c_int {
    enter("rsshm_reader_get_stats", || {
        let reader = handles::get(reader)?;
        let snapshot = reader.snapshot();
        let value = CReaderStats {
            struct_size: 0,
            connected: snapshot.is_connected.into(),
            received: snapshot.stats.received,
            in_place: snapshot.stats.in_place,
            copied: snapshot.stats.copied,
            missed: snapshot.stats.missed,
            reconnects: snapshot.stats.reconnects,
            writer_pid: snapshot.stats.writer_pid,
            observes: snapshot.observing.is_some().into(),
            latency_ns: snapshot.latency_ns,
        };
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(stats, value) }?;
        Ok(Status::Ok)
    })
}

thread_local! {
    /// The text that [`rsshm_reader_observing`] returned last in this thread.
    static OBSERVING: RefCell<CString> = RefCell::default();
}

/// `rsshm_reader_observing`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_reader_observing(reader: Handle<ReaderObject>) -> *const c_char {
    let mut text = ptr::null();
    enter("rsshm_reader_observing", || {
        let reader = handles::get(reader)?;
        let observing = reader.snapshot().observing.unwrap_or_default();
        // A thread that is ending has no text any more.
        let stored = OBSERVING.try_with(|last| {
            last.replace(CString::new(observing).unwrap_or_default());
            last.borrow().as_ptr()
        });
        text = stored.unwrap_or(c"".as_ptr());
        Ok(Status::Ok)
    });
    text
}

/// `rsshm_reader_close`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_reader_close(reader: Handle<ReaderObject>) -> c_int {
    enter("rsshm_reader_close", || {
        if let Some(reader) = handles::release(reader)? {
            reader.close();
        }
        Ok(Status::Ok)
    })
}
