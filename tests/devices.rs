//! Channels as devices: what programs that let their user choose a camera see.

mod common;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use common::{Channel, Pipeline, Process, command, eventually, launch, within};
use gst::prelude::*;

const CAPS: &str = "video/x-raw,format=GRAY8,width=64,height=48,framerate=30/1";

/// The application's side: a list that is kept up to date, and the messages about it. One at a time, as all monitors of a
/// process share one provider.
struct Monitor {
    monitor: gst::DeviceMonitor,
    _only: MutexGuard<'static, ()>,
}

impl Monitor {
    #[track_caller]
    fn started(class: &str) -> Self {
        static ONLY: Mutex<()> = Mutex::new(());
        common::init();
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
            .find(|device| device.display_name() == channel.0)
    }

    #[track_caller]
    fn wait_for(&self, channel: &Channel) -> gst::Device {
        eventually("the channel is listed", || self.find(channel).is_some());
        self.find(channel).unwrap()
    }

    #[track_caller]
    fn wait_until_gone(&self, channel: &Channel) {
        within(Duration::from_secs(5), "the channel is no longer listed", || {
            self.find(channel).is_none()
        });
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

fn followers() -> usize {
    std::fs::read_dir("/proc/self/task")
        .unwrap()
        .filter(|task| {
            let name = task.as_ref().unwrap().path().join("comm");
            std::fs::read_to_string(name).is_ok_and(|name| name.trim() == "rsshm-devices")
        })
        .count()
}

#[test]
fn a_channel_is_listed_with_its_caps_for_as_long_as_its_writer_lives() {
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

    // Of this one the files stay.
    let mut killed = writer(&channel, CAPS);
    monitor.wait_for(&channel);
    killed.kill();
    monitor.wait_until_gone(&channel);
    assert!(channel.exists());

    let _third = writer(&channel, CAPS);
    monitor.wait_for(&channel);
}

#[test]
fn a_channel_that_was_there_before_is_listed_at_once_and_one_of_a_dead_writer_is_not() {
    let (alive, dead) = (Channel::new(), Channel::new());
    let _alive = writer(&alive, CAPS);
    let mut killed = writer(&dead, CAPS);
    eventually("both are there", || alive.exists() && dead.exists());
    killed.kill();
    let monitor = Monitor::started("Video/Source");
    assert!(monitor.find(&alive).is_some());
    assert!(monitor.find(&dead).is_none());
    drop(monitor);
    // Asked once, and not followed.
    let provider = gst::DeviceProviderFactory::by_name("rsshmdeviceprovider").unwrap();
    let devices = provider.devices();
    assert!(devices.iter().any(|device| device.display_name() == alive.0));
    assert!(devices.iter().all(|device| device.display_name() != dead.0));
}

#[test]
fn other_caps_are_a_change_and_no_coming_and_going() {
    let monitor = Monitor::started("Video/Source");
    let channel = Channel::new();
    let writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! capsfilter name=filter caps={CAPS} ! rsshmsink name={channel}"
    ));
    monitor.wait_for(&channel);
    let larger = CAPS.replace("64", "128").parse::<gst::Caps>().unwrap();
    writer.element("filter").set_property("caps", &larger);
    eventually("the caps are the new ones", || {
        monitor
            .find(&channel)
            .is_some_and(|device| device.caps().unwrap().can_intersect(&larger))
    });
    let messages: Vec<gst::MessageType> = std::iter::from_fn(|| monitor.monitor.bus().pop())
        .filter(|message| match message.view() {
            gst::MessageView::DeviceAdded(added) => added.device().display_name() == channel.0,
            gst::MessageView::DeviceRemoved(removed) => removed.device().display_name() == channel.0,
            gst::MessageView::DeviceChanged(changed) => changed.device_changed().0.display_name() == channel.0,
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
fn audio_is_a_source_of_audio() {
    let (audio, video) = (Channel::new(), Channel::new());
    let _audio = launch(&format!("audiotestsrc is-live=true ! rsshmsink name={audio}"));
    let _video = writer(&video, CAPS);
    let monitor = Monitor::started("Audio/Source");
    assert_eq!(monitor.wait_for(&audio).device_class(), "Audio/Source");
    assert!(monitor.find(&video).is_none());
}

#[test]
fn the_element_of_a_device_plays_the_channel() {
    let monitor = Monitor::started("Video/Source");
    let channel = Channel::new();
    let _writer = writer(&channel, CAPS);
    let source = monitor.wait_for(&channel).create_element(Some("source")).unwrap();
    assert_eq!(source.property::<String>("channel"), channel.0);
    source.set_property("num-buffers", 3);
    let pipeline = Pipeline(gst::Pipeline::new());
    let sink = gst::ElementFactory::make("fakesink").build().unwrap();
    pipeline.0.add_many([&source, &sink]).unwrap();
    source.link(&sink).unwrap();
    pipeline.0.set_state(gst::State::Playing).unwrap();
    pipeline.wait_eos();
}

#[test]
fn a_monitor_that_is_stopped_leaves_no_thread() {
    common::init();
    let monitor = Monitor::started("Video/Source");
    for _ in 0..20 {
        eventually("there is one", || followers() == 1);
        monitor.monitor.stop();
        within(Duration::from_secs(1), "there is none", || followers() == 0);
        monitor.monitor.start().unwrap();
    }
}

#[test]
fn the_monitor_program_shows_a_channel_and_how_to_play_it() {
    let channel = Channel::new();
    let _writer = writer(&channel, CAPS);
    eventually("the channel is there", || channel.exists());
    let mut monitor = command("gst-device-monitor-1.0");
    monitor.arg("Video/Source");
    let output = Process::start(monitor).wait_ok();
    let (_, ours) = output
        .split_once(&format!("name  : {channel}"))
        .unwrap_or_else(|| panic!("{output}"));
    for expected in ["Video/Source", "format=GRAY8", "gst-launch-1.0 rsshmsrc", &channel.0] {
        assert!(ours.contains(expected), "{expected} is not in: {ours}");
    }
}

#[test]
fn players_play_a_uri() {
    let channel = Channel::new();
    // Of a kind that a player has to convert, with a frame rate that is its own.
    let _writer = writer(&channel, "video/x-raw,format=NV12,width=64,height=48,framerate=25/1");
    eventually("the channel is there", || channel.exists());
    let uri = format!("rsshm://{channel}");
    let sink = "fakesink silent=false";
    let mut playbin = command("gst-launch-1.0");
    playbin.args(["-v", "playbin", &format!("uri={uri}"), &format!("video-sink={sink}")]);
    let mut player = command("gst-play-1.0");
    player.args(["--no-interactive", "--verbose", "--videosink", sink, &uri]);
    for program in [playbin, player] {
        let mut player = Process::start(program);
        eventually("it plays", || {
            assert!(player.is_running(), "{}", player.output());
            player.output().contains("chain")
        });
        player.interrupt();
    }
}
