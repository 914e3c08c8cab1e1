// SPDX-License-Identifier: MIT OR Apache-2.0

//! Channels as devices, for programs that let the user choose a camera.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gst::prelude::*;
use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{CAPS, Pipeline, command, init, launch},
};

/// A device monitor of an application. Only one exists at a time, because all monitors of a process share one provider.
struct Monitor {
    monitor: gst::DeviceMonitor,
    _only: MutexGuard<'static, ()>,
}

impl Monitor {
    #[track_caller]
    fn started(class: &str) -> Self {
        static ONLY: Mutex<()> = Mutex::new(());
        init();
        let only = ONLY.lock().unwrap_or_else(PoisonError::into_inner);
        let monitor = gst::DeviceMonitor::new();
        monitor.add_filter(Some(class), None).unwrap();
        monitor.start().unwrap();
        Self { monitor, _only: only }
    }

    fn find(&self, channel: &Channel) -> Option<gst::Device> {
        self.monitor
            .devices()
            .into_iter()
            .find(|device| device.display_name() == channel.as_str())
    }

    #[track_caller]
    fn wait_for(&self, channel: &Channel) -> gst::Device {
        eventually("the channel is listed", || self.find(channel).is_some());
        self.find(channel).unwrap()
    }

    #[track_caller]
    fn wait_until_gone(&self, channel: &Channel) {
        eventually("the channel is no longer listed", || self.find(channel).is_none());
    }
}

impl Drop for Monitor {
    fn drop(&mut self) {
        self.monitor.stop();
    }
}

fn writer(channel: &Channel, caps: &str) -> Process {
    launch(&format!(
        "videotestsrc is-live=true ! {caps} ! rsshmsink name={channel}"
    ))
}

/// The number of threads of the device provider.
fn provider_threads() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|task| {
            let name = task.as_ref().unwrap().path().join("comm");
            std::fs::read_to_string(name).is_ok_and(|name| name.trim() == "rsshm-devices")
        })
        .count()
}

#[test]
fn channel_is_listed_while_writer_lives() {
    let monitor = Monitor::started("Video/Source");
    let channel = Channel::new();
    assert!(monitor.find(&channel).is_none());
    let mut stopped = writer(&channel, CAPS);
    let device = monitor.wait_for(&channel);
    assert_eq!(device.device_class(), "Video/Source");
    let caps = device.caps().unwrap();
    assert!(
        caps.is_fixed() && caps.can_intersect(&CAPS.parse::<gst::Caps>().unwrap()),
        "{caps}"
    );
    let pid = device.properties().unwrap().get::<u32>("rsshm.writer-pid").unwrap();
    assert_eq!(pid, stopped.pid().as_raw() as u32);
    stopped.interrupt();
    monitor.wait_until_gone(&channel);

    // A killed writer leaves its files.
    let mut killed = writer(&channel, CAPS);
    monitor.wait_for(&channel);
    killed.kill();
    monitor.wait_until_gone(&channel);
    assert!(channel.exists());

    let _third = writer(&channel, CAPS);
    monitor.wait_for(&channel);
}

#[test]
fn existing_channel_is_listed_unless_writer_died() {
    let (alive, dead) = (Channel::new(), Channel::new());
    let _alive = writer(&alive, CAPS);
    let mut killed = writer(&dead, CAPS);
    eventually("both channels exist", || alive.exists() && dead.exists());
    killed.kill();
    let monitor = Monitor::started("Video/Source");
    assert!(monitor.find(&alive).is_some());
    assert!(monitor.find(&dead).is_none());
    drop(monitor);
    // This provider lists devices once, without a monitor.
    let provider = gst::DeviceProviderFactory::by_name("rsshmdeviceprovider").unwrap();
    let devices = provider.devices();
    assert!(devices.iter().any(|device| device.display_name() == alive.as_str()));
    assert!(devices.iter().all(|device| device.display_name() != dead.as_str()));
}

