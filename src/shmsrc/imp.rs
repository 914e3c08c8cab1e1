/**
 * SECTION:element-rsshmsrc
 * @see_also: rsshmsink
 *
 * Reads the frames that an #rsshmsink in another program publishes under the same channel name. It may start before that
 * program, and goes on when that is restarted, also with other caps.
 *
 * ## Examples
 * ```bash
 * gst-launch-1.0 rsshmsrc name=cam0 ! videoconvert ! autovideosink
 * ```
 *
 * Since: plugins-rs-0.1
 */
use std::{
    sync::{
        Arc, LazyLock, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use gst::{glib, glib::translate::IntoGlib, prelude::*, subclass::prelude::*};
use gst_base::{
    prelude::*,
    subclass::{base_src::CreateSuccess, prelude::*},
};
use rsshm_channel::{Reader, ReaderHandle, ReaderStats};

use super::{
    properties::{PROPERTIES, Settings},
    stream::Stream,
};
use crate::{sync::lock, uri};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rsshmsrc",
        gst::DebugColorFlags::empty(),
        Some("Shared memory channel source"),
    )
});

/// What others may ask for while the streaming thread is at work.
#[derive(Clone, Copy, Default)]
pub(super) struct Snapshot {
    pub(super) connected: bool,
    pub(super) stats: ReaderStats,
    pub(super) latency_ns: u64,
    pub(super) history: u32,
    pub(super) frame_duration: Option<gst::ClockTime>,
}

// Locks: each is held for a few lines, none while another is taken, and none during a call into the base class, a post,
// a notification or a wait.
#[derive(Default)]
pub struct RsShmSrc {
    pub(super) settings: Mutex<Settings>,
    /// In a box, as it is taken out and put back with each frame.
    stream: Mutex<Option<Box<Stream>>>,
    /// For other threads than the streaming one.
    pub(super) handle: Mutex<Option<ReaderHandle>>,
    pub(super) snapshot: Mutex<Snapshot>,
    pub(super) caps: Mutex<Option<gst::Caps>>,
    pub(super) downstream_takes_video_meta: AtomicBool,
    has_probe: Arc<AtomicBool>,
    /// The pipeline went to PLAYING: the next frame is the newest.
    pub(super) resumed: AtomicBool,
}

