// SPDX-License-Identifier: MIT OR Apache-2.0

//! The frames of one reader, each with its caps and, if it was copied, with memory of its own.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use rsshm_channel::{Event, FrameData, Next, ObjectFault, ReadLimits, Reader, ReaderStats};

use crate::{
    frame::{FrameBytes, FrameObject},
    status::{Failure, Status},
    stream::Stream,
};

/// The most buffers that a reader keeps for further copies.
const MAX_POOLED: usize = 4;
/// How long a reader misses each frame because of its memory, before that is an error. A writer that ends or restarts causes
/// such faults for a moment.
const FAULT_PATIENCE: Duration = Duration::from_secs(1);

/// What one call of [`Delivery::next`] got.
pub(crate) enum Delivered {
    Frame(Arc<FrameObject>),
    Event(Event),
    EndOfStream,
    NoWriter,
    Evicted,
    TimedOut,
    Woken,
}

/// What a reader said after its last call of [`Delivery::next`]. Other threads can look at it during a wait.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Snapshot {
    pub(crate) stats: ReaderStats,
    pub(crate) is_connected: bool,
    /// Why the reader is an observer; `None` if it is not.
    pub(crate) observing: Option<&'static str>,
    pub(crate) latency_ns: u64,
}

/// A reader, and what its frames share.
pub(crate) struct Delivery {
    reader: Reader,
    limits: ReadLimits,
    snapshot: Arc<Mutex<Snapshot>>,
    pool: Pool,
    /// The memory for the next copy. It is taken from the pool only before the call that may need it, because by then the
    /// program has often released the frame before.
    copy: Vec<u8>,
    stream: Option<Arc<Stream>>,
    /// The value of [`Reader::segment_changes`] when `stream` was made.
    segment_changes: u64,
    /// Whether frames in objects are not mapped.
    is_unmapped: bool,
    faults: Faults,
}

impl Delivery {
    pub(crate) fn new(reader: Reader, limits: ReadLimits, is_unmapped: bool, snapshot: Arc<Mutex<Snapshot>>) -> Self {
        Self {
            reader,
            limits,
            is_unmapped,
            faults: Faults::default(),
            snapshot,
            pool: Pool::default(),
            copy: Vec::new(),
            stream: None,
            segment_changes: 0,
        }
    }

    /// Waits for the next frame, at most for `timeout`.
    pub(crate) fn next(&mut self, timeout: Option<Duration>) -> Result<Delivered, Failure> {
        if self.copy.capacity() == 0 {
            self.copy = self.pool.take();
        }
        let next = self.wait(timeout)?;
        Ok(match next {
            Next::Frame(frame) => Delivered::Frame(self.deliver(frame)),
            Next::Event(event) => Delivered::Event(event),
            Next::EndOfStream => Delivered::EndOfStream,
            Next::Lost => Delivered::NoWriter,
            Next::Evicted => Delivered::Evicted,
            Next::Interrupted => {
                self.reader.handle().resume();
                Delivered::Woken
            }
            // For a result of a later version of the channel crate too, the program may call again.
            _ => Delivered::TimedOut,
        })
    }

    /// Waits for the next item in steps, so that faults are noticed also by a program that waits for ever.
    fn wait(&mut self, timeout: Option<Duration>) -> Result<Next, Failure> {
        let mut left = timeout;
        loop {
            let step = left.map_or(FAULT_PATIENCE, |left| left.min(FAULT_PATIENCE));
            let next = self.step(step);
            let fault = self.reader.take_object_fault();
            let next = next?;
            if !matches!(next, Next::TimedOut) {
                self.faults = Faults::default();
                return Ok(next);
            }
            if let Some(fault) = self.faults.add(fault) {
                let text = format!("frames are missed, because their memory cannot be got: {fault}");
                return Err(Failure::new(Status::System, text));
            }
            left = left.map(|left| left.saturating_sub(step));
            if left == Some(Duration::ZERO) {
                return Ok(next);
            }
        }
    }

