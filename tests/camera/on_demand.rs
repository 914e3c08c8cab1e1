// SPDX-License-Identifier: MIT OR Apache-2.0

//! A camera on demand: its device is in use only while somebody reads.

use std::time::Duration;

use rsshm_channel::{Next, Observer, ReadLimits, Reader, ReaderOptions, monotonic_ns};
use rsshm_testkit::{Channel, eventually, timed};

use super::device::{CAMERA, SMALL, launch};

/// Whether another program can capture from the camera, which only one program at a time can.
fn is_free() -> bool {
    launch(&format!(
        "v4l2src device={CAMERA} num-buffers=2 ! video/x-raw,{SMALL} ! fakesink"
    ))
    .wait()
    .success()
}

/// The timestamp of the reader's next frame.
fn next_pts(reader: &mut Reader) -> u64 {
    let limit = Some(Duration::from_secs(20));
    loop {
        match reader.next(&mut Vec::new(), ReadLimits::default(), limit).unwrap() {
            Next::Frame(frame) => return frame.descriptor.pts,
            Next::TimedOut => panic!("no frame"),
            _ => {}
        }
    }
}

// The descriptors of the process do not show whether the device is in use. v4l2src of GStreamer 1.22 leaves one open each
// time that it stops, also without this project.
#[test]
#[ignore = "make test-camera"]
fn device_is_in_use_only_while_somebody_reads() {
    let channel = Channel::new();
    let mut process = launch(&format!(
        "v4l2src device={CAMERA} ! video/x-raw,{SMALL} ! rsshmsink channel={channel} on-demand=true idle-timeout=1"
    ));
    let is_idle = || {
        Observer::open(&channel)
            .unwrap()
            .is_some_and(|observer| observer.status().is_idle)
    };
    for _ in 0..3 {
        eventually("the channel is idle", is_idle);
        assert!(is_free() && process.is_running(), "{}", process.output());
        let attached_at = monotonic_ns();
        let mut reader = Reader::new((*channel).clone(), ReaderOptions::default());
        let (taken, first) = timed(|| next_pts(&mut reader));
        println!("the first frame comes {taken:?} after the reader");
        assert!(first > attached_at, "the frame is {} ns too old", attached_at - first);
        assert!(!is_free(), "the reader uses the camera");
        assert!(next_pts(&mut reader) > first);
    }
    process.interrupt();
    channel.assert_removed();
}
