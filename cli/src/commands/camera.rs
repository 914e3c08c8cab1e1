// SPDX-License-Identifier: MIT OR Apache-2.0

//! `rsshm camera`: publishes a camera, and starts it again when it fails.

use std::{
    io,
    path::PathBuf,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use rsshm_channel::{ChannelName, Observer};

use crate::{
    camera::{
        child::{Stopper, Supervised},
        notify::{self, Manager},
        settings::{Settings, SettingsError, parse_mode},
    },
    failure::{Code, Failure},
    interrupt, names,
    output::{Output, warn},
    units,
};

/// The program that runs the pipeline.
const LAUNCHER: &str = "gst-launch-1.0";
/// How often the command looks for the first frame.
const START_INTERVAL: Duration = Duration::from_millis(50);
/// The pause before the pipeline is started again. It doubles each time, up to the longest one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long frames must have flowed, so that the next failure is a new one.
const STEADY_TIME: Duration = Duration::from_secs(10);
/// How many files a pipeline may have open. v4l2src of GStreamer 1.22 leaves a descriptor open each time that it stops, and
/// a process may have 1024.
const MAX_DESCRIPTORS: usize = 256;
/// How long a pipeline without frames may take to end by itself.
const STALLED_STOP_TIMEOUT: Duration = Duration::from_secs(3);

/// Publishes a camera with gst-launch-1.0, and starts it again when it fails or delivers no frames.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  rsshm camera video0                                  the device /dev/video0
  rsshm camera door --source 'rtspsrc location=rtsp://door latency=100 ! rtph264depay ! h264parse'
  rsshm camera cam0 --source 'v4l2src device=/dev/video2' --caps video/x-raw,width=1280 --on-demand
  rsshm camera cam0 --dry-run                          the command that would run

Without --config, the file /etc/rsshm/CHANNEL.conf is read if it exists. It has lines such as SOURCE=v4l2src device=/dev/video2,
CAPS=, SINK=, PERMS=0660, ON_DEMAND=yes, IDLE_SECONDS=5 and STALL_SECONDS=10. The options of the command line come first.

As a service of systemd: systemctl enable --now rsshm-camera@video0")]
pub(crate) struct Camera {
    /// The name of the channel, or a URI.
    #[arg(value_name = "CHANNEL", value_parser = names::parse)]
    channel: ChannelName,
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The elements before the sink, as in a command line of gst-launch-1.0. A channel such as video0 has its device.
    #[arg(long, value_name = "PIPELINE")]
    source: Option<String>,
    /// The caps between the source and the sink.
    #[arg(long, value_name = "CAPS")]
    caps: Option<String>,
    /// Further properties of rsshmsink, such as 'lossless=true max-slots=8'.
    #[arg(long, value_name = "PROPERTIES")]
    sink: Option<String>,
    /// The permissions of the channel: 0644 lets others observe, 0660 lets the group attach. [default: 0660]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    perms: Option<u32>,
    /// Opens the camera only while a reader is attached.
    #[arg(long)]
    on_demand: bool,
    /// With --on-demand: how long nobody reads before the camera is closed, in whole seconds. [default: 5s]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    idle: Option<Duration>,
    /// How long no frame may come before the pipeline is started again; 0 for any time. [default: 10s]
    #[arg(long, value_name = "DURATION", value_parser = units::parse_duration)]
    stall: Option<Duration>,
    /// Only prints the command that would run.
    #[arg(long, short = 'n')]
    dry_run: bool,
}

impl Camera {
    pub(crate) fn run(&self, output: &mut Output) -> Result<(), Failure> {
        let settings = self.settings().map_err(|error| failure(&error))?;
        let arguments = settings.arguments(&self.channel).map_err(|error| failure(&error))?;
        if self.dry_run {
            let command = std::iter::once(LAUNCHER).chain(arguments.iter().map(String::as_str));
            return output.line(shell_words::join(command));
        }
        let stopper = Stopper::default();
        let manager = Arc::new(Manager::of_environment());
        interrupt::before_end({
            let (stopper, manager) = (stopper.clone(), Arc::clone(&manager));
            move || {
                manager.send("STOPPING=1");
                stopper.stop();
            }
        });
        let mut supervision = Supervision {
            channel: &self.channel,
            stall: settings.stall(),
            watchdog: notify::watchdog_interval(),
            manager,
            stopper,
            is_ready: false,
        };
        supervision.run(&arguments)
    }

    fn settings(&self) -> Result<Settings, SettingsError> {
        let own = Settings {
            source: self.source.clone(),
            caps: self.caps.clone(),
            sink: self.sink.clone(),
            perms: self.perms,
            on_demand: self.on_demand.then_some(true),
            idle: self.idle,
            stall: self.stall,
        };
        let path = self.config.clone().unwrap_or_else(|| Settings::path(&self.channel));
        match Settings::read(&path) {
            Ok(file) => Ok(own.or(file)),
            Err(SettingsError::Unreadable(_, error))
                if self.config.is_none() && error.kind() == io::ErrorKind::NotFound =>
            {
                Ok(own)
            }
            Err(error) => Err(error),
        }
    }
}

/// The failure of a wrong configuration. It stays wrong, so a service manager must not try again.
fn failure(error: &SettingsError) -> Failure {
    let code = match error {
        SettingsError::Unreadable(_, error) if error.kind() == io::ErrorKind::PermissionDenied => Code::Denied,
        _ => Code::Usage,
    };
    Failure::new(code, error.to_string())
}

/// What the channel of the child shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// The child has not published a frame yet.
    Nothing,
    /// The newest frame.
    Frame(u64),
    /// The camera is closed, because nobody reads.
    Idle,
}