impl RsShmSrc {
    /// Keeps the base class, which negotiates before there are caps, from asking downstream for memory for no caps:
    /// there are elements that do not survive it.
    fn ask_no_allocation_without_caps(&self) {
        // A start that has seen no caps leaves it behind for the next.
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

    /// What to say instead of an error which only says that something was not negotiated.
    fn downstream_refuses(&self, message: &gst::MessageRef) -> Option<gst::Message> {
        let gst::MessageView::Error(error) = message.view() else {
            return None;
        };
        let flow = error.details()?.get::<i32>("flow-return").ok()?;
        if flow != gst::FlowReturn::NotNegotiated.into_glib() {
            return None;
        }
        let obj = self.obj();
        let channel = lock(&self.settings).channel.clone();
        let text = format!(
            "downstream does not take what channel {} carries; put videoconvert after this element (or the decoder it needs)",
            channel.as_deref().unwrap_or(&obj.name())
        );
        let caps = lock(&self.caps).clone();
        gst::error!(CAT, imp = self, "{text}: {caps:?}");
        let error = gst::message::Error::builder(gst::CoreError::Negotiation, &text).src(&*obj);
        Some(
            error
                .debug_if_some(caps.map(|caps| caps.to_string()).as_deref())
                .build(),
        )
    }

    fn stats(&self) -> gst::Structure {
        let stats = lock(&self.snapshot).stats;
        gst::Structure::builder("rsshm-src-stats")
            .field("frames-received", stats.received)
            .field("frames-in-place", stats.in_place)
            .field("frames-copied", stats.copied)
            .field("frames-missed", stats.missed)
            .field("writer-pid", stats.writer_pid)
            .field("events-missed", stats.events_missed)
            .field("reconnects", stats.reconnects)
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
        let mut settings = lock(&self.settings);
        // The types are those of the properties' own specifications.
        match pspec.name() {
            "channel" => settings.channel = value.get().unwrap_or_default(),
            "max-buffers" => settings.stream.limits.max_behind = value.get().unwrap_or_default(),
            "max-held-buffers" => settings.stream.limits.max_held = value.get().unwrap_or_default(),
            "on-disconnect" => settings.stream.on_disconnect = value.get().unwrap_or_default(),
            "forward-eos" => settings.stream.forward_eos = value.get().unwrap_or_default(),
            "connection-timeout" => {
                let seconds: u32 = value.get().unwrap_or_default();
                settings.stream.connection_timeout = Duration::from_secs(seconds.into());
            }
            "read-only" => settings.reader.read_only = value.get().unwrap_or_default(),
            _ => {}
        }
    }

    fn property(&self, _id: usize, pspec: &glib::ParamSpec) -> glib::Value {
        let settings = lock(&self.settings).clone();
        match pspec.name() {
            "channel" => settings.channel.to_value(),
            "max-buffers" => settings.stream.limits.max_behind.to_value(),
            "max-held-buffers" => settings.stream.limits.max_held.to_value(),
            "on-disconnect" => settings.stream.on_disconnect.to_value(),
            "forward-eos" => settings.stream.forward_eos.to_value(),
            "connection-timeout" => (settings.stream.connection_timeout.as_secs() as u32).to_value(),
            "read-only" => settings.reader.read_only.to_value(),
            "connected" => lock(&self.snapshot).connected.to_value(),
            "channel-stats" => self.stats().to_value(),
            _ => pspec.default_value().clone(),
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
        static TEMPLATES: LazyLock<Vec<gst::PadTemplate>> = LazyLock::new(|| {
            gst::PadTemplate::new(
                "src",
                gst::PadDirection::Src,
                gst::PadPresence::Always,
                &gst::Caps::new_any(),
            )
            .into_iter()
            .collect()
        });
        &TEMPLATES
    }

    fn change_state(&self, transition: gst::StateChange) -> Result<gst::StateChangeSuccess, gst::StateChangeError> {
        match transition {
            gst::StateChange::NullToReady => {
                let channel = lock(&self.settings).channel.clone();
                if let Err(message) = uri::channel_name(channel.as_deref(), &self.obj().name()) {
                    self.post_error_message(message);
                    return Err(gst::StateChangeError);
                }
            }
            // Release: pairs with the streaming thread's swap.
            gst::StateChange::PausedToPlaying => self.resumed.store(true, Ordering::Release),
            _ => {}
        }
        self.parent_change_state(transition)
    }

    /// What the base class says where downstream does not take the caps helps nobody. It cannot be said before: pushed caps
    /// count as taken, until the buffer that follows them is not.
    fn post_message(&self, message: gst::Message) -> bool {
        self.parent_post_message(self.downstream_refuses(&message).unwrap_or(message))
    }

    /// The base class flushes for a seek that is sent to the element itself, and only then finds that it cannot.
    fn send_event(&self, event: gst::Event) -> bool {
        match self.send_upstream(&event) {
            Some(sent) => sent,
            None => event.type_() != gst::EventType::Seek && self.parent_send_event(event),
        }
    }
}

impl BaseSrcImpl for RsShmSrc {
    fn start(&self) -> Result<(), gst::ErrorMessage> {
        let settings = lock(&self.settings).clone();
        let name = uri::channel_name(settings.channel.as_deref(), &self.obj().name())?;
        let channel = name.to_string();
        let reader = Reader::new(name, settings.reader);
        *lock(&self.handle) = Some(reader.handle());
        *lock(&self.snapshot) = Snapshot::default();
        *lock(&self.caps) = None;
        self.ask_no_allocation_without_caps();
        *lock(&self.stream) = Some(Box::new(Stream::new(reader, channel)));
        Ok(())
    }

    fn stop(&self) -> Result<(), gst::ErrorMessage> {
        *lock(&self.handle) = None;
        let stream = lock(&self.stream).take();
        drop(stream);
        let was_connected = std::mem::take(&mut lock(&self.snapshot).connected);
        if was_connected {
            self.obj().notify("connected");
        }
        Ok(())
    }

    fn unlock(&self) -> Result<(), gst::ErrorMessage> {
        let handle = lock(&self.handle).clone();
        if let Some(handle) = handle {
            handle.interrupt();
        }
        Ok(())
    }

    fn unlock_stop(&self) -> Result<(), gst::ErrorMessage> {
        let handle = lock(&self.handle).clone();
        if let Some(handle) = handle {
            handle.resume();
        }
        Ok(())
    }

    fn event(&self, event: &gst::Event) -> bool {
        match self.send_upstream(event) {
            Some(sent) => sent,
            None => BaseSrcImplExt::parent_event(self, event),
        }
    }

    fn is_seekable(&self) -> bool {
        false
    }

    /// Before the first frame there are no caps to negotiate: that is no error, create() waits for them.
    fn negotiate(&self) -> Result<(), gst::LoggableError> {
        let caps = lock(&self.caps).clone();
        let Some(caps) = caps else {
            return Ok(());
        };
        self.obj()
            .set_caps(&caps)
            .map_err(|_| gst::loggable_error!(CAT, "downstream does not take {caps}"))
    }

    fn decide_allocation(&self, query: &mut gst::query::Allocation) -> Result<(), gst::LoggableError> {
        let takes_meta = query.find_allocation_meta::<gst_video::VideoMeta>().is_some();
        self.downstream_takes_video_meta.store(takes_meta, Ordering::Relaxed);
        // Frames are in shared memory already: a pool of downstream's would be activated for nothing.
        while query.allocation_pools().len() > 0 {
            query.remove_nth_allocation_pool(0);
        }
        Ok(())
    }

    fn query(&self, query: &mut gst::QueryRef) -> bool {
        if let gst::QueryViewMut::Latency(latency) = query.view_mut() {
            let snapshot = *lock(&self.snapshot);
            // Frames that are stamped on arrival come at their time.
            let latency_ns = if self.obj().does_timestamp() {
                0
            } else {
                snapshot.latency_ns
            };
            let min = gst::ClockTime::from_nseconds(latency_ns);
            // So much later a frame can still be had from the channel.
            let max = snapshot
                .frame_duration
                .and_then(|duration| duration.checked_mul(snapshot.history.into()))
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
        let buffer = self.next_buffer(&mut stream);
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
        lock(&self.settings).channel.as_deref().map(uri::from_name)
    }

    fn set_uri(&self, uri: &str) -> Result<(), glib::Error> {
        let name = uri::to_name(uri)?;
        self.obj().set_property("channel", name);
        Ok(())
    }
}
