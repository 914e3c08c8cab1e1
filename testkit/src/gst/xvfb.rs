// SPDX-License-Identifier: MIT OR Apache-2.0

//! An X server without a display, for tests that check a window.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sys::signal::Signal;

use super::{command, run_to_end};
use crate::{Process, eventually};

/// A running Xvfb. Dropping the value ends the server.
pub struct Xvfb {
    server: Process,
    display: String,
    directory: PathBuf,
}

/// The seven bars of the default picture of videotestsrc.
pub const BARS: [[u8; 3]; 7] = [
    [255, 255, 255],
    [255, 255, 0],
    [0, 255, 255],
    [0, 255, 0],
    [255, 0, 255],
    [255, 0, 0],
    [0, 0, 255],
];

/// The contents of the screen at one moment.
pub struct Picture {
    /// Pixels in a row.
    pub width: usize,
    /// Rows.
    pub height: usize,
    /// The rows of pixels. The bytes of a pixel are blue, green, red and an unused byte.
    pixels: Vec<u8>,
}

impl Xvfb {
    /// Starts a server with a screen of this size. Its clients can use OpenGL.
    #[track_caller]
    pub fn start(width: u32, height: u32) -> Self {
        Self::start_with(width, height, &[])
    }

    /// Starts a plain server, as virtual machines and remote desktops often have. Its clients can only draw BGRx.
    #[track_caller]
    pub fn start_plain(width: u32, height: u32) -> Self {
        Self::start_with(width, height, &["-extension", "GLX", "-extension", "XVideo"])
    }

