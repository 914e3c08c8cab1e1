// SPDX-License-Identifier: MIT OR Apache-2.0

//! A recorder of the buffers and events that leave an rsshmsrc.

use std::{
    fmt::Display,
    sync::{Arc, Mutex},
};

use gst::prelude::*;
use gst_video::prelude::*;

use super::Pipeline;
use crate::eventually;

/// Offsets and strides of the planes of a picture.
pub type PlaneLayout = (Vec<usize>, Vec<i32>);

/// The layout in a buffer's VideoMeta, if it has one.
pub fn layout(buffer: &gst::BufferRef) -> Option<PlaneLayout> {
    let meta = buffer.meta::<gst_video::VideoMeta>()?;
    assert_eq!(
        (meta.offset().len(), meta.stride().len()),
        (meta.n_planes() as usize, meta.n_planes() as usize)
    );
    Some((meta.offset().to_vec(), meta.stride().to_vec()))
}

/// A copy of a buffer that left the element.
#[derive(Clone, Debug)]
pub struct RecordedFrame {
    /// The caps of the pad when the buffer left.
    pub caps: Option<gst::Caps>,
    /// The timestamp (PTS).
    pub pts: Option<gst::ClockTime>,
    /// The duration.
    pub duration: Option<gst::ClockTime>,
    /// The running time of the pipeline when the buffer left. Zero if the pipeline had no clock.
    pub at: gst::ClockTime,
    /// The flags.
    pub flags: gst::BufferFlags,
    /// The flags for video: fields and views.
    pub video_flags: gst_video::VideoBufferFlags,
    /// The layout in the VideoMeta, if the buffer has one.
    pub layout: Option<PlaneLayout>,
    /// The buffer's offset, which is its place in the stream of the writer's pipeline.
    pub offset: u64,
    /// The sizes of the memories.
    pub memories: Vec<usize>,
    /// The contents.
    pub bytes: Vec<u8>,
    /// Copies of the metas, in a buffer without memory. A reference to the frame's memory would keep the frame's slot
    /// pinned.
    pub metas: gst::Buffer,
}

impl RecordedFrame {
    fn new(pad: &gst::Pad, buffer: &gst::BufferRef) -> Self {
        let element = pad.parent_element().unwrap();
        let mut metas = gst::Buffer::new();
        buffer
            .copy_into(metas.get_mut().unwrap(), gst::BufferCopyFlags::META, ..)
            .unwrap();
        Self {
            caps: pad.current_caps(),
            pts: buffer.pts(),
            duration: buffer.duration(),
            at: element.current_running_time().unwrap_or(gst::ClockTime::ZERO),
            flags: buffer.flags(),
            video_flags: buffer.video_flags(),
            layout: layout(buffer),
            offset: buffer.offset(),
            memories: buffer.iter_memories().map(gst::MemoryRef::size).collect(),
            bytes: buffer.map_readable().unwrap().to_vec(),
            metas,
        }
    }

    /// Whether the buffer is marked as discontinuous.
    pub fn is_discont(&self) -> bool {
        self.flags.contains(gst::BufferFlags::DISCONT)
    }

    /// The caps of the pad when the buffer left. Panics if there were none.
    #[track_caller]
    pub fn caps(&self) -> &gst::Caps {
        self.caps.as_ref().unwrap()
    }

    /// The media type, such as `video/x-raw`.
    pub fn media_type(&self) -> &str {
        self.caps().structure(0).unwrap().name()
    }

    /// The width in the caps.
    pub fn width(&self) -> i32 {
        self.caps().structure(0).unwrap().get("width").unwrap()
    }

    /// The height in the caps.
    pub fn height(&self) -> i32 {
        self.caps().structure(0).unwrap().get("height").unwrap()
    }

    /// The format in the caps.
    pub fn format(&self) -> String {
        self.caps().structure(0).unwrap().get("format").unwrap()
    }
}

/// A buffer or an event that left the element.
#[derive(Clone, Debug)]
pub enum Item {
    /// A buffer.
    Frame(RecordedFrame),
    /// An event.
    Event(gst::Event),
}

impl Item {
    /// The frame, if the item is one.
    pub fn frame(&self) -> Option<&RecordedFrame> {
        match self {
            Self::Frame(frame) => Some(frame),
            Self::Event(_) => None,
        }
    }

    /// The event, if the item is one.
    pub fn event(&self) -> Option<&gst::Event> {
        match self {
            Self::Frame(_) => None,
            Self::Event(event) => Some(event),
        }
    }