/// What the looks at the channel of one child have found.
#[derive(Debug)]
struct Health {
    sight: Sight,
    /// When the first frame was seen, or the camera was closed in its place.
    since: Option<Instant>,
    /// When the last look was that found a change, or that the camera is closed.
    healthy_at: Instant,
}

impl Health {
    fn new(now: Instant) -> Self {
        Self {
            sight: Sight::Nothing,
            since: None,
            healthy_at: now,
        }
    }

    /// Takes in what a look finds.
    fn see(&mut self, sight: Sight, now: Instant) {
        if sight != self.sight || sight == Sight::Idle {
            self.healthy_at = now;
            self.since = self.since.or(Some(now));
        }
        self.sight = sight;
    }

    /// How long no frame has come that should have come.
    fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.healthy_at)
    }

    /// How long frames have flowed, without the time after the last one.
    fn flowed(&self) -> Duration {
        self.since
            .map_or(Duration::ZERO, |since| self.healthy_at.saturating_duration_since(since))
    }
}

/// Runs the pipeline again and again.
struct Supervision<'a> {
    channel: &'a ChannelName,
    stall: Option<Duration>,
    watchdog: Option<Duration>,
    manager: Arc<Manager>,
    stopper: Stopper,
    /// Whether the service manager knows that frames flow.
    is_ready: bool,
}

