//! A screen of the test's own: an X server that draws into a file.
#![allow(dead_code)] // each test program uses a part of it

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sys::signal::Signal;

use crate::common::{Process, command, eventually};

pub struct Screen {
    server: Process,
    display: String,
    folder: PathBuf,
}

/// What is on the screen.
pub struct Picture {
    pub width: usize,
    pub height: usize,
    /// Blue, green, red and nothing, a row after the other.
    pixels: Vec<u8>,
}

impl Screen {
    #[track_caller]
    pub fn start(width: u32, height: u32) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("rsshm-screen-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut server = Command::new("Xvfb");
        // It writes the number of the display that it has found free. Where its last client leaves it would begin anew.
        // (autovideosink tries several sinks, one after the other.)
        server
            .args(["-displayfd", "1", "-noreset", "-nolisten", "tcp", "-screen", "0"])
            .arg(format!("{width}x{height}x24"))
            .arg("-fbdir")
            .arg(&folder);
        let server = Process::start(server);
        let number = || server.output().lines().find_map(|line| line.trim().parse::<u32>().ok());
        eventually("the X server is ready", || number().is_some());
        let display = format!(":{}", number().unwrap());
        Self {
            server,
            display,
            folder,
        }
    }

    /// What programs find in the variable of this name.
    pub fn display(&self) -> &str {
        &self.display
    }

    /// `gst-launch-1.0`, which shows its windows here.
    pub fn gst_launch(&self, pipeline: &str) -> Process {
        let mut launch = command("gst-launch-1.0");
        launch
            .env("DISPLAY", &self.display)
            .env_remove("WAYLAND_DISPLAY")
            .args(pipeline.split_whitespace());
        Process::start(launch)
    }

    /// Does to the window of `process` what a user does.
    #[track_caller]
    pub fn window(&self, process: &Process, action: &str, arguments: &[&str]) {
        self.xdotool(&[&[action, &self.window_of(process)], arguments].concat());
    }

    /// Closes the window of `process` with the button that window managers give it.
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

    /// Looks at the screen.
    pub fn picture(&self) -> Picture {
        // The format of xwd(1), with a header of big-endian numbers.
        let file = std::fs::read(self.folder.join("Xvfb_screen0")).unwrap();
        let number = |index: usize| u32::from_be_bytes(file[4 * index..4 * index + 4].try_into().unwrap()) as usize;
        let (header, width, height, bits, stride, colours) =
            (number(0), number(4), number(5), number(11), number(12), number(19));
        assert_eq!(bits, 32);
        let mut pixels = Vec::with_capacity(4 * width * height);
        for row in file[header + 12 * colours..].chunks_exact(stride).take(height) {
            pixels.extend_from_slice(&row[..4 * width]);
        }
        Picture { width, height, pixels }
    }

    /// Ends the X server as when the user logs out.
    pub fn end(&mut self) {
        self.server.signal(Signal::SIGTERM);
        self.server.wait();
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if self.server.is_running() {
            // It removes its socket and its lock then.
            self.end();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// As much of a client of the X server as a window manager needs to close a window; no program at hand does that.
struct Client(UnixStream);

impl Client {
    fn connect(display: &str) -> Self {
        let socket = format!("/tmp/.X11-unix/X{}", display.trim_start_matches(':'));
        let mut stream = UnixStream::connect(socket).unwrap();
        // Little-endian, version 11.0, no name and no secret.
        stream.write_all(&[b'l', 0, 11, 0, 0, 0, 0, 0, 0, 0, 0, 0]).unwrap();
        let mut answer = [0; 8];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[0], 1, "the X server does not let us in");
        let rest = 4 * u64::from(u16::from_le_bytes([answer[6], answer[7]]));
        std::io::copy(&mut (&stream).take(rest), &mut std::io::sink()).unwrap();
        Self(stream)
    }

    /// InternAtom: the number of a name.
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

    /// SendEvent: a message to the window's program that the user wants it closed.
    fn close_window(&mut self, window: u32) {
        let (protocols, delete) = (self.atom("WM_PROTOCOLS"), self.atom("WM_DELETE_WINDOW"));
        let mut request = vec![25, 0, 11, 0];
        request.extend([window, 0].into_iter().flat_map(u32::to_le_bytes));
        request.extend([33, 32, 0, 0]);
        request.extend([window, protocols, delete].into_iter().flat_map(u32::to_le_bytes));
        request.resize(44, 0);
        self.0.write_all(&request).unwrap();
        // When that is answered, what was sent before has been read.
        self.atom("WM_PROTOCOLS");
    }
}

impl Picture {
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = 4 * (y * self.width + x);
        [self.pixels[at + 2], self.pixels[at + 1], self.pixels[at]]
    }

    /// Whether the colours are from left to right those of `bars`, in the rectangle's upper half.
    pub fn shows(&self, (left, top, width, height): (usize, usize, usize, usize), bars: &[[u8; 3]]) -> bool {
        bars.iter().enumerate().all(|(bar, expected)| {
            let x = left + (2 * bar + 1) * width / (2 * bars.len());
            let seen = self.pixel(x, top + height / 2);
            seen.iter()
                .zip(expected)
                .all(|(seen, expected)| seen.abs_diff(*expected) < 24)
        })
    }

    /// Writes it as a PNG file.
    #[track_caller]
    pub fn save(&self, path: &Path) {
        let raw = path.with_extension("bgrx");
        std::fs::write(&raw, &self.pixels).unwrap();
        let pipeline = format!(
            "filesrc location={} ! rawvideoparse format=bgrx width={} height={} ! videoconvert ! video/x-raw,format=RGB ! pngenc ! filesink location={}",
            raw.display(),
            self.width,
            self.height,
            path.display()
        );
        let mut launch = command("gst-launch-1.0");
        launch.arg("-q").args(pipeline.split_whitespace());
        Process::start(launch).wait_ok();
        std::fs::remove_file(raw).unwrap();
    }
}
