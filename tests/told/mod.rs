//! A writer inside the test that sends frames and events one by one, and a reader that notes both in their order.
#![allow(dead_code)] // each test program uses a part of it

use std::{
    fmt::Display,
    sync::{Arc, Mutex},
};

use gst::{event::CustomDownstream, prelude::*};

use crate::common::{Pipeline, eventually};

pub const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";

/// Sends what the test tells it to, as a live source.
pub struct Producer {
    pub pipeline: Pipeline,
    source: gst::Element,
}

impl Producer {
    /// Begins to play at once. `options` are properties of rsshmsink.
    #[track_caller]
    pub fn playing(channel: impl Display, options: &str) -> Self {
        Self::of_caps(CAPS, channel, options)
    }

    /// One of frames with these caps.
    #[track_caller]
    pub fn of_caps(caps: &str, channel: impl Display, options: &str) -> Self {
        let pipeline = Pipeline::playing(&format!(
            "appsrc name=source caps={caps} format=time is-live=true do-timestamp=true ! rsshmsink channel={channel} {options}"
        ));
        let source = pipeline.element("source");
        Self { pipeline, source }
    }

    /// Sends a frame with this number, of now.
    #[track_caller]
    pub fn push(&self, number: u64) {
        self.push_with(number, gst::BufferFlags::empty());
    }

    #[track_caller]
    pub fn push_with(&self, number: u64, flags: gst::BufferFlags) {
        self.push_at(number, flags, None);
    }

    /// Sends a frame that was captured at a running time of this pipeline.
    #[track_caller]
    pub fn push_at(&self, number: u64, flags: gst::BufferFlags, time: Option<gst::ClockTime>) {
        let mut buffer = gst::Buffer::from_slice(vec![9u8; self.frame_size()]);
        let target = buffer.get_mut().unwrap();
        target.set_offset(number);
        target.set_flags(flags);
        target.set_pts(time);
        let pushed = self.source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]);
        assert_eq!(pushed, gst::FlowReturn::Ok);
    }

    fn frame_size(&self) -> usize {
        let caps = self.source.property::<gst::Caps>("caps");
        gst_video::VideoInfo::from_caps(&caps).map_or(1000, |info| info.size())
    }

    /// Sends an event behind all that was sent before.
    #[track_caller]
    pub fn send(&self, event: gst::Event) {
        assert!(self.source.send_event(event));
    }

    pub fn set_caps(&self, caps: &str) {
        self.source.set_property("caps", caps.parse::<gst::Caps>().unwrap());
    }

    pub fn end(&self) {
        let ended = self.source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
        assert_eq!(ended, gst::FlowReturn::Ok);
    }

    /// Sends a frame with this number, again and again, until `reader` has one of it.
    #[track_caller]
    pub fn push_until_seen(&self, number: u64, reader: &Log) {
        eventually("the reader is there", || {
            self.push(number);
            std::thread::sleep(std::time::Duration::from_millis(20));
            reader.frames().contains(&number)
        });
    }
}

/// An event of an application.
pub fn custom(name: &str, number: u64) -> gst::Event {
    CustomDownstream::new(gst::Structure::builder(name).field("number", number).build())
}

/// What left an rsshmsrc.
#[derive(Clone, Debug)]
pub enum Item {
    Frame {
        number: u64,
        pts: Option<gst::ClockTime>,
        flags: gst::BufferFlags,
    },
    Event(gst::Event),
}

/// A pipeline inside the test that notes what leaves its rsshmsrc, in order.
pub struct Log {
    pub pipeline: Pipeline,
    items: Arc<Mutex<Vec<Item>>>,
}

impl Log {
    #[track_caller]
    pub fn playing(description: &str) -> Self {
        let log = Self::new(description);
        log.pipeline.0.set_state(gst::State::Playing).unwrap();
        log
    }

    /// A reader of the channel with nothing behind it, which plays at once.
    #[track_caller]
    pub fn of(channel: impl Display) -> Self {
        Self::playing(&format!("rsshmsrc channel={channel} ! fakesink sync=false"))
    }

    #[track_caller]
    pub fn new(description: &str) -> Self {
        let pipeline = Pipeline::new(description);
        let items = Arc::new(Mutex::new(Vec::new()));
        let to = Arc::clone(&items);
        let pad = pipeline.by_factory("rsshmsrc").static_pad("src").unwrap();
        let types = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM | gst::PadProbeType::EVENT_FLUSH;
        pad.add_probe(types, move |_, info| {
            let item = match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => Item::Frame {
                    number: buffer.offset(),
                    pts: buffer.pts(),
                    flags: buffer.flags(),
                },
                Some(gst::PadProbeData::Event(event)) => Item::Event(event.clone()),
                other => panic!("{other:?}"),
            };
            to.lock().unwrap().push(item);
            gst::PadProbeReturn::Ok
        });
        Self { pipeline, items }
    }

    pub fn items(&self) -> Vec<Item> {
        self.items.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.items.lock().unwrap().clear();
    }

    /// Numbers of the frames so far.
    pub fn frames(&self) -> Vec<u64> {
        let number = |item: &Item| match item {
            Item::Frame { number, .. } => Some(*number),
            Item::Event(_) => None,
        };
        self.items.lock().unwrap().iter().filter_map(number).collect()
    }

    /// Events of the type so far.
    pub fn events(&self, kind: gst::EventType) -> Vec<gst::Event> {
        let event = |item: &Item| match item {
            Item::Event(event) if event.type_() == kind => Some(event.clone()),
            _ => None,
        };
        self.items.lock().unwrap().iter().filter_map(event).collect()
    }

    /// All so far in words: `frame 5`, `caps`, `tag`, and custom events with their number.
    pub fn words(&self) -> Vec<String> {
        self.items().iter().map(word).collect()
    }
}

fn word(item: &Item) -> String {
    match item {
        Item::Frame { number, .. } => format!("frame {number}"),
        Item::Event(event) => {
            let structure = event.structure();
            match structure.and_then(|structure| Some((structure.name(), structure.get::<u64>("number").ok()?))) {
                Some((name, number)) => format!("{name} {number}"),
                None => event.type_().name().to_string(),
            }
        }
    }
}
