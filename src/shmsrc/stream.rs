//! What the source's streaming thread does: it waits for frames, follows the channel's caps, and makes buffers.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::prelude::*;
use gst_video::VideoInfo;
use rsshm_channel::{CopyTarget, Frame, FrameData, Next, Reader};

use super::{
    OnDisconnect,
    imp::{CAT, RsShmSrc},
    properties::StreamSettings,
};
use crate::{caps, error, events, frame, frame::Planes, metas, sync::lock, time};

/// After so long without a writer, a message says which channels there are.
const HINT_AFTER: Duration = Duration::from_secs(3);

/// For so long, in nanoseconds, frames come that were captured before this pipeline's time. Whose frames are older than
/// that is simply late (too slow for its frame rate, say), and is shown as such.
const LATE_AT_FIRST: i64 = 1_000_000_000;

/// A greater latency than this is not believed: another program wrote it, and sinks would wait for so long.
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// What the streaming thread works with. It is taken out of its mutex for the length of a call, so that nothing is
/// locked while that waits, notifies or negotiates.
pub(super) struct Stream {
    pub(super) reader: Reader,
    channel: String,
    /// The reader's generation that `info` is of.
    generation: Option<u64>,
    info: Option<VideoInfo>,
    pub(super) clock_offset: time::ClockOffset,
    metas: metas::Decoder,
    pub(super) events: events::Decoder,
    /// A new segment goes out before the next buffer.
    pub(super) segment_due: bool,
    waiting: Waiting,
    /// Frames from before this running time have no place in this pipeline.
    pub(super) earliest: i64,
    /// The next frame is shown even if it is older than that.
    first: bool,
    /// Running time of the last frame.
    last: i64,
    /// The writer's stream ended and none followed: that it goes away then is not a loss.
    ended: bool,
    observer_told: bool,
}

impl Stream {
    pub(super) fn new(reader: Reader, channel: String) -> Self {
        Self {
            reader,
            channel,
            generation: None,
            info: None,
            clock_offset: time::ClockOffset::default(),
            metas: metas::Decoder::default(),
            events: events::Decoder::default(),
            segment_due: false,
            waiting: Waiting::start(),
            earliest: 0,
            first: true,
            last: 0,
            ended: false,
            observer_told: false,
        }
    }
}

/// How long there has been no writer.
struct Waiting {
    since: Instant,
    hinted: bool,
}

impl Waiting {
    fn start() -> Self {
        Self {
            since: Instant::now(),
            hinted: false,
        }
    }
}

/// A buffer that a frame is copied into.
#[derive(Default)]
struct CopyBuffer(Option<gst::buffer::MappedBuffer<gst::buffer::Writable>>);

impl CopyTarget for CopyBuffer {
    fn prepare(&mut self, size: usize) -> Option<&mut [u8]> {
        if self.0.as_ref().is_none_or(|buffer| buffer.size() != size) {
            self.0 = gst::Buffer::with_size(size)
                .ok()
                .and_then(|buffer| buffer.into_mapped_buffer_writable().ok());
        }
        self.0.as_mut().map(|buffer| buffer.as_mut_slice())
    }
}

