// SPDX-License-Identifier: MIT OR Apache-2.0

//! The requests for keyframes that came from downstream. They go to the writer, and each keyframe that answers some of
//! them is announced downstream.

use std::sync::Mutex;

use gst_video::{DownstreamForceKeyUnitEvent, UpstreamForceKeyUnitEvent};
use rsshm_channel::{KeyframeRequest, ReaderHandle};

use super::CAT;
use crate::{sync::lock, time::LastConversion};

/// The number of unanswered requests that are remembered.
const MAX_PENDING: usize = 32;

/// A keyframe that comes this much earlier than requested still answers the request. The writer merges requests that
/// are less far apart than this.
const TOLERANCE: gst::ClockTime = gst::ClockTime::from_mseconds(1);

/// The requests from downstream that no keyframe has answered yet.
#[derive(Default)]
pub(super) struct KeyframeRequests {
    /// The times of the source's frames. The streaming thread records them.
    pub(super) conversion: LastConversion,
    pending: Mutex<Vec<PendingRequest>>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct PendingRequest {
    request: KeyframeRequest,
    /// The running time of the request; `None` if it asked for a keyframe at once.
    running_time: Option<gst::ClockTime>,
    /// The number of the event. Some muxers recognise the answer to their request by this number.
    seqnum: gst::Seqnum,
}

impl PendingRequest {
    fn is_answered_by(&self, keyframe: gst::ClockTime) -> bool {
        self.running_time
            .is_none_or(|wanted| keyframe.saturating_add(TOLERANCE) > wanted)
    }

    /// The event before the keyframe at the running time `keyframe`, which answers the request.
    fn answer(&self, keyframe: gst::ClockTime) -> gst::Event {
        // The source's segment begins at 0, so its timestamps, stream times and running times are the same.
        DownstreamForceKeyUnitEvent::builder()
            .timestamp(keyframe)
            .stream_time(keyframe)
            .running_time(keyframe)
            .all_headers(self.request.all_headers)
            .count(self.request.count)
            .seqnum(self.seqnum)
            .build()
    }
}

impl KeyframeRequests {
    /// Forgets all requests, because the element starts.
    pub(super) fn reset(&self) {
        self.conversion.reset();
        lock(&self.pending).clear();
    }

    /// Sends the request in `event` to the writer. `is_attached` says whether the reader has an entry in a segment with
    /// a writer. Such a reader keeps a request for a later time that it cannot send now, because it is about to follow
    /// to another segment. Returns whether the request was sent or kept.
    pub(super) fn send(
        &self,
        element: &gst::Element,
        event: &gst::EventRef,
        handle: Option<ReaderHandle>,
        is_attached: bool,
    ) -> bool {
        let Ok(wanted) = UpstreamForceKeyUnitEvent::parse(event) else {
            return false;
        };
        // Without a clock, frames have no times, so the time of the request has no meaning.
        let time = wanted
            .running_time
            .and_then(|running_time| self.conversion.to_absolute(element, running_time));
        let mut request = KeyframeRequest::default()
            .all_headers(wanted.all_headers)
            .count(wanted.count);
        if let Some(time) = time {
            request = request.at(time);
        }
        let pending = PendingRequest {
            request,
            running_time: wanted.running_time.filter(|_| time.is_some()),
            seqnum: event.seqnum(),
        };
        // The request is remembered first, because its keyframe may come before `send_keyframe_request` returns.
        self.remember(pending);
        let is_sent = handle.is_some_and(|handle| handle.send_keyframe_request(request));
        gst::debug!(CAT, obj = element, "{request:?} from downstream is sent: {is_sent}");
        let is_kept = is_sent || (time.is_some() && is_attached);
        if !is_kept {
            lock(&self.pending).retain(|other| other.seqnum != pending.seqnum);
        }
        is_kept
    }

    fn remember(&self, request: PendingRequest) {
        let mut pending = lock(&self.pending);
        // An event may come from several branches of the pipeline.
        if pending.contains(&request) {
            return;
        }
        if pending.len() == MAX_PENDING {
            pending.remove(0);
        }
        pending.push(request);
    }

    /// Sends the requests for later times again, because the reader has moved to another segment.
    pub(super) fn send_again(&self, handle: &ReaderHandle) {
        let pending = lock(&self.pending).clone();
        for pending in pending.iter().filter(|pending| pending.running_time.is_some()) {
            handle.send_keyframe_request(pending.request);
        }
    }

    /// Removes the requests that the keyframe at the running time `keyframe` answers. Returns the events that announce
    /// the keyframe.
    pub(super) fn take_answered(&self, keyframe: gst::ClockTime) -> Vec<gst::Event> {
        let mut pending = lock(&self.pending);
        if pending.is_empty() {
            return Vec::new();
        }
        let answered = pending.extract_if(.., |pending| pending.is_answered_by(keyframe));
        answered.map(|pending| pending.answer(keyframe)).collect()
    }
}
