// SPDX-License-Identifier: MIT OR Apache-2.0

//! The device provider. It lists the channels that have a writer, and reports when a channel appears, changes or
//! disappears.

use std::{
    collections::BTreeMap,
    sync::{LazyLock, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use gst::{glib, prelude::*, subclass::prelude::*};
use rsshm_channel::{ChannelName, Directory, Observer, Watch, WatchStop};

use super::CAT;
use crate::{caps, sync::lock};

/// The longest time between two checks of the listed channels. If the file system notifies of a change, the check
/// happens at once.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The time for which a channel must be missing before its device is removed. The channel's name is missing for a
/// moment while another segment takes over this name.
const REMOVAL_DELAY: Duration = Duration::from_millis(300);

/// The running thread that watches the channels.
struct WatchThread {
    stop: WatchStop,
    thread: JoinHandle<()>,
}

#[derive(Default)]
pub struct RsShmDeviceProvider {
    watch_thread: Mutex<Option<WatchThread>>,
}

/// The caps and the writer of a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Channel {
    caps: gst::Caps,
    writer_pid: u32,
}

impl Channel {
    /// Reads the caps and the writer of the channel `name`; `None` if the channel has no living writer or no valid
    /// caps.
    fn read(name: &str) -> Option<Self> {
        let observer = Observer::open(&ChannelName::new(name).ok()?).ok()??;
        Some(Self {
            caps: caps::parse(observer.caps()).ok()?,
            writer_pid: observer.header().writer_pid,
        })
    }

    /// All channels that have a living writer.
    fn all() -> BTreeMap<String, Self> {
        rsshm_channel::channels()
            .into_iter()
            .filter_map(|name| Self::read(&name).map(|channel| (name, channel)))
            .collect()
    }

    fn device(&self, name: &str) -> super::RsShmDevice {
        super::RsShmDevice::new(name, &self.caps, self.writer_pid)
    }
}

/// A channel that the application knows as a device.
struct ListEntry {
    channel: Channel,
    device: super::RsShmDevice,
    missing_since: Option<Instant>,
}

/// The channels that the application knows as devices. The keys are the names of the channels.
#[derive(Default)]
struct DeviceList(BTreeMap<String, ListEntry>);

impl DeviceList {
    /// Reads all channels, and notifies the application of the changes since the last call.
    fn update(&mut self, provider: &super::RsShmDeviceProvider) {
        let mut found = Channel::all();
        self.0.retain(|name, entry| {
            let Some(channel) = found.remove(name) else {
                let since = *entry.missing_since.get_or_insert_with(Instant::now);
                let is_gone = since.elapsed() >= REMOVAL_DELAY;
                if is_gone {
                    gst::debug!(CAT, obj = provider, "channel {name} is gone");
                    provider.device_remove(&entry.device);
                }
                return !is_gone;
            };
            entry.missing_since = None;
            if channel != entry.channel {
                gst::debug!(CAT, obj = provider, "channel {name} has changed: {channel:?}");
                let device = channel.device(name);
                provider.device_changed(&device, &entry.device);
                (entry.channel, entry.device) = (channel, device);
            }
            true
        });
        for (name, channel) in found {
            gst::debug!(CAT, obj = provider, "channel {name} is new: {channel:?}");
            let device = channel.device(&name);
            provider.device_add(&device);
            let entry = ListEntry {
                channel,
                device,
                missing_since: None,
            };
            self.0.insert(name, entry);
        }
    }

    /// The longest time to wait for a notification before the next check.
    fn timeout(&self, watch: &Watch) -> Duration {
        if self.0.values().any(|entry| entry.missing_since.is_some()) {
            REMOVAL_DELAY
        } else if self.0.is_empty() && watch.is_immediate() {
            Duration::from_secs(3600)
        } else {
            CHECK_INTERVAL
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

// The functions in this block must not panic. C code calls them, so a panic in them aborts the whole program.
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
        if let Err(fault) = Directory::current().require() {
            gst::error!(CAT, imp = self, "{fault}");
        }
        Channel::all()
            .iter()
            .map(|(name, channel)| channel.device(name).upcast())
            .collect()
    }

    fn start(&self) -> Result<(), gst::LoggableError> {
        let failed = |error: std::io::Error| gst::loggable_error!(CAT, "the channels cannot be watched: {error}");
        Directory::current()
            .require()
            .map_err(|fault| gst::loggable_error!(CAT, "{fault}"))?;
        let (watch, stop) = Watch::new().map_err(failed)?;
        let mut list = DeviceList::default();
        // This first update lists the existing channels, so that the application knows them when this function returns.
        list.update(&self.obj());
        let provider = self.obj().downgrade();
        let run = move || {
            while watch.wait(list.timeout(&watch)) {
                let Some(provider) = provider.upgrade() else {
                    return;
                };
                list.update(&provider);
            }
        };
        let thread = thread::Builder::new()
            .name("rsshm-devices".to_owned())
            .spawn(run)
            .map_err(failed)?;
        *lock(&self.watch_thread) = Some(WatchThread { stop, thread });
        Ok(())
    }

    fn stop(&self) {
        let watch_thread = lock(&self.watch_thread).take();
        if let Some(WatchThread { stop, thread }) = watch_thread {
            drop(stop);
            // An application may call this function in its handler for a new device. The handler runs in the provider's
            // thread, and a thread must not wait for itself.
            if thread.thread().id() != thread::current().id() {
                let _ = thread.join();
            }
        }
    }
}
