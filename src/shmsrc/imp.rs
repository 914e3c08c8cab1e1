// SPDX-License-Identifier: MIT OR Apache-2.0

/**
 * SECTION:element-rsshmsrc
 * @see_also: rsshmsink
 *
 * Reads the frames that an #rsshmsink in another program publishes under the same channel name. The element may start
 * before the other program. When the other program is restarted, the element continues with the new frames, even if
 * their caps differ.
 *
 * The element is always live, and reports the latency that the writer announces.
 *
 * ## Examples
 *
 * Show the channel "cam0" in a window:
 * ```bash
 * gst-launch-1.0 rsshmsrc name=cam0 ! autovideosink
 * ```
 *
 * Always process the newest frame, even if the processing of a frame takes long:
 * ```bash
 * gst-launch-1.0 rsshmsrc name=cam0 max-buffers=1 ! fakesink
 * ```
 *
 * Since: 0.1
 */
use std::sync::{
    Arc, LazyLock, Mutex,
    atomic::{AtomicBool, Ordering},
};

use gst::{glib, glib::translate::IntoGlib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{base_src::CreateSuccess, prelude::*},
};
use rsshm_channel::{Reader, ReaderHandle};

use super::{
    CAT,
    convert::Output,
    events::send_to_writer,
    properties::PROPERTIES,
    shared::{Context, Shared, Status},
    stream::Stream,
};
use crate::{caps, dmabuf, element, sync::lock, uri};

// The comment at `Shared` also gives the rule for the locks of this type.
#[derive(Default)]
pub struct RsShmSrc {
    shared: Shared,
    /// The state of the streaming thread. It is in a box, because each call of `create` moves it out of the mutex and
    /// back.
    stream: Mutex<Option<Box<Stream>>>,
    /// A handle of the reader, for threads other than the streaming thread.
    handle: Mutex<Option<ReaderHandle>>,
    /// Whether the pad probe of [`Self::drop_allocation_queries_without_caps`] is installed. All accesses are Relaxed,
    /// because no other data depends on the flag.
    has_probe: Arc<AtomicBool>,
}

impl RsShmSrc {
    fn handle(&self) -> Option<ReaderHandle> {
        lock(&self.handle).clone()
    }

    /// Sends `event`, which came from downstream, to the writer; `None` if it is not meant for the writer.
    fn send_to_writer(&self, event: &gst::EventRef) -> Option<bool> {
        let obj = self.obj();
        send_to_writer(obj.upcast_ref(), &self.shared, || self.handle(), event)
    }

    /// Drops ALLOCATION queries without caps, because some elements crash at such a query. The base class sends such a
    /// query, because it negotiates before the caps are known.
    fn drop_allocation_queries_without_caps(&self) {
        // If no caps came after the last start, the probe of that start is still installed.
        if self.has_probe.swap(true, Ordering::Relaxed) {
            return;
        }
        let has_probe = Arc::clone(&self.has_probe);
        let probe = move |_: &gst::Pad, info: &mut gst::PadProbeInfo| match info.query().map(|query| query.view()) {
            Some(gst::QueryView::Allocation(query)) if query.get().0.is_none() => gst::PadProbeReturn::Drop,
            Some(gst::QueryView::Allocation(_)) => {
                has_probe.store(false, Ordering::Relaxed);
                gst::PadProbeReturn::Remove
            }
            _ => gst::PadProbeReturn::Ok,
        };
        self.obj()
            .src_pad()
            .add_probe(gst::PadProbeType::QUERY_DOWNSTREAM | gst::PadProbeType::PUSH, probe);
    }

    /// The error to post instead of the base class's `message`; `None` if `message` is not an error of negotiation.
    fn explain_not_negotiated(&self, message: &gst::MessageRef) -> Option<gst::Message> {
        let gst::MessageView::Error(error) = message.view() else {
            return None;
        };
        let flow = error.details()?.get::<i32>("flow-return").ok()?;
        if flow != gst::FlowReturn::NotNegotiated.into_glib() {
            return None;
        }
        let obj = self.obj();
        let (channel, may_convert) = {
            let settings = lock(&self.shared.settings);
            (settings.channel.clone(), settings.stream.convert)
        };
        let caps = lock(&self.shared.caps).clone();
        let text = format!(
            "downstream does not accept the caps of channel {}; {}",
            channel.as_deref().unwrap_or(&obj.name()),
            caps::remedy_for_reader(caps.as_deref(), may_convert)
        );
        gst::error!(CAT, imp = self, "{text}: {caps:?}");
        let error = gst::message::Error::builder(gst::CoreError::Negotiation, &text).src(&*obj);
        Some(
            error
                .debug_if_some(caps.map(|caps| caps.to_string()).as_deref())
                .build(),
        )
    }

