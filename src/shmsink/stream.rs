// SPDX-License-Identifier: MIT OR Apache-2.0

//! The state of the sink's current stream, which gives frames and events their times and flags.

use std::sync::Arc;

use gst_audio::AudioInfo;
use gst_video::VideoInfo;
use rsshm_channel::{FrameDescriptor, TIME_NONE, layout::EVENT_RING_LENGTH};

use crate::{
    caps,
    dmabuf::OpaquePicture,
    events::{self, EncodedEvent},
    frame,
    left_out::{LeftOut, Reason},
    metas,
    time::{self, ClockOffset, LastConversion, Origin, Times},
};

/// The maximum number of events that wait for the first reader: as many as the channel keeps.
const MAX_HELD_EVENTS: usize = EVENT_RING_LENGTH as usize;

/// The format of a raw stream.
#[derive(Clone, Default)]
pub(super) struct RawFormat {
    /// `None` if the stream is not raw video.
    pub(super) video: Option<Arc<VideoInfo>>,
    /// `None` if the stream is not raw audio.
    audio: Option<Arc<AudioInfo>>,
    /// `None` unless only devices can read the frames.
    pub(super) opaque: Option<OpaquePicture>,
}

impl RawFormat {
    /// The format, as the metas of a frame depend on it.
    pub(super) fn for_metas(&self) -> metas::Format<'_> {
        metas::Format {
            video: self.video.as_deref(),
            audio: self.audio.as_deref(),
            opaque: self.opaque,
        }
    }
}

/// Where a frame lies in relation to the segment of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    Within,
    /// Before the beginning of the segment. A decoder may need the frame for the frames in the segment.
    Before,
    /// Behind the end of the segment, or on either side of a segment that is played backwards.
    Outside,
}

/// The current stream.
pub(super) struct Stream {
    segment: gst::FormattedSegment<gst::ClockTime>,
    /// Whether the positions of the stream are not times, but for example bytes of a file.
    has_other_positions: bool,
    format: RawFormat,
    clock_offset: ClockOffset,
    /// The memory for the encoded metas of a frame. The memory is used again for the next frame.
    metadata: Vec<u8>,
    events: events::Encoder,
    /// Events that wait for the first reader, with the frame that follows them.
    held_events: Vec<EncodedEvent>,
    /// Whether the next frame is discontinuous, that is, does not continue the frames before it.
    is_discont: bool,
    /// Whether the stream has had a keyframe.
    has_keyframes: bool,
    /// Whether the pipeline is known to run on CLOCK_MONOTONIC, until [`Stream::end_list`].
    is_on_monotonic: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            segment: gst::FormattedSegment::new(),
            has_other_positions: false,
            format: RawFormat::default(),
            clock_offset: ClockOffset::default(),
            metadata: Vec::new(),
            events: events::Encoder::default(),
            held_events: Vec::new(),
            is_discont: false,
            has_keyframes: false,
            is_on_monotonic: false,
        }
    }
}

impl Stream {
    /// Stores the segment of a SEGMENT event. If the format of the segment is not time, the default time segment is
    /// stored instead.
    pub(super) fn set_segment(&mut self, segment: &gst::event::Segment) {
        let segment = segment.segment().downcast_ref::<gst::ClockTime>();
        self.has_other_positions = segment.is_none();
        self.segment = segment.cloned().unwrap_or_default();
    }

    /// Stores the format of new caps. `video` is `None` if the caps are not raw video.
    pub(super) fn set_format(&mut self, caps: &gst::Caps, video: Option<VideoInfo>) {
        self.format = RawFormat {
            video: video.map(Arc::new),
            audio: caps::raw_audio(caps).map(Arc::new),
            opaque: OpaquePicture::of_caps(caps),
        };
        self.has_keyframes = false;
    }

    /// Sets whether the next frame is discontinuous.
    pub(super) fn set_discont(&mut self, is_discont: bool) {
        self.is_discont = is_discont;
    }

    /// Returns the format of the next frame, and memory for its metas. [`Self::put_back`] stores this memory for the
    /// next use.
    pub(super) fn begin_frame(&mut self) -> (RawFormat, Vec<u8>) {
        (self.format.clone(), std::mem::take(&mut self.metadata))
    }

    /// Stores the memory that [`Self::begin_frame`] returned, so that the next frame can use it.
    pub(super) fn put_back(&mut self, metadata: Vec<u8>) {
        self.metadata = metadata;
    }

    /// Begins a list of buffers. The clock of the pipeline is then looked at once for all of them. To look at it takes a
    /// fifth of the work for a small buffer.
    pub(super) fn begin_list(&mut self, element: &gst::Element) {
        self.is_on_monotonic = time::is_on_monotonic(element, &mut self.clock_offset);
    }

