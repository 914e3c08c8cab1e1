// SPDX-License-Identifier: MIT OR Apache-2.0

//! Writers: the functions `rsshm_writer_...`.

use std::{
    ffi::{c_char, c_int},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rsshm_channel::{
    Caps, ChannelName, Error, ServiceReport, ServiceThread, Slot, Writer, WriterOptions,
    video::{VideoFormat, VideoInfo},
};

use crate::{
    arguments::{self, Sized32},
    frame::CPlane,
    handles::{self, Handle},
    reader,
    slot::{CPublishInfo, CSlotInfo, SlotObject},
    status::{Failure, Status, enter},
    stream::{self, MAX_PLANES, PlanePlace, Stream},
};

/// How late a reader that was killed is noticed at the latest.
const SERVICE_INTERVAL: Duration = Duration::from_millis(250);

/// `RSSHM_LOSSLESS`: the writer waits for its slowest reader.
const LOSSLESS: u32 = 1;

/// `rsshm_writer_options`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct CWriterOptions {
    struct_size: u32,
    flags: u32,
    perms: u32,
    max_slots: u32,
}

// SAFETY: the type is `repr(C)`, begins with its size, and consists of integers.
unsafe impl Sized32 for CWriterOptions {
    const NAME: &str = "rsshm_writer_options";
    const FIRST_SIZE: usize = 16;
}

/// A writer that a program opened.
pub(crate) struct WriterObject {
    writer: Arc<Writer>,
    /// `None` after the close.
    service: Mutex<Option<ServiceThread>>,
    report: Arc<Report>,
    format: Mutex<Option<Arc<WriterFormat>>>,
    /// Whether a thread is in a call that may wait for readers.
    is_waiting: AtomicBool,
    is_closed: AtomicBool,
}

/// What the service thread has found.
#[derive(Default)]
struct Report {
    reader_count: AtomicU32,
    is_keyframe_wanted: AtomicBool,
    /// Why the writer cannot go on, for example because another program has taken the channel's name.
    failure: Mutex<Option<Failure>>,
}

/// The caps of a writer's frames, and the layout of each frame.
pub(crate) struct WriterFormat {
    stream: Stream,
    /// The size of each frame; 0 if the sizes differ.
    frame_size: usize,
    places: [PlanePlace; MAX_PLANES],
    plane_count: usize,
}

impl WriterFormat {
    fn new(caps: &str, frame_size: usize) -> Result<Self, Failure> {
        let stream = Stream::new(caps);
        let (mut places, mut plane_count, mut size) = (Default::default(), 0, frame_size);
        if let Some(video) = stream.video() {
            let layout = video.layout().map_err(|error| Failure::argument(error.to_string()))?;
            let layout_size = layout.size() as usize;
            if size == 0 {
                size = layout_size;
            }
            if size < layout_size {
                return Err(Failure::argument(format!(
                    "a frame of these caps has {layout_size} bytes, more than the frame size {size}"
                )));
            }
            (places, plane_count) = stream::places(&layout, size).unwrap_or_default();
        }
        Ok(Self {
            stream,
            frame_size: size,
            places,
            plane_count,
        })
    }

    pub(crate) fn places(&self) -> &[PlanePlace] {
        &self.places[..self.plane_count]
    }

    pub(crate) fn frame_size(&self) -> usize {
        self.frame_size
    }

    fn caps(&self) -> Caps {
        match self.frame_size {
            0 => Caps::variable_size(self.stream.caps()),
            size => Caps::fixed_size(self.stream.caps(), size),
        }
    }
}

impl Report {
    fn note(&self, writer: &Writer, result: Result<ServiceReport, Error>) {
        match result {
            Ok(report) => {
                // Relaxed, here and below: the values say nothing about other memory.
                self.reader_count.store(report.reader_count, Ordering::Relaxed);
                if report.keyframe_wanted {
                    self.is_keyframe_wanted.store(true, Ordering::Relaxed);
                }
            }
            Err(error) => {
                // Another process owns the channel's names now, so this writer needs no more service. Other errors may
                // be gone at the next pass.
                if matches!(error, Error::Busy { .. } | Error::Foreign { .. }) {
                    writer.stop_service();
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
                }
            }
        }
    }
}

/// Ends the claim of the only thread that may wait.
struct WaitGuard<'a>(&'a AtomicBool);

