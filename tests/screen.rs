//! The README's second command on a screen: what a user sees there, and does to the window.

mod common;
mod display;

use common::{Channel, Pipeline, Process, eventually};
use display::Screen;
use gst::prelude::*;

/// The seven bars of `videotestsrc`'s usual picture.
const BARS: [[u8; 3]; 7] = [
    [255, 255, 255],
    [255, 255, 0],
    [0, 255, 255],
    [0, 255, 0],
    [255, 0, 255],
    [255, 0, 0],
    [0, 0, 255],
];

fn writer(channel: &Channel, format: &str) -> Pipeline {
    Pipeline::playing(&format!(
        "videotestsrc is-live=true ! video/x-raw,format={format},width=320,height=240,framerate=30/1 \
         ! rsshmsink name={channel}"
    ))
}

#[track_caller]
fn wait_for_bars(screen: &Screen, reader: &mut Process, rectangle: (usize, usize, usize, usize)) {
    eventually("the screen shows the bars", || {
        assert!(reader.is_running(), "{}", reader.output());
        screen.picture().shows(rectangle, &BARS)
    });
}

#[test]
fn what_a_screen_can_show_it_shows() {
    let (screen, channel) = (Screen::start(640, 480), Channel::new());
    let _writer = writer(&channel, "BGRx");
    let mut reader = screen.gst_launch(&format!("rsshmsrc name={channel} ! autovideosink"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
}

#[test]
fn what_says_nothing_of_its_pixels_is_shown_all_the_same() {
    let (screen, channel) = (Screen::start(640, 480), Channel::new());
    let caps = "video/x-raw,format=BGRx,width=320,height=240,framerate=30/1";
    let _writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {caps} ! capssetter replace=true caps={caps} ! rsshmsink name={channel}"
    ));
    let mut reader = screen.gst_launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
}

#[test]
fn what_it_cannot_is_converted() {
    let (screen, channel) = (Screen::start(640, 480), Channel::new());
    let _writer = writer(&channel, "I420");
    let mut reader = screen.gst_launch(&format!("rsshmsrc name={channel} ! videoconvert ! autovideosink"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
}

#[test]
fn or_an_error_says_to_convert_it() {
    let (screen, channel) = (Screen::start(640, 480), Channel::new());
    let _writer = writer(&channel, "I420");
    // What autovideosink comes to on a plain X server, also where there is one that can do more.
    let mut reader = screen.gst_launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    let said = reader.wait_error();
    assert!(said.contains("put videoconvert after this element"), "{said}");
    assert!(said.contains(&channel.0), "{said}");
}

#[test]
fn a_player_needs_no_converter() {
    let (screen, channel) = (Screen::start(640, 480), Channel::new());
    let _writer = writer(&channel, "NV12");
    let mut reader = screen.gst_launch(&format!("playbin uri=rsshm://{channel}"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
}

#[test]
fn a_window_can_be_made_larger_and_smaller() {
    let (screen, channel) = (Screen::start(640, 480), Channel::new());
    let writer = writer(&channel, "I420");
    let mut reader = screen.gst_launch(&format!(
        "rsshmsrc name={channel} ! videoconvert ! videoscale ! autovideosink"
    ));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
    for (width, height) in [(640, 480), (160, 120)] {
        screen.window(&reader, "windowsize", &[&width.to_string(), &height.to_string()]);
        wait_for_bars(&screen, &mut reader, (0, 0, width, height));
    }
    assert_eq!(writer.by_factory("rsshmsink").property::<u32>("num-clients"), 1);
}

#[test]
fn a_window_that_is_closed_ends_the_reader_and_nobody_else() {
    let (screen, channel) = (Screen::start(640, 480), Channel::new());
    let writer = writer(&channel, "BGRx");
    let mut first = screen.gst_launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    wait_for_bars(&screen, &mut first, (0, 0, 320, 240));
    let mut second = screen.gst_launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    let num_clients = || writer.by_factory("rsshmsink").property::<u32>("num-clients");
    eventually("both are there", || num_clients() == 2);
    screen.close_window(&first);
    let said = first.wait_error();
    assert!(said.contains("Output window was closed"), "{said}");
    eventually("the other alone is there", || num_clients() == 1);
    wait_for_bars(&screen, &mut second, (0, 0, 320, 240));
}

#[test]
fn a_screen_that_goes_away_ends_the_reader_and_not_the_writer() {
    let (mut screen, channel) = (Screen::start(640, 480), Channel::new());
    let writer = writer(&channel, "BGRx");
    let mut reader = screen.gst_launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
    screen.end();
    assert!(!reader.wait().success());
    eventually("the seat is free", || {
        writer.by_factory("rsshmsink").property::<u32>("num-clients") == 0
    });
}

/// `RSSHM_SCREENSHOT=docs/screen.png cargo test --test screen two_programs` makes the README's picture.
#[test]
fn two_programs_show_the_same_camera() {
    let (screen, channel) = (Screen::start(660, 250), Channel::new());
    let _writer = writer(&channel, "I420");
    let mut plain = screen.gst_launch(&format!("rsshmsrc name={channel} ! videoconvert ! ximagesink"));
    wait_for_bars(&screen, &mut plain, (0, 0, 320, 240));
    let mirrored = screen.gst_launch(&format!(
        "rsshmsrc name={channel} ! videoconvert ! videoflip video-direction=horiz ! videoconvert ! ximagesink"
    ));
    screen.window(&mirrored, "windowmove", &["330", "0"]);
    let mut reversed = BARS;
    reversed.reverse();
    eventually("both are on the screen", || {
        let picture = screen.picture();
        picture.shows((0, 0, 320, 240), &BARS) && picture.shows((330, 0, 320, 240), &reversed)
    });
    if let Some(path) = std::env::var_os("RSSHM_SCREENSHOT") {
        screen.picture().save(path.as_ref());
    }
}