impl Supervision<'_> {
    fn run(&mut self, arguments: &[String]) -> Result<(), Failure> {
        let mut pause = FIRST_PAUSE;
        loop {
            let child = Supervised::start(LAUNCHER, arguments, &self.stopper).map_err(cannot_start)?;
            let (status, words, flowed) = self.supervise(child).map_err(cannot_start)?;
            if self.stopper.is_stopping() {
                // The thread that stops the child ends the program.
                return Ok(());
            }
            if flowed > STEADY_TIME {
                pause = FIRST_PAUSE;
            }
            let words = if words.is_empty() {
                String::new()
            } else {
                format!(": {words}")
            };
            let text = format!("{LAUNCHER} has ended ({status}){words}");
            let seconds = pause.as_secs();
            warn(format!(
                "channel {}: {text}; it is started again in {seconds} s",
                self.channel
            ));
            self.report(&format!("STATUS=starts again in {seconds} s, because {text}"));
            self.sleep(pause);
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Waits for the end of the child. Returns its status, its last words, and how long frames have flowed.
    fn supervise(&mut self, mut child: Supervised) -> io::Result<(ExitStatus, String, Duration)> {
        let mut health = Health::new(Instant::now());
        self.report("STATUS=waits for the first frame");
        loop {
            if let Some(status) = child.wait(self.look_interval(health.sight))? {
                return Ok((status, child.last_words().to_owned(), health.flowed()));
            }
            let former = health.sight;
            health.see(self.look(child.pid()), Instant::now());
            self.report_sight(former, health.sight);
            let silence = health.silence(Instant::now());
            if self.stall.is_some_and(|stall| silence > stall) {
                let text = format!("no frame for {} s", silence.as_secs());
                warn(format!("channel {}: {text}; the pipeline is stopped", self.channel));
                return Ok((self.end(&mut child)?, text, health.flowed()));
            }
            // Nobody reads now, so nobody misses a frame.
            if health.sight == Sight::Idle && open_descriptors(child.pid()) > MAX_DESCRIPTORS {
                let text = "too many open files".to_owned();
                return Ok((self.end(&mut child)?, text, health.flowed()));
            }
            self.report("WATCHDOG=1");
        }
    }

    /// Ends a child whose pipeline has stalled.
    fn end(&self, child: &mut Supervised) -> io::Result<ExitStatus> {
        self.stopper.interrupt();
        let deadline = Instant::now() + STALLED_STOP_TIMEOUT;
        loop {
            if let Some(status) = child.wait(START_INTERVAL)? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                // If the kernel does not let the process end, the service manager notices that the signs of life stop.
                self.stopper.kill();
            } else {
                self.report("WATCHDOG=1");
            }
        }
    }

    /// How long the command sleeps between two looks at the channel. While frames flow, it need not hurry.
    fn look_interval(&self, sight: Sight) -> Duration {
        let longest = self.watchdog.map_or(LONGEST_PAUSE, |watchdog| watchdog / 3);
        let stall = self.stall.map_or(longest, |stall| stall / 4);
        let interval = if sight == Sight::Nothing { START_INTERVAL } else { stall };
        interval.clamp(Duration::from_millis(1), longest.max(START_INTERVAL))
    }

    /// Looks at the channel of the child with this process id.
    fn look(&self, pid: u32) -> Sight {
        // A channel that cannot be read has no frames for the supervision either. The child says why it fails.
        let Some(observer) = Observer::open(self.channel).ok().flatten() else {
            return Sight::Nothing;
        };
        let head = observer.head();
        if observer.header().writer_pid != pid {
            Sight::Nothing
        } else if observer.status().is_idle {
            Sight::Idle
        } else if head >= observer.header().first_seq {
            Sight::Frame(head)
        } else {
            Sight::Nothing
        }
    }

    fn report_sight(&mut self, former: Sight, sight: Sight) {
        if former == sight {
            return;
        }
        let status = match sight {
            Sight::Nothing => "STATUS=waits for frames",
            Sight::Frame(_) if matches!(former, Sight::Frame(_)) => return,
            Sight::Frame(_) => "STATUS=frames flow",
            Sight::Idle => "STATUS=the camera is closed until somebody reads",
        };
        self.report(status);
        if sight != Sight::Nothing && !self.is_ready {
            self.is_ready = true;
            self.report("READY=1");
        }
    }

    fn report(&self, line: &str) {
        self.manager.send(line);
    }

    /// Sleeps, and gives the service manager its signs of life.
    fn sleep(&self, pause: Duration) {
        let deadline = Instant::now() + pause;
        loop {
            self.report("WATCHDOG=1");
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(self.watchdog.map_or(left, |watchdog| watchdog / 3)));
        }
    }
}

/// How many descriptors a process has; 0 if this user may not see it.
fn open_descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

fn cannot_start(error: io::Error) -> Failure {
    let text = if error.kind() == io::ErrorKind::NotFound {
        format!("{LAUNCHER} is not installed: apt install gstreamer1.0-tools")
    } else {
        format!("{LAUNCHER} cannot be started: {error}")
    };
    Failure::new(Code::No, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a camera shows that was seen like this, in seconds after its start.
    fn health(began: Instant, looks: &[(u64, Sight)]) -> Health {
        let mut health = Health::new(began);
        for (seconds, sight) in looks {
            health.see(*sight, began + Duration::from_secs(*seconds));
        }
        health
    }

    #[test]
    fn stall_does_not_count_as_flow() {
        let began = Instant::now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let one = health(
            began,
            &[(0, Sight::Nothing), (2, Sight::Frame(1)), (15, Sight::Frame(1))],
        );
        assert_eq!(one.flowed(), Duration::ZERO);
        assert_eq!(one.silence(at(15)), Duration::from_secs(13));
        let none = health(began, &[(0, Sight::Nothing), (20, Sight::Nothing)]);
        assert_eq!(none.flowed(), Duration::ZERO);
        assert_eq!(none.silence(at(20)), Duration::from_secs(20));
        let many = health(
            began,
            &[(1, Sight::Frame(1)), (14, Sight::Frame(400)), (30, Sight::Frame(400))],
        );
        assert_eq!(many.flowed(), Duration::from_secs(13));
    }

    #[test]
    fn closed_camera_is_healthy() {
        let began = Instant::now();
        let closed = health(began, &[(1, Sight::Idle), (3600, Sight::Idle)]);
        assert_eq!(closed.silence(began + Duration::from_secs(3600)), Duration::ZERO);
        assert_eq!(closed.flowed(), Duration::from_secs(3599));
    }
}
