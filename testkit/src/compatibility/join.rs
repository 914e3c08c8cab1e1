// SPDX-License-Identifier: MIT OR Apache-2.0

//! A late joiner without a channel. It shows which streams can be joined at all.

use std::sync::{Arc, Mutex, PoisonError};

use gst::prelude::*;

/// After this time, the joiner begins without a keyframe, because the stream marks none.
const PATIENCE: gst::ClockTime = gst::ClockTime::from_mseconds(1000);

/// The state of the joiner.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Absent,
    /// Waits for a keyframe.
    Waiting,
    Joined,
}

/// Drops the buffers at the pad until `second`. Then the stream begins with the buffers in the field `streamheader` of
/// the caps and a keyframe, which is requested. No joiner of a live stream can get more.
pub fn join_at(pad: &gst::Pad, second: f64) {
    let begin = gst::ClockTime::from_nseconds((second * 1e9) as u64);
    let state = Arc::new(Mutex::new(State::Absent));
    let types = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST;
    pad.add_probe(types, move |pad, info| {
        let now = pad.parent_element().and_then(|element| element.current_running_time());
        let mut current = state.lock().unwrap_or_else(PoisonError::into_inner);
        if *current == State::Joined {
            return gst::PadProbeReturn::Ok;
        }
        if now.is_none_or(|now| now < begin) {
            return gst::PadProbeReturn::Drop;
        }
        if *current == State::Absent {
            *current = State::Waiting;
            drop(current);
            let request = gst_video::UpstreamForceKeyUnitEvent::builder()
                .all_headers(true)
                .build();
            pad.send_event(request);
            current = state.lock().unwrap_or_else(PoisonError::into_inner);
        }
        let mut buffers: Vec<gst::Buffer> = match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => vec![buffer.clone()],
            Some(gst::PadProbeData::BufferList(list)) => list.iter_owned().collect(),
            _ => Vec::new(),
        };
        let is_keyframe = |buffer: &gst::Buffer| {
            !buffer
                .flags()
                .intersects(gst::BufferFlags::DELTA_UNIT | gst::BufferFlags::HEADER)
        };
        let is_patient = now.is_none_or(|now| now < begin + PATIENCE);
        let Some(first) = buffers.iter().position(|buffer| !is_patient || is_keyframe(buffer)) else {
            return gst::PadProbeReturn::Drop;
        };
        *current = State::Joined;
        drop(current);
        // The probe is called again for these buffers.
        for buffer in headers(pad).into_iter().chain(buffers.drain(first..)) {
            let _ = pad.push(buffer);
        }
        gst::PadProbeReturn::Drop
    });
}

/// The buffers in the field `streamheader` of the pad's caps.
fn headers(pad: &gst::Pad) -> Vec<gst::Buffer> {
    let caps = pad.current_caps();
    let array = caps
        .as_ref()
        .and_then(|caps| caps.structure(0)?.get::<gst::ArrayRef<'_>>("streamheader").ok());
    let values = array.iter().flat_map(|array| array.iter());
    values.filter_map(|value| value.get::<gst::Buffer>().ok()).collect()
}
