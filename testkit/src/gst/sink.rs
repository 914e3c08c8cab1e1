// SPDX-License-Identifier: MIT OR Apache-2.0

//! A harness that pushes buffers to an rsshmsink one by one.

use std::{
    fmt::Display,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use gst::prelude::*;

use super::{CAPS, Pipeline, SourceRecorder};
use crate::eventually;

/// The properties that make an rsshmsink drop no frame and wait for the first reader.
pub const LOSSLESS: &str = "lossless=true wait-for-connection=true sync=false";

/// A pipeline in this process that consists of an appsrc and an rsshmsink. The test gives buffers and events to the
/// appsrc.
pub struct SinkHarness {
    /// The pipeline.
    pub pipeline: Pipeline,
    source: gst::Element,
}

impl SinkHarness {
    /// A playing harness with a live source in the format [`CAPS`]. The source gives each frame a timestamp when the
    /// test pushes it.
    ///
    /// Here and in the functions below, `options` are properties of rsshmsink.
    #[track_caller]
    pub fn live(channel: impl Display, options: &str) -> Self {
        Self::live_with_caps(channel, CAPS, options)
    }

    /// A playing harness with a live source in another format.
    #[track_caller]
    pub fn live_with_caps(channel: impl Display, caps: &str, options: &str) -> Self {
        let harness = Self::with_source(channel, "is-live=true do-timestamp=true", options);
        harness.set_caps(caps);
        harness.pipeline.play();
        harness
    }

    /// A harness whose source sets no timestamps and has no caps yet. The pipeline does not play yet.
    #[track_caller]
    pub fn new(channel: impl Display, options: &str) -> Self {
        Self::with_source(channel, "", options)
    }

    /// A playing harness whose source sets no timestamps and has no caps yet. Its rsshmsink is [`LOSSLESS`].
    #[track_caller]
    pub fn lossless(channel: impl Display) -> Self {
        let harness = Self::new(channel, LOSSLESS);
        harness.pipeline.play();
        harness
    }

    /// A harness whose appsrc has the properties `source`. The pipeline does not play yet.
    #[track_caller]
    pub fn with_source(channel: impl Display, source: &str, options: &str) -> Self {
        let pipeline = Pipeline::new(&format!(
            "appsrc name=source format=time {source} ! rsshmsink channel={channel} {options}"
        ));
        let source = pipeline.element("source");
        Self { pipeline, source }
    }

    /// The element that the test pushes to.
    pub fn source(&self) -> &gst::Element {
        &self.source
    }

    /// Sets the caps of the buffers that are pushed from now on.
    #[track_caller]
    pub fn set_caps(&self, caps: &str) {
        self.source.set_property("caps", caps.parse::<gst::Caps>().unwrap());
    }

    /// Pushes a buffer. The source must accept it.
    #[track_caller]
    pub fn push(&self, buffer: &gst::Buffer) {
        assert_eq!(self.try_push(buffer), gst::FlowReturn::Ok);
    }

    /// Pushes a buffer. The source may refuse it.
    pub fn try_push(&self, buffer: &gst::Buffer) -> gst::FlowReturn {
        self.source.emit_by_name("push-buffer", &[buffer])
    }

    /// Pushes a sample that contains a buffer, its caps, and `segment` if it is given.
    #[track_caller]
    pub fn push_sample(
        &self,
        buffer: &gst::Buffer,
        caps: &gst::Caps,
        segment: Option<&gst::FormattedSegment<gst::ClockTime>>,
    ) {
        let sample = gst::Sample::builder().buffer(buffer).caps(caps);
        let sample = match segment {
            Some(segment) => sample.segment(segment).build(),
            None => sample.build(),
        };
        let pushed: gst::FlowReturn = self.source.emit_by_name("push-sample", &[&sample]);
        assert_eq!(pushed, gst::FlowReturn::Ok);
    }

    /// Pushes a frame with this offset.
    #[track_caller]
    pub fn push_frame(&self, offset: u64) {
        self.push_frame_with(offset, gst::BufferFlags::empty());
    }

    /// Pushes a frame with this offset and these flags.
    #[track_caller]
    pub fn push_frame_with(&self, offset: u64, flags: gst::BufferFlags) {
        self.push_frame_at(offset, flags, None);
    }

    /// Pushes a frame that was captured at the given running time of this pipeline.
    #[track_caller]
    pub fn push_frame_at(&self, offset: u64, flags: gst::BufferFlags, time: Option<gst::ClockTime>) {
        let mut buffer = gst::Buffer::from_slice(vec![9u8; self.frame_size()]);
        let target = buffer.get_mut().unwrap();
        target.set_offset(offset);
        target.set_flags(flags);
        target.set_pts(time);
        self.push(&buffer);
    }

    fn frame_size(&self) -> usize {
        let caps = self.source.property::<gst::Caps>("caps");
        gst_video::VideoInfo::from_caps(&caps).map_or(1000, |info| info.size())
    }

    /// Pushes frames, all with this offset, until `reader` has received one of them.
    #[track_caller]
    pub fn push_frame_until_seen(&self, offset: u64, reader: &SourceRecorder) {
        eventually("the reader has received the frame", || {
            self.push_frame(offset);
            std::thread::sleep(Duration::from_millis(20));
            reader.offsets().contains(&offset)
        });
    }

    /// Waits until `reader` has received all buffers and events so far, and clears its recording.
    ///
    /// Call this after [`push_frame_until_seen`](Self::push_frame_until_seen), because further copies of the pushed
    /// frame may not have reached `reader` yet.
    #[track_caller]
    pub fn settle(&self, reader: &SourceRecorder) {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        // Relaxed, because the number only has to be unique.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        self.send(custom_event("settled", count));
        let marker = format!("settled {count}");
        eventually("the reader has received everything", || {
            reader.words().contains(&marker)
        });
        reader.clear();
    }

    /// Sends an event. It follows all buffers and events that were pushed before.
    #[track_caller]
    pub fn send(&self, event: gst::Event) {
        assert!(self.source.send_event(event));
    }

    /// Ends the stream.
    #[track_caller]
    pub fn end(&self) {
        let ended: gst::FlowReturn = self.source.emit_by_name("end-of-stream", &[]);
        assert_eq!(ended, gst::FlowReturn::Ok);
    }

    /// The sink's answer to an ALLOCATION query for these caps.
    #[track_caller]
    pub fn allocation(&self, caps: &gst::Caps, need_pool: bool) -> gst::query::Allocation<gst::Query> {
        let mut query = gst::query::Allocation::new(Some(caps), need_pool);
        assert!(self.pipeline.pad("rsshmsink", "sink").query(query.query_mut()));
        query
    }

    /// A field of the sink's `channel-stats`.
    pub fn stat(&self, field: &str) -> u64 {
        self.pipeline.stat("rsshmsink", field)
    }
}

/// An event of an application, with a field `number`.
pub fn custom_event(name: &str, number: u64) -> gst::Event {
    gst::event::CustomDownstream::new(gst::Structure::builder(name).field("number", number).build())
}

/// The counts of the frames that an rsshmsink published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopyCounts {
    /// The number of all published frames.
    pub published: u64,
    /// The number of frames whose memory was a slot.
    pub in_place: u64,
    /// The number of frames that were copied from other memory.
    pub foreign: u64,
    /// The number of frames that were copied because their slot had been published before.
    pub repeated: u64,
}

impl CopyCounts {
    /// Counts with these values.
    pub const fn new(published: u64, in_place: u64, foreign: u64, repeated: u64) -> Self {
        Self {
            published,
            in_place,
            foreign,
            repeated,
        }
    }

    /// Reads the counts of a pipeline's sink. The sink must not have dropped any frame.
    #[track_caller]
    pub fn of(writer: &Pipeline) -> Self {
        let stat = |field| writer.stat("rsshmsink", field);
        assert_eq!(stat("frames-dropped"), 0);
        // A reader may receive the last frame before the writer has counted it.
        eventually("all frames are counted", || {
            stat("frames-in-place") + stat("frames-copied") == stat("frames-published")
        });
        assert_eq!(
            stat("frames-copied"),
            stat("copied-foreign") + stat("copied-repeated") + stat("copied-no-slot")
        );
        Self::new(
            stat("frames-published"),
            stat("frames-in-place"),
            stat("copied-foreign"),
            stat("copied-repeated"),
        )
    }
}
