// SPDX-License-Identifier: MIT OR Apache-2.0

//! Sends the readers' requests for keyframes upstream.

use std::{collections::VecDeque, sync::Mutex};

use gst::prelude::*;
use gst_base::prelude::*;
use rsshm_channel::{KeyframeRequest, ServiceReport};

use super::CAT;
use crate::{shmsrc::RsShmSrc, sync::lock, time::LastConversion};

/// The number of requests whose answers are recognised.
const MAX_SENT: usize = 64;

/// The largest number of pads that the search for an encoder looks at.
const MAX_PADS: usize = 256;

/// Sends the readers' requests for keyframes upstream, and recognises the answers.
#[derive(Default)]
pub(super) struct KeyframeForwarder {
    /// The times of the sink's frames. The streaming thread records them.
    pub(super) conversion: LastConversion,
    sent: Mutex<VecDeque<SentRequest>>,
}

/// A request that was sent upstream.
#[derive(Clone, Copy, Debug)]
struct SentRequest {
    request: KeyframeRequest,
    /// The running time of the request; `None` if it asked for a keyframe at once.
    running_time: Option<gst::ClockTime>,
    /// The running time of the keyframe that answered the request.
    answered_at: Option<gst::ClockTime>,
}

impl KeyframeForwarder {
    /// Forgets all requests, because a channel is opened.
    pub(super) fn reset(&self) {
        self.conversion.reset();
        lock(&self.sent).clear();
    }

    /// Sends the requests of `report` upstream.
    ///
    /// An encoder gets a request for a later time at once, because it keeps the request until the frame of that time
    /// comes. This may be long before that frame reaches the sink. Other sources of encoded frames, such as cameras
    /// and RTP sessions, make a keyframe as soon as they are asked. They get the request when its time has come.
    pub(super) fn send_requests(&self, sink: &gst_base::BaseSink, report: &ServiceReport) {
        if !report.keyframe_requests.is_empty() && is_planned_upstream(sink.sink_pad()) {
            for request in &report.keyframe_requests {
                let running_time = self.conversion.to_running(sink.upcast_ref(), request.time);
                // Without a running time, the request is sent when it is due.
                if running_time.is_some() {
                    self.send(sink, *request, running_time);
                }
            }
        }
        for request in &report.due_keyframe_requests {
            if request.is_immediate() {
                self.send(sink, *request, None);
            } else if !self.was_sent(request) {
                let running_time = self.conversion.to_running(sink.upcast_ref(), request.time);
                self.send(sink, *request, running_time);
            }
        }
    }

    fn was_sent(&self, request: &KeyframeRequest) -> bool {
        lock(&self.sent).iter().any(|sent| sent.request == *request)
    }

    fn send(&self, sink: &gst_base::BaseSink, request: KeyframeRequest, running_time: Option<gst::ClockTime>) {
        let mut sent = lock(&self.sent);
        if sent.len() == MAX_SENT {
            sent.pop_front();
        }
        sent.push_back(SentRequest {
            request,
            running_time,
            answered_at: None,
        });
        drop(sent);
        let event = gst_video::UpstreamForceKeyUnitEvent::builder()
            .running_time(running_time)
            .all_headers(request.all_headers)
            .count(request.count)
            .build();
        let is_handled = sink.sink_pad().push_event(event);
        gst::debug!(
            CAT,
            obj = sink,
            "a reader wants a keyframe ({running_time:?}); upstream handles the request: {is_handled}"
        );
    }

    /// Whether `event`, which comes from upstream, is a force-key-unit event that answers requests of readers. Each
    /// reader that has sent one of these requests makes its own event, with its own count.
    pub(super) fn is_answer(&self, event: &gst::EventRef) -> bool {
        let Ok(answer) = gst_video::DownstreamForceKeyUnitEvent::parse(event) else {
            return false;
        };
        let mut is_answer = false;
        for sent in lock(&self.sent).iter_mut() {
            // A parser may repeat the event of the encoder.
            let is_reached = match (sent.answered_at, sent.running_time, answer.running_time) {
                (Some(answered_at), _, Some(time)) => answered_at == time,
                (None, Some(wanted), Some(time)) => time >= wanted,
                _ => true,
            };
            if is_reached && sent.request.count == answer.count {
                sent.answered_at = answer.running_time;
                is_answer = true;
            }
        }
        is_answer
    }
}

/// Whether an element upstream of `pad` keeps a request for a keyframe of a later time until the frame of that time
/// comes. All encoders that derive from GstVideoEncoder do so. A source passes the request to the writer of its channel.
fn is_planned_upstream(pad: &gst::Pad) -> bool {
    let mut pads = vec![pad.clone()];
    for _ in 0..MAX_PADS {
        let Some(peer) = pads.pop().map(|pad| pad.peer()) else {
            return false;
        };
        let Some(peer) = peer else {
            continue;
        };
        // A ghost pad or its internal pad leads into a bin or out of it.
        if let Some(proxy) = peer.downcast_ref::<gst::ProxyPad>() {
            pads.extend(proxy.internal().map(|internal| internal.upcast::<gst::Pad>()));
            continue;
        }
        let Some(element) = peer.parent_element() else {
            continue;
        };
        if element.is::<gst_video::VideoEncoder>() || element.is::<RsShmSrc>() {
            return true;
        }
        // If the links change during the iteration, the rest of them does not matter.
        let mut links = peer.iterate_internal_links();
        while let Ok(Some(link)) = links.next() {
            pads.push(link);
        }
    }
    false
}