    fn step(&mut self, timeout: Duration) -> Result<Next, rsshm_channel::Error> {
        let next = self.reader.next(&mut self.copy, self.limits, Some(timeout));
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Snapshot {
            stats: self.reader.stats(),
            is_connected: self.reader.is_connected(),
            observing: self.observing(),
            latency_ns: self.reader.latency_ns(),
        };
        next
    }

    fn observing(&self) -> Option<&'static str> {
        let requested = "read-only access was requested, so each frame is copied";
        self.reader
            .is_observer()
            .then(|| self.reader.observer_reason().unwrap_or(requested))
    }

    fn deliver(&mut self, frame: rsshm_channel::Frame) -> Arc<FrameObject> {
        let bytes = match frame.data {
            FrameData::InPlace(pinned) => FrameBytes::InPlace(pinned),
            FrameData::Objects(objects) if self.is_unmapped => FrameBytes::Unmapped(objects),
            FrameData::Objects(objects) => FrameBytes::Objects(objects),
            _ => FrameBytes::Copied(PooledCopy {
                bytes: std::mem::take(&mut self.copy),
                pool: self.pool.clone(),
            }),
        };
        let stream = self.stream();
        Arc::new(FrameObject {
            seq: frame.seq,
            missed: frame.missed,
            discontinuity: frame.discontinuity,
            descriptor: frame.descriptor,
            metadata: frame.metadata,
            bytes,
            stream,
        })
    }

    /// The stream of the last frame.
    fn stream(&mut self) -> Arc<Stream> {
        let changes = self.reader.segment_changes();
        let known = self
            .stream
            .take()
            .filter(|stream| self.segment_changes == changes || stream.caps() == self.reader.caps());
        self.segment_changes = changes;
        let stream = known.unwrap_or_else(|| Arc::new(Stream::new(self.reader.caps())));
        self.stream = Some(Arc::clone(&stream));
        stream
    }
}

/// Why a reader misses frames of objects.
#[derive(Debug, Default)]
struct Faults {
    /// When the first frame was missed without an item in between, and why the last one was.
    pending: Option<(Instant, ObjectFault)>,
}

impl Faults {
    /// Adds a wait without an item. Returns the fault if it has lasted for [`FAULT_PATIENCE`].
    fn add(&mut self, new: Option<ObjectFault>) -> Option<ObjectFault> {
        match new {
            // A stopped writer is not an error, and a writer that is ending has no socket any more. `next` says more later.
            Some(ObjectFault::NoAnswer | ObjectFault::Gone) | None => {}
            Some(fault) => {
                let since = self.pending.take().map_or_else(Instant::now, |(since, _)| since);
                self.pending = Some((since, fault));
            }
        }
        let (_, fault) = self.pending.take_if(|(since, _)| since.elapsed() >= FAULT_PATIENCE)?;
        Some(fault)
    }
}

/// Buffers that released frames have left for further copies.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pool(Arc<Mutex<Vec<Vec<u8>>>>);

impl Pool {
    fn lock(&self) -> MutexGuard<'_, Vec<Vec<u8>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<u8> {
        self.lock().pop().unwrap_or_default()
    }
}

/// The bytes of a copied frame. Dropping the value leaves the memory to the next copy.
#[derive(Debug)]
pub(crate) struct PooledCopy {
    bytes: Vec<u8>,
    pool: Pool,
}

impl PooledCopy {
    /// A copy whose memory is freed with it.
    pub(crate) fn single(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            pool: Pool::default(),
        }
    }
}

impl AsRef<[u8]> for PooledCopy {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for PooledCopy {
    fn drop(&mut self) {
        let mut pooled = self.pool.lock();
        if pooled.len() < MAX_POOLED {
            pooled.push(std::mem::take(&mut self.bytes));
        }
    }
}
