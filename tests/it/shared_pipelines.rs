// SPDX-License-Identifier: MIT OR Apache-2.0

//! A sink and a source in one pipeline. Their other ends are in another program or in the same pipeline.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use gst::prelude::*;
use rsshm_testkit::{
    Channel, eventually,
    gst::{CAPS, Pipeline, SourceRecorder, launch},
};

const LIVE: &str = "videotestsrc is-live=true";
const FILE: &str = "videotestsrc";

/// Elements that delay frames by several frame times, so that one frame at the beginning yields no frame at the end.
const SLOW: &str = "videoconvert ! x264enc rc-lookahead=10 ! avdec_h264";

/// A pipeline whose sink `end` counts the frames that it shows.
struct CountingPipeline {
    pipeline: Pipeline,
    shown: Arc<AtomicUsize>,
}

impl CountingPipeline {
    fn playing(description: &str) -> Self {
        let pipeline = Pipeline::new(description);
        let shown = Arc::new(AtomicUsize::new(0));
        let end = pipeline.element("end");
        end.set_property("signal-handoffs", true);
        end.connect("handoff", false, {
            let shown = Arc::clone(&shown);
            move |_| {
                // Relaxed, here and below, because no other data depends on the count.
                shown.fetch_add(1, Ordering::Relaxed);
                None
            }
        });
        pipeline.play();
        Self { pipeline, shown }
    }

    fn shown(&self) -> usize {
        self.shown.load(Ordering::Relaxed)
    }

    #[track_caller]
    fn assert_plays(&self) {
        let until = self.shown() + 20;
        eventually("the pipeline shows frames", || self.shown() >= until);
    }

    /// Checks that the pipeline plays now and after a pause.
    #[track_caller]
    fn assert_plays_twice(&self) {
        self.assert_plays();
        self.pipeline.set_state(gst::State::Paused).unwrap();
        std::thread::sleep(Duration::from_millis(200));
        let shown = self.shown();
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(self.shown(), shown, "the pipeline is paused");
        self.pipeline.play();
        self.assert_plays();
    }
}

#[test]
fn pipeline_shows_what_another_program_returns() {
    for source in [LIVE, FILE] {
        let (there, back) = (Channel::new(), Channel::new());
        let own = CountingPipeline::playing(&format!(
            "{source} ! {CAPS} ! rsshmsink channel={there}  rsshmsrc channel={back} ! fakesink name=end sync=true"
        ));
        // The channel is written although nobody reads it yet.
        eventually("frames are published", || {
            own.pipeline.stat("rsshmsink", "frames-published") >= 10
        });
        let mut other = launch(&format!("rsshmsrc channel={there} ! {SLOW} ! rsshmsink channel={back}"));
        own.assert_plays_twice();
        other.interrupt();
    }
}

#[test]
fn pipeline_reads_its_own_channel() {
    for source in [LIVE, FILE] {
        let channel = Channel::new();
        let own = CountingPipeline::playing(&format!(
            "{source} ! {CAPS} ! rsshmsink channel={channel}  rsshmsrc channel={channel} ! fakesink name=end sync=true"
        ));
        own.assert_plays_twice();
        drop(own);
        channel.assert_removed();
    }
}

#[test]
fn three_channels_in_one_pipeline_play() {
    for source in [LIVE, FILE] {
        let (first, second, third) = (Channel::new(), Channel::new(), Channel::new());
        let own = CountingPipeline::playing(&format!(
            "{source} ! {CAPS} ! rsshmsink channel={first} \
             rsshmsrc channel={first} ! {SLOW} ! rsshmsink channel={second} \
             rsshmsrc channel={second} ! {SLOW} ! rsshmsink channel={third} \
             rsshmsrc channel={third} ! fakesink name=end sync=true"
        ));
        own.assert_plays_twice();
    }
}

