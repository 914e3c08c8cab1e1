// SPDX-License-Identifier: MIT OR Apache-2.0

/**
 * SECTION:element-rsshmsink
 * @see_also: rsshmsrc
 *
 * Publishes the frames of a pipeline, with their caps, on a named channel in POSIX shared memory. Any number of
 * #rsshmsrc elements in unrelated programs can read these frames. Readers may start before the sink, and may stop or
 * crash at any time.
 *
 * Upstream elements that take their buffers from the sink's pool draw directly into shared memory, so nothing is
 * copied. A frame in memory that upstream allocated itself is copied once.
 *
 * ## Examples
 *
 * Publish a camera as the channel "cam0", and show it in another program:
 * ```bash
 * gst-launch-1.0 v4l2src ! video/x-raw,width=1280,height=720 ! rsshmsink name=cam0
 * gst-launch-1.0 rsshmsrc name=cam0 ! autovideosink
 * ```
 *
 * Open the camera only while somebody reads; five seconds after the last reader has left, it is closed:
 * ```bash
 * gst-launch-1.0 v4l2src ! rsshmsink name=cam0 on-demand=true
 * ```
 *
 * Publish a file at the speed of its reader, so that the reader misses no frame:
 * ```bash
 * gst-launch-1.0 filesrc location=film.mp4 ! decodebin ! rsshmsink name=work lossless=true wait-for-connection=true sync=false
 * ```
 *
 * Since: 0.1
 */
use std::sync::{Arc, LazyLock, Mutex};

use gst::{glib, prelude::*, subclass::prelude::*};
use gst_base::{prelude::*, subclass::prelude::*};
use gst_video::VideoInfo;
use rsshm_channel::{Caps, Error, ServiceThread, Writer};

use super::{
    CAT,
    descriptors::Descriptors,
    ending::Ending,
    keyframes::KeyframeForwarder,
    negotiation::Negotiation,
    on_demand::{OnDemand, OnDemandThread},
    pacing::Pacing,
    pool::{CurrentFormat, Pool},
    preroll::Preroll,
    properties::{Effect, PROPERTIES, SIGNALS, Settings},
    service::{self, ClientCount},
    stats::Counters,
    stream::Stream,
};
use crate::{caps, dmabuf, element, error, pipeline, shmsrc::RsShmSrc, sync::lock, uri};

mod render;

/// The minimum number of buffers that the sink announces for its pool.
const MIN_BUFFERS: u32 = 2;
/// This number for caps with the feature memory:DMABuf: the newest frame, two that readers hold, and one that is on
/// its way back. A driver that cannot add buffers later allocates them for this number.
const MIN_BUFFERS_BY_DESCRIPTOR: u32 = 4;

/// The default of `processing-deadline`, which a live writer adds to the latency that it announces. A publish takes at
/// most 2 ms, so the 20 ms of the base class would only make readers show every frame later.
const PROCESSING_DEADLINE: gst::ClockTime = gst::ClockTime::from_mseconds(5);

/// The open channel. It exists from the state change NULL->READY to the state change READY->NULL.
struct Session {
    writer: Arc<Writer>,
    service: ServiceThread,
    on_demand: Option<OnDemandThread>,
}

// A thread holds each lock for a few lines only, and takes no other lock while it holds one. It holds no lock while it
// calls the base class, posts a message, notifies or waits.
#[derive(Default)]
pub struct RsShmSink {
    settings: Mutex<Settings>,
    session: Mutex<Option<Session>>,
    stream: Mutex<Stream>,
    current_format: Arc<CurrentFormat>,
    negotiation: Negotiation,
    pacing: Pacing,
    preroll: Preroll,
    ending: Ending,
    clients: Arc<ClientCount>,
    on_demand: Arc<OnDemand>,
    keyframes: Arc<KeyframeForwarder>,
    counters: Counters,
    descriptors: Descriptors,
}

/// Methods for the channel and its readers.
impl RsShmSink {
    fn base(&self) -> gst_base::BaseSink {
        self.obj().clone().upcast()
    }

    fn writer(&self) -> Option<Arc<Writer>> {
        lock(&self.session).as_ref().map(|session| Arc::clone(&session.writer))
    }

    /// Takes the caps of upstream's pad if upstream sends no caps before its frames. The muxers of libav send none,
    /// but their pads have only one format.
    fn adopt_caps_of_upstream(&self) {
        let pad = self.obj().sink_pad().clone();
        if pad.current_caps().is_some() {
            return;
        }
        let caps = pad.peer_query_caps(None);
        // Without fixed caps, the first frame fails with an error that says so.
        if caps.is_fixed()
            && caps::refusal(&caps).is_none()
            && let Err(error) = self.set_caps(&caps)
        {
            error.log_with_imp(self);
        }
    }