    /// The value of `channel-stats`.
    fn stats(&self) -> gst::Structure {
        let Status {
            stats,
            skipped_metas,
            events_refused,
            frames_skipped,
            converted,
            ..
        } = *lock(&self.shared.status);
        gst::Structure::builder("rsshm-src-stats")
            .field("frames-received", stats.received)
            .field("frames-in-place", stats.in_place)
            .field("frames-copied", stats.copied)
            .field("frames-converted", converted)
            .field("frames-skipped", frames_skipped)
            .field("frames-missed", stats.missed)
            .field("writer-pid", stats.writer_pid)
            .field("events-missed", stats.events_missed)
            .field("events-refused", events_refused)
            .field("reconnects", stats.reconnects)
            .field("metas-refused", skipped_metas.refused)
            .field("metas-unknown", skipped_metas.unknown)
            .build()
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RsShmSrc {
    const NAME: &'static str = "GstRsShmSrc";
    type Type = super::RsShmSrc;
    type ParentType = gst_base::PushSrc;
    type Interfaces = (gst::URIHandler,);
}

impl ObjectImpl for RsShmSrc {
    fn properties() -> &'static [glib::ParamSpec] {
        &PROPERTIES
    }

    fn constructed(&self) {
        self.parent_constructed();
        let obj = self.obj();
        obj.set_live(true);
        obj.set_format(gst::Format::Time);
    }

    fn set_property(&self, _id: usize, value: &glib::Value, pspec: &glib::ParamSpec) {
        lock(&self.shared.settings).set(pspec.name(), value);
        if pspec.name() == "convert" {
            self.obj().src_pad().mark_reconfigure();
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        match pspec.name() {
            "connected" => lock(&self.shared.status).connected.to_value(),
            "channel-stats" => self.stats().to_value(),
            name => {
                let value = lock(&self.shared.settings).get(name);
                value.unwrap_or_else(|| pspec.default_value().clone())
            }
        }
    }
}

impl GstObjectImpl for RsShmSrc {}

impl ElementImpl for RsShmSrc {
    fn metadata() -> Option<&'static gst::subclass::ElementMetadata> {
        static METADATA: LazyLock<gst::subclass::ElementMetadata> = LazyLock::new(|| {
            gst::subclass::ElementMetadata::new(
                "Shared memory channel source",
                "Source/Video",
                "Reads the frames that another program shares through POSIX shared memory",
                "The rsshm developers",
            )
        });
        Some(&METADATA)
    }

    fn pad_templates() -> &'static [gst::PadTemplate] {
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> =
            LazyLock::new(|| element::pad_template(gst::PadDirection::Src));
        &TEMPLATES
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => {
                let channel = lock(&self.shared.settings).channel.clone();
                if let Err(message) = element::channel_name(channel.as_deref(), &self.obj().name()) {
                    self.post_error_message(message);
                    return Err(gst::StateChangeError);
                }
            }
            gst::StateChange::PausedToPlaying => self.shared.resume(),
            _ => {}
        }
        self.parent_change_state(transition)
    }

    /// Replaces the base class's error for caps that downstream does not accept, because that error names no remedy.
    /// The error cannot be posted earlier, because pushed caps count as accepted until downstream refuses the next
    /// buffer.
    fn post_message(&self, message: gst::Message) -> bool {
        self.parent_post_message(self.explain_not_negotiated(&message).unwrap_or(message))
    }

    /// Refuses seeks, because the base class would first flush, and only then find that the element cannot seek.
    fn send_event(&self, event: gst::Event) -> bool {
        match self.send_to_writer(&event) {
            Some(sent) => sent,
            None => event.type_() != gst::EventType::Seek && self.parent_send_event(event),
        }
    }
}

