/**
 * SECTION:element-rsshmsink
 * @see_also: rsshmsrc
 *
 * Publishes the frames of a pipeline, with their caps, into the named POSIX shared-memory segment of a channel. Any
 * number of #rsshmsrc elements in unrelated programs read them; they may start first, stop and crash as they like.
 *
 * ## Examples
 * ```bash
 * gst-launch-1.0 v4l2src ! video/x-raw,width=1280,height=720 ! rsshmsink name=cam0
 * gst-launch-1.0 rsshmsrc name=cam0 ! autovideosink
 * ```
 *
 * Since: plugins-rs-0.1
 */
use std::sync::{
    Arc, LazyLock, Mutex, Once,
    atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};
use gst_video::VideoInfo;
use rsshm_channel::{Caps, Error, FrameDescriptor, TIME_NONE, Writer};

use super::{
    monitor::Monitor,
    negotiation::Answer,
    pool::{Accepted, Pool},
    properties::{PROPERTIES, SIGNALS, Settings},
    publish::{Counts, Frame, Outcome},
};
use crate::{
    caps, error, events, frame,
    metas::{self, NO_SLOT_META},
    sync::lock,
    time::{self, Times},
    uri,
};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rsshmsink",
        gst::DebugColorFlags::empty(),
        Some("Shared memory channel sink"),
    )
});

/// Buffers that the pool announces it needs at least.
const MIN_BUFFERS: u32 = 2;

/// A wait for a connection that is shorter is none.
const HELD_UP: gst::ClockTime = gst::ClockTime::from_mseconds(5);

/// The channel, from NULL->READY to READY->NULL.
struct Session {
    writer: Arc<Writer>,
    monitor: Monitor,
}

/// What the stream is now.
struct Stream {
    segment: gst::FormattedSegment<gst::ClockTime>,
    /// `None` for all that is not raw video.
    info: Option<Arc<VideoInfo>>,
    clock_offset: time::ClockOffset,
    /// By how many nanoseconds the frames are later than their time stamps say, as nobody was there to take them.
    held_up: i64,
    /// Room for a frame's metas.
    metadata: Vec<u8>,
    events: events::Encoder,
    /// The next frame does not continue those before it.
    discont: bool,
    /// A frame came that can be decoded alone.
    has_key_units: bool,
}

impl Default for Stream {
    fn default() -> Self {
        Self {
            segment: gst::FormattedSegment::new(),
            info: None,
            clock_offset: time::ClockOffset::default(),
            held_up: 0,
            metadata: Vec::new(),
            events: events::Encoder::default(),
            discont: false,
            has_key_units: false,
        }
    }
}

impl Stream {
    /// Where the running time 0 of what has these times lies in CLOCK_MONOTONIC, for readers.
    fn origin(&mut self, element: &gst::Element, times: &Times) -> Option<i64> {
        // In the order in which they come.
        let origin = time::origin_at(element, &mut self.clock_offset, times.dts.or(times.pts));
        origin.map(|origin| origin.saturating_add(self.held_up))
    }
}

// Locks: each is held for a few lines, none while another is taken, and none during a call into the base class, a post,
// a notification or a wait.
#[derive(Default)]
pub struct RsShmSink {
    settings: Mutex<Settings>,
    session: Mutex<Option<Session>>,
    stream: Mutex<Stream>,
    accepted: Arc<Accepted>,
    upstream_is_live: AtomicBool,
    pub(super) answer: Mutex<Answer>,
    num_clients: AtomicU32,
    pub(super) counts: Counts,
}

impl RsShmSink {
    fn writer(&self) -> Option<Arc<Writer>> {
        lock(&self.session).as_ref().map(|session| Arc::clone(&session.writer))
    }

    /// The channel's name, for messages.
    pub(super) fn channel(&self) -> String {
        self.writer()
            .map_or_else(String::new, |writer| writer.name().to_string())
    }

    /// Takes note of how many readers there are; `true` when that is news.
    pub(super) fn set_num_clients(&self, count: u32) -> bool {
        self.num_clients.swap(count, Ordering::Relaxed) != count
    }

