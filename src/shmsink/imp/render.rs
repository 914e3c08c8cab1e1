// SPDX-License-Identifier: MIT OR Apache-2.0

//! The way of frames and events from the sink's pad to the channel.

use gst::{prelude::*, subclass::prelude::*};
use gst_base::prelude::*;
use gst_video::VideoInfo;
use rsshm_channel::{FrameDescriptor, Writer};

use super::{
    super::{
        CAT,
        ending::SourceWatch,
        publish::{Frame, Outcome, PublishError, publish},
        stream::{Position, RawFormat},
    },
    RsShmSink,
};
use crate::{
    events::{self, EncodedEvent},
    left_out::{Kind, LeftOut},
    memory, metas,
    sync::lock,
};

/// The shortest wait for a connection that delays the frames after the wait.
const MIN_CONNECTION_WAIT: gst::ClockTime = gst::ClockTime::from_mseconds(5);

/// Methods for the pacing of frames.
impl RsShmSink {
    /// Decides how frames are paced, and announces the latency to readers.
    pub(super) fn update_latency(&self) {
        // A closed source answers no query, and the latency stays what it was.
        if self.on_demand.is_closed() {
            return;
        }
        let settings = lock(&self.settings).pacing;
        let latency_ns = self.pacing.update_latency(self.obj().upcast_ref(), settings);
        if let Some(writer) = self.writer() {
            writer.set_latency_ns(latency_ns);
        }
    }

    /// Makes each frame leave `delay_ns` nanoseconds later than its timestamp says.
    pub(super) fn set_delay(&self, delay_ns: i64) {
        let settings = lock(&self.settings).pacing;
        self.pacing.set_delay(self.obj().upcast_ref(), settings, delay_ns);
    }

    /// If `wait-for-connection` is set, waits until a reader is attached. Returns `false` if the wait was interrupted.
    ///
    /// `wait_began` holds the running time at which `buffer` first waited; `None` if it has not waited yet.
    fn wait_for_connection(
        &self,
        writer: &Writer,
        buffer: &gst::Buffer,
        info: Option<&VideoInfo>,
        wait_began: &mut Option<gst::ClockTime>,
    ) -> Result<bool, gst::FlowError> {
        let is_wanted = || lock(&self.settings).wait_for_connection;
        if self.clients.get() > 0 || self.ending.is_near() || !is_wanted() {
            return Ok(true);
        }
        if wait_began.is_none() {
            *wait_began = self.obj().current_running_time();
        }
        let size = info.map_or_else(|| buffer.size(), |info| info.size().max(buffer.size()));
        let watch = SourceWatch::start(self.obj().upcast_ref());
        let may_go_on = writer
            .wait_for_reader(size, || {
                if watch.has_pending_eos() {
                    self.ending.set(true);
                }
                is_wanted() && !self.ending.is_near()
            })
            .map_err(|error| self.fail(&error))?;
        if !may_go_on || self.ending.is_near() {
            return Ok(may_go_on);
        }
        let now = self.obj().current_running_time();
        if let (Some(began), Some(now)) = (*wait_began, now)
            && now.saturating_sub(began) >= MIN_CONNECTION_WAIT
            && !self.pacing.upstream_is_live()
        {
            self.delay_from(buffer, now);
        }
        Ok(true)
    }

    /// Delays `buffer` and all later frames, so that `buffer` leaves at the running time `now`. A file then plays on
    /// from the frame at which it waited for its first reader.
    ///
    /// Without the delay, all frames that are due before `now` would be late, and the reader's pipeline would skip
    /// them.
    fn delay_from(&self, buffer: &gst::BufferRef, now: gst::ClockTime) {
        let Some(due) = lock(&self.stream).due(buffer) else {
            return;
        };
        let delay_ns = (now.nseconds() as i64).saturating_sub(due).max(self.pacing.delay_ns());
        gst::debug!(CAT, imp = self, "frames leave {delay_ns} ns later from here on");
        self.set_delay(delay_ns);
    }
}

/// Methods for the frames and events that go through the channel.
impl RsShmSink {
    /// Publishes one buffer. `metadata` is memory for its encoded metas.
    pub(super) fn render_buffer(
        &self,
        writer: &Writer,
        buffer: &gst::Buffer,
        format: &RawFormat,
        metadata: &mut Vec<u8>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let position = lock(&self.stream).position(buffer);
        // Without a check of the base class, encoded frames behind the segment arrive here too.
        if position == Position::Outside {
            return Ok(gst::FlowSuccess::Ok);
        }
        let left_out = metas::encode(buffer, format.for_metas(), metadata);
        self.count_left_out(Kind::Metas, &left_out);
        self.publish_buffer(writer, buffer, position, metadata, format)
    }

