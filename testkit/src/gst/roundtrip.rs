// SPDX-License-Identifier: MIT OR Apache-2.0

//! A sink and a source in this process. A test sends one buffer at a time through both elements.

use gst_video::{VideoInfo, prelude::*};

use super::{CopyCounts, LOSSLESS, Pipeline, RecordedFrame, SinkHarness, SourceRecorder, picture};
use crate::{Channel, eventually};

/// A lossless writer to which the test pushes buffers, and its reader.
pub struct Roundtrip {
    /// The writer.
    pub writer: SinkHarness,
    /// The reader.
    pub reader: SourceRecorder,
    /// The caps of all frames.
    pub caps: gst::Caps,
    /// The caps as a VideoInfo.
    pub info: VideoInfo,
    pushed: usize,
    _channel: Channel,
}

impl Roundtrip {
    /// Starts the writer and the reader for frames of this format. `downstream` is the part of the reader's pipeline
    /// after the source.
    #[track_caller]
    pub fn new(info: &VideoInfo, downstream: &str) -> Self {
        Self::with_caps(&info.to_caps().unwrap(), downstream)
    }

    /// Starts the writer and the reader for frames of these caps.
    #[track_caller]
    pub fn with_caps(caps: &gst::Caps, downstream: &str) -> Self {
        let channel = Channel::new();
        let reader = SourceRecorder::playing(&format!("rsshmsrc channel={channel} ! {downstream}"));
        let writer = SinkHarness::new(&channel, LOSSLESS);
        writer.source().set_property("caps", caps);
        writer.pipeline.play();
        Self {
            writer,
            reader,
            caps: caps.clone(),
            info: VideoInfo::from_caps(caps).unwrap(),
            pushed: 0,
            _channel: channel,
        }
    }

    /// A round trip that has sent its first frame, so that the sink has caps and can offer a pool.
    #[track_caller]
    pub fn started(info: &VideoInfo, downstream: &str) -> Self {
        let mut roundtrip = Self::new(info, downstream);
        let first = roundtrip.send(gst::Buffer::from_slice(picture::packed(info, 0)));
        picture::assert_packed(&first, info, 0);
        roundtrip
    }

    /// Sends a buffer and returns the frame that arrives.
    #[track_caller]
    pub fn send(&mut self, buffer: gst::Buffer) -> RecordedFrame {
        self.writer.push(&buffer);
        drop(buffer);
        self.pushed += 1;
        eventually("the buffer arrives", || self.reader.frame_count() == self.pushed);
        self.reader.last_frame().unwrap()
    }

    /// Configures the pool that the sink offers, with `padding` if it is given. Returns the active pool.
    #[track_caller]
    pub fn pool(&self, padding: Option<&gst_video::VideoAlignment>) -> gst::BufferPool {
        // The sink can offer a pool only after it has received caps.
        let pad = self.pipeline().pad("rsshmsink", "sink");
        eventually("the sink has caps", || pad.current_caps().is_some());
        let query = self.writer.allocation(&self.caps, true);
        assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
        let (pool, size, min, max) = query.allocation_pools().next().unwrap();
        let pool = pool.clone().unwrap();
        assert_eq!((min, max), (2, 0));
        let mut config = pool.config();
        config.set_params(Some(&self.caps), size, min, max);
        if let Some(padding) = padding {
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_str());
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT.as_str());
            config.set_video_alignment(padding);
        }
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        pool
    }

    /// The sink's counts of published frames.
    #[track_caller]
    pub fn counts(&self) -> CopyCounts {
        CopyCounts::of(self.pipeline())
    }

    fn pipeline(&self) -> &Pipeline {
        &self.writer.pipeline
    }
}