    /// Opens the channel.
    fn open(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let name = element::channel_name(settings.channel.as_deref(), &self.obj().name())?;
        let writer = Writer::open(name, settings.writer)
            .map_err(|error| error::message(&error, gst::ResourceError::OpenWrite))?;
        if let Some(what) = writer.replaced_damaged() {
            gst::element_imp_warning!(
                self,
                gst::ResourceError::Failed,
                (
                    "channel {}: the segment left by an earlier writer was not usable and was replaced: {what}",
                    writer.name()
                )
            );
        }
        let writer = Arc::new(writer);
        self.counters.reset();
        self.descriptors.reset(settings.descriptors);
        *lock(&self.stream) = Stream::default();
        self.keyframes.reset();
        self.set_delay(0);
        self.current_format.set(None);
        let no_thread = |error: std::io::Error| {
            gst::error_msg!(
                gst::ResourceError::Failed,
                ("channel {}: a thread cannot be started: {error}", writer.name())
            )
        };
        // The service thread reports readers to the other one, so that one starts first.
        let on_demand = settings
            .on_demand
            .then(|| OnDemandThread::start(&self.base(), &writer, &self.on_demand, settings.idle_timeout()))
            .transpose()
            .map_err(no_thread)?;
        let peers = service::Peers {
            clients: Arc::clone(&self.clients),
            on_demand: Arc::clone(&self.on_demand),
            keyframes: Arc::clone(&self.keyframes),
        };
        let service = match service::start(&self.base(), &writer, peers) {
            Ok(service) => service,
            Err(error) => {
                on_demand.into_iter().for_each(OnDemandThread::stop);
                return Err(no_thread(error));
            }
        };
        gst::info!(CAT, imp = self, "channel {} is open", writer.name());
        *lock(&self.session) = Some(Session {
            writer,
            service,
            on_demand,
        });
        Ok(())
    }

    /// Whether a thread closes and opens the sources.
    fn is_on_demand(&self) -> bool {
        lock(&self.session)
            .as_ref()
            .is_some_and(|session| session.on_demand.is_some())
    }

    /// Closes the channel.
    fn close(&self) {
        let session = lock(&self.session).take();
        if let Some(Session {
            writer,
            service,
            on_demand,
        }) = session
        {
            on_demand.into_iter().for_each(OnDemandThread::stop);
            // The result is ignored, because it says only whether the thread panicked, and a panic prints its own
            // message.
            let _ = service.stop();
            writer.close();
        }
        self.clients.set(&self.base(), 0);
    }

    /// Posts an error message about `error`, an error of the channel.
    fn fail(&self, error: &Error) -> gst::FlowError {
        let message = error::message(error, gst::ResourceError::Write);
        gst::error!(CAT, imp = self, "{error}");
        self.post_error_message(message);
        gst::FlowError::Error
    }
}

/// Methods for the negotiation of caps.
impl RsShmSink {
    /// Records the answer to a query for caps. `refusal` is the reason if the sink accepts none of the caps in the
    /// query. A warning is posted if the first answer is a refusal.
    fn note_answer(&self, refusal: Option<&str>) {
        let Some(refusal) = refusal else {
            self.negotiation.record_offer();
            return;
        };
        gst::info!(CAT, imp = self, "{refusal}");
        if self.negotiation.record_refusal() {
            gst::element_imp_warning!(self, gst::StreamError::Format, ("{refusal}"));
        }
    }

