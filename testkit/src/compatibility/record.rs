// SPDX-License-Identifier: MIT OR Apache-2.0

//! Records of the buffers that pass a pad.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use gst::prelude::*;
use serde::{Deserialize, Serialize};

/// The flags that must survive. The other flags describe the memory or a step between two elements.
const FLAGS: gst::BufferFlags = gst::BufferFlags::DISCONT
    .union(gst::BufferFlags::CORRUPTED)
    .union(gst::BufferFlags::MARKER)
    .union(gst::BufferFlags::HEADER)
    .union(gst::BufferFlags::GAP)
    .union(gst::BufferFlags::DROPPABLE)
    .union(gst::BufferFlags::DELTA_UNIT);

/// One buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BufferRecord {
    /// The hash of the contents.
    pub hash: u64,
    /// The sizes of the memories.
    pub memories: Vec<usize>,
    /// The running times in nanoseconds. Without a segment in time they are the timestamps.
    pub pts: Option<i64>,
    pub dts: Option<i64>,
    pub duration: Option<u64>,
    /// The bits of [`FLAGS`].
    pub flags: u32,
    /// The index of the caps in [`PadRecord::caps`].
    pub caps: usize,
}

impl BufferRecord {
    fn new(buffer: &gst::BufferRef, segment: Option<&gst::FormattedSegment<gst::ClockTime>>, caps: usize) -> Self {
        let mut hasher = DefaultHasher::new();
        for memory in buffer.iter_memories() {
            match memory.map_readable() {
                Ok(map) => hasher.write(&map),
                Err(_) => "unreadable".hash(&mut hasher),
            }
        }
        Self {
            hash: hasher.finish(),
            memories: buffer.iter_memories().map(gst::MemoryRef::size).collect(),
            pts: buffer.pts().map(|time| running(segment, time)),
            dts: buffer.dts().map(|time| running(segment, time)),
            duration: buffer.duration().map(gst::ClockTime::nseconds),
            flags: (buffer.flags() & FLAGS).bits(),
            caps,
        }
    }

    pub fn size(&self) -> usize {
        self.memories.iter().sum()
    }

    pub fn flags(&self) -> gst::BufferFlags {
        gst::BufferFlags::from_bits_truncate(self.flags)
    }
}

/// The running time of a timestamp. It is negative for frames before the segment.
fn running(segment: Option<&gst::FormattedSegment<gst::ClockTime>>, time: gst::ClockTime) -> i64 {
    let running = segment.and_then(|segment| segment.to_running_time_full(time));
    match running {
        Some(gst::Signed::Negative(time)) => -(time.nseconds() as i64),
        Some(gst::Signed::Positive(time)) => time.nseconds() as i64,
        None => time.nseconds() as i64,
    }
}

/// What passed one pad.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PadRecord {
    pub name: String,
    /// All caps, in order.
    pub caps: Vec<String>,
    pub buffers: Vec<BufferRecord>,
    /// Whether a segment in bytes began before the end of the last one: the element went back in its output.
    pub rewinds: bool,
    /// Where the bytes of the last segment end.
    byte: u64,
    /// The last segment, if it is in time.
    #[serde(skip)]
    segment: Option<gst::FormattedSegment<gst::ClockTime>>,
}

impl PadRecord {
    /// The media type, such as `video/x-raw`.
    pub fn media(&self) -> &str {
        let caps = self.caps.first().map_or("", String::as_str);
        caps.split([',', '(', ' ']).next().unwrap_or_default()
    }

    fn add_event(&mut self, event: &gst::EventRef) {
        match event.view() {
            gst::EventView::Caps(caps) => {
                let caps = caps.caps().to_string();
                // An element may send the same caps again.
                if self.caps.last() != Some(&caps) {
                    self.caps.push(caps);
                }
            }
            gst::EventView::Segment(segment) => {
                let segment = segment.segment();
                self.segment = segment.downcast_ref::<gst::ClockTime>().cloned();
                if let Some(segment) = segment.downcast_ref::<gst::format::Bytes>() {
                    let start = segment.start().map_or(0, u64::from);
                    self.rewinds |= start < self.byte;
                    self.byte = start;
                }
            }
            _ => {}
        }
    }

    fn add_buffer(&mut self, buffer: &gst::BufferRef) {
        let record = BufferRecord::new(buffer, self.segment.as_ref(), self.caps.len().saturating_sub(1));
        self.byte += record.size() as u64;
        self.buffers.push(record);
    }
}

/// A record that grows while the pipeline runs.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<PadRecord>>);

impl Recorder {
    /// Records what passes `pad` from now on.
    pub fn attach(pad: &gst::Pad) -> Self {
        let recorder = Self::default();
        recorder.lock().name = pad.name().to_string();
        let record = recorder.clone();
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST | gst::PadProbeType::EVENT_DOWNSTREAM;
        pad.add_probe(types, move |_, info| {
            let mut record = record.lock();
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => record.add_buffer(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(|buffer| record.add_buffer(buffer)),
                Some(gst::PadProbeData::Event(event)) => record.add_event(event),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
        recorder
    }

    pub fn take(&self) -> PadRecord {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, PadRecord> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