impl RsShmSrc {
    /// Waits for the next buffer.
    pub(super) fn next_buffer(&self, stream: &mut Stream) -> Result<gst::Buffer, gst::FlowError> {
        loop {
            let settings = lock(&self.settings).stream;
            if self.resumed.swap(false, Ordering::AcqRel) {
                self.resume(stream);
            }
            let mut copy = CopyBuffer::default();
            let next = stream
                .reader
                .next(&mut copy, settings.limits, Some(self.patience(stream, &settings)));
            self.update_snapshot(stream);
            match next {
                Err(error) => {
                    gst::error!(CAT, imp = self, "{error}");
                    self.post_error_message(error::message(&error, gst::ResourceError::OpenRead));
                    return Err(gst::FlowError::Error);
                }
                Ok(Next::Interrupted) => return Err(gst::FlowError::Flushing),
                Ok(Next::TimedOut) => self.check_patience(stream, &settings)?,
                Ok(Next::EndOfStream) if settings.forward_eos => {
                    gst::info!(CAT, imp = self, "the writer's stream ended");
                    return Err(gst::FlowError::Eos);
                }
                Ok(Next::EndOfStream) => {
                    stream.ended = true;
                    gst::info!(CAT, imp = self, "the writer's stream ended, waiting for another");
                }
                Ok(Next::Lost) if stream.ended => stream.waiting = Waiting::start(),
                Ok(Next::Lost) => {
                    stream.waiting = Waiting::start();
                    self.lost(stream, settings.on_disconnect)?;
                }
                Ok(Next::Evicted) => {
                    gst::element_imp_warning!(
                        self,
                        gst::ResourceError::Failed,
                        (
                            "channel {}: this reader held more frames than it was granted; those it holds may have changed",
                            stream.channel
                        )
                    );
                }
                Ok(Next::Event(event)) => self.pass_on(stream, &event),
                Ok(Next::Frame(frame)) => {
                    stream.ended = false;
                    self.follow_caps(stream)?;
                    let copied = copy.0.map(gst::buffer::MappedBuffer::into_buffer);
                    let missed = frame.missed;
                    if let Some(buffer) = self.wrap(stream, frame, copied)? {
                        if missed > 0 {
                            self.post_qos(stream, &buffer);
                        }
                        stream.segment_due = false;
                        return Ok(buffer);
                    }
                }
            }
        }
    }

    /// How long to wait before there is something to say.
    fn patience(&self, stream: &Stream, settings: &StreamSettings) -> Duration {
        const NOTHING_TO_SAY: Duration = Duration::from_secs(3600);
        if stream.reader.is_connected() {
            return NOTHING_TO_SAY;
        }
        let waited = stream.waiting.since.elapsed();
        let hint = (!stream.waiting.hinted).then(|| HINT_AFTER.saturating_sub(waited));
        let timeout =
            (!settings.connection_timeout.is_zero()).then(|| settings.connection_timeout.saturating_sub(waited));
        hint.into_iter()
            .chain(timeout)
            .min()
            .unwrap_or(NOTHING_TO_SAY)
            .max(Duration::from_millis(1))
    }

    /// Says what a user should know who waits for a writer, and gives up when that is wanted.
    fn check_patience(&self, stream: &mut Stream, settings: &StreamSettings) -> Result<(), gst::FlowError> {
        if stream.reader.is_connected() {
            return Ok(());
        }
        let waited = stream.waiting.since.elapsed();
        if !settings.connection_timeout.is_zero() && waited >= settings.connection_timeout {
            gst::element_imp_error!(
                self,
                gst::ResourceError::NotFound,
                (
                    "channel {} had no writer for {} seconds; {}",
                    stream.channel,
                    settings.connection_timeout.as_secs(),
                    present_channels()
                )
            );
            return Err(gst::FlowError::Error);
        }
        if !stream.waiting.hinted && waited >= HINT_AFTER {
            stream.waiting.hinted = true;
            self.tell(
                gst::ResourceError::NotFound,
                &format!("waiting for channel {}; {}", stream.channel, present_channels()),
            );
        }
        Ok(())
    }

    /// Posts an INFO message, with the text also where gst-launch-1.0 prints it from.
    fn tell(&self, kind: gst::ResourceError, text: &str) {
        gst::element_imp_info!(self, kind, ("{text}"), ["{text}"]);
    }

    fn lost(&self, stream: &Stream, on_disconnect: OnDisconnect) -> Result<(), gst::FlowError> {
        gst::info!(CAT, imp = self, "the writer of channel {} is gone", stream.channel);
        match on_disconnect {
            OnDisconnect::None => Ok(()),
            OnDisconnect::Eos => Err(gst::FlowError::Eos),
            OnDisconnect::Error => {
                gst::element_imp_error!(
                    self,
                    gst::ResourceError::Read,
                    ("the writer of channel {} went away", stream.channel)
                );
                Err(gst::FlowError::Error)
            }
        }
    }