    #[track_caller]
    fn start_with(width: u32, height: u32, options: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Relaxed, because the number only has to be unique.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("rsshm-screen-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let mut server = Command::new("Xvfb");
        // With -displayfd, the server uses a free display number and prints it. With -noreset, the server does not
        // reset when its last client ends, because autovideosink tries several sinks one after the other.
        server
            .args(["-displayfd", "1", "-noreset", "-nolisten", "tcp", "-screen", "0"])
            .arg(format!("{width}x{height}x24"))
            .arg("-fbdir")
            .arg(&directory)
            .args(options);
        let server = Process::start(server);
        let number = || server.output().lines().find_map(|line| line.trim().parse::<u32>().ok());
        eventually("the X server is ready", || number().is_some());
        let display = format!(":{}", number().unwrap());
        Self {
            server,
            display,
            directory,
        }
    }

    /// The value of the variable DISPLAY for clients.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// Starts `gst-launch-1.0` with its windows on this screen.
    #[track_caller]
    pub fn launch(&self, pipeline: &str) -> Process {
        let mut launch = command("gst-launch-1.0");
        launch
            .env("DISPLAY", &self.display)
            .env_remove("WAYLAND_DISPLAY")
            .args(pipeline.split_whitespace());
        Process::start(launch)
    }

    /// Runs an xdotool action on the window of `process`.
    #[track_caller]
    pub fn window_action(&self, process: &Process, action: &str, arguments: &[&str]) {
        self.xdotool(&[&[action, &self.window_of(process)], arguments].concat());
    }

    /// Closes the window of `process` as a window manager does.
    #[track_caller]
    pub fn close_window(&self, process: &Process) {
        let window: u32 = self.window_of(process).parse().unwrap();
        Client::connect(&self.display).close_window(window);
    }

    #[track_caller]
    fn window_of(&self, process: &Process) -> String {
        let pid = process.pid().to_string();
        let window = self.xdotool(&["search", "--sync", "--onlyvisible", "--pid", &pid]);
        window.trim().to_owned()
    }

    #[track_caller]
    fn xdotool(&self, arguments: &[&str]) -> String {
        let mut xdotool = Command::new("xdotool");
        let output = xdotool.env("DISPLAY", &self.display).args(arguments).output().unwrap();
        assert!(output.status.success(), "{xdotool:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Copies the contents of the screen.
    pub fn picture(&self) -> Picture {
        // Xvfb writes the screen to a file in the format of xwd(1). The header consists of big-endian numbers.
        let file = std::fs::read(self.directory.join("Xvfb_screen0")).unwrap();
        let field = |index: usize| u32::from_be_bytes(file[4 * index..4 * index + 4].try_into().unwrap()) as usize;
        let (header, width, height, bits, stride, colours) =
            (field(0), field(4), field(5), field(11), field(12), field(19));
        assert_eq!(bits, 32);
        let mut pixels = Vec::with_capacity(4 * width * height);
        for row in file[header + 12 * colours..].chunks_exact(stride).take(height) {
            pixels.extend_from_slice(&row[..4 * width]);
        }
        Picture { width, height, pixels }
    }

    /// Ends the server, as the X server of a desktop ends when its user logs out.
    #[track_caller]
    pub fn end(&mut self) {
        self.server.signal(Signal::SIGTERM);
        self.server.wait();
    }
}

impl Drop for Xvfb {
    fn drop(&mut self) {
        if self.server.is_running() {
            // The server receives SIGTERM, not SIGKILL, so that it can remove its socket and its lock.
            self.end();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A minimal X client that closes windows as a window manager does. xdotool cannot close windows in this way.
struct Client(UnixStream);

impl Client {
    fn connect(display: &str) -> Self {
        let socket = format!("/tmp/.X11-unix/X{}", display.trim_start_matches(':'));
        let mut stream = UnixStream::connect(socket).unwrap();
        // The client asks for little-endian numbers and version 11.0, and sends no authorization.
        stream.write_all(&[b'l', 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], 1, "the X server refuses the connection");
        let rest = 4 * u64::from(u16::from_le_bytes([answer[6], answer[7]]));
        std::io::copy(&mut (&stream).take(rest), &mut std::io::sink()).unwrap();
        Self(stream)
    }

    /// Sends the request InternAtom, and returns the atom (the number) of the name.
    fn atom(&mut self, name: &str) -> u32 {
        let padded = name.len().next_multiple_of(4);
        let mut request = vec![16, 0];
        request.extend((2 + padded as u16 / 4).to_le_bytes());
        request.extend((name.len() as u16).to_le_bytes());
        request.extend([0, 0]);
        request.extend(name.as_bytes());
        request.resize(8 + padded, 0);
        self.0.write_all(&request).unwrap();
        let mut answer = [0; 32];
        self.0.read_exact(&mut answer).unwrap();
        u32::from_le_bytes(answer[8..12].try_into().unwrap())
    }

    /// Asks the window's program to close the window (SendEvent).
    fn close_window(&mut self, window: u32) {
        let (protocols, delete) = (self.atom("WM_PROTOCOLS"), self.atom("WM_DELETE_WINDOW"));
        let mut request = vec![25, 0, 11, 0];
        request.extend([window, 0].into_iter().flat_map(u32::to_le_bytes));
        request.extend([33, 32, 0, 0]);
        request.extend([window, protocols, delete].into_iter().flat_map(u32::to_le_bytes));
        request.resize(44, 0);
        self.0.write_all(&request).unwrap();
        // The answer to this request shows that the server has read the request before.
        self.atom("WM_PROTOCOLS");
    }
}

impl Picture {
    /// A picture of this size. The bytes of a pixel are blue, green, red and an unused byte.
    #[track_caller]
    pub(super) fn from_pixels(width: usize, height: usize, pixels: Vec<u8>) -> Self {
        assert_eq!(pixels.len(), 4 * width * height);
        Self { width, height, pixels }
    }

    /// The red, green and blue of a pixel.
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = 4 * (y * self.width + x);
        [self.pixels[at + 2], self.pixels[at + 1], self.pixels[at]]
    }

    /// Whether the middle row of a rectangle shows these bars from left to right. The rectangle is given as left, top,
    /// width and height.
    pub fn shows(&self, (left, top, width, height): (usize, usize, usize, usize), bars: &[[u8; 3]]) -> bool {
        bars.iter().enumerate().all(|(bar, expected)| {
            let x = left + (2 * bar + 1) * width / (2 * bars.len());
            let seen = self.pixel(x, top + height / 2);
            seen.iter()
                .zip(expected)
                .all(|(seen, expected)| seen.abs_diff(*expected) < 24)
        })
    }

    /// Whether a rectangle of this width and height shows these bars, wherever it is.
    pub fn shows_somewhere(&self, (width, height): (usize, usize), bars: &[[u8; 3]]) -> bool {
        let mut rows = 0..=self.height - height;
        rows.any(|top| (0..=self.width - width).any(|left| self.shows((left, top, width, height), bars)))
    }

    /// Writes a PNG file.
    #[track_caller]
    pub fn save(&self, path: &Path) {
        let raw = path.with_extension("bgrx");
        std::fs::write(&raw, &self.pixels).unwrap();
        run_to_end(&format!(
            "filesrc location={} ! rawvideoparse format=bgrx width={} height={} ! videoconvert ! video/x-raw,format=RGB \
             ! pngenc ! filesink location={}",
            raw.display(),
            self.width,
            self.height,
            path.display()
        ));
        std::fs::remove_file(raw).unwrap();
    }
}