    /// Opens the channel.
    fn open(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let name = uri::channel_name(settings.channel.as_deref(), &self.obj().name())?;
        // A second time is a critical warning of GLib's.
        static NO_SLOT_META_REGISTERED: Once = Once::new();
        NO_SLOT_META_REGISTERED.call_once(|| gst::meta::CustomMeta::register(NO_SLOT_META, &[]));
        let opening = |error: &Error| error::message(error, gst::ResourceError::OpenWrite);
        let writer = Writer::open(name, settings.writer).map_err(|error| opening(&error))?;
        if let Some(what) = writer.replaced_damaged() {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Failed,
                (
                    "channel {}: the segment that was left there is not usable and was replaced: {what}",
                    writer.name()
                )
            );
        }
        let writer = Arc::new(writer);
        self.counts.reset();
        *lock(&self.stream) = Stream::default();
        self.pace(0);
        self.accepted.set(None);
        let monitor = Monitor::start(&self.obj(), &writer)
            .map_err(|error| gst::error_msg!(gst::ResourceError::Failed, ("no thread for the channel: {error}")))?;
        gst::info!(CAT, imp = self, "channel {} is open", writer.name());
        *lock(&self.session) = Some(Session { writer, monitor });
        Ok(())
    }

    /// Ends the channel.
    fn close(&self) {
        let session = lock(&self.session).take();
        if let Some(Session { writer, monitor }) = session {
            monitor.stop();
            writer.close();
        }
        if self.set_num_clients(0) {
            self.obj().notify("num-clients");
        }
    }

    /// Decides how frames are paced, and tells readers when to expect them.
    ///
    /// A live upstream's frames leave at once: the base class would hold each until its latency is over, and with it the
    /// streaming thread. So the base class's `sync` is this element's only when upstream is not live.
    fn update_latency(&self) {
        let obj = self.obj();
        let mut query = gst::query::Latency::new();
        let (live, min) = if obj.sink_pad().peer_query(&mut query) {
            let (live, min, _) = query.result();
            (live, min)
        } else {
            (false, gst::ClockTime::ZERO)
        };
        self.upstream_is_live.store(live, Ordering::Relaxed);
        let Settings { sync, ts_offset, .. } = *lock(&self.settings);
        obj.set_sync(sync && !live);
        // As properties: the bindings panic where one of them is "none", which a user may set.
        let nanoseconds = |property: &str| obj.property::<u64>(property);
        let latency = if live {
            min.nseconds().saturating_add(nanoseconds("processing-deadline"))
        } else if sync {
            let latency = i128::from(obj.latency().nseconds()) + i128::from(ts_offset);
            let latency = latency - i128::from(nanoseconds("render-delay"));
            u64::try_from(latency.max(0)).unwrap_or(u64::MAX)
        } else {
            0
        };
        gst::debug!(
            CAT,
            imp = self,
            "upstream is live: {live}; frames leave {latency} ns after their time"
        );
        if let Some(writer) = self.writer() {
            writer.set_latency_ns(latency);
        }
    }

    pub(super) fn fail(&self, error: &Error) -> gst::FlowError {
        let message = error::message(error, gst::ResourceError::Write);
        gst::error!(CAT, imp = self, "{error}");
        self.post_error_message(message);
        gst::FlowError::Error
    }

    /// Waits until somebody is there, where that is wanted; `false` when interrupted. `began` is the running time at which
    /// this buffer's wait did, once it has.
    fn wait_for_connection(
        &self,
        writer: &Writer,
        buffer: &gst::Buffer,
        info: Option<&VideoInfo>,
        began: &mut Option<gst::ClockTime>,
    ) -> Result<bool, gst::FlowError> {
        let wanted = || lock(&self.settings).wait_for_connection;
        if !wanted() || self.num_clients.load(Ordering::Relaxed) > 0 {
            return Ok(true);
        }
        if began.is_none() {
            *began = self.obj().current_running_time();
        }
        let size = info.map_or_else(|| buffer.size(), |info| info.size().max(buffer.size()));
        let may_go_on = writer
            .wait_for_reader(size, wanted)
            .map_err(|error| self.fail(&error))?;
        if !may_go_on {
            return Ok(false);
        }
        let now = self.obj().current_running_time();
        if let (Some(began), Some(now)) = (*began, now)
            && now.saturating_sub(began) >= HELD_UP
            && !self.upstream_is_live.load(Ordering::Relaxed)
        {
            self.catch_up(buffer, now);
        }
        Ok(true)
    }

    /// Makes this frame's time `now`, and all later ones later by as much: a file that waited for its first reader plays
    /// from there. Else everything up to now would be late, and would have no place in the reader's pipeline.
    fn catch_up(&self, buffer: &gst::BufferRef, now: gst::ClockTime) {
        let held_up = {
            let mut stream = lock(&self.stream);
            let Some(due) = Times::of_buffer(buffer, &stream.segment).pts else {
                return;
            };
            stream.held_up = (now.nseconds() as i64).saturating_sub(due).max(stream.held_up);
            stream.held_up
        };
        gst::debug!(CAT, imp = self, "frames are {held_up} ns later from here on");
        self.pace(held_up);
    }

    fn forget_held_up(&self) {
        lock(&self.stream).held_up = 0;
        self.pace(0);
    }

    /// Lets the base class wait for frames that are held up by so many nanoseconds.
    fn pace(&self, held_up: i64) {
        let ts_offset = lock(&self.settings).ts_offset;
        self.obj().set_ts_offset(ts_offset.saturating_add(held_up));
    }

    fn describe(&self, buffer: &gst::BufferRef) -> FrameDescriptor {
        let mut stream = lock(&self.stream);
        let times = Times::of_buffer(buffer, &stream.segment);
        let origin = stream.origin(self.obj().upcast_ref(), &times);
        let mut descriptor = frame::describe(buffer, times, origin);
        // v4l2src says of all that is neither raw video nor JPEG that it cannot be decoded alone, Bayer pictures among it.
        // A reader would wait for ever for one that can: until there has been one, nothing is said.
        stream.has_key_units |= !descriptor.is_delta();
        if !stream.has_key_units {
            descriptor.flags &= !gst::BufferFlags::DELTA_UNIT.bits();
        }
        if stream.discont {
            descriptor.flags |= gst::BufferFlags::DISCONT.bits();
        }
        descriptor
    }

    /// Tells readers of an event of the stream.
    fn tell(&self, event: events::Carried) {
        let (encoded, mut left_out) = match event {
            events::Carried::No => return,
            events::Carried::LeftOut(count) => return self.count_left_out(&self.counts.events_left_out, count),
            events::Carried::Yes(encoded, left_out) => (encoded, left_out),
        };
        let Some(writer) = self.writer() else {
            return;
        };
        if encoded.begins_stream {
            writer.forget_events();
        }
        let (time, duration) = {
            let mut stream = lock(&self.stream);
            let times = encoded.times(&stream.segment);
            let origin = stream.origin(self.obj().upcast_ref(), &times);
            (
                origin.map_or(TIME_NONE, |origin| time::to_absolute(times.pts, origin)),
                times.duration.unwrap_or(TIME_NONE),
            )
        };
        if let Err(error) = writer.publish_event(encoded.at(time, duration), encoded.place) {
            gst::info!(CAT, imp = self, "{error}");
            left_out += 1;
        }
        self.count_left_out(&self.counts.events_left_out, left_out);
    }

    /// Counts what does not travel, and says so the first time.
    fn count_left_out(&self, counter: &AtomicU64, count: u64) {
        if count > 0 && counter.fetch_add(count, Ordering::Relaxed) == 0 {
            gst::element_imp_warning!(
                self,
                gst::StreamError::Encode,
                (
                    "channel {}: some of what goes with the frames is too much for the channel, or of a kind that it does \
                     not take, and is left out; channel-stats counts it as metas-left-out and events-left-out",
                    self.channel()
                )
            );
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RsShmSink {
    const NAME: &'static str = "GstRsShmSink";
    type Type = super::RsShmSink;
    type ParentType = gst_base::BaseSink;
    type Interfaces = (gst::URIHandler,);
}

impl ObjectImpl for RsShmSink {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn signals() -> &'static [glib::subclass::Signal] {
        &SIGNALS
    }

    fn constructed(&self) {
        self.parent_constructed();
        // The last sample would keep a slot for as long as the stream stands still.
        self.obj().set_enable_last_sample(false);
        let weak = self.downgrade();
        let probe = move |_: &gst::Pad, info: &mut gst::PadProbeInfo| {
            if let (Some(event), Some(sink)) = (info.event(), weak.upgrade()) {
                sink.check_sent_caps(event);
            }
            gst::PadProbeReturn::Ok
        };
        self.obj()
            .sink_pad()
            .add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, probe);
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        let name = pspec.name();
        {
            let mut settings = lock(&self.settings);
            // The types are those of the properties' own specifications.
            match name {
                "channel" => settings.channel = value.get().unwrap_or_default(),
                "perms" => settings.writer.perms = value.get().unwrap_or_default(),
                "max-slots" => settings.writer.max_slots = value.get().unwrap_or_default(),
                "lossless" => settings.writer.lossless = value.get().unwrap_or_default(),
                "navigation" => settings.writer.accept_messages = value.get().unwrap_or_default(),
                "wait-for-connection" => settings.wait_for_connection = value.get().unwrap_or_default(),
                "sync" => settings.sync = value.get().unwrap_or_default(),
                "ts-offset" => settings.ts_offset = value.get().unwrap_or_default(),
                _ => {}
            }
        }
        if name == "sync" || name == "ts-offset" {
            let held_up = lock(&self.stream).held_up;
            self.pace(held_up);
            self.update_latency();
        } else if name != "wait-for-connection" && lock(&self.session).is_some() {
            gst::warning!(CAT, imp = self, "{name} takes effect at the next start");
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "channel" => settings.channel.to_value(),
            "perms" => settings.writer.perms.to_value(),
            "max-slots" => settings.writer.max_slots.to_value(),
            "lossless" => settings.writer.lossless.to_value(),
            "navigation" => settings.writer.accept_messages.to_value(),
            "wait-for-connection" => settings.wait_for_connection.to_value(),
            "sync" => settings.sync.to_value(),
            "ts-offset" => settings.ts_offset.to_value(),
            "num-clients" => self.num_clients.load(Ordering::Relaxed).to_value(),
            "channel-stats" => {
                let stats = self.writer().map(|writer| writer.stats()).unwrap_or_default();
                self.counts.with(&stats).to_value()
            }
            _ => pspec.default_value().clone(),
        }
    }
}

