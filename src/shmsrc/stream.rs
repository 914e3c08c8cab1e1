//! What the source's streaming thread does: it waits for frames, follows the channel's caps, and makes buffers.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use gst::{prelude::*, subclass::prelude::*};
use gst_base::prelude::*;
use gst_video::VideoInfo;
use rsshm_channel::{CopyTarget, Frame, FrameData, FrameDescriptor, Next, Reader};

use super::{
    OnDisconnect,
    events::WaitingEvents,
    imp::{CAT, RsShmSrc},
    properties::StreamSettings,
    timeline::{Arrival, Timeline},
};
use crate::{caps, error, events, frame, metas, planes::Planes, sync::lock, time};

/// After so long without a writer, a message says which channels there are.
const HINT_AFTER: Duration = Duration::from_secs(3);

/// A greater latency than this is not believed: another program wrote it, and sinks would wait for so long.
const MAX_LATENCY_NS: u64 = 60_000_000_000;

/// What the streaming thread works with. It is taken out of its mutex for the length of a call, so that nothing is
/// locked while that waits, notifies or negotiates.
pub(super) struct Stream {
    pub(super) reader: Reader,
    channel: String,
    /// The reader's generation that `info` is of.
    segment_changes: Option<u64>,
    info: Option<VideoInfo>,
    pub(super) clock_offset: time::ClockOffset,
    metas: metas::Decoder,
    pub(super) events: events::Decoder,
    /// A new segment goes out before the next buffer.
    pub(super) segment_due: bool,
    pub(super) waiting_events: WaitingEvents,
    waiting: Waiting,
    ahead: Ahead,
    pub(super) timeline: Timeline,
    /// The next frame is the first since the pipeline went to PLAYING.
    first: bool,
    /// The next frame does not follow the one that was passed on last.
    discont: bool,
    /// There are frames that need others to be decoded.
    has_deltas: bool,
    /// The writer's stream ended and none followed: that it goes away then is not a loss.
    ended: bool,
    observer_told: bool,
}

impl Stream {
    pub(super) fn new(reader: Reader, channel: String) -> Self {
        Self {
            reader,
            channel,
            segment_changes: None,
            info: None,
            clock_offset: time::ClockOffset::default(),
            metas: metas::Decoder::default(),
            events: events::Decoder::default(),
            segment_due: false,
            waiting_events: WaitingEvents::default(),
            waiting: Waiting::start(),
            ahead: Ahead::default(),
            timeline: Timeline::default(),
            first: true,
            discont: false,
            has_deltas: false,
            ended: false,
            observer_told: false,
        }
    }
}

/// What is made ready before the wait for a frame, as the way from there to downstream is to be short.
#[derive(Default)]
struct Ahead {
    /// Stamps are the base class's.
    does_timestamp: bool,
    /// The pipeline runs on CLOCK_MONOTONIC.
    is_on_monotonic: bool,
    /// For a frame in place.
    buffer: Option<gst::Buffer>,
}

