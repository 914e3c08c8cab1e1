// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a writer of C is: a writer of the channel crate, its service thread, and the caps of its frames.

use std::{
    cell::Cell,
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use rsshm_channel::{ChannelName, Error, ServiceReport, ServiceThread, Slot, Writer, WriterOptions};

use crate::{
    format::WriterFormat,
    status::{Failure, Status},
};

/// How late a reader that was killed is noticed at the latest.
const SERVICE_INTERVAL: Duration = Duration::from_millis(250);

/// The most messages that a writer keeps for its program.
const MAX_MESSAGES: usize = 64;

/// What a program chose when it opened a writer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriterSettings {
    pub(crate) options: WriterOptions,
    /// The alignment of rows; 0 means GStreamer's own layout.
    pub(crate) stride_align: u32,
    /// Whether a claim gets other memory if readers hold all slots.
    pub(crate) has_spare_memory: bool,
    /// How long a lossless writer waits in one call.
    pub(crate) max_wait: Option<Duration>,
    /// How many buffers the program can spare, if its frames stay in its own memory; 0 means the default.
    pub(crate) spare_buffers: Option<u32>,
}

/// A writer that a program opened.
pub(crate) struct WriterObject {
    writer: Arc<Writer>,
    settings: WriterSettings,
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
    /// The messages of readers that the program has not taken yet.
    messages: Mutex<VecDeque<Vec<u8>>>,
    /// Whether the writer cannot go on, for example because another program has taken the channel's name.
    has_failed: AtomicBool,
    /// Why it cannot.
    failure: Mutex<Option<Failure>>,
}

impl Report {
    fn messages(&self) -> MutexGuard<'_, VecDeque<Vec<u8>>> {
        self.messages.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the newest messages.
    fn add_messages(&self, new: Vec<Vec<u8>>) {
        if new.is_empty() {
            return;
        }
        let mut messages = self.messages();
        messages.extend(new);
        let too_many = messages.len().saturating_sub(MAX_MESSAGES);
        messages.drain(..too_many);
    }

    fn note(&self, writer: &Writer, result: Result<ServiceReport, Error>) {
        match result {
            Ok(report) => {
                // Relaxed, here and below: the values say nothing about other memory.
                self.reader_count.store(report.reader_count, Ordering::Relaxed);
                if report.keyframe_wanted {
                    self.is_keyframe_wanted.store(true, Ordering::Relaxed);
                }
                self.add_messages(report.messages);
            }
            Err(error) => {
                // Another process owns the channel's names now, so this writer needs no more service. Other errors may
                // be gone at the next pass.
                if matches!(error, Error::Busy { .. } | Error::Foreign { .. }) {
                    writer.stop_service();
                    *self.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.into());
                    // Release: pairs with the acquire load in `check_failure`, which then finds the failure.
                    self.has_failed.store(true, Ordering::Release);
                }
            }
        }
    }
}

/// A wait that ends after some time.
struct BoundedWait {
    deadline: Option<Instant>,
    is_over: Cell<bool>,
}

impl BoundedWait {
    /// A wait that begins now. With `None`, it does not end by itself.
    fn new(limit: Option<Duration>) -> Self {
        Self {
            deadline: limit.and_then(|limit| Instant::now().checked_add(limit)),
            is_over: Cell::new(false),
        }
    }

    /// Whether the wait goes on.
    fn goes_on(&self) -> bool {
        self.is_over
            .set(self.deadline.is_some_and(|deadline| deadline <= Instant::now()));
        !self.is_over.get()
    }