    /// Posts an error if `event` announces caps that the channel cannot carry.
    ///
    /// A pad probe calls this function, because refused caps do not reach the element: the pad sends an ACCEPT_CAPS
    /// query, and then refuses the caps without giving a reason. The query alone does not show that upstream sends the
    /// caps, because any element may send an ACCEPT_CAPS query.
    fn check_sent_caps(&self, event: &gst::EventRef) {
        let gst::EventView::Caps(caps) = event.view() else {
            return;
        };
        let Some(refusal) = caps::refusal(caps.caps()) else {
            return;
        };
        gst::error!(CAT, imp = self, "{refusal}");
        if self.negotiation.record_error() {
            gst::element_imp_error!(self, gst::CoreError::Negotiation, ("{refusal}"), ["{}", caps.caps()]);
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
        // If the base class kept the last sample, the sample would occupy a slot while no frames flow.
        self.obj().set_enable_last_sample(false);
        self.obj().set_processing_deadline(PROCESSING_DEADLINE);
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
        let (effect, policy) = {
            let mut settings = lock(&self.settings);
            (settings.set(name, value), settings.descriptors)
        };
        if name == "descriptors" {
            self.descriptors.set_policy(policy);
        }
        match effect {
            Effect::AtOnce => {}
            Effect::AtStart => {
                if lock(&self.session).is_some() {
                    gst::warning!(CAT, imp = self, "{name} takes effect at the next start");
                }
            }
            Effect::Pacing => {
                let settings = lock(&self.settings).pacing;
                self.pacing.apply(self.obj().upcast_ref(), settings);
                self.update_latency();
            }
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "num-clients" => self.clients.get().to_value(),
            "channel-stats" => {
                let writer = self.writer();
                let stats = writer.as_ref().map(|writer| writer.stats()).unwrap_or_default();
                let space = writer.map(|writer| writer.space());
                self.counters.to_structure(&stats, space.as_ref()).to_value()
            }
            name => {
                let value = lock(&self.settings).get(name);
                value.unwrap_or_else(|| pspec.default_value().clone())
            }
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
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| element::pad_template(gst::PadDirection::Sink));
        &TEMPLATES
    }

    // The channel is opened here and not in `start`, because after an error in `start`, the base class posts a second
    // error without a useful text.
    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        if transition == gst::StateChange::NullToReady {
            self.open().map_err(|message| {
                self.post_error_message(message);
                gst::StateChangeError
            })?;
        }
        if transition == gst::StateChange::ReadyToPaused {
            // The running time begins again at 0, so the delay is reset.
            self.set_delay(0);
            self.negotiation.reset();
            let sources = pipeline::sources(self.obj().upcast_ref());
            self.ending.set(false);
            self.preroll
                .start(self.obj().upcast_ref(), &sources, self.is_on_demand());
            let has_channel_source = sources.iter().any(|source| source.is::<RsShmSrc>());
            self.pacing.set_ignores_latency(has_channel_source);
        }
        self.on_demand.record_transition(transition);
        let changed = self.parent_change_state(transition);
        // The thread that closes the source may still flush the sink in READY. If the sink prerolled then, it would wait
        // for a preroll that never comes.
        if transition == gst::StateChange::PausedToReady && !self.is_on_demand() {
            self.preroll.stop(self.obj().upcast_ref());
        }
        let ends = transition == gst::StateChange::ReadyToNull;
        if ends || (transition == gst::StateChange::NullToReady && changed.is_err()) {
            self.close();
            self.preroll.stop(self.obj().upcast_ref());
        }
        changed
    }