impl GstObjectImpl for RsShmSink {}

impl ElementImpl for RsShmSink {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Shared memory channel sink",
                "Sink/Video",
                "Shares frames with any number of other programs through POSIX shared memory",
                "The rsshm developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            gst::PadTemplate::new(
                "sink",
                gst::PadDirection::Sink,
                gst::PadPresence::Always,
                &gst::Caps::new_any(),
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }

    // Not in the base class's start(), which adds an error of its own, that says nothing, to ours.
    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            self.open().map_err(|message| {
                self.post_error_message(message);
                gst::StateChangeError
            })?;
        }
        if transition == gst::StateChange::ReadyToPaused {
            // Running time begins anew.
            self.forget_held_up();
            *lock(&self.answer) = Answer::None;
        }
        let changed = self.parent_change_state(transition);
        let ends = transition == gst::StateChange::ReadyToNull;
        if ends || (transition == gst::StateChange::NullToReady && changed.is_err()) {
            self.close();
        }
        changed
    }

    fn send_event(&self, event: gst::Event) -> bool {
        let is_latency = event.type_() == gst::EventType::Latency;
        let sent = self.parent_send_event(event);
        if is_latency {
            self.update_latency();
        }
        sent
    }
}

impl BaseSinkImpl for RsShmSink {
    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(writer) = self.writer() {
            writer.interrupt();
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(writer) = self.writer() {
            writer.resume();
        }
        Ok(())
    }

