//! Events of the channel on their way downstream, those of downstream on their way to the writer, and news of frames that
//! were skipped.

use gst::{prelude::*, subclass::prelude::*};
use gst_base::prelude::*;
use rsshm_channel::Event;

use super::{
    imp::{CAT, RsShmSrc},
    stream::Stream,
};
use crate::{
    events::{Decoded, navigation_message},
    sync::lock,
    time,
};

/// More events wait for no first frame.
const MAX_WAITING: usize = 1024;

/// Events from before a stream's first buffer.
#[derive(Default)]
pub(super) struct WaitingEvents {
    count: usize,
    /// Those that the base class does not take.
    sticky: Vec<gst::Event>,
}

impl RsShmSrc {
    /// Passes on what happened between two frames.
    pub(super) fn pass_on(&self, stream: &mut Stream, event: &Event) {
        match stream.events.decode(event) {
            None => gst::debug!(CAT, imp = self, "an event of kind {} is not known here", event.kind),
            Some(Decoded::StreamStart(event)) => self.start_stream(stream, event),
            Some(Decoded::Event(event)) => self.push_event(stream, event),
            Some(Decoded::Gap { time, duration, flags }) => {
                let origin = time::origin(self.obj().upcast_ref(), &mut stream.clock_offset);
                let start = origin.and_then(|origin| time::to_running(time, origin));
                // One from before this pipeline's time, or before its first frame, is over.
                let start = start.and_then(|start| stream.timeline.place_of_gap(start));
                let Some(start) = start.filter(|_| self.has_segment(stream)) else {
                    return;
                };
                let start = gst::ClockTime::from_nseconds(start.max(0) as u64);
                let gap = gst::event::Gap::builder(start)
                    .duration(duration)
                    .gap_flags(flags)
                    .build();
                self.obj().src_pad().push_event(gap);
            }
        }
    }

    /// Begins another stream, unless it is the one that is there already.
    fn start_stream(&self, stream: &mut Stream, mut event: gst::Event) {
        let pad = self.obj().src_pad().clone();
        let has_begun = self.has_segment(stream) || stream.segment_due;
        let now = pad.sticky_event::<gst::event::StreamStart>(0);
        if let (gst::EventViewMut::StreamStart(new), Some(now)) = (event.make_mut().view_mut(), now) {
            // Who plays one group of streams after the other takes the times of the second to count from the first's end. Here
            // they go on: once data has flowed, all that comes is of one group.
            if let Some(group) = now.group_id().filter(|_| has_begun || new.group_id().is_none()) {
                new.set_group_id(group);
            }
            if now.stream_id() == new.stream_id() && now.group_id() == new.group_id() {
                return;
            }
        }
        gst::debug!(CAT, imp = self, "another stream begins: {event:?}");
        pad.push_event(event);
        // A stream has a segment of its own; the base class sends it before the next buffer.
        if self.has_segment(stream) {
            let segment = self.obj().segment();
            if self.obj().new_segment(&segment).is_ok() {
                stream.segment_due = true;
            }
        }
    }

    /// Whether data may flow: the segment is where it belongs, before it.
    fn has_segment(&self, stream: &Stream) -> bool {
        !stream.segment_due && self.obj().src_pad().sticky_event::<gst::event::Segment>(0).is_some()
    }

    /// Sends an event downstream, at once where the stream has begun, else before its first buffer.
    fn push_event(&self, stream: &mut Stream, event: gst::Event) {
        gst::debug!(CAT, imp = self, "{event:?}");
        if self.has_segment(stream) {
            self.obj().src_pad().push_event(event);
            return;
        }
        let waiting = &mut stream.waiting_events;
        if waiting.count == MAX_WAITING {
            gst::debug!(CAT, imp = self, "too many events wait for a first frame: left out");
            return;
        }
        waiting.count += 1;
        if event.type_() == gst::EventType::CustomDownstreamSticky {
            waiting.sticky.push(event);
        } else {
            self.parent_send_event(event);
        }
    }

    /// Sees to it that all that waited for the stream's first buffer comes before it, which the base class has next.
    pub(super) fn begin_data(&self, stream: &mut Stream) {
        stream.segment_due = false;
        // The base class takes none of these. Stored, they go out with what comes behind the segment; but not while downstream
        // is still to be asked for memory, or they would go out with the question.
        for event in std::mem::take(&mut stream.waiting_events).sticky {
            let _ = self.obj().src_pad().store_sticky_event(&event);
        }
    }

    /// Brings an event of downstream to the writer; `None` when that is none of its business.
    pub(super) fn send_upstream(&self, event: &gst::EventRef) -> Option<bool> {
        let handle = || lock(&self.handle).clone();
        match event.view() {
            gst::EventView::CustomUpstream(_) if gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok() => {
                Some(handle().is_some_and(|handle| handle.request_keyframe()))
            }
            gst::EventView::Navigation(navigation) => {
                let message = navigation.structure().and_then(navigation_message);
                Some(message.is_some_and(|message| handle().is_some_and(|handle| handle.send_message(&message))))
            }
            _ => None,
        }
    }

    /// Says that frames were skipped before the one with the time `running`.
    pub(super) fn post_qos(&self, stream: &Stream, buffer: &gst::BufferRef) {
        let obj = self.obj();
        let now = obj.current_running_time();
        // do-timestamp: it is of now.
        let Some(running) = buffer.pts().or(now) else {
            return;
        };
        // How much later than its time the frame is here.
        let now = now.unwrap_or(running);
        let jitter = now.nseconds() as i64 - running.nseconds() as i64;
        let stats = stream.reader.stats();
        // The highest number is none to GStreamer.
        let frames = |count: u64| gst::format::Buffers::try_from(count).ok();
        let message = gst::message::Qos::builder(true)
            .src(&*obj)
            .running_time(running)
            .stream_time(running)
            .timestamp(running)
            .duration(buffer.duration())
            .values(jitter, 1.0, 1_000_000)
            .stats(frames(stats.received), frames(stats.missed))
            .build();
        self.post_message(message);
    }
}