    /// Ends a list of buffers, or interrupts it for a wait, in which the clock may change.
    pub(super) fn end_list(&mut self) {
        self.is_on_monotonic = false;
    }

    /// The running time at which `buffer` is due, in nanoseconds; `None` if the buffer has no such time.
    pub(super) fn due(&self, buffer: &gst::BufferRef) -> Option<i64> {
        Times::of_buffer(buffer, &self.segment).pts
    }

    /// Where `buffer` lies in relation to the segment.
    pub(super) fn position(&self, buffer: &gst::BufferRef) -> Position {
        let Some(start) = buffer.pts().or(buffer.dts()) else {
            return Position::Within;
        };
        let end = buffer.duration().map(|duration| start.saturating_add(duration));
        // Nearly all frames are entirely inside, and this is found out faster here than by GStreamer.
        let is_inside = self.segment.start().is_some_and(|begin| begin <= start)
            && self.segment.stop().is_none_or(|stop| end.unwrap_or(start) < stop);
        if is_inside || self.segment.clip(start, end).is_some() {
            Position::Within
        } else if self.segment.rate() > 0.0 && self.segment.start().is_some_and(|begin| start < begin) {
            Position::Before
        } else {
            Position::Outside
        }
    }

    /// Describes a frame for readers, which lies at `position`. The frame leaves `delay_ns` after the time of its
    /// timestamp. `conversion` gets the conversion of its times.
    pub(super) fn describe(
        &mut self,
        element: &gst::Element,
        buffer: &gst::BufferRef,
        position: Position,
        delay_ns: i64,
        conversion: &LastConversion,
    ) -> FrameDescriptor {
        let times = Times::of_buffer(buffer, &self.segment);
        let origin = self.origin(element, &times, delay_ns);
        if let Some(origin) = origin {
            conversion.record(origin);
        }
        let mut descriptor = frame::describe(buffer, times, origin.map(|origin| origin.time));
        // Readers send a stream in time, where qtdemux takes the offset of a discontinuous buffer for a jump in the file.
        // In the output of a muxer, the offset is that of a picture in its input.
        if self.has_other_positions {
            (descriptor.offset, descriptor.offset_end) = (TIME_NONE, TIME_NONE);
        }
        // v4l2src flags all frames except raw video and JPEG as delta units, even Bayer pictures. Because of this flag,
        // a reader would wait forever for a keyframe. So the flag is cleared until the stream has had a keyframe.
        self.has_keyframes |= !descriptor.is_delta();
        if !self.has_keyframes {
            descriptor.flags &= !gst::BufferFlags::DELTA_UNIT.bits();
        }
        if self.is_discont {
            descriptor.flags |= gst::BufferFlags::DISCONT.bits();
        }
        if position == Position::Before {
            descriptor.flags |= gst::BufferFlags::DECODE_ONLY.bits();
        }
        descriptor
    }

    /// Encodes an event of the stream.
    pub(super) fn encode_event(&mut self, event: &gst::EventRef) -> events::EncodeResult {
        self.events.encode(event)
    }

    /// Keeps an event until [`Self::take_held_events`]. Returns the event as left out if there are too many.
    pub(super) fn hold_event(&mut self, event: EncodedEvent) -> LeftOut {
        let mut left_out = LeftOut::default();
        if self.held_events.len() < MAX_HELD_EVENTS {
            self.held_events.push(event);
        } else {
            left_out.add("held-events", Reason::Number, 1);
        }
        left_out
    }

    /// Whether events wait for the first reader.
    pub(super) fn has_held_events(&self) -> bool {
        !self.held_events.is_empty()
    }

    /// The events that were held, in order.
    pub(super) fn take_held_events(&mut self) -> Vec<EncodedEvent> {
        std::mem::take(&mut self.held_events)
    }

    /// The time and the duration of an event, as readers receive them.
    pub(super) fn event_times(
        &mut self,
        element: &gst::Element,
        event: &events::EncodedEvent,
        delay_ns: i64,
    ) -> (u64, u64) {
        let times = event.times(&self.segment);
        let origin = self.origin(element, &times, delay_ns);
        (
            origin.map_or(TIME_NONE, |origin| time::to_absolute(times.pts, origin.time)),
            times.duration.unwrap_or(TIME_NONE),
        )
    }

    /// The origin of the running times, with the delay. `times` are those of the frame or event that is about to be sent.
    fn origin(&mut self, element: &gst::Element, times: &Times, delay_ns: i64) -> Option<Origin> {
        let mut origin = if self.is_on_monotonic {
            let base_time = time::base_time(element);
            Origin {
                time: base_time,
                base_time,
            }
        } else {
            // The DTS is preferred to the PTS, because frames arrive in the order of their DTS.
            time::origin_at(element, &mut self.clock_offset, times.dts.or(times.pts))?
        };
        origin.time = origin.time.saturating_add(delay_ns);
        Some(origin)
    }
}
