// SPDX-License-Identifier: MIT OR Apache-2.0

//! The windows of readers on a screen. The tests check the pictures in the windows, and what happens when a user
//! resizes or closes a window.

use rsshm_testkit::{
    Channel, Process, eventually,
    gst::{BARS, Pipeline, Renderer, Weston, Xvfb},
    need_program,
};

fn writer(channel: &Channel, format: &str) -> Pipeline {
    Pipeline::playing(&format!(
        "videotestsrc is-live=true ! video/x-raw,format={format},width=320,height=240,framerate=30/1 \
         ! rsshmsink name={channel}"
    ))
}

#[track_caller]
fn wait_for_bars(screen: &Xvfb, reader: &mut Process, rectangle: (usize, usize, usize, usize)) {
    eventually("the screen shows the bars", || {
        assert!(reader.is_running(), "{}", reader.output());
        screen.picture().shows(rectangle, &BARS)
    });
}

#[test]
fn screen_shows_supported_format() {
    let (screen, channel) = (Xvfb::start(640, 480), Channel::new());
    let _writer = writer(&channel, "BGRx");
    let mut reader = screen.launch(&format!("rsshmsrc name={channel} ! autovideosink"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
}

#[test]
fn screen_shows_caps_without_optional_fields() {
    let (screen, channel) = (Xvfb::start(640, 480), Channel::new());
    let caps = "video/x-raw,format=BGRx,width=320,height=240,framerate=30/1";
    let _writer = Pipeline::playing(&format!(
        "videotestsrc is-live=true ! {caps} ! capssetter replace=true caps={caps} ! rsshmsink name={channel}"
    ));
    let mut reader = screen.launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
}

/// Formats of cameras, decoders and programs. No screen takes all of them.
const FORMATS: [&str; 8] = ["I420", "NV12", "YUY2", "UYVY", "RGB", "P010_10LE", "Y444_12LE", "v210"];

#[test]
fn plain_screen_shows_every_format() {
    let screen = Xvfb::start_plain(640, 480);
    for format in FORMATS {
        let channel = Channel::new();
        let _writer = writer(&channel, format);
        // On a plain X server, autovideosink chooses ximagesink.
        let mut reader = screen.launch(&format!("rsshmsrc name={channel} ! autovideosink"));
        wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
        let output = reader.interrupt();
        assert!(output.contains(&format!("does not take {format}")), "{output}");
        eventually("the window is gone", || {
            !screen.picture().shows((0, 0, 320, 240), &BARS)
        });
    }
}

#[test]
fn screen_with_opengl_shows_every_format() {
    let screen = Xvfb::start(640, 480);
    for format in FORMATS {
        let channel = Channel::new();
        let _writer = writer(&channel, format);
        let mut reader = screen.launch(&format!("rsshmsrc name={channel} ! autovideosink"));
        wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
        reader.interrupt();
        eventually("the window is gone", || {
            !screen.picture().shows((0, 0, 320, 240), &BARS)
        });
    }
}

/// Shows each format on a Wayland compositor.
#[track_caller]
fn assert_wayland_shows_every_format(renderer: Renderer, sink: &str) {
    let screen = Weston::start(renderer, 640, 480);
    for format in FORMATS {
        let channel = Channel::new();
        let _writer = writer(&channel, format);
        let mut reader = screen.launch(&format!("rsshmsrc name={channel} ! {sink}"));
        eventually(&format!("the screen shows {format}"), || {
            assert!(reader.is_running(), "{}", reader.output());
            screen.picture().shows_somewhere((320, 240), &BARS)
        });
        reader.interrupt();
    }
}

#[test]
fn plain_wayland_screen_shows_every_format() {
    need_program!("weston");
    // Without OpenGL in the compositor, autovideosink shows a white window, also behind other sources.
    assert_wayland_shows_every_format(Renderer::Pixman, "waylandsink");
}

#[test]
fn wayland_screen_with_opengl_shows_every_format() {
    need_program!("weston");
    assert_wayland_shows_every_format(Renderer::Gl, "autovideosink");
}

#[test]
fn unsupported_format_error_suggests_videoconvert() {
    let (screen, channel) = (Xvfb::start_plain(640, 480), Channel::new());
    let _writer = writer(&channel, "I420");
    let mut reader = screen.launch(&format!("rsshmsrc name={channel} convert=false ! ximagesink"));
    let output = reader.wait_error();
    assert!(output.contains("put videoconvert after this element"), "{output}");
    assert!(output.contains(channel.as_str()), "{output}");
}

#[test]
fn player_shows_uri_without_converter() {
    let (screen, channel) = (Xvfb::start(640, 480), Channel::new());
    let _writer = writer(&channel, "NV12");
    let mut reader = screen.launch(&format!("playbin uri=rsshm://{channel}"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
}

#[test]
fn reader_follows_window_size() {
    let (screen, channel) = (Xvfb::start_plain(640, 480), Channel::new());
    let writer = writer(&channel, "I420");
    let mut reader = screen.launch(&format!("rsshmsrc name={channel} ! videoscale ! autovideosink"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
    for (width, height) in [(640, 480), (160, 120)] {
        screen.window_action(&reader, "windowsize", &[&width.to_string(), &height.to_string()]);
        wait_for_bars(&screen, &mut reader, (0, 0, width, height));
    }
    assert_eq!(writer.num_clients(), 1);
}

#[test]
fn closed_window_ends_only_its_reader() {
    let (screen, channel) = (Xvfb::start(640, 480), Channel::new());
    let writer = writer(&channel, "BGRx");
    let mut first = screen.launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    wait_for_bars(&screen, &mut first, (0, 0, 320, 240));
    let mut second = screen.launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    eventually("both readers are connected", || writer.num_clients() == 2);
    screen.close_window(&first);
    let output = first.wait_error();
    assert!(output.contains("Output window was closed"), "{output}");
    eventually("one reader is left", || writer.num_clients() == 1);
    wait_for_bars(&screen, &mut second, (0, 0, 320, 240));
}

#[test]
fn lost_display_ends_only_reader() {
    let (mut screen, channel) = (Xvfb::start(640, 480), Channel::new());
    let writer = writer(&channel, "BGRx");
    let mut reader = screen.launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    wait_for_bars(&screen, &mut reader, (0, 0, 320, 240));
    screen.end();
    assert!(!reader.wait().success());
    eventually("the reader is no longer counted", || writer.num_clients() == 0);
}

/// `RSSHM_SCREENSHOT=docs/screen.png cargo test --test it two_programs` writes the picture of the README.
#[test]
fn two_programs_show_one_camera() {
    let (screen, channel) = (Xvfb::start(660, 250), Channel::new());
    let _writer = writer(&channel, "I420");
    let mut plain = screen.launch(&format!("rsshmsrc name={channel} ! ximagesink"));
    wait_for_bars(&screen, &mut plain, (0, 0, 320, 240));
    let mirrored = screen.launch(&format!(
        "rsshmsrc name={channel} ! videoconvert ! videoflip video-direction=horiz ! videoconvert ! ximagesink"
    ));
    screen.window_action(&mirrored, "windowmove", &["330", "0"]);
    let mut reversed = BARS;
    reversed.reverse();
    eventually("the screen shows both windows", || {
        let picture = screen.picture();
        picture.shows((0, 0, 320, 240), &BARS) && picture.shows((330, 0, 320, 240), &reversed)
    });
    if let Some(path) = std::env::var_os("RSSHM_SCREENSHOT") {
        screen.picture().save(path.as_ref());
    }
}
