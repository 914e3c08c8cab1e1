// SPDX-License-Identifier: MIT OR Apache-2.0

//! A camera on demand: its device is open only while somebody reads.

use std::{fs, time::Duration};

use rsshm_channel::{Next, ReadLimits, Reader, ReaderOptions, monotonic_ns};
use rsshm_testkit::{Channel, Process, eventually, timed};

use super::device::{CAMERA, SMALL, launch};

/// Whether a process has opened the camera.
fn has_opened(process: &Process) -> bool {
    let descriptors = fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap();
    descriptors
        .flatten()
        .any(|descriptor| fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == CAMERA))
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

#[test]
fn device_is_open_only_while_somebody_reads() {
    let channel = Channel::new();
    let mut process = launch(&format!(
        "v4l2src device={CAMERA} ! video/x-raw,{SMALL} ! rsshmsink channel={channel} on-demand=true idle-timeout=1"
    ));
    eventually("the device is open", || has_opened(&process));
    for _ in 0..3 {
        eventually("the device is closed", || !has_opened(&process));
        assert!(process.is_running());
        // Another program can use the device meanwhile.
        launch(&format!(
            "v4l2src device={CAMERA} num-buffers=3 ! video/x-raw,{SMALL} ! fakesink"
        ))
        .wait_ok();
        let attached_at = monotonic_ns();
        let mut reader = Reader::new((*channel).clone(), ReaderOptions::default());
        let (taken, first) = timed(|| next_pts(&mut reader));
        println!("the first frame comes {taken:?} after the reader");
        assert!(first > attached_at, "the frame is {} ns too old", attached_at - first);
        assert!(has_opened(&process));
        assert!(next_pts(&mut reader) > first);
    }
    process.interrupt();
    channel.assert_removed();
}
