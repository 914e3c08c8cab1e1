// SPDX-License-Identifier: MIT OR Apache-2.0

//! The source's streaming thread, which waits for frames, follows the channel's caps, and makes buffers.

use gst::prelude::*;
use gst_audio::AudioInfo;
use gst_base::prelude::*;
use gst_video::VideoInfo;
use rsshm_channel::{Frame, Next, ObjectFault, Reader, ReaderHandle};

use super::{
    CAT, OnDisconnect,
    absence::{self, Silence},
    buffer::{BufferMaker, CopyBuffer},
    connection::{Due, WriterWait, present_channels},
    convert::Converter,
    events::EventForwarder,
    headers::StreamHeaders,
    properties::StreamSettings,
    shared::Context,
    timing::{Timing, latency_ns},
};
use crate::{caps, dmabuf::OpaquePicture, error, metas, sync::lock};

/// The state of the streaming thread.
///
/// Each call of `create` moves this state out of its mutex, so that no lock is held while the call waits, notifies or
/// negotiates.
pub(super) struct Stream {
    reader: Reader,
    channel: String,
    format: Format,
    timing: Timing,
    buffers: BufferMaker,
    converter: Converter,
    events: EventForwarder,
    headers: StreamHeaders,
    writer_wait: WriterWait,
    /// Whether the next frame is the first one since the pipeline went to PLAYING.
    is_first: bool,
    /// Whether the next frame is discontinuous, that is, does not follow the frame that was passed on last.
    is_discont: bool,
    /// Whether the writer's stream has ended and no frame has followed. If this is true, the loss of the writer is not
    /// an error.
    has_ended: bool,
    is_observer_reported: bool,
    /// The fault of the memory of frames by descriptor that was reported last.
    reported_fault: Option<ObjectFault>,
}

/// The format of the last frame.
#[derive(Default)]
struct Format {
    /// The value of [`Reader::segment_changes`] for the segment whose caps gave this format.
    segment_changes: Option<u64>,
    /// `None` if the stream is not raw video.
    info: Option<VideoInfo>,
    /// `None` if the stream is not raw audio.
    audio: Option<AudioInfo>,
    /// `None` unless only devices can read the frames.
    opaque: Option<OpaquePicture>,
    /// `None` if the stream is not filled with silence while there is no writer.
    silence: Option<Silence>,
    /// The caps without the stream headers; `None` before the first frame, and after a stream that has ended.
    stream_caps: Option<gst::Caps>,
    /// The process of the writer.
    writer_pid: u32,
}

impl Format {
    /// The format, as the metas of a frame depend on it.
    fn for_metas(&self) -> metas::Format<'_> {
        metas::Format {
            video: self.info.as_ref(),
            audio: self.audio.as_ref(),
            opaque: self.opaque,
        }
    }
}

impl Stream {
    pub(super) fn new(reader: Reader, channel: String) -> Self {
        Self {
            reader,
            channel,
            format: Format::default(),
            timing: Timing::default(),
            buffers: BufferMaker::default(),
            converter: Converter::default(),
            events: EventForwarder::default(),
            headers: StreamHeaders::default(),
            writer_wait: WriterWait::start(),
            is_first: true,
            is_discont: false,
            has_ended: false,
            is_observer_reported: false,
            reported_fault: None,
        }
    }

    /// A handle of the reader, for other threads.
    pub(super) fn handle(&self) -> ReaderHandle {
        self.reader.handle()
    }

    /// Waits for the next frame, and returns it as a buffer.
    pub(super) fn next_buffer(&mut self, context: Context) -> Result<gst::Buffer, gst::FlowError> {
        loop {
            let settings = lock(&context.shared.settings).stream;
            if context.shared.take_resumed() {
                self.resume(context);
            }
            if let Some(buffer) = self.headers.next() {
                return Ok(buffer);
            }
            self.timing.prepare(context.element);
            self.buffers.prepare();
            let mut copy = CopyBuffer::default();
            let is_connected = self.reader.is_connected();
            let timeout = self.writer_wait.remaining(is_connected, settings.connection_timeout);
            let timeout =
                absence::time_until_filling(is_connected, &self.timing).map_or(timeout, |due| due.min(timeout));
            let next = self.reader.next(&mut copy, settings.limits, Some(timeout));
            self.update_status(context);
            match next {
                Ok(Next::Frame(frame)) => match self.receive(context, frame, copy)? {
                    Some(buffer) => return Ok(buffer),
                    None => lock(&context.shared.status).frames_skipped += 1,
                },
                Ok(other) => {
                    let may_fill = matches!(other, Next::TimedOut) && !self.reader.is_connected();
                    self.handle_other(context, &settings, other)?;
                    if may_fill && let Some(silence) = self.fill_absence(context) {
                        return Ok(silence);
                    }
                }
                Err(error) => {
                    gst::error!(CAT, obj = context.element, "{error}");
                    let message = error::message(&error, gst::ResourceError::OpenRead);
                    context.element.post_error_message(message);
                    return Err(gst::FlowError::Error);
                }
            }
        }
    }

