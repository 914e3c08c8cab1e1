// SPDX-License-Identifier: MIT OR Apache-2.0

//! Passes on the events between frames. The channel's events go downstream, and events that come from downstream go to
//! the writer.

use gst::prelude::*;
use gst_base::prelude::*;
use rsshm_channel::{Event, ReaderHandle};

use super::{
    CAT,
    shared::{Context, Shared},
    timing::Timing,
};
use crate::{
    events::{DecodedEvent, Decoder, navigation_message, with_gap_flags, with_times},
    sync::lock,
};

/// The maximum number of events that wait for the first buffer of a stream. Further events are left out.
const MAX_PENDING_EVENTS: usize = 1024;

/// Sends the channel's events downstream, so that events and buffers keep their order.
#[derive(Default)]
pub(super) struct EventForwarder {
    decoder: Decoder,
    /// Whether a new SEGMENT event goes out before the next buffer.
    is_segment_due: bool,
    pending: PendingEvents,
}

/// The events that came before the first buffer of a stream.
#[derive(Default)]
struct PendingEvents {
    /// The number of all pending events, including those that the base class queues.
    count: usize,
    /// The custom sticky events, which the base class does not queue.
    sticky: Vec<gst::Event>,
}

impl EventForwarder {
    /// Passes on an event between two frames.
    pub(super) fn forward(&mut self, context: Context, timing: &mut Timing, event: &Event) {
        let decoded = self.decoder.decode(event);
        let refused = u64::from(decoded.is_none()) + self.decoder.take_refused_tags();
        if refused > 0 {
            gst::debug!(
                CAT,
                obj = context.element,
                "an event of kind {}, or some of its tags, are unknown or invalid, and are left out",
                event.kind
            );
            lock(&context.shared.status).events_refused += refused;
        }
        match decoded {
            None => {}
            Some(DecodedEvent::StreamStart(event)) => {
                if let gst::EventView::StreamStart(start) = event.view() {
                    self.start_stream(context.element, start);
                }
            }
            Some(DecodedEvent::Event(event)) => self.push(context, event),
            Some(DecodedEvent::Timed {
                structure,
                time,
                duration,
            }) => {
                let time = time.and_then(|time| timing.place_event(context.element, time));
                self.push(context, with_times(structure, time, duration));
            }
            Some(DecodedEvent::Gap { time, duration, flags }) => {
                let start = timing.place_gap(context.element, time, duration);
                let Some(start) = start.filter(|_| self.has_segment(context.element)) else {
                    return;
                };
                let start = gst::ClockTime::from_nseconds(start.max(0) as u64);
                let gap = gst::event::Gap::builder(start).duration(duration).build();
                context.element.src_pad().push_event(with_gap_flags(gap, flags));
            }
        }
    }

    /// Begins the stream of `start`, with the id and the group of the first stream.
    ///
    /// To a player, another id is another stream, and decodebin3 aborts at a stream that is in no collection. A player
    /// also expects the times of another group to begin at 0. In this element, the times continue from stream to stream.
    /// So all streams after the caps have one id and one group. The event still drains decoders and ends the tags of the
    /// former stream.
    fn start_stream(&mut self, element: &gst_base::BaseSrc, start: &gst::event::StreamStart) {
        let pad = element.src_pad();
        let has_begun = pad.has_current_caps() || self.has_segment(element) || self.is_segment_due;
        let current = pad.sticky_event::<gst::event::StreamStart>(0);
        let (id, group) = match &current {
            Some(current) if has_begun => (current.stream_id(), current.group_id()),
            Some(current) => (start.stream_id(), start.group_id().or_else(|| current.group_id())),
            None => (start.stream_id(), start.group_id()),
        };
        let event = gst::event::StreamStart::builder(id)
            .flags(start.stream_flags())
            .group_id_if_some(group)
            .build();
        gst::debug!(CAT, obj = element, "another stream begins: {event:?}");
        pad.push_event(event);
        // Each stream needs its own SEGMENT event. The base class sends the event before the next buffer.
        if self.has_segment(element) {
            let segment = element.segment();
            if element.new_segment(&segment).is_ok() {
                self.is_segment_due = true;
            }
        }
    }

    /// Whether the SEGMENT event of the stream has been sent, so that data may flow.
    pub(super) fn has_segment(&self, element: &gst_base::BaseSrc) -> bool {
        !self.is_segment_due && element.src_pad().sticky_event::<gst::event::Segment>(0).is_some()
    }

    /// Announces the keyframe at the running time `time` to those elements that have requested it.
    pub(super) fn announce_keyframe(&mut self, context: Context, time: Option<gst::ClockTime>) {
        // With do-timestamp, the keyframe's time is now.
        if let Some(time) = time.or_else(|| context.element.current_running_time()) {
            for event in context.shared.keyframes.take_answered(time) {
                self.push(context, event);
            }
        }
    }

    /// Sends an event downstream: at once if the stream has begun, otherwise before the first buffer of the stream.
    fn push(&mut self, context: Context, event: gst::Event) {
        let element = context.element;
        gst::debug!(CAT, obj = element, "{event:?}");
        if self.has_segment(element) {
            element.src_pad().push_event(event);
            return;
        }
        if self.pending.count == MAX_PENDING_EVENTS {
            gst::debug!(CAT, obj = element, "too many events before the first buffer: left out");
            lock(&context.shared.status).events_refused += 1;
            return;
        }
        self.pending.count += 1;
        if event.type_() == gst::EventType::CustomDownstreamSticky {
            self.pending.sticky.push(event);
        } else {
            (context.queue_event)(event);
        }
    }

    /// Makes sure that all pending events go out before the buffer that the base class gets next.
    pub(super) fn begin_data(&mut self, context: Context) {
        self.is_segment_due = false;
        // The base class queues no custom sticky events. So they are stored on the pad, and go out after the SEGMENT
        // event. They are stored only after the ALLOCATION query, because events that are stored earlier go out before
        // the query.
        for event in std::mem::take(&mut self.pending).sticky {
            let _ = context.element.src_pad().store_sticky_event(&event);
        }
    }
}

/// Sends `event`, which came from downstream, to the writer. Returns whether the event was sent; `None` if it is not
/// meant for the writer.
pub(super) fn send_to_writer(
    element: &gst::Element,
    shared: &Shared,
    handle: impl FnOnce() -> Option<ReaderHandle>,
    event: &gst::EventRef,
) -> Option<bool> {
    match event.view() {
        gst::EventView::CustomUpstream(_) if gst_video::UpstreamForceKeyUnitEvent::parse(event).is_ok() => {
            let status = *lock(&shared.status);
            let is_attached = status.connected && !status.observes;
            Some(shared.keyframes.send(element, event, handle(), is_attached))
        }
        gst::EventView::Navigation(navigation) => {
            let message = navigation.structure().and_then(navigation_message);
            Some(message.is_some_and(|message| handle().is_some_and(|handle| handle.send_message(&message))))
        }
        _ => None,
    }
}