impl Drop for WaitGuard<'_> {
    fn drop(&mut self) {
        // Release: pairs with the acquire exchange of the next thread that waits.
        self.0.store(false, Ordering::Release);
    }
}

impl WriterObject {
    fn open(name: &str, options: &CWriterOptions) -> Result<Self, Failure> {
        if options.flags & !LOSSLESS != 0 {
            return Err(Failure::argument(format!(
                "the flags of rsshm_writer_options are {:#x}, it may have RSSHM_LOSSLESS",
                options.flags
            )));
        }
        let mut settings = WriterOptions::default()
            .max_slots(options.max_slots)
            .lossless(options.flags & LOSSLESS != 0);
        if options.perms != 0 {
            settings = settings.perms(options.perms);
        }
        let writer = Arc::new(Writer::open(ChannelName::new(name)?, settings)?);
        let report = Arc::<Report>::default();
        let service = ServiceThread::spawn(Arc::clone(&writer), SERVICE_INTERVAL, {
            let report = Arc::clone(&report);
            move |writer, result| report.note(writer, result)
        })
        .map_err(|error| Failure::new(Status::System, format!("no thread can be started: {error}")))?;
        Ok(Self {
            writer,
            service: Mutex::new(Some(service)),
            report,
            format: Mutex::default(),
            is_waiting: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        })
    }

    fn set_format(&self, format: WriterFormat) -> Result<(), Failure> {
        // The lock is held so that the caps of the writer and this format do not differ. The call does not wait.
        let mut current = self.format.lock().unwrap_or_else(PoisonError::into_inner);
        self.writer.set_caps(format.caps())?;
        *current = Some(Arc::new(format));
        Ok(())
    }

    pub(crate) fn format(&self) -> Result<Arc<WriterFormat>, Failure> {
        let format = self.format.lock().unwrap_or_else(PoisonError::into_inner).clone();
        format.ok_or_else(|| {
            Failure::state("the writer has no caps; call rsshm_writer_video or rsshm_writer_caps before")
        })
    }

    pub(crate) fn channel(&self) -> &Writer {
        &self.writer
    }

    /// Allows this thread to wait for readers, if no other thread does so.
    fn begin_wait(&self) -> Result<WaitGuard<'_>, Failure> {
        // Acquire: pairs with the release store of the thread that waited before.
        if self.is_waiting.swap(true, Ordering::Acquire) {
            return Err(Failure::state(
                "another thread waits for readers with this writer; only one thread may claim slots of a lossless writer",
            ));
        }
        Ok(WaitGuard(&self.is_waiting))
    }

    fn check_failure(&self) -> Result<(), Failure> {
        let failure = self
            .report
            .failure
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        failure.map_or(Ok(()), Err)
    }

    /// The result of a wait that was interrupted.
    fn interrupted(&self) -> Result<Status, Failure> {
        // Acquire: pairs with the release store in `close`, which comes before the interruption.
        if self.is_closed.load(Ordering::Acquire) {
            return Err(Failure::closed("writer"));
        }
        self.writer.resume();
        Ok(Status::Woken)
    }

    /// Claims a slot; otherwise the status says why there is none.
    pub(crate) fn claim(&self, size: usize) -> Result<Result<Slot, Status>, Failure> {
        self.check_failure()?;
        let _waiting = if self.writer.is_lossless() {
            Some(self.begin_wait()?)
        } else {
            None
        };
        match self.writer.claim(size)? {
            Some(slot) => Ok(Ok(slot)),
            None if self.writer.is_lossless() => self.interrupted().map(Err),
            None => {
                self.writer.record_drop();
                Ok(Err(Status::Dropped))
            }
        }
    }

    fn wait_for_reader(&self, timeout: Option<Duration>) -> Result<Status, Failure> {
        // Without a size in the caps, the first large frame replaces the segment.
        let size = self.format()?.frame_size().max(1);
        let _waiting = self.begin_wait()?;
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let is_over = || deadline.is_some_and(|deadline| deadline <= Instant::now());
        let is_due = AtomicBool::new(false);
        let was_not_interrupted = self.writer.wait_for_reader(size, || {
            // Relaxed, here and below: only this thread uses the value.
            is_due.store(is_over(), Ordering::Relaxed);
            !is_due.load(Ordering::Relaxed)
        })?;
        if !was_not_interrupted {
            return self.interrupted();
        }
        if is_due.load(Ordering::Relaxed) {
            return Ok(Status::TimedOut);
        }
        Ok(Status::Ok)
    }

    fn close(&self) {
        // Release: pairs with the acquire load in `interrupted`.
        self.is_closed.store(true, Ordering::Release);
        self.writer.interrupt();
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(service);
        self.writer.close();
    }
}