    /// Turns a frame into a buffer; `None` if the frame is skipped.
    fn receive(
        &mut self,
        context: Context,
        frame: Frame,
        copy: CopyBuffer,
    ) -> Result<Option<gst::Buffer>, gst::FlowError> {
        self.has_ended = false;
        let is_same_stream = self.follow_caps(context)?;
        self.check_clock(context, &frame);
        let (seq, missed, is_delta) = (frame.seq, frame.missed, frame.descriptor.is_delta());
        let continues = (!frame.discontinuity || is_same_stream) && missed == 0;
        self.is_discont |= !continues;
        let is_raw_video = self.format.info.is_some();
        let (descriptor, is_first) = (&frame.descriptor, self.is_first);
        let stamps = self
            .timing
            .stamps(context, &self.reader, descriptor, is_raw_video, is_first, continues);
        let Some(stamps) = stamps else {
            self.is_discont = true;
            gst::trace!(
                CAT,
                obj = context.element,
                "frame {seq} is from before this pipeline's time: skipped"
            );
            return Ok(None);
        };
        let format = self.format.for_metas();
        let Some(mut buffer) = self.buffers.make(context, frame, copy, format, stamps)? else {
            self.is_discont = true;
            return Ok(None);
        };
        self.headers.note_next(&buffer);
        if std::mem::take(&mut self.is_discont) || self.is_first {
            buffer.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        if let Some(conversion) = context.shared.conversion() {
            buffer = self
                .converter
                .apply(context.element, &self.channel, &conversion, buffer)?;
            lock(&context.shared.status).converted += 1;
        }
        self.is_first = false;
        gst::trace!(CAT, obj = context.element, "frame {seq}: {buffer:?}");
        if missed > 0 {
            self.post_qos(context, &buffer);
        }
        if !is_delta {
            self.events.announce_keyframe(context, buffer.pts());
        }
        self.events.begin_data(context);
        Ok(Some(self.headers.precede(buffer)))
    }

    /// Warns that a frame by descriptor was missed. Each reason is reported once, until another one comes.
    #[cold]
    fn report_fault(&mut self, context: Context, fault: ObjectFault) {
        if self.reported_fault.as_ref() != Some(&fault) {
            let text = format!(
                "channel {}: frames were missed, because their memory is not accessible: {fault}",
                self.channel
            );
            gst::element_warning!(context.element, gst::ResourceError::Read, ("{text}"), ["{text}"]);
            self.reported_fault = Some(fault);
        }
    }

    /// Fills the time without a writer. Returns a buffer, if it fills the time with one.
    fn fill_absence(&mut self, context: Context) -> Option<gst::Buffer> {
        let (silence, latency_ns) = (self.format.silence.as_ref(), latency_ns(&self.reader));
        let buffer = absence::fill(context, silence, &self.events, &mut self.timing, latency_ns)?;
        self.events.begin_data(context);
        Some(buffer)
    }

    /// Warns once if the writer is in another time namespace, because the times of its frames are then wrong in this
    /// program.
    fn check_clock(&mut self, context: Context, frame: &Frame) {
        if let Some(lead) = self.timing.find_clock_lead(&self.reader, &frame.descriptor) {
            let (side, effect) = if lead > 0 {
                ("ahead of", "drop the frames as too late")
            } else {
                ("behind", "show each frame that much later")
            };
            let text = format!(
                "channel {}: CLOCK_MONOTONIC of this program is {} seconds {side} the writer's: the two are in different \
                 time namespaces, and sinks with sync=true {effect}; run both in one time namespace, or set \
                 do-timestamp=true",
                self.channel,
                (lead.unsigned_abs() + 500_000_000) / 1_000_000_000,
            );
            gst::element_warning!(context.element, gst::ResourceError::Settings, ("{text}"), ["{text}"]);
        }
    }

    /// Handles a result of the reader that is not a frame.
    fn handle_other(&mut self, context: Context, settings: &StreamSettings, next: Next) -> Result<(), gst::FlowError> {
        if matches!(next, Next::Lost | Next::Evicted | Next::EndOfStream) {
            self.format.stream_caps = None;
        }
        match next {
            Next::Interrupted => return Err(gst::FlowError::Flushing),
            Next::TimedOut => self.check_writer_wait(context, settings)?,
            Next::EndOfStream if settings.forward_eos => {
                gst::info!(CAT, obj = context.element, "the writer's stream ended");
                return Err(gst::FlowError::Eos);
            }
            Next::EndOfStream => {
                self.has_ended = true;
                gst::info!(
                    CAT,
                    obj = context.element,
                    "the writer's stream ended, waiting for another"
                );
            }
            Next::Lost => {
                self.writer_wait = WriterWait::start();
                if !self.has_ended {
                    self.lose_writer(context, settings.on_disconnect)?;
                }
            }
            Next::Evicted => {
                gst::element_warning!(
                    context.element,
                    gst::ResourceError::Failed,
                    (
                        "channel {}: this reader held more frames than its quota; the frames that it holds may have changed",
                        self.channel
                    )
                );
            }
            Next::Fault(fault) => self.report_fault(context, fault),
            Next::Event(event) => self.events.forward(context, &mut self.timing, &event),
            // The caller handles frames.
            _ => {}
        }
        Ok(())
    }

    /// After some time without a writer, shows the user which channels exist. Fails when the time-out is over.
    fn check_writer_wait(&mut self, context: Context, settings: &StreamSettings) -> Result<(), gst::FlowError> {
        let timeout = settings.connection_timeout;
        match self.writer_wait.due(self.reader.is_connected(), timeout) {
            Due::Nothing => Ok(()),
            Due::Hint => {
                let text = format!("waiting for channel {}; {}", self.channel, present_channels());
                post_info(context, gst::ResourceError::NotFound, &text);
                Ok(())
            }
            Due::Failure => {
                gst::element_error!(
                    context.element,
                    gst::ResourceError::NotFound,
                    (
                        "channel {} had no writer for {} seconds; {}",
                        self.channel,
                        timeout.as_secs(),
                        present_channels()
                    )
                );
                Err(gst::FlowError::Error)
            }
        }
    }

    /// Reacts to a writer that went away without an end of stream.
    fn lose_writer(&self, context: Context, on_disconnect: OnDisconnect) -> Result<(), gst::FlowError> {
        gst::info!(
            CAT,
            obj = context.element,
            "the writer of channel {} is gone",
            self.channel
        );
        match on_disconnect {
            OnDisconnect::None => Ok(()),
            OnDisconnect::Eos => Err(gst::FlowError::Eos),
            OnDisconnect::Error => {
                gst::element_error!(
                    context.element,
                    gst::ResourceError::Read,
                    ("the writer of channel {} went away", self.channel)
                );
                Err(gst::FlowError::Error)
            }
        }
    }

    /// Resumes after the pipeline went to PLAYING. Of the frames that were captured before this change, the pipeline
    /// gets only the newest.
    fn resume(&mut self, context: Context) {
        self.reader.seek_newest();
        lock(&context.shared.status).frames_skipped += u64::from(self.headers.drop_frame());
        self.timing.resume(context.element);
        self.is_first = true;
    }

    /// If the reader has moved to another segment, takes over the caps of that segment. Returns whether the reader has
    /// moved, and the same stream of the same writer continues there. Muxers set caps again when they know the headers of
    /// their stream, and some demuxers begin anew at a discontinuity.
    fn follow_caps(&mut self, context: Context) -> Result<bool, gst::FlowError> {
        let segment_changes = self.reader.segment_changes();
        if self.format.segment_changes == Some(segment_changes) {
            // Downstream may have changed during the wait for the frame.
            return match context.element.src_pad().needs_reconfigure() {
                true => negotiate(context).map(|()| false),
                false => Ok(false),
            };
        }
        // Another segment has other objects, even if their memory is the same.
        self.buffers.forget_objects();
        context.shared.keyframes.send_again(&self.reader.handle());
        if let Some(reason) = self.reader.observer_reason().filter(|_| !self.is_observer_reported) {
            self.is_observer_reported = true;
            let text = format!("channel {}: {reason}", self.channel);
            post_info(context, gst::ResourceError::Settings, &text);
        }
        let caps = caps::parse(self.reader.caps()).map_err(|what| {
            gst::element_error!(
                context.element,
                gst::StreamError::Format,
                ("channel {}: its segment is not usable: {what}", self.channel)
            );
            gst::FlowError::Error
        })?;
        let (stream_caps, writer_pid) = (caps::without_stream_headers(&caps), self.reader.stats().writer_pid);
        let is_same_stream =
            self.format.stream_caps.as_ref() == Some(&stream_caps) && self.format.writer_pid == writer_pid;
        self.format = Format {
            segment_changes: Some(segment_changes),
            info: caps::raw_video(&caps),
            audio: caps::raw_audio(&caps),
            opaque: OpaquePicture::of_caps(&caps),
            silence: Silence::of(&caps),
            stream_caps: Some(stream_caps),
            writer_pid,
        };
        if lock(&context.shared.caps).as_ref() == Some(&caps) {
            return Ok(is_same_stream);
        }
        self.timing.reset_format();
        self.headers = StreamHeaders::of_caps(&caps, &self.headers);
        lock(&context.shared.status).frame_duration = self.format.info.as_ref().and_then(frame_duration);
        *lock(&context.shared.caps) = Some(caps);
        negotiate(context).map(|()| is_same_stream)
    }

    /// Copies the state of the reader to the status that other threads read, and reports changes.
    fn update_status(&self, context: Context) {
        let connected = self.reader.is_connected();
        let latency_ns = latency_ns(&self.reader);
        let (connection_changed, latency_changed) = {
            let mut status = lock(&context.shared.status);
            let changed = (status.connected != connected, status.latency_ns != latency_ns);
            status.connected = connected;
            status.observes = self.reader.is_observer();
            status.latency_ns = latency_ns;
            status.history = self.reader.history();
            status.stats = self.reader.stats();
            changed
        };
        if connection_changed {
            context.element.notify("connected");
        }
        if latency_changed {
            gst::debug!(
                CAT,
                obj = context.element,
                "frames leave the writer {latency_ns} ns after their time"
            );
            let message = gst::message::Latency::builder().src(context.element).build();
            let _ = context.element.post_message(message);
        }
    }

    /// Posts a QoS message, because frames were skipped before `buffer`.
    fn post_qos(&self, context: Context, buffer: &gst::BufferRef) {
        let element = context.element;
        let now = element.current_running_time();
        // With do-timestamp, the buffer has no PTS yet, so its time is now.
        let Some(running) = buffer.pts().or(now) else {
            return;
        };
        let now = now.unwrap_or(running);
        // The jitter is the delay between the frame's time and its arrival.
        let jitter = now.nseconds() as i64 - running.nseconds() as i64;
        let stats = self.reader.stats();
        // The conversion fails only for the highest number, which means "none" in GStreamer.
        let frames = |count: u64| gst::format::Buffers::try_from(count).ok();
        let message = gst::message::Qos::builder(true)
            .src(element)
            .running_time(running)
            .stream_time(running)
            .timestamp(running)
            .duration(buffer.duration())
            .values(jitter, 1.0, 1_000_000)
            .stats(frames(stats.received), frames(stats.missed))
            .build();
        let _ = element.post_message(message);
    }
}

/// Posts an INFO message. Its text is also the debug text, because gst-launch-1.0 prints only the debug text.
fn post_info(context: Context, kind: gst::ResourceError, text: &str) {
    gst::element_info!(context.element, kind, ("{text}"), ["{text}"]);
}

/// Pushes the caps, and sends an ALLOCATION query downstream.
fn negotiate(context: Context) -> Result<(), gst::FlowError> {
    if context.element.negotiate() {
        return Ok(());
    }
    let pad_flags = context.element.src_pad().pad_flags();
    if pad_flags.contains(gst::PadFlags::FLUSHING) {
        return Err(gst::FlowError::Flushing);
    }
    Err(gst::FlowError::NotNegotiated)
}

/// The duration of a frame; `None` if the frame rate varies. Caps express a varying frame rate as 0/1.
fn frame_duration(info: &VideoInfo) -> Option<gst::ClockTime> {
    let (numerator, denominator) = (
        u64::try_from(info.fps().numer()).ok().filter(|rate| *rate != 0)?,
        u64::try_from(info.fps().denom()).ok()?,
    );
    // If each buffer is a single field, the frame rate is the rate of pairs of buffers.
    let buffers = if info.interlace_mode() == gst_video::VideoInterlaceMode::Alternate {
        2
    } else {
        1
    };
    gst::ClockTime::SECOND.mul_div_floor(denominator, numerator.checked_mul(buffers)?)
}