    /// The pipeline went to PLAYING: what was captured while it did not play is not for it, but for the newest frame.
    fn resume(&self, stream: &mut Stream) {
        stream.reader.seek_newest();
        let origin = time::origin(self.obj().upcast_ref(), &mut stream.clock_offset);
        let now = origin.and_then(|origin| time::to_running(rsshm_channel::monotonic_ns(), origin));
        let now = now.unwrap_or(0);
        // The first time, the clock and the base time are the same but for the way here.
        // A frame may have come while the pipeline was pausing, and time has not got there yet. Of a writer whose frames are
        // from the far future, that is not waited for.
        let last = stream.last.min(now.saturating_add(LATE_AT_FIRST));
        stream.earliest = if stream.first { 0 } else { now.max(last) };
        stream.first = true;
    }

    /// Takes over the caps of the segment that the last frame came from, when it is another than before.
    fn follow_caps(&self, stream: &mut Stream) -> Result<(), gst::FlowError> {
        let generation = stream.reader.generation();
        if stream.generation == Some(generation) {
            return Ok(());
        }
        if let Some(reason) = stream.reader.observer_reason().filter(|_| !stream.observer_told) {
            stream.observer_told = true;
            self.tell(
                gst::ResourceError::Settings,
                &format!("channel {}: {reason}", stream.channel),
            );
        }
        let caps = caps::parse(stream.reader.caps()).map_err(|what| {
            gst::element_imp_error!(
                self,
                gst::StreamError::Format,
                ("channel {}: its segment is not usable: {what}", stream.channel)
            );
            gst::FlowError::Error
        })?;
        stream.info = caps::raw_video(&caps);
        stream.generation = Some(generation);
        let is_news = lock(&self.caps).as_ref() != Some(&caps);
        if !is_news {
            return Ok(());
        }
        gst::info!(CAT, imp = self, "caps are {caps}");
        lock(&self.snapshot).frame_duration = stream.info.as_ref().and_then(frame_duration);
        *lock(&self.caps) = Some(caps.clone());
        // The base class pushes the caps and asks downstream anew what it can take. It does not hear of a refusal: that
        // comes with the next buffer, as an error that says nothing.
        if !self.obj().src_pad().peer_query_accept_caps(&caps) || !self.obj().negotiate() {
            if self.obj().src_pad().pad_flags().contains(gst::PadFlags::FLUSHING) {
                return Err(gst::FlowError::Flushing);
            }
            gst::element_imp_error!(
                self,
                gst::CoreError::Negotiation,
                (
                    "downstream does not take what channel {} carries; put videoconvert after this element (or the decoder \
                     it needs)",
                    stream.channel
                ),
                ["{caps}"]
            );
            return Err(gst::FlowError::NotNegotiated);
        }
        Ok(())
    }

    /// Makes a buffer of a frame; `None` when it has no place in this pipeline.
    fn wrap(
        &self,
        stream: &mut Stream,
        frame: Frame,
        copied: Option<gst::Buffer>,
    ) -> Result<Option<gst::Buffer>, gst::FlowError> {
        let descriptor = frame.descriptor;
        let obj = self.obj();
        let origin = time::origin(obj.upcast_ref(), &mut stream.clock_offset);
        // Without a clock there is no running time, and buffers have no time stamps.
        let running = |absolute| origin.and_then(|origin| time::to_running(absolute, origin));
        let (mut pts, mut dts) = (running(descriptor.pts), running(descriptor.dts));
        let first = stream.first;
        if pts.or(dts).is_some_and(|time| time < stream.earliest) {
            let now = running(rsshm_channel::monotonic_ns()).unwrap_or(i64::MAX);
            if !first && now.saturating_sub(stream.earliest) < LATE_AT_FIRST {
                gst::trace!(
                    CAT,
                    imp = self,
                    "frame {} is from before this pipeline's time",
                    frame.number
                );
                return Ok(None);
            }
            pts = pts.map(|_| stream.earliest);
            dts = dts.map(|_| stream.earliest);
        }
        let mut buffer = match frame.data {
            FrameData::InPlace(pinned) => {
                let mut buffer = gst::Buffer::new();
                if let Some(buffer) = buffer.get_mut() {
                    buffer.append_memory(gst::Memory::from_slice(pinned));
                }
                buffer
            }
            FrameData::Copied => copied.ok_or(gst::FlowError::Error)?,
        };
        if let Some(info) = &stream.info {
            let planes = Planes::of_descriptor(&descriptor, info);
            if !planes.fit(info, buffer.size()) {
                gst::warning!(
                    CAT,
                    imp = self,
                    "frame {} is not of the size its caps say: {descriptor:?}",
                    frame.number
                );
                return Ok(None);
            }
            if planes != Planes::default_of(info) {
                buffer = self.with_layout(buffer, &planes, info)?;
            }
        }
        let target = buffer.make_mut();
        frame::apply(target, &descriptor);
        let refused = stream.metas.decode(&frame.extra, stream.info.as_ref(), target);
        if refused > 0 {
            gst::debug!(
                CAT,
                imp = self,
                "frame {}: {refused} of its metas are not what they may be",
                frame.number
            );
        }
        // do-timestamp: the base class stamps what has no stamp.
        if !obj.does_timestamp() {
            let time = |time: Option<i64>| time.map(|time| gst::ClockTime::from_nseconds(time.max(0) as u64));
            target.set_pts(time(pts));
            target.set_dts(time(dts));
        }
        if frame.discontinuity || frame.missed > 0 || first {
            target.set_flags(gst::BufferFlags::DISCONT);
        }
        stream.first = false;
        stream.last = pts.or(dts).unwrap_or(0).max(stream.last);
        gst::trace!(CAT, imp = self, "frame {}: {buffer:?}", frame.number);
        Ok(Some(buffer))
    }