/// PTS and DTS.
type Stamps = (Option<gst::ClockTime>, Option<gst::ClockTime>);

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
            self.prepare(stream);
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
                    stream.discont |= frame.discontinuity || frame.missed > 0;
                    let copied = copy.0.map(gst::buffer::MappedBuffer::into_buffer);
                    let missed = frame.missed;
                    if let Some(buffer) = self.wrap(stream, frame, copied)? {
                        if missed > 0 {
                            self.post_qos(stream, &buffer);
                        }
                        self.begin_data(stream);
                        return Ok(buffer);
                    }
                }
            }
        }
    }

    /// Does before the wait what can be done then.
    fn prepare(&self, stream: &mut Stream) {
        let element = self.obj();
        let ahead = &mut stream.ahead;
        ahead.does_timestamp = element.does_timestamp();
        ahead.is_on_monotonic = time::is_on_monotonic(element.upcast_ref(), &mut stream.clock_offset);
        ahead.buffer.get_or_insert_default();
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
        stream.timeline.resume(now.unwrap_or(0));
        stream.first = true;
    }

    /// Takes over the caps of the segment that the last frame came from, when it is another than before.
    fn follow_caps(&self, stream: &mut Stream) -> Result<(), gst::FlowError> {
        let segment_changes = stream.reader.segment_changes();
        if stream.segment_changes == Some(segment_changes) {
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
        stream.segment_changes = Some(segment_changes);
        let caps = self.completed(caps);
        let is_news = lock(&self.caps).as_ref() != Some(&caps);
        if !is_news {
            return Ok(());
        }
        gst::info!(CAT, imp = self, "caps are {caps}");
        stream.has_deltas = false;
        lock(&self.snapshot).frame_duration = stream.info.as_ref().and_then(frame_duration);
        *lock(&self.caps) = Some(caps.clone());
        // The base class pushes the caps and asks downstream anew what it can take.
        if !self.obj().negotiate() {
            if self.obj().src_pad().pad_flags().contains(gst::PadFlags::FLUSHING) {
                return Err(gst::FlowError::Flushing);
            }
            return Err(gst::FlowError::NotNegotiated);
        }
        Ok(())
    }

    /// `caps` as downstream takes them. Sinks that know the shape of the screen's pixels want to be told the picture's, and
    /// cameras often say nothing of it.
    fn completed(&self, caps: gst::Caps) -> gst::Caps {
        let takes = |caps: &gst::Caps| self.obj().src_pad().peer_query_accept_caps(caps);
        if takes(&caps) {
            return caps;
        }
        caps::with_square_pixels(&caps).filter(takes).unwrap_or(caps)
    }

    /// Makes a buffer of a frame; `None` when it has no place in this pipeline.
    fn wrap(
        &self,
        stream: &mut Stream,
        frame: Frame,
        copied: Option<gst::Buffer>,
    ) -> Result<Option<gst::Buffer>, gst::FlowError> {
        let descriptor = frame.descriptor;
        let (pts, dts) = match self.times(stream, &descriptor) {
            Some(times) => times,
            None => {
                stream.discont = true;
                gst::trace!(
                    CAT,
                    imp = self,
                    "frame {} is from before this pipeline's time",
                    frame.seq
                );
                return Ok(None);
            }
        };
        let mut buffer = match frame.data {
            FrameData::InPlace(pinned) => {
                let mut buffer = stream.ahead.buffer.take().unwrap_or_default();
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
                    frame.seq
                );
                return Ok(None);
            }
            if planes != Planes::default_of(info) {
                buffer = self.with_layout(buffer, &planes, info)?;
            }
        }
        let target = buffer.make_mut();
        frame::apply(target, &descriptor);
        let refused = stream.metas.decode(&frame.metadata, stream.info.as_ref(), target);
        if refused > 0 {
            gst::debug!(
                CAT,
                imp = self,
                "frame {}: {refused} of its metas are not what they may be",
                frame.seq
            );
        }
        target.set_pts(pts);
        target.set_dts(dts);
        if std::mem::take(&mut stream.discont) || stream.first {
            target.set_flags(gst::BufferFlags::DISCONT);
        }
        stream.first = false;
        gst::trace!(CAT, imp = self, "frame {}: {buffer:?}", frame.seq);
        Ok(Some(buffer))
    }

    /// A frame's PTS and DTS in this pipeline; `None` when it has no place there.
    fn times(&self, stream: &mut Stream, descriptor: &FrameDescriptor) -> Option<Stamps> {
        // do-timestamp: the base class stamps what has no stamp.
        if stream.ahead.does_timestamp {
            return Some((None, None));
        }
        let element = self.obj();
        // Acquire: pairs with the store when the pipeline goes to PLAYING, maybe with another clock.
        let origin = if stream.ahead.is_on_monotonic && !self.resumed.load(Ordering::Acquire) {
            Some(time::base_time(element.upcast_ref()))
        } else {
            time::origin(element.upcast_ref(), &mut stream.clock_offset)
        };
        // Without a clock there is no running time, and buffers have no time stamps.
        let Some(origin) = origin else {
            return Some((None, None));
        };
        let flags = gst::BufferFlags::from_bits_truncate(descriptor.flags);
        stream.has_deltas =
            stream.info.is_none() && (stream.has_deltas || flags.contains(gst::BufferFlags::DELTA_UNIT));
        let running = |absolute| time::to_running(absolute, origin);
        let (pts, dts) = (running(descriptor.pts), running(descriptor.dts));
        let in_order = if stream.has_deltas { dts } else { pts };
        let shift_before = stream.timeline.shift();
        let shift = match in_order.or(pts).or(dts) {
            None => 0,
            Some(running) => stream.timeline.place(&Arrival {
                time: origin.saturating_add(running),
                running,
                now: (rsshm_channel::monotonic_ns() as i64).saturating_sub(origin),
                first: stream.first,
                latency: latency_ns(&stream.reader) as i64,
                in_order: in_order.is_some(),
                may_be_skipped: !stream.has_deltas,
            })?,
        };
        if shift != shift_before {
            gst::debug!(
                CAT,
                imp = self,
                "from here on frames are {shift} ns later than their time"
            );
        }
        let stamp = |running: Option<i64>| {
            running.map(|running| gst::ClockTime::from_nseconds(running.saturating_add(shift).max(0) as u64))
        };
        Some((stamp(pts), stamp(dts)))
    }

    /// A buffer whose planes are not where the format's default has them: said by a VideoMeta where downstream
    /// understands that, else copied into the default layout.
    fn with_layout(
        &self,
        mut buffer: gst::Buffer,
        planes: &Planes,
        info: &VideoInfo,
    ) -> Result<gst::Buffer, gst::FlowError> {
        if self.downstream_takes_video_meta.load(Ordering::Relaxed) && planes.fit_whole_strides(info, buffer.size()) {
            planes
                .add_meta(buffer.make_mut(), info)
                .map_err(|_| gst::FlowError::Error)?;
            return Ok(buffer);
        }
        let copy = || -> Result<gst::Buffer, String> {
            let mut copy = gst::Buffer::with_size(info.size()).map_err(|error| error.to_string())?;
            let mut map = copy.make_mut().map_writable().map_err(|error| error.to_string())?;
            planes.copy_packed(&buffer, info, &mut map, |from, to| to.copy_from_slice(from))?;
            drop(map);
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
        let latency_ns = latency_ns(&stream.reader);
        let (connection_changed, latency_changed) = {
            let mut snapshot = lock(&self.snapshot);
            let changed = (snapshot.connected != connected, snapshot.latency_ns != latency_ns);
            snapshot.connected = connected;
            snapshot.latency_ns = latency_ns;
            snapshot.history = stream.reader.history();
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

/// So much later than their time stamps frames leave the writer.
fn latency_ns(reader: &Reader) -> u64 {
    reader.latency_ns().min(MAX_LATENCY_NS)
}

/// How long a frame lasts; `None` where the rate varies, which is said as 0/1.
fn frame_duration(info: &VideoInfo) -> Option<gst::ClockTime> {
    let (numerator, denominator) = (
        u64::try_from(info.fps().numer()).ok().filter(|rate| *rate != 0)?,
        u64::try_from(info.fps().denom()).ok()?,
    );
    // Where each buffer is a field, the rate is that of two of them.
    let buffers = if info.interlace_mode() == gst_video::VideoInterlaceMode::Alternate {
        2
    } else {
        1
    };
    gst::ClockTime::SECOND.mul_div_floor(denominator, numerator.checked_mul(buffers)?)
}

fn present_channels() -> String {
    match rsshm_channel::channels() {
        names if names.is_empty() => "there is no channel at all".to_owned(),
        names => format!("present: {}", names.join(", ")),
    }
}