#[test]
fn new_caps_change_device_without_replacing_it() {
    let monitor = Monitor::started("Video/Source");
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! capsfilter name=filter caps={CAPS} ! rsshmsink name={channel}"
    ));
    monitor.wait_for(&channel);
    let larger = CAPS.replace("64", "128").parse::<gst::Caps>().unwrap();
    writer.element("filter").set_property("caps", &larger);
    eventually("the device has the new caps", || {
        monitor
            .find(&channel)
            .is_some_and(|device| device.caps().unwrap().can_intersect(&larger))
    });
    let messages: Vec<gst::MessageType> = std::iter::from_fn(|| monitor.monitor.bus().pop())
        .filter(|message| match message.view() {
            gst::MessageView::DeviceAdded(added) => added.device().display_name() == channel.as_str(),
            gst::MessageView::DeviceRemoved(removed) => removed.device().display_name() == channel.as_str(),
            gst::MessageView::DeviceChanged(changed) => changed.device_changed().0.display_name() == channel.as_str(),
            _ => false,
        })
        .map(|message| message.type_())
        .collect();
    assert_eq!(
        messages,
        [gst::MessageType::DeviceAdded, gst::MessageType::DeviceChanged]
    );
}

#[test]
fn audio_channel_is_audio_source() {
    let (audio, video) = (Channel::new(), Channel::new());
    let _audio = launch(&format!("audiotestsrc is-live=true ! rsshmsink name={audio}"));
    let _video = writer(&video, CAPS);
    let monitor = Monitor::started("Audio/Source");
    assert_eq!(monitor.wait_for(&audio).device_class(), "Audio/Source");
    assert!(monitor.find(&video).is_none());
}

#[test]
fn device_element_plays_channel() {
    let monitor = Monitor::started("Video/Source");
    let channel = Channel::new();
    let _writer = writer(&channel, CAPS);
    let source = monitor.wait_for(&channel).create_element(Some("source")).unwrap();
    assert_eq!(source.property::<String>("channel"), channel.as_str());
    source.set_property("num-buffers", 3);
    let pipeline = Pipeline::from(gst::Pipeline::new());
    let sink = gst::ElementFactory::make("fakesink").build().unwrap();
    pipeline.add_many([&source, &sink]).unwrap();
    source.link(&sink).unwrap();
    pipeline.play();
    pipeline.wait_eos();
}

#[test]
fn stopped_monitor_leaves_no_thread() {
    init();
    let monitor = Monitor::started("Video/Source");
    for _ in 0..20 {
        eventually("the thread runs", || provider_threads() == 1);
        monitor.monitor.stop();
        eventually("the thread has ended", || provider_threads() == 0);
        monitor.monitor.start().unwrap();
    }
}

#[test]
fn device_monitor_program_shows_channel_and_pipeline() {
    let channel = Channel::new();
    let _writer = writer(&channel, CAPS);
    eventually("the channel exists", || channel.exists());
    let mut monitor = command("gst-device-monitor-1.0");
    monitor.arg("Video/Source");
    let output = Process::start(monitor).wait_ok();
    let (_, ours) = output
        .split_once(&format!("name  : {channel}"))
        .unwrap_or_else(|| panic!("{output}"));
    for expected in [
        "Video/Source",
        "format=GRAY8",
        "gst-launch-1.0 rsshmsrc",
        channel.as_str(),
    ] {
        assert!(ours.contains(expected), "{expected} is not in: {ours}");
    }
}

#[test]
fn players_play_rsshm_uri() {
    let channel = Channel::new();
    // Players have to convert this format, and the frame rate differs from the players' default.
    let _writer = writer(&channel, "video/x-raw,format=NV12,width=64,height=48,framerate=25/1");
    eventually("the channel exists", || channel.exists());
    let uri = format!("rsshm://{channel}");
    let sink = "fakesink silent=false";
    let mut playbin = command("gst-launch-1.0");
    playbin.args(["-v", "playbin", &format!("uri={uri}"), &format!("video-sink={sink}")]);
    let mut player = command("gst-play-1.0");
    player.args(["--no-interactive", "--verbose", "--videosink", sink, &uri]);
    for program in [playbin, player] {
        let mut player = Process::start(program);
        eventually("the player plays", || {
            assert!(player.is_running(), "{}", player.output());
            player.output().contains("chain")
        });
        player.interrupt();
    }
}