    /// Waits until `buffer`, which lies at `position`, can be published, and publishes it. `metadata` has the encoded metas
    /// of the buffer.
    fn publish_buffer(
        &self,
        writer: &Writer,
        buffer: &gst::Buffer,
        position: Position,
        metadata: &[u8],
        format: &RawFormat,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let info = format.video.as_deref();
        let kind = memory::kind_of_first(buffer);
        let parts = if self.descriptors.are_irrelevant_for(kind) {
            None
        } else {
            let options = lock(&self.settings).writer;
            self.descriptors
                .prepare(writer, options, buffer, info)
                .map_err(|error| self.fail(&error))?
        };
        let mut wait_began = None;
        let mut is_discont = false;
        loop {
            let outcome = if self.wait_for_connection(writer, buffer, info, &mut wait_began)? {
                let descriptor = self.describe(writer, buffer, position);
                is_discont = descriptor.flags & gst::BufferFlags::DISCONT.bits() != 0;
                let frame = Frame {
                    buffer,
                    kind,
                    descriptor,
                    metadata,
                    info,
                    is_opaque: format.opaque.is_some(),
                    parts: parts.as_deref(),
                };
                publish(writer, &self.counters, frame).map_err(|error| self.fail_to_publish(writer, buffer, error))?
            } else {
                Outcome::Interrupted
            };
            match outcome {
                Outcome::Published => {
                    if is_discont {
                        lock(&self.stream).set_discont(false);
                    }
                    return Ok(gst::FlowSuccess::Ok);
                }
                Outcome::Dropped => {
                    gst::debug!(CAT, imp = self, "readers hold all slots: frame dropped");
                    return Ok(gst::FlowSuccess::Ok);
                }
                // While the pipeline is PAUSED, the frame waits here. During a flush, `wait_preroll` returns a flow
                // error.
                Outcome::Interrupted => {
                    writer.notify_batch();
                    lock(&self.stream).end_list();
                    self.obj().wait_preroll()?
                }
            };
        }
    }

    /// Publishes the events that were held, and describes the frame after them.
    fn describe(&self, writer: &Writer, buffer: &gst::BufferRef, position: Position) -> FrameDescriptor {
        let mut stream = lock(&self.stream);
        if stream.has_held_events() {
            drop(stream);
            self.publish_held_events(writer);
            stream = lock(&self.stream);
        }
        let conversion = &self.keyframes.conversion;
        stream.describe(
            self.obj().upcast_ref(),
            buffer,
            position,
            self.pacing.delay_ns(),
            conversion,
        )
    }

    /// Posts the reason why a frame cannot be published.
    fn fail_to_publish(&self, writer: &Writer, buffer: &gst::BufferRef, error: PublishError) -> gst::FlowError {
        match error {
            PublishError::Channel(error) => self.fail(&error),
            PublishError::Copy(reason) => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Write,
                    ("channel {}: a frame could not be copied: {reason}", writer.name()),
                    ["{buffer:?}"]
                );
                gst::FlowError::Error
            }
        }
    }

    /// Publishes an event of the stream.
    pub(super) fn publish_event(&self, event: events::EncodeResult) {
        self.count_left_out(Kind::Events, &event.left_out);
        let (Some(event), Some(writer)) = (event.event, self.writer()) else {
            return;
        };
        if event.begins_stream {
            writer.forget_events();
        }
        // A reader that is waited for gets the events before its first frame too. It gets sticky events in any case.
        let waits = lock(&self.settings).wait_for_connection && self.clients.get() == 0;
        if waits && event.sticky_index.is_none() {
            let left_out = lock(&self.stream).hold_event(event);
            self.count_left_out(Kind::Events, &left_out);
        } else {
            self.publish_encoded(&writer, event);
        }
    }

    /// Publishes the events that were held until a reader is attached.
    pub(super) fn publish_held_events(&self, writer: &Writer) {
        let held = lock(&self.stream).take_held_events();
        for event in held {
            self.publish_encoded(writer, event);
        }
    }

    fn publish_encoded(&self, writer: &Writer, event: EncodedEvent) {
        let delay_ns = self.pacing.delay_ns();
        let (time, duration) = lock(&self.stream).event_times(self.obj().upcast_ref(), &event, delay_ns);
        // This fails only for an event beyond the limits, and the encoder has left such an event out.
        if let Err(error) = writer.publish_event(event.to_channel(time, duration), event.sticky_index) {
            gst::error!(CAT, imp = self, "{error}");
        }
    }

    /// The name of the channel, for messages; empty if the channel is closed.
    fn channel_for_message(&self) -> String {
        self.writer()
            .map_or_else(String::new, |writer| writer.name().to_string())
    }

    /// Counts metas or events that were not sent. Posts a warning about the first one of each name.
    fn count_left_out(&self, kind: Kind, left_out: &LeftOut) {
        if left_out.is_empty() {
            return;
        }
        self.count_missing(kind, left_out);
    }

    #[cold]
    fn count_missing(&self, kind: Kind, left_out: &LeftOut) {
        let (counters, what, document) = match kind {
            Kind::Metas => (&self.counters.metas_left_out, "metas", "METAS.md"),
            Kind::Events => (&self.counters.events_left_out, "events", "TIME.md"),
        };
        for missing in left_out.iter() {
            if counters.add(&missing.name, missing.count) {
                let (channel, name) = (self.channel_for_message(), &missing.name);
                let reason = missing.reason.text(kind);
                let text = format!(
                    "channel {channel}: {name} was not sent, because {reason}; {what}-left-out in channel-stats counts such \
                     {what}, and docs/{document} says what is carried"
                );
                gst::element_imp_warning!(self, gst::StreamError::Encode, ("{text}"), ["{text}"]);
            }
        }
    }
}
