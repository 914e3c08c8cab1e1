//! What a producer or a consumer is told to do: one JSON argument of the program's hidden commands.

use nix::{
    sys::{prctl::set_pdeathsig, signal::Signal},
    unistd::getppid,
};
use serde::{Deserialize, Serialize};

use crate::{case::Case, transport::Transport};

/// Where the two sides meet.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Place {
    pub channel: String,
    pub dir: String,
    pub port: u16,
}

/// Ways to spoil a frame, to see that it is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub enum Sabotage {
    /// One word of a frame is another.
    Corrupt,
    /// A frame has the number of the one before.
    Renumber,
    /// A frame is left out.
    Omit,
    /// The consumer stops for ever.
    Hang,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Order {
    pub transport: Transport,
    pub case: Case,
    /// Counted frames.
    pub frames: u64,
    /// Frames at the same rate before these.
    pub warm: u64,
    pub place: Place,
    pub sabotage: Option<Sabotage>,
    pub parent: i32,
}

impl Order {
    pub fn caps(&self) -> String {
        let (width, height) = self.case.size.width_height();
        // Unthrottled frames have a nominal rate.
        let rate = if self.case.is_paced() { self.case.rate } else { 60 };
        format!("video/x-raw,format=NV12,width={width},height={height},framerate={rate}/1")
    }

    /// Whether this frame is the one to be spoilt.
    pub fn spoils(&self, how: Sabotage, number: u64, first: u64) -> bool {
        self.sabotage == Some(how) && first.checked_add(self.frames / 2) == Some(number)
    }
}

type Role = fn(&Order) -> Result<(), String>;

/// Does what a hidden command is told to do, with GStreamer or without.
pub fn play(json: &str, role: Role, bare: Role) -> Result<(), String> {
    let order: Order = serde_json::from_str(json).map_err(|error| error.to_string())?;
    // Nobody is left when the program that started it is killed.
    set_pdeathsig(Signal::SIGKILL).map_err(|error| error.to_string())?;
    if getppid().as_raw() != order.parent {
        return Err("the benchmark is gone".into());
    }
    if order.transport.is_bare() {
        bare(&order)
    } else {
        gst::init().map_err(|error| error.to_string())?;
        role(&order)
    }
}
