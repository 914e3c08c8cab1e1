//! What is sent: how large, from whose memory, how often, to how many.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

/// The size of a frame, in NV12.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
pub enum Size {
    /// 1280x720
    #[value(name = "720p")]
    #[serde(rename = "720p")]
    Hd,
    /// 1920x1080
    #[value(name = "1080p")]
    #[serde(rename = "1080p")]
    FullHd,
    /// 3840x2160
    #[value(name = "4k")]
    #[serde(rename = "4k")]
    UltraHd,
}

impl Size {
    pub fn name(self) -> &'static str {
        match self {
            Self::Hd => "720p",
            Self::FullHd => "1080p",
            Self::UltraHd => "4k",
        }
    }

    pub fn width_height(self) -> (u32, u32) {
        match self {
            Self::Hd => (1280, 720),
            Self::FullHd => (1920, 1080),
            Self::UltraHd => (3840, 2160),
        }
    }

    pub fn bytes(self) -> usize {
        let (width, height) = self.width_height();
        width as usize * height as usize * 3 / 2
    }
}

/// Where the producer's frames are drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// In the memory that the sink offers
    InPlace,
    /// In memory of the producer's own, as a camera's
    Foreign,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::InPlace => "in-place",
            Self::Foreign => "foreign",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    pub size: Size,
    pub mode: Mode,
    /// Frames a second; 0: as fast as both sides can.
    pub rate: u32,
    pub readers: u32,
}

impl Case {
    /// The one that others of a plan differ from.
    pub const USUAL: Self = Self {
        size: Size::FullHd,
        mode: Mode::InPlace,
        rate: 60,
        readers: 1,
    };

    pub fn is_paced(self) -> bool {
        self.rate > 0
    }

    /// How many frames are counted where the user does not say.
    pub fn usual_frames(self) -> u64 {
        match self.rate {
            0 if self.size == Size::UltraHd => 300,
            0 => 600,
            rate => (u64::from(rate) * 2).max(90),
        }
    }

    /// How many frames go before those: until each slot that many readers need has been in everybody's hands.
    pub fn usual_warm_up(self) -> u64 {
        30 + 4 * u64::from(self.readers)
    }

    /// For the name of a file.
    pub fn slug(self) -> String {
        let rate = match self.rate {
            0 => "unthrottled".to_owned(),
            rate => format!("{rate}fps"),
        };
        format!("{}-{}-{rate}-{}", self.size.name(), self.mode.name(), self.readers)
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (width, height) = self.size.width_height();
        let mode = self.mode.name().replace('-', " ");
        let rate = match self.rate {
            0 => "unthrottled".to_owned(),
            rate => format!("{rate} fps"),
        };
        let readers = match self.readers {
            1 => "1 reader".to_owned(),
            readers => format!("{readers} readers"),
        };
        write!(f, "NV12 {width}x{height}, {mode}, {rate}, {readers}")
    }
}
