//! Finds the channels, and tells when they come and go.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use rsshm_channel::{ChannelName, Observer, Watch, WatchStop};

use crate::{caps, sync::lock};

pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "rsshmdeviceprovider",
        gst::DebugColorFlags::empty(),
        Some("Shared memory channels as devices"),
    )
});

/// How often channels are looked at that are listed, also when nothing tells of a change.
const LOOK: Duration = Duration::from_secs(1);

/// A channel that is not there for so long is gone: it may have been looked at while another segment took its name.
const GONE: Duration = Duration::from_millis(300);

/// The thread that follows the channels.
struct Follower {
    stop: WatchStop,
    thread: JoinHandle<()>,
}

#[derive(Default)]
pub struct RsShmDeviceProvider {
    follower: Mutex<Option<Follower>>,
}

/// What a channel is now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Channel {
    caps: gst::Caps,
    writer: u32,
}

impl Channel {
    /// Looks at a channel; `None` without a living writer.
    fn look(name: &str) -> Option<Self> {
        let observer = Observer::open(&ChannelName::new(name).ok()?).ok()??;
        Some(Self {
            caps: caps::parse(observer.caps()).ok()?,
            writer: observer.header().writer_pid,
        })
    }

    /// The channels that have a living writer.
    fn all() -> BTreeMap<String, Self> {
        rsshm_channel::channels()
            .into_iter()
            .filter_map(|name| Self::look(&name).map(|channel| (name, channel)))
            .collect()
    }

    fn device(&self, name: &str) -> super::RsShmDevice {
        super::RsShmDevice::new(name, &self.caps, self.writer)
    }
}

/// A device that the application knows.
struct Listed {
    channel: Channel,
    device: super::RsShmDevice,
    missing_since: Option<Instant>,
}

#[derive(Default)]
struct List(BTreeMap<String, Listed>);

impl List {
    /// Tells the application what is new since the last time.
    fn update(&mut self, provider: &super::RsShmDeviceProvider) {
        let mut found = Channel::all();
        self.0.retain(|name, listed| {
            let Some(channel) = found.remove(name) else {
                let since = *listed.missing_since.get_or_insert_with(Instant::now);
                let is_gone = since.elapsed() >= GONE;
                if is_gone {
                    gst::debug!(CAT, obj = provider, "channel {name} is gone");
                    provider.device_remove(&listed.device);
                }
                return !is_gone;
            };
            listed.missing_since = None;
            if channel != listed.channel {
                gst::debug!(CAT, obj = provider, "channel {name} is another: {channel:?}");
                let device = channel.device(name);
                provider.device_changed(&device, &listed.device);
                (listed.channel, listed.device) = (channel, device);
            }
            true
        });
        for (name, channel) in found {
            gst::debug!(CAT, obj = provider, "channel {name} is there: {channel:?}");
            let device = channel.device(&name);
            provider.device_add(&device);
            let listed = Listed {
                channel,
                device,
                missing_since: None,
            };
            self.0.insert(name, listed);
        }
    }

    /// How long to wait for something to tell of a change.
    fn patience(&self, watch: &Watch) -> Duration {
        if self.0.values().any(|listed| listed.missing_since.is_some()) {
            GONE
        } else if self.0.is_empty() && watch.is_immediate() {
            Duration::from_secs(3600)
        } else {
            LOOK
        }
    }
}

#[glib::object_subclass]
impl ObjectSubclass for RsShmDeviceProvider {
    const NAME: &'static str = "GstRsShmDeviceProvider";
    type Type = super::RsShmDeviceProvider;
    type ParentType = gst::DeviceProvider;
}

impl ObjectImpl for RsShmDeviceProvider {}
impl GstObjectImpl for RsShmDeviceProvider {}

// Nothing here may panic: these functions are called by C code that a panic would end with the whole program.
impl DeviceProviderImpl for RsShmDeviceProvider {
    fn metadata() -> Option<&'static gst::subclass::DeviceProviderMetadata> {
        static METADATA: LazyLock<gst::subclass::DeviceProviderMetadata> = LazyLock::new(|| {
            gst::subclass::DeviceProviderMetadata::new(
                "Shared memory channel device provider",
                "Source/Video/Audio",
                "Lists the channels that have a writer",
                "The rsshm developers",
            )
        });
        Some(&METADATA)
    }

    fn probe(&self) -> Vec<gst::Device> {
        Channel::all()
            .iter()
            .map(|(name, channel)| channel.device(name).upcast())
            .collect()
    }

    fn start(&self) -> Result<(), gst::LoggableError> {
        let failed = |error: std::io::Error| gst::loggable_error!(CAT, "cannot follow the channels: {error}");
        let (watch, stop) = Watch::new().map_err(failed)?;
        let mut list = List::default();
        // Those that are there now are known when this returns.
        list.update(&self.obj());
        let provider = self.obj().downgrade();
        let follow = move || {
            while watch.wait(list.patience(&watch)) {
                let Some(provider) = provider.upgrade() else {
                    return;
                };
                list.update(&provider);
            }
        };
        let thread = thread::Builder::new()
            .name("rsshm-devices".to_owned())
            .spawn(follow)
            .map_err(failed)?;
        *lock(&self.follower) = Some(Follower { stop, thread });
        Ok(())
    }

    fn stop(&self) {
        let follower = lock(&self.follower).take();
        if let Some(Follower { stop, thread }) = follower {
            drop(stop);
            // An application may stop it from where it is told of a device, which is that thread.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}