    /// Whether the last call of [`goes_on`](Self::goes_on) has ended the wait.
    fn is_over(&self) -> bool {
        self.is_over.get()
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
    pub(crate) fn open(name: &str, settings: WriterSettings) -> Result<Self, Failure> {
        let writer = Arc::new(Writer::open(ChannelName::new(name)?, settings.options)?);
        if let Some(frames @ 1..) = settings.spare_buffers {
            writer.objects().set_spare(frames);
        }
        let report = Arc::<Report>::default();
        let service = ServiceThread::spawn(Arc::clone(&writer), SERVICE_INTERVAL, {
            let report = Arc::clone(&report);
            move |writer, result| report.note(writer, result)
        })
        .map_err(|error| Failure::new(Status::System, format!("no thread can be started: {error}")))?;
        Ok(Self {
            writer,
            settings,
            service: Mutex::new(Some(service)),
            report,
            format: Mutex::default(),
            is_waiting: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
        })
    }

    /// Sets the caps of all further frames.
    pub(crate) fn set_caps(&self, caps: &str, frame_size: usize) -> Result<(), Failure> {
        let format = WriterFormat::new(caps, frame_size, self.settings.stride_align)?;
        // The lock is held so that the caps of the writer and this format do not differ. The call does not wait.
        let mut current = self.format.lock().unwrap_or_else(PoisonError::into_inner);
        let caps = if self.publishes_objects() {
            format.object_caps()
        } else {
            format.caps()
        };
        self.writer.set_caps(caps)?;
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

    /// Whether the frames stay in the memory of the program.
    pub(crate) fn publishes_objects(&self) -> bool {
        self.settings.spare_buffers.is_some()
    }

    pub(crate) fn has_spare_memory(&self) -> bool {
        self.settings.has_spare_memory
    }

    /// The number of readers that are attached now. The service may not have noticed the last ones that came or went.
    pub(crate) fn count_readers(&self) -> Result<u32, Failure> {
        let result = self.writer.service();
        let count = result
            .as_ref()
            .map_or_else(|_| self.reader_count(), |report| report.reader_count);
        self.report.note(&self.writer, result);
        self.check_failure()?;
        Ok(count)
    }

    /// The number of attached readers at the last pass of the service.
    pub(crate) fn reader_count(&self) -> u32 {
        // Relaxed: the count says nothing about other memory.
        self.report.reader_count.load(Ordering::Relaxed)
    }

    /// Whether a reader has requested a keyframe since the last call.
    pub(crate) fn take_keyframe_request(&self) -> bool {
        // Relaxed: the value says nothing about other memory.
        self.report.is_keyframe_wanted.swap(false, Ordering::Relaxed)
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

    /// Passes the oldest message to `take`, and removes the message if `take` succeeds. `None` if there is no message.
    pub(crate) fn take_message(&self, take: impl FnOnce(&[u8]) -> Result<(), Failure>) -> Result<Option<()>, Failure> {
        let mut messages = self.report.messages();
        let Some(message) = messages.front() else {
            return Ok(None);
        };
        take(message)?;
        messages.pop_front();
        Ok(Some(()))
    }

    /// Whether the writer can still go on.
    pub(crate) fn check_failure(&self) -> Result<(), Failure> {
        // Acquire: pairs with the release store in `note`.
        if !self.report.has_failed.load(Ordering::Acquire) {
            return Ok(());
        }
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

    /// Claims a slot; otherwise the status says why there is none. The caller counts a frame that is lost.
    pub(crate) fn claim(&self, size: usize) -> Result<Result<Slot, Status>, Failure> {
        self.check_failure()?;
        if !self.writer.is_lossless() {
            return Ok(self.writer.claim(size)?.ok_or(Status::Dropped));
        }
        let _waiting = self.begin_wait()?;
        let wait = BoundedWait::new(self.settings.max_wait);
        match self.writer.claim_while(size, || wait.goes_on())? {
            Some(slot) => Ok(Ok(slot)),
            None if wait.is_over() => Ok(Err(Status::TimedOut)),
            None => self.interrupted().map(Err),
        }
    }

    pub(crate) fn wait_for_reader(&self, timeout: Option<Duration>) -> Result<Status, Failure> {
        // Without a size in the caps, the first large frame replaces the segment.
        let size = match self.publishes_objects() {
            true => 1,
            false => self.format()?.frame_size().max(1),
        };
        let _waiting = self.begin_wait()?;
        let wait = BoundedWait::new(timeout);
        if !self.writer.wait_for_reader(size, || wait.goes_on())? {
            return self.interrupted();
        }
        Ok(if wait.is_over() { Status::TimedOut } else { Status::Ok })
    }

    pub(crate) fn close(&self) {
        // Release: pairs with the acquire load in `interrupted`.
        self.is_closed.store(true, Ordering::Release);
        self.writer.interrupt();
        let service = self.service.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(service);
        self.writer.close();
    }
}