impl BaseSrcImpl for RsShmSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.shared.settings).clone();
        let name = element::channel_name(settings.channel.as_deref(), &self.obj().name())?;
        let channel = name.to_string();
        let stream = Stream::new(Reader::new(name, settings.reader), channel);
        *lock(&self.handle) = Some(stream.handle());
        *lock(&self.shared.status) = Status::default();
        *lock(&self.shared.caps) = None;
        self.shared.keyframes.reset();
        *lock(&self.shared.output) = None;
        self.drop_allocation_queries_without_caps();
        *lock(&self.stream) = Some(Box::new(stream));
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.handle) = None;
        let stream = lock(&self.stream).take();
        drop(stream);
        let was_connected = std::mem::take(&mut lock(&self.shared.status).connected);
        if was_connected {
            self.obj().notify("connected");
        }
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(handle) = self.handle() {
            handle.interrupt();
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        if let Some(handle) = self.handle() {
            handle.resume();
        }
        Ok(())
    }

    fn event(&self, event: &gst::Event) -> bool {
        match self.send_to_writer(event) {
            Some(sent) => sent,
            None => BaseSrcImplExt::parent_event(self, event),
        }
    }

    fn is_seekable(&self) -> bool {
        false
    }

    /// Succeeds before the first frame, because there are no caps to negotiate yet. `create` then waits for the caps.
    fn negotiate(&self) -> Result<(), gst::LoggableError> {
        let caps = lock(&self.shared.caps).clone();
        let Some(caps) = caps else {
            return Ok(());
        };
        let (may_convert, may_hold) = {
            let settings = lock(&self.shared.settings).stream;
            (settings.convert, settings.limits.max_held > 0)
        };
        let present = self.shared.conversion();
        let output = Output::choose(self.obj().src_pad(), &caps, may_convert, may_hold, present);
        let caps = output.caps.clone();
        self.shared.set_gives_dmabufs(dmabuf::has_feature(&caps));
        *lock(&self.shared.output) = Some(output);
        gst::info!(CAT, imp = self, "caps are {caps}");
        self.obj()
            .set_caps(&caps)
            .map_err(|_| gst::loggable_error!(CAT, "downstream does not accept {caps}"))
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        let takes_meta = query.find_allocation_meta::<gst_video::VideoMeta>().is_some();
        let conversion = self.shared.conversion();
        // The converter reads each frame in the layout of its GstVideoMeta.
        self.shared
            .set_downstream_takes_video_meta(takes_meta || conversion.is_some());
        if let Some(conversion) = conversion {
            conversion.configure_pool(query, takes_meta);
            return self.parent_decide_allocation(query);
        }
        // Frames are in shared memory already. If downstream proposed a pool, the base class would activate the pool
        // and never use it.
        while query.allocation_pools().len() > 0 {
            query.remove_nth_allocation_pool(0);
        }
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
            let status = *lock(&self.shared.status);
            // With do-timestamp, the timestamp is the time of arrival, so there is no latency.
            let latency_ns = if self.obj().does_timestamp() {
                0
            } else {
                status.latency_ns
            };
            let min = gst::ClockTime::from_nseconds(latency_ns);
            // A frame survives `history` more publishes, so the source may deliver it up to `history` frame durations
            // later.
            let max = status
                .frame_duration
                .and_then(|duration| duration.checked_mul(status.history.into()))
                .and_then(|reach| min.checked_add(reach));
            latency.set(true, min, max);
            return true;
        }
        BaseSrcImplExt::parent_query(self, query)
    }
}

impl PushSrcImpl for RsShmSrc {
    fn create(&self, _buffer: Option<&mut gst::BufferRef>) -> Result<CreateSuccess, gst::FlowError> {
        let Some(mut stream) = lock(&self.stream).take() else {
            return Err(gst::FlowError::Flushing);
        };
        let obj = self.obj();
        let context = Context {
            element: obj.upcast_ref(),
            shared: &self.shared,
            // The event does not go through the element's own `send_event`, because `send_event` takes the lock that a
            // state change holds.
            queue_event: &|event| {
                self.parent_send_event(event);
            },
        };
        let buffer = stream.next_buffer(context);
        *lock(&self.stream) = Some(stream);
        buffer.map(CreateSuccess::NewBuffer)
    }
}

impl URIHandlerImpl for RsShmSrc {
    const URI_TYPE: gst::URIType = gst::URIType::Src;

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