#[test]
fn three_programs_in_a_chain_play() {
    let (first, second, third) = (Channel::new(), Channel::new(), Channel::new());
    let own = CountingPipeline::playing(&format!(
        "{LIVE} ! {CAPS} ! rsshmsink channel={first}  rsshmsrc channel={third} ! fakesink name=end sync=true"
    ));
    let _next = launch(&format!("rsshmsrc channel={first} ! rsshmsink channel={second}"));
    let _last = launch(&format!("rsshmsrc channel={second} ! rsshmsink channel={third}"));
    own.assert_plays_twice();
}

#[test]
fn sink_behind_shut_valve_holds_up_nothing() {
    let channel = Channel::new();
    let own = CountingPipeline::playing(&format!(
        "{LIVE} ! {CAPS} ! tee name=tee ! queue ! valve name=valve drop=true ! rsshmsink channel={channel} \
         tee. ! queue ! fakesink name=end sync=true"
    ));
    own.assert_plays_twice();
    own.pipeline.element("valve").set_property("drop", false);
    eventually("frames are published", || {
        own.pipeline.stat("rsshmsink", "frames-published") >= 10
    });
}

#[test]
fn sink_beside_shut_valve_publishes() {
    let channel = Channel::new();
    let own = Pipeline::playing(&format!(
        "{LIVE} ! {CAPS} ! tee name=tee ! queue ! rsshmsink channel={channel} \
         tee. ! queue ! valve drop=true ! fakesink"
    ));
    eventually("frames are published", || {
        own.stat("rsshmsink", "frames-published") >= 10
    });
}

#[test]
fn latency_of_returned_film_does_not_grow() {
    let channel = Channel::new();
    let own = Pipeline::playing(&format!(
        "{FILE} ! {CAPS} ! rsshmsink channel={channel}  rsshmsrc channel={channel} ! fakesink sync=true"
    ));
    let bus = own.bus().unwrap();
    let end = Instant::now() + Duration::from_secs(2);
    while Instant::now() < end {
        // Applications recalculate the latency when an element asks for it.
        let timeout = gst::ClockTime::from_mseconds(50);
        if bus.timed_pop_filtered(timeout, &[gst::MessageType::Latency]).is_some() {
            own.recalculate_latency().unwrap();
        }
    }
    let (_, latency, _) = own.source_latency("rsshmsrc");
    assert_eq!(latency, gst::ClockTime::ZERO);
}

#[test]
fn film_beside_live_source_is_paced_after_seek() {
    let channel = Channel::new();
    let own = Pipeline::playing(&format!(
        "{FILE} ! {CAPS} ! rsshmsink channel={channel}  {LIVE} ! {CAPS} ! fakesink sync=true"
    ));
    let reader = SourceRecorder::of(&channel);
    reader.wait_for_frames(40);
    let published = || own.stat("rsshmsink", "frames-published");
    let before = published();
    own.by_factory("rsshmsink")
        .seek_simple(gst::SeekFlags::FLUSH, gst::ClockTime::ZERO)
        .unwrap();
    // Without pacing, all frames up to the position before the seek would leave at once.
    std::thread::sleep(Duration::from_millis(500));
    let frames = published() - before;
    assert!((8..=20).contains(&frames), "{frames}");
}

#[test]
fn sink_of_film_prerolls() {
    let channel = Channel::new();
    let film = Pipeline::new(&format!("{FILE} ! {CAPS} ! rsshmsink channel={channel}"));
    assert_eq!(
        film.set_state(gst::State::Paused),
        Ok(gst::StateChangeSuccess::Async),
        "the pipeline waits for the first frame"
    );
    film.state(gst::ClockTime::from_seconds(10)).0.unwrap();
    assert!(film.pad("rsshmsink", "sink").current_caps().is_some());
    drop(film);
    // The user's value of `async` holds again after a run in a live pipeline.
    let live = Pipeline::playing(&format!("{LIVE} ! {CAPS} ! rsshmsink channel={channel}"));
    live.set_state(gst::State::Ready).unwrap();
    assert!(live.by_factory("rsshmsink").property::<bool>("async"));
}