    fn caps(&self, filter: Option<&gst::Caps>) -> Option<gst::Caps> {
        let refusal = filter.and_then(|filter| caps::refusal_of_offer(filter));
        self.note_answer(refusal.as_deref());
        Some(caps::answer(filter))
    }

    fn set_caps(&self, caps: &gst::Caps) -> Result<(), gst::LoggableError> {
        let info = caps::raw_video(caps);
        let format = match &info {
            Some(info) => Caps::fixed_size(caps.to_string(), info.size()),
            None => Caps::variable_size(caps.to_string()),
        };
        let writer = self
            .writer()
            .ok_or_else(|| gst::loggable_error!(CAT, "the element is not started"))?;
        writer.set_caps(format);
        self.accepted.set(info.clone());
        {
            let mut stream = lock(&self.stream);
            stream.info = info.map(Arc::new);
            stream.has_key_units = false;
        }
        gst::debug!(CAT, imp = self, "caps are {caps}");
        self.update_latency();
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::AcceptCaps(accept) = query.view_mut() {
            // The base class would compare with the answer to an unfiltered CAPS query, which is a wish list.
            let refusal = caps::refusal(accept.caps());
            self.note_answer(refusal.as_deref());
            accept.set_result(refusal.is_none());
            return true;
        }
        BaseSinkImplExt::parent_query(self, query)
    }