    /// A short text for the item, such as `frame 5`, `caps` or `tag`. For an event with a field `number`, it is the
    /// name and the number, as in `app 3`.
    fn word(&self) -> String {
        let event = match self {
            Self::Frame(frame) => return format!("frame {}", frame.offset),
            Self::Event(event) => event,
        };
        let structure = event.structure();
        match structure.and_then(|structure| Some((structure.name(), structure.get::<u64>("number").ok()?))) {
            Some((name, number)) => format!("{name} {number}"),
            None => event.type_().name().to_string(),
        }
    }
}

/// A pipeline in this process. It records, in order, the buffers and events that leave its rsshmsrc.
pub struct SourceRecorder {
    /// The pipeline.
    pub pipeline: Pipeline,
    items: Arc<Mutex<Vec<Item>>>,
}

impl SourceRecorder {
    /// A recorder whose pipeline has this description. The pipeline does not play yet.
    #[track_caller]
    pub fn new(description: &str) -> Self {
        let pipeline = Pipeline::new(description);
        let items = Arc::new(Mutex::new(Vec::new()));
        let in_probe = Arc::clone(&items);
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        pipeline.pad("rsshmsrc", "src").add_probe(types, move |pad, info| {
            let item = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => Item::Frame(RecordedFrame::new(pad, buffer)),
                Some(gst::PadProbeData::Event(event)) => Item::Event(event.clone()),
                other => panic!("{other:?}"),
            };
            in_probe.lock().unwrap().push(item);
            gst::PadProbeReturn::Ok
        });
        Self { pipeline, items }
    }

    /// A recorder whose pipeline has this description and plays.
    #[track_caller]
    pub fn playing(description: &str) -> Self {
        let recorder = Self::new(description);
        recorder.pipeline.play();
        recorder
    }

    /// A playing reader of the channel. The elements after the source do not delay frames.
    #[track_caller]
    pub fn of(channel: impl Display) -> Self {
        Self::with_options(channel, "")
    }

    /// A playing reader of the channel. `options` are properties of rsshmsrc.
    #[track_caller]
    pub fn with_options(channel: impl Display, options: &str) -> Self {
        Self::playing(&format!("rsshmsrc channel={channel} {options} ! fakesink sync=false"))
    }

    /// All items since the start or the last [`clear`](Self::clear).
    pub fn items(&self) -> Vec<Item> {
        self.items.lock().unwrap().clone()
    }

    /// Forgets all items so far.
    pub fn clear(&self) {
        self.items.lock().unwrap().clear();
    }

    /// All frames since the start or the last [`clear`](Self::clear). The methods below also ignore all items before
    /// the last `clear`.
    pub fn frames(&self) -> Vec<RecordedFrame> {
        let items = self.items.lock().unwrap();
        items.iter().filter_map(Item::frame).cloned().collect()
    }

    /// The number of frames.
    pub fn frame_count(&self) -> usize {
        self.items.lock().unwrap().iter().filter_map(Item::frame).count()
    }

    /// The last frame.
    pub fn last_frame(&self) -> Option<RecordedFrame> {
        let items = self.items.lock().unwrap();
        items.iter().rev().find_map(Item::frame).cloned()
    }

    /// The offsets of all frames.
    pub fn offsets(&self) -> Vec<u64> {
        let items = self.items.lock().unwrap();
        items.iter().filter_map(Item::frame).map(|frame| frame.offset).collect()
    }

    /// The events of one type.
    pub fn events(&self, kind: gst::EventType) -> Vec<gst::Event> {
        let items = self.items.lock().unwrap();
        let events = items.iter().filter_map(Item::event);
        events.filter(|event| event.type_() == kind).cloned().collect()
    }

    /// Short texts for all items, such as `frame 5`, `caps`, `tag`, or `app 3` for an event with a field `number`.
    pub fn words(&self) -> Vec<String> {
        self.items.lock().unwrap().iter().map(Item::word).collect()
    }

    /// Waits until `more` new frames have arrived since the beginning of this call.
    #[track_caller]
    pub fn wait_for_frames(&self, more: usize) {
        let until = self.frame_count() + more;
        eventually(&format!("{more} more frames"), || self.frame_count() >= until);
    }

    /// Whether the source is connected to a writer.
    pub fn is_connected(&self) -> bool {
        self.pipeline.by_factory("rsshmsrc").property("connected")
    }

    /// A field of the source's `channel-stats`.
    pub fn stat(&self, field: &str) -> u64 {
        self.pipeline.stat("rsshmsrc", field)
    }
}
