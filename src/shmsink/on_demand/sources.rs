// SPDX-License-Identifier: MIT OR Apache-2.0

//! Finds, closes and opens the sources upstream of the sink.
//!
//! A closed source is in NULL, and its state is locked, so that state changes of the pipeline leave it closed. Opening a
//! source gives it the clock of the sink, and then the state of its bin.

use gst::prelude::*;
use gst_base::prelude::*;

use crate::{pipeline, shmsink::CAT};

/// How often the state of an opened source follows that of its bin, which may change meanwhile.
const MAX_SETTLINGS: u32 = 8;

/// The sources upstream of `sink`, or the reason why they cannot be closed. `None` means that they do not say yet whether
/// they are live; some sources do not before their first frame. `is_known_live` is set if they have said so before.
pub(super) fn closable(sink: &gst_base::BaseSink, is_known_live: bool) -> Result<Option<Vec<gst::Element>>, String> {
    let mut latency = gst::query::Latency::new();
    let is_answered = sink.sink_pad().peer_query(&mut latency);
    if is_answered && !latency.result().0 {
        return Err("the stream is not live, so it would not go on where it stopped".to_owned());
    }
    if !is_answered && !is_known_live {
        return Ok(None);
    }
    separable(sink).map(Some)
}

/// The sources upstream of `sink`, or the reason why they cannot change their states alone.
pub(super) fn separable(sink: &gst_base::BaseSink) -> Result<Vec<gst::Element>, String> {
    let upstream = pipeline::linked_elements(sink.sink_pad());
    let sources: Vec<gst::Element> = upstream
        .into_iter()
        .filter(|element| element.num_sink_pads() == 0)
        .collect();
    if sources.is_empty() {
        return Err("the pipeline has no source that could be closed".to_owned());
    }
    for source in &sources {
        if source.is_locked_state() {
            return Err(format!("the state of {} is locked", source.name()));
        }
        for pad in source.src_pads() {
            if pad
                .pad_template()
                .is_some_and(|template| template.presence() == gst::PadPresence::Sometimes)
            {
                return Err(format!("the pads of {} come and go", source.name()));
            }
            let other = pipeline::linked_elements(&pad)
                .into_iter()
                .find(|element| element.num_src_pads() == 0 && element != sink.upcast_ref::<gst::Element>());
            if let Some(other) = other {
                return Err(format!("{} feeds {} too", source.name(), other.name()));
            }
        }
    }
    Ok(sources)
}

/// Closes `sources`: locks their states, and sets them to NULL.
pub(super) fn close(sources: &[gst::Element]) {
    let peers: Vec<gst::Pad> = sources
        .iter()
        .flat_map(|source| source.src_pads())
        .filter_map(|pad| pad.peer())
        .collect();
    for source in sources {
        source.set_locked_state(true);
    }
    // A streaming thread may wait in a queue, or in the sink while the pipeline is PAUSED. The flush ends these waits.
    for peer in &peers {
        peer.send_event(gst::event::FlushStart::new());
    }
    for source in sources {
        if let Err(error) = source.set_state(gst::State::Null) {
            gst::warning!(CAT, obj = source, "the source cannot be closed: {error}");
        }
    }
    // An element that goes to READY ends the flush itself. A queue would start its thread again at the end of the flush,
    // and then wait for ever for the end of this thread.
    let goes_on = |peer: &&gst::Pad| {
        let element = peer.parent_element();
        element.is_none_or(|element| target_of(&element).is_none_or(|target| target > gst::State::Ready))
    };
    for peer in peers.iter().filter(goes_on) {
        // The running time goes on, because the clock of the pipeline does.
        peer.send_event(gst::event::FlushStop::new(false));
    }
}

/// Opens `sources`: gives them the clock of the sink, and the states of their bins. Returns whether
/// this succeeded for all of them.
pub(super) fn open(sink: &gst_base::BaseSink, sources: &[gst::Element]) -> bool {
    for source in sources {
        source.set_locked_state(false);
        // An element in NULL has no clock. It keeps its base time, which bins update even while its state is locked.
        if let Err(error) = source.set_clock(sink.clock().as_ref()) {
            gst::warning!(CAT, obj = source, "{error}");
        }
    }
    // If a source fails, the others still get the state of the pipeline.
    let failed = sources.iter().filter(|source| !settle(source)).count();
    failed == 0
}

/// Gives `source` the state of its bin. The state of the bin may change meanwhile, and the bin may have skipped the
/// source while its state was locked. Returns whether the source is in this state.
fn settle(source: &gst::Element) -> bool {
    let target = || target_of(source);
    for _ in 0..MAX_SETTLINGS {
        let Some(state) = target() else {
            return true;
        };
        if let Err(error) = source.set_state(state) {
            gst::warning!(CAT, obj = source, "the source cannot be opened: {error}");
            return false;
        }
        if target() == Some(state) {
            return true;
        }
    }
    true
}

/// The state that the bin of `element` has or is about to have; `None` if the element is in no bin.
fn target_of(element: &gst::Element) -> Option<gst::State> {
    let bin = element.parent().and_downcast::<gst::Element>()?;
    let pending = bin.pending_state();
    Some(if pending == gst::State::VoidPending {
        bin.current_state()
    } else {
        pending
    })
}
