// SPDX-License-Identifier: MIT OR Apache-2.0

//! Runs the two commands of the README, with a camera and a window that shows it.

use rsshm_testkit::{eventually, gst::Xvfb};

use crate::device::{BARS, CAMERA, control, launch};

/// `RSSHM_SCREENSHOT=FILE` writes the picture to a file in the virtual machine. docs/screen.png was copied from there
/// with base64(1).
#[test]
#[ignore = "make test-camera"]
fn windows_show_the_camera() {
    let screen = Xvfb::start_plain(660, 180);
    control(CAMERA, "osd_text_mode=1");
    let mut writer =
        launch("v4l2src ! video/x-raw,format=BGRx,width=320,height=180,framerate=30/1 ! rsshmsink name=cam0");
    let mut plain = screen.launch("rsshmsrc name=cam0 ! autovideosink");
    // vivid writes text into the rows above the checked rows.
    let below = |left| (left, 150, 320, 20);
    eventually("the camera is on the screen", || {
        assert!(writer.is_running(), "{}", writer.output());
        assert!(plain.is_running(), "{}", plain.output());
        screen.picture().shows(below(0), &BARS)
    });
    let mirrored = screen.launch("rsshmsrc name=cam0 ! videoflip video-direction=horiz ! autovideosink");
    screen.window_action(&mirrored, "windowmove", &["340", "0"]);
    let mut reversed = BARS;
    reversed.reverse();
    eventually("the screen shows both windows", || {
        let picture = screen.picture();
        picture.shows(below(0), &BARS) && picture.shows(below(340), &reversed)
    });
    if let Some(path) = std::env::var_os("RSSHM_SCREENSHOT") {
        screen.picture().save(path.as_ref());
    }
}
