//! What the sink says of caps that it cannot carry, and when.

use gst::subclass::prelude::*;

use super::imp::{CAT, RsShmSink};
use crate::{caps, sync::lock};

/// What upstream has learned of caps since the start.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Answer {
    #[default]
    None,
    /// Why those that it asked about cannot be carried.
    Refusal,
    /// Some that it may send.
    Offer,
    /// Why those that it sent cannot be carried.
    Error,
}

impl RsShmSink {
    /// Takes note of what upstream is told about caps that it asks about.
    ///
    /// Where it may send nothing of them, it says why, but only while upstream has no other answer: later it only tries
    /// what is possible, and what it does send is looked at when it comes.
    pub(super) fn note_answer(&self, refusal: Option<&str>) {
        let Some(refusal) = refusal else {
            *lock(&self.answer) = Answer::Offer;
            return;
        };
        gst::info!(CAT, imp = self, "{refusal}");
        let is_first = {
            let mut answer = lock(&self.answer);
            let is_first = *answer == Answer::None;
            if is_first {
                *answer = Answer::Refusal;
            }
            is_first
        };
        if is_first {
            gst::element_imp_warning!(self, gst::StreamError::Format, ("{refusal}"));
        }
    }

    /// Says why caps that upstream sends cannot be carried. They are looked at here because they do not get further: the pad
    /// asks whether they are accepted, as anybody may, and upstream is told no more than that they are not.
    pub(super) fn check_sent_caps(&self, event: &gst::EventRef) {
        let gst::EventView::Caps(caps) = event.view() else {
            return;
        };
        let Some(refusal) = caps::refusal(caps.caps()) else {
            return;
        };
        gst::error!(CAT, imp = self, "{refusal}");
        // It may be sent again with the next buffer.
        let before = std::mem::replace(&mut *lock(&self.answer), Answer::Error);
        if before != Answer::Error {
            gst::element_imp_error!(self, gst::CoreError::Negotiation, ("{refusal}"), ["{}", caps.caps()]);
        }
    }
}