/// `rsshm_writer_open`.
///
/// # Safety
/// `name` is NULL or a text that ends with NUL. `options` is NULL or a structure of the size in its first field.
/// `writer` is NULL or a variable.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_open(
    name: *const c_char,
    options: *const CWriterOptions,
    writer: *mut Handle<WriterObject>,
) -> c_int {
    enter("rsshm_writer_open", || {
        arguments::check_out(writer, "the result")?;
        // SAFETY: `writer` is not NULL, so the caller guarantees a variable.
        unsafe { writer.write(Handle::NULL) };
        // SAFETY: as the caller guarantees.
        let name = unsafe { arguments::text(name, "the name of the channel") }?;
        let mut values = CWriterOptions {
            struct_size: 0,
            flags: 0,
            perms: 0,
            max_slots: 0,
        };
        if !options.is_null() {
            // SAFETY: as the caller guarantees.
            values = unsafe { arguments::read(options, values) }?;
        }
        let object = Arc::new(WriterObject::open(name, &values)?);
        let handle = handles::insert(Arc::clone(&object)).inspect_err(|_| object.close())?;
        // SAFETY: as above.
        unsafe { writer.write(handle) };
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_video`.
///
/// # Safety
/// `format` is NULL or a text that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_video(
    writer: Handle<WriterObject>,
    format: *const c_char,
    width: i32,
    height: i32,
    fps_n: i32,
    fps_d: i32,
) -> c_int {
    enter("rsshm_writer_video", || {
        let writer = handles::get(writer)?;
        // SAFETY: as the caller guarantees.
        let format = unsafe { arguments::text(format, "the format") }?;
        let number = |value: i32, what: &str| {
            u32::try_from(value).map_err(|_| Failure::argument(format!("{what} is {value}, it must not be negative")))
        };
        let format = VideoFormat::from_name(format).ok_or_else(|| {
            Failure::argument(format!(
                "the format {format:?} is unknown; use GStreamer's name of a format with rows of pixels, such as NV12 or BGR"
            ))
        })?;
        let info = VideoInfo::new(
            format,
            number(width, "the width")?,
            number(height, "the height")?,
            (fps_n, fps_d),
        )
        .map_err(|error| Failure::argument(error.to_string()))?;
        writer.set_format(WriterFormat::new(&info.to_caps(), 0)?)?;
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_caps`.
///
/// # Safety
/// `caps` is NULL or a text that ends with NUL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_caps(
    writer: Handle<WriterObject>,
    caps: *const c_char,
    frame_size: usize,
) -> c_int {
    enter("rsshm_writer_caps", || {
        let writer = handles::get(writer)?;
        // SAFETY: as the caller guarantees.
        let caps = unsafe { arguments::text(caps, "the caps") }?;
        writer.set_format(WriterFormat::new(caps, frame_size)?)?;
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_claim`.
///
/// # Safety
/// `slot` is NULL or a variable. `info` is NULL, or points to a structure of the size in its first field.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_claim(
    writer: Handle<WriterObject>,
    size: usize,
    slot: *mut Handle<SlotObject>,
    info: *mut CSlotInfo,
) -> c_int {
    enter("rsshm_writer_claim", || {
        arguments::check_out(slot, "the result")?;
        // SAFETY: `slot` is not NULL, so the caller guarantees a variable.
        unsafe { slot.write(Handle::NULL) };
        let writer = handles::get(writer)?;
        // The result is checked before the claim, so that no claim is lost.
        // SAFETY: as the caller guarantees.
        unsafe { arguments::check(info.cast_const()) }?;
        let object = match SlotObject::claim(&writer, size)? {
            Ok(object) => Arc::new(object),
            Err(status) => return Ok(status),
        };
        let handle = handles::insert(Arc::clone(&object))?;
        // SAFETY: as above.
        unsafe { slot.write(handle) };
        // SAFETY: as the caller guarantees.
        unsafe { arguments::write(info, object.info()) }?;
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_write`.
///
/// # Safety
/// `planes` is NULL, or points to `plane_count` planes whose rows can be read. `info` is NULL, or points to a structure
/// of the size in its first field, whose metadata can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_write(
    writer: Handle<WriterObject>,
    planes: *const CPlane,
    plane_count: u32,
    info: *const CPublishInfo,
) -> c_int {
    enter("rsshm_writer_write", || {
        let writer = handles::get(writer)?;
        if planes.is_null() || plane_count == 0 {
            return Err(Failure::argument("there are no planes; pass at least one"));
        }
        if plane_count as usize > MAX_PLANES {
            return Err(Failure::argument(format!(
                "there are {plane_count} planes, a frame has at most {MAX_PLANES}"
            )));
        }
        // SAFETY: as the caller guarantees.
        let info = unsafe { CPublishInfo::read(info) }?;
        // SAFETY: `planes` is not NULL, so the caller guarantees `plane_count` planes.
        let planes = unsafe { std::slice::from_raw_parts(planes, plane_count as usize) };
        // SAFETY: as the caller guarantees for the rows and for the metadata.
        unsafe { SlotObject::write_planes(&writer, planes, &info) }
    })
}

/// `rsshm_writer_write_bytes`.
///
/// # Safety
/// `data` is NULL, or points to `size` readable bytes. `info` is NULL, or points to a structure of the size in its first
/// field, whose metadata can be read.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rsshm_writer_write_bytes(
    writer: Handle<WriterObject>,
    data: *const u8,
    size: usize,
    info: *const CPublishInfo,
) -> c_int {
    enter("rsshm_writer_write_bytes", || {
        let writer = handles::get(writer)?;
        // SAFETY: as the caller guarantees.
        let info = unsafe { CPublishInfo::read(info) }?;
        // SAFETY: as the caller guarantees.
        let bytes = unsafe { arguments::bytes(data, size, "the data") }?;
        // SAFETY: as the caller guarantees for the metadata.
        unsafe { SlotObject::write_bytes(&writer, bytes, &info) }
    })
}

/// `rsshm_writer_end_of_stream`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_end_of_stream(writer: Handle<WriterObject>) -> c_int {
    enter("rsshm_writer_end_of_stream", || {
        handles::get(writer)?.writer.end_of_stream();
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_readers`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_readers(writer: Handle<WriterObject>) -> c_int {
    let mut count = 0;
    let status = enter("rsshm_writer_readers", || {
        let writer = handles::get(writer)?;
        writer.check_failure()?;
        // Relaxed: the count says nothing about other memory. There are at most 64 readers.
        count = writer.report.reader_count.load(Ordering::Relaxed) as c_int;
        Ok(Status::Ok)
    });
    if status < 0 { status } else { count }
}

/// `rsshm_writer_wait_for_reader`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_wait_for_reader(writer: Handle<WriterObject>, timeout_ns: i64) -> c_int {
    enter("rsshm_writer_wait_for_reader", || {
        handles::get(writer)?.wait_for_reader(reader::timeout(timeout_ns))
    })
}

/// `rsshm_writer_keyframe_wanted`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_keyframe_wanted(writer: Handle<WriterObject>) -> c_int {
    let mut is_wanted = false;
    let status = enter("rsshm_writer_keyframe_wanted", || {
        let writer = handles::get(writer)?;
        // Relaxed: the value says nothing about other memory.
        is_wanted = writer.report.is_keyframe_wanted.swap(false, Ordering::Relaxed);
        Ok(Status::Ok)
    });
    if status < 0 { status } else { is_wanted.into() }
}

/// `rsshm_writer_set_latency`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_set_latency(writer: Handle<WriterObject>, latency_ns: u64) -> c_int {
    enter("rsshm_writer_set_latency", || {
        handles::get(writer)?.writer.set_latency_ns(latency_ns);
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_wake`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_wake(writer: Handle<WriterObject>) -> c_int {
    enter("rsshm_writer_wake", || {
        handles::get(writer)?.writer.interrupt();
        Ok(Status::Ok)
    })
}

/// `rsshm_writer_close`.
#[unsafe(no_mangle)]
pub extern "C" fn rsshm_writer_close(writer: Handle<WriterObject>) -> c_int {
    enter("rsshm_writer_close", || {
        if let Some(writer) = handles::release(writer)? {
            writer.close();
        }
        Ok(Status::Ok)
    })
}