    /// A buffer whose planes are not where the format's default has them: said by a VideoMeta where downstream
    /// understands that, else copied into the default layout.
    fn with_layout(
        &self,
        mut buffer: gst::Buffer,
        planes: &Planes,
        info: &VideoInfo,
    ) -> Result<gst::Buffer, gst::FlowError> {
        planes
            .add_meta(buffer.make_mut(), info)
            .map_err(|_| gst::FlowError::Error)?;
        if self.downstream_takes_video_meta.load(Ordering::Relaxed) {
            return Ok(buffer);
        }
        let copy = || -> Result<gst::Buffer, glib::BoolError> {
            let mut copy = gst::Buffer::with_size(info.size())?;
            let from = gst_video::VideoFrameRef::from_buffer_ref_readable(&buffer, info)?;
            let mut to = gst_video::VideoFrameRef::from_buffer_ref_writable(copy.make_mut(), info)?;
            from.copy(&mut to)?;
            drop(to);
            Ok(copy)
        };
        copy().map_err(|error| {
            gst::element_imp_error!(self, gst::ResourceError::Read, ("a frame could not be copied: {error}"));
            gst::FlowError::Error
        })
    }

    /// Takes over what others may ask for, and tells them what is new.
    fn update_snapshot(&self, stream: &Stream) {
        let connected = stream.reader.is_connected();
        let latency_ns = stream.reader.latency_ns().min(MAX_LATENCY_NS);
        let (connection_changed, latency_changed) = {
            let mut snapshot = lock(&self.snapshot);
            let changed = (snapshot.connected != connected, snapshot.latency_ns != latency_ns);
            snapshot.connected = connected;
            snapshot.latency_ns = latency_ns;
            snapshot.retain = stream.reader.retain();
            snapshot.stats = stream.reader.stats();
            changed
        };
        if connection_changed {
            self.obj().notify("connected");
        }
        if latency_changed {
            gst::debug!(
                CAT,
                imp = self,
                "frames leave the writer {latency_ns} ns after their time"
            );
            self.post_message(gst::message::Latency::builder().src(&*self.obj()).build());
        }
    }
}

fn frame_duration(info: &VideoInfo) -> Option<gst::ClockTime> {
    let (numerator, denominator) = (
        u64::try_from(info.fps().numer()).ok()?,
        u64::try_from(info.fps().denom()).ok()?,
    );
    gst::ClockTime::SECOND.mul_div_floor(denominator, numerator)
}

fn present_channels() -> String {
    match rsshm_channel::channels() {
        names if names.is_empty() => "there is no channel at all".to_owned(),
        names => format!("present: {}", names.join(", ")),
    }
}