    /// Finds out whether upstream is live before the base class answers a LATENCY query. The base class would otherwise
    /// count this sink as one that waits for the time of each frame, and could warn that the pipeline needs queues.
    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if query.type_() == gst::QueryType::Latency && !self.pacing.upstream_is_live() {
            self.update_latency();
        }
        ElementImplExt::parent_query(self, query)
    }

    fn send_event(&self, event: gst::Event) -> bool {
        // The application has sent EOS to the pipeline, whose source may be closed.
        if event.type_() == gst::EventType::Eos && self.on_demand.record_eos(&event) {
            return true;
        }
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
        let caps = &dmabuf::for_channel(caps);
        let info = caps::raw_video(caps);
        let in_slots = dmabuf::mapped(caps).map(|mapped| match &info {
            Some(info) => Caps::fixed_size(mapped.to_string(), info.size()),
            None => Caps::variable_size(mapped.to_string()),
        });
        let writer = self
            .writer()
            .ok_or_else(|| gst::loggable_error!(CAT, "the element is not started"))?;
        writer
            .set_caps(self.descriptors.set_caps(in_slots, caps))
            .map_err(|error| gst::loggable_error!(CAT, "{error}"))?;
        self.current_format.set(info.clone());
        // After a seek, an encoded stream begins before its segment, with the keyframe that the decoder needs. The base
        // class would drop these frames.
        self.obj().set_drop_out_of_segment(!caps::is_encoded(caps));
        lock(&self.stream).set_format(caps, info);
        gst::debug!(CAT, imp = self, "caps are {caps}");
        self.update_latency();
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::AcceptCaps(accept) = query.view_mut() {
            // The base class would compare the caps with the answer to a CAPS query without a filter. This answer lists
            // only preferred caps, but the sink accepts others too.
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
        let is_dmabuf = dmabuf::has_feature(&caps);
        let info = caps::raw_video(&dmabuf::for_channel(&caps));
        // Only raw video has frames whose size is known before they arrive.
        if info.is_none() && !is_dmabuf {
            return Ok(());
        }
        query.add_allocation_meta::<gst_video::VideoMeta>(None);
        // The sink does not offer GstVideoCropMeta, because upstream would then leave the cropping to the elements
        // downstream of the readers. The sink does not know whether these elements crop.
        query.add_allocation_meta::<gst_video::VideoRegionOfInterestMeta>(None);
        query.add_allocation_meta::<gst::ReferenceTimestampMeta>(None);
        query.add_allocation_meta::<gst_video::VideoTimeCodeMeta>(None);
        let size = info.as_ref().map_or(0, VideoInfo::size);
        let (Some(writer), Ok(size)) = (self.writer(), u32::try_from(size)) else {
            return Ok(());
        };
        if is_dmabuf {
            // Without a pool, upstream takes its own, with so many buffers more.
            query.add_allocation_pool(None::<&gst::BufferPool>, size, MIN_BUFFERS_BY_DESCRIPTOR, 0);
        } else if need_pool {
            let pool = Pool::new(&writer, &self.current_format, &caps, size)
                .map_err(|error| gst::loggable_error!(CAT, "{error}"))?;
            query.add_allocation_pool(Some(&pool), size, MIN_BUFFERS, 0);
        }
        Ok(())
    }

    fn event(&self, event: gst::Event) -> bool {
        match event.view() {
            gst::EventView::Segment(segment) => {
                // The stream goes on, so the thread was not about to send EOS.
                self.ending.set(false);
                self.adopt_caps_of_upstream();
                lock(&self.stream).set_segment(segment);
                self.parent_event(event)
            }
            gst::EventView::FlushStop(flush) => {
                self.on_demand.record_begin();
                // The events belong to frames that were flushed.
                lock(&self.stream).take_held_events();
                // The running time begins again at 0, so the delay is reset.
                if flush.resets_time() {
                    self.set_delay(0);
                }
                lock(&self.stream).set_discont(true);
                self.parent_event(event)
            }
            gst::EventView::Eos(_) => {
                self.ending.set(false);
                if !self.on_demand.record_end() {
                    return true;
                }
                // `parent_event` waits until the time of the last frame is over, and then posts EOS.
                let handled = self.parent_event(event);
                // If a flush interrupted this wait, `handled` is false. The stream then continues at another position
                // or is stopped, so readers do not get an end of stream.
                if let Some(writer) = self.writer().filter(|_| handled) {
                    self.publish_held_events(&writer);
                    writer.end_of_stream();
                }
                handled
            }
            _ if self.keyframes.is_answer(&event) => self.parent_event(event),
            _ => {
                let encoded = lock(&self.stream).encode_event(&event);
                // If the event is a gap, `parent_event` waits until the time of the gap is over.
                let handled = self.parent_event(event);
                if handled {
                    self.publish_event(encoded);
                }
                handled
            }
        }
    }

    fn render(&self, buffer: &gst::Buffer) -> Result<gst::FlowSuccess, gst::FlowError> {
        let writer = self.writer().ok_or(gst::FlowError::Flushing)?;
        self.on_demand.record_frame();
        let (format, mut metadata) = lock(&self.stream).begin_frame();
        let rendered = self.render_buffer(&writer, buffer, &format, &mut metadata);
        lock(&self.stream).put_back(metadata);
        rendered
    }

    /// Publishes the buffers of a list. All of them together cost one wake of the readers.
    fn render_list(&self, list: &gst::BufferList) -> Result<gst::FlowSuccess, gst::FlowError> {
        let writer = self.writer().ok_or(gst::FlowError::Flushing)?;
        self.on_demand.record_frame();
        let _batch = writer.batch();
        let (format, mut metadata) = {
            let mut stream = lock(&self.stream);
            stream.begin_list(self.obj().upcast_ref());
            stream.begin_frame()
        };
        let rendered = list
            .iter_owned()
            .try_for_each(|buffer| self.render_buffer(&writer, &buffer, &format, &mut metadata).map(|_| ()));
        let mut stream = lock(&self.stream);
        stream.end_list();
        stream.put_back(metadata);
        rendered.map(|()| gst::FlowSuccess::Ok)
    }
}

impl URIHandlerImpl for RsShmSink {
    const URI_TYPE: gst::URIType = gst::URIType::Sink;

    fn protocols() -> &'static [&'static str] {
        uri::PROTOCOLS
    }

    fn uri(&self) -> Option<String> {
        uri::of_element(&*self.obj())
    }

    fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
        uri::set_on_element(&*self.obj(), uri)
    }
}
