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
    events::{Decoded, navigation_letter},
    sync::lock,
    time,
};

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
    fn start_stream(&self, stream: &mut Stream, event: gst::Event) {
        let pad = self.obj().src_pad().clone();
        let is_same = match (event.view(), pad.sticky_event::<gst::event::StreamStart>(0)) {
            (gst::EventView::StreamStart(new), Some(now)) => {
                now.stream_id() == new.stream_id() && now.group_id() == new.group_id()
            }
            _ => false,
        };
        if is_same {
            return;
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
    fn push_event(&self, stream: &Stream, event: gst::Event) {
        gst::debug!(CAT, imp = self, "{event:?}");
        let pad = self.obj().src_pad().clone();
        if self.has_segment(stream) {
            pad.push_event(event);
        } else if event.type_() == gst::EventType::CustomDownstreamSticky {
            // The base class takes no such event.
            let _ = pad.store_sticky_event(&event);
        } else {
            self.parent_send_event(event);
        }
    }

    /// Brings an event of downstream to the writer; `None` when that is none of its business.
    pub(super) fn send_upstream(&self, event: &gst::EventRef) -> Option<bool> {
        let handle = || lock(&self.handle).clone();
        match event.view() {
            gst::EventView::CustomUpstream(_) if gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok() => {
                Some(handle().is_some_and(|handle| handle.request_key_unit()))
            }
            gst::EventView::Navigation(navigation) => {
                let letter = navigation.structure().and_then(navigation_letter);
                Some(letter.is_some_and(|letter| handle().is_some_and(|handle| handle.send_mail(&letter))))
            }
            _ => None,
        }
    }

    /// Says that frames were skipped before the one with the time `running`.
    pub(super) fn post_qos(&self, stream: &Stream, buffer: &gst::BufferRef) {
        let Some(running) = buffer.pts() else {
            return;
        };
        let obj = self.obj();
        // How much later than its time the frame is here.
        let now = obj.current_running_time().unwrap_or(running);
        let jitter = now.nseconds() as i64 - running.nseconds() as i64;
        let stats = stream.reader.stats();
        // The highest number is none to GStreamer.
        let frames = |count: u64| gst::format::Buffers::try_from(count).ok();
        let message = gst::message::Qos::builder(true)
            .src(&*obj)
            .running_time(running)
            .stream_time(running)
            .timestamp(running)
            .values(jitter, 1.0, 1_000_000)
            .stats(frames(stats.received), frames(stats.missed))
            .build();
        self.post_message(message);
    }
}
