// SPDX-License-Identifier: MIT OR Apache-2.0

//! A Wayland compositor without a display, for tests that check a window.

use std::{
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

use nix::sys::signal::Signal;

use super::{Picture, command, run_to_end};
use crate::{Process, eventually};

/// A running weston. Dropping the value ends the compositor.
pub struct Weston {
    compositor: Process,
    directory: PathBuf,
    size: (usize, usize),
}

/// How the compositor draws its screen.
#[derive(Clone, Copy, Debug)]
pub enum Renderer {
    /// By the processor. Clients have only plain shared memory, in few formats.
    Pixman,
    /// By OpenGL, which clients can use too.
    Gl,
}

/// A black screen with nothing but the windows.
const CONFIG: &str = "[core]\nidle-time=0\n[shell]\npanel-position=none\nbackground-color=0xff000000\nlocking=false\n\
                      animation=none\nstartup-animation=none\n";

/// The name of the compositor's socket in its directory.
const SOCKET: &str = "wayland";

impl Weston {
    /// Starts a compositor with a screen of this size.
    #[track_caller]
    pub fn start(renderer: Renderer, width: usize, height: usize) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Relaxed, because the number only has to be unique.
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("rsshm-weston-{}-{count}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("weston.ini"), CONFIG).unwrap();
        let mut compositor = Command::new("weston");
        // --debug allows any client to take pictures of the screen.
        compositor
            .args(["--backend=headless-backend.so", "--debug"])
            .arg(match renderer {
                Renderer::Pixman => "--use-pixman",
                Renderer::Gl => "--use-gl",
            })
            .args([format!("--width={width}"), format!("--height={height}")])
            .arg(format!("--socket={SOCKET}"))
            .arg(format!("--config={}", directory.join("weston.ini").display()))
            .env("XDG_RUNTIME_DIR", &directory);
        let mut compositor = Process::start(compositor);
        let socket = directory.join(SOCKET);
        eventually("the compositor is ready", || {
            assert!(compositor.is_running(), "{}", compositor.output());
            socket.exists()
        });
        Self {
            compositor,
            directory,
            size: (width, height),
        }
    }

    /// Starts `gst-launch-1.0` with its windows on this screen.
    #[track_caller]
    pub fn launch(&self, pipeline: &str) -> Process {
        let mut launch = command("gst-launch-1.0");
        self.make_client(&mut launch);
        // waylandsink warns if the compositor has no dmabufs.
        launch.env_remove("G_DEBUG").args(pipeline.split_whitespace());
        Process::start(launch)
    }

    fn make_client(&self, command: &mut Command) {
        command
            .env("XDG_RUNTIME_DIR", &self.directory)
            .env("WAYLAND_DISPLAY", SOCKET)
            .env_remove("DISPLAY");
    }

    /// Copies the contents of the screen.
    #[track_caller]
    pub fn picture(&self) -> Picture {
        let directory = self.directory.join("pictures");
        let _ = std::fs::remove_dir_all(&directory);
        std::fs::create_dir_all(&directory).unwrap();
        let mut shooter = Command::new("weston-screenshooter");
        self.make_client(&mut shooter);
        shooter.current_dir(&directory);
        Process::start(shooter).wait_ok();
        // The name of the file contains the time.
        let file = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
        let raw = directory.join("picture.bgrx");
        run_to_end(&format!(
            "filesrc location={} ! pngdec ! videoconvert ! video/x-raw,format=BGRx ! filesink location={}",
            file.display(),
            raw.display()
        ));
        Picture::from_pixels(self.size.0, self.size.1, std::fs::read(raw).unwrap())
    }
}

impl Drop for Weston {
    fn drop(&mut self) {
        if self.compositor.is_running() {
            // The compositor receives SIGTERM, not SIGKILL, so that it also ends its own clients.
            self.compositor.signal(Signal::SIGTERM);
            self.compositor.wait();
        }
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}