    fn propose_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        let (caps, need_pool) = query.get_owned();
        let caps = caps.ok_or_else(|| gst::loggable_error!(CAT, "an ALLOCATION query without caps"))?;
        // Of all but raw video nobody knows beforehand how large a frame is.
        let Some(info) = caps::raw_video(&caps) else {
            return Ok(());
        };
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        // Not the crop: upstream would leave that to a reader's downstream, of which nobody here knows whether it crops.
        query.add_allocation_meta::<gst_video::VideoRegionOfInterestMeta>(None);
        query.add_allocation_meta::<gst::ReferenceTimestampMeta>(None);
        query.add_allocation_meta::<gst_video::VideoTimeCodeMeta>(None);
        let (Some(writer), Ok(size)) = (self.writer(), u32::try_from(info.size())) else {
            return Ok(());
        };
        if need_pool {
            let pool = Pool::new(&writer, &self.accepted, &caps, size)
                .map_err(|error| gst::loggable_error!(CAT, "{error}"))?;
            query.add_allocation_pool(Some(&pool), size, MIN_BUFFERS, 0);
        }
        Ok(())
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => {
                // Other formats have no times.
                lock(&self.stream).segment = segment
                    .segment()
                    .downcast_ref::<gst::ClockTime>()
                    .cloned()
                    .unwrap_or_default();
                self.parent_event(event)
            }
            gst::EventView::FlushStop(flush) => {
                // Running time begins anew.
                if flush.resets_time() {
                    self.forget_held_up();
                }
                lock(&self.stream).discont = true;
                self.parent_event(event)
            }
            gst::EventView::Eos(_) => {
                // The base class waits here until the last frame's time is over, then tells the application.
                let handled = self.parent_event(event);
                // Not when that was ended by a flush: the stream goes on elsewhere, or stops.
                if let Some(writer) = self.writer().filter(|_| handled) {
                    writer.end_of_stream();
                }
                handled
            }
            _ => {
                let carried = lock(&self.stream).events.encode(&event);
                // The base class waits here until the time of a gap is over.
                let handled = self.parent_event(event);
                if handled {
                    self.tell(carried);
                }
                handled
            }
        }
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let writer = self.writer().ok_or(gst::FlowError::Flushing)?;
        let (info, mut metadata) = {
            let mut stream = lock(&self.stream);
            (stream.info.clone(), std::mem::take(&mut stream.metadata))
        };
        let left_out = metas::encode(buffer, info.as_deref(), &mut metadata);
        self.count_left_out(&self.counts.metas_left_out, left_out);
        let rendered = self.render_with(&writer, buffer, &metadata, info.as_deref());
        lock(&self.stream).metadata = metadata;
        rendered
    }
}

impl RsShmSink {
    /// Publishes a buffer and the bytes that go with it, when it can be.
    fn render_with(
        &self,
        writer: &Writer,
        buffer: &gst::Buffer,
        metadata: &[u8],
        info: Option<&VideoInfo>,
    ) -> Result<gst::FlowSuccess, gst::FlowError> {
        let mut began = None;
        loop {
            let outcome = if self.wait_for_connection(writer, buffer, info, &mut began)? {
                let frame = Frame {
                    buffer,
                    descriptor: self.describe(buffer),
                    metadata,
                    info,
                };
                self.publish(writer, frame)?
            } else {
                Outcome::Interrupted
            };
            match outcome {
                Outcome::Published => {
                    lock(&self.stream).discont = false;
                    return Ok(gst::FlowSuccess::Ok);
                }
                Outcome::Dropped => return Ok(gst::FlowSuccess::Ok),
                // Going to PAUSED: the frame waits there. Flushing: this returns so.
                Outcome::Interrupted => self.obj().wait_preroll()?,
            };
        }
    }
}

impl URIHandlerImpl for RsShmSink {
    const URI_TYPE: gst::URIType = gst::URIType::Sink;

    fn protocols() -> &'static [&'static str] {
        uri::PROTOCOLS
    }

    fn uri(&self) -> Option<String> {
        lock(&self.settings).channel.as_deref().map(uri::from_name)
    }

    fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
        let name = uri::to_name(uri)?;
        self.obj().set_property("channel", name);
        Ok(())
    }
}
