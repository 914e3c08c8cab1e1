// SPDX-License-Identifier: MIT OR Apache-2.0

//! A case: the size of the frames, the memory in which they are drawn, their rate and the number of readers. It also says
//! what a reader reads of a frame.

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

/// The memory in which the producer draws its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Memory that the sink offers
    InPlace,
    /// Memory that the producer allocated, as a camera does
    Foreign,
    /// Memfds of the producer, which the transport may pass on by descriptor
    Descriptor,
}

impl Mode {
    pub fn name(self) -> &'static str {
        match self {
            Self::InPlace => "in-place",
            Self::Foreign => "foreign",
            Self::Descriptor => "descriptor",
        }
    }
}

/// What a reader reads of each frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reading {
    /// The first bytes. The producer draws no more than these, so the figures are the cost of the transport alone
    Few,
    /// A word of each page, which shows that the frame is not torn
    Words,
    /// Every byte, as an encoder does
    All,
}

impl Reading {
    pub fn name(self) -> &'static str {
        match self {
            Self::Few => "few",
            Self::Words => "words",
            Self::All => "all",
        }
    }
}

/// One combination of size, mode, rate, number of readers and reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Case {
    pub size: Size,
    pub mode: Mode,
    /// Frames per second. At 0, the producer and the readers run as fast as they can.
    pub rate: u32,
    pub readers: u32,
    pub reading: Reading,
    /// Whether `rsshm top`, `rsshm hz` and `rsshm echo` run beside the readers.
    pub tools: bool,
}

impl Case {
    /// The usual case. The other cases of a plan differ from it in one value.
    pub const USUAL: Self = Self {
        size: Size::FullHd,
        mode: Mode::InPlace,
        rate: 60,
        readers: 1,
        reading: Reading::Words,
        tools: false,
    };

    pub fn is_paced(self) -> bool {
        self.rate > 0
    }

    /// Whether the system calls are counted too. If a case has no rate, the processes would wait for strace and therefore
    /// more often for each other.
    pub fn counts_calls(self) -> bool {
        self.mode == Mode::Descriptor && self.is_paced()
    }

    /// Default number of frames that count, that is, are measured. The option `--frames` overrides it.
    pub fn default_frames(self) -> u64 {
        match self.rate {
            0 if self.size == Size::UltraHd => 300,
            0 => 600,
            rate => (u64::from(rate) * 2).max(90),
        }
    }

    /// Default number of frames that are sent before those that count. They are so many that each reader uses each slot
    /// once.
    pub fn default_warm_up(self) -> u64 {
        30 + 4 * u64::from(self.readers)
    }

    /// The case as a part of a file name.
    pub fn slug(self) -> String {
        let rate = match self.rate {
            0 => "unthrottled".to_owned(),
            rate => format!("{rate}fps"),
        };
        let reading = match self.reading {
            Reading::Words => String::new(),
            other => format!("-{}", other.name()),
        };
        let tools = if self.tools { "-tools" } else { "" };
        format!(
            "{}-{}-{rate}{reading}{tools}-{}",
            self.size.name(),
            self.mode.name(),
            self.readers
        )
    }
}

impl std::fmt::Display for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (width, height) = self.size.width_height();
        let mode = match self.mode {
            Mode::InPlace => "in place",
            Mode::Foreign => "foreign",
            Mode::Descriptor => "by descriptor",
        };
        let rate = match self.rate {
            0 => "unthrottled".to_owned(),
            rate => format!("{rate} fps"),
        };
        let readers = match self.readers {
            1 => "1 reader".to_owned(),
            readers => format!("{readers} readers"),
        };
        let reading = match self.reading {
            Reading::Few => ", few bytes read",
            Reading::Words => "",
            Reading::All => ", every byte read",
        };
        let tools = if self.tools {
            ", beside rsshm top, hz and echo"
        } else {
            ""
        };
        write!(f, "NV12 {width}x{height}, {mode}, {rate}, {readers}{reading}{tools}")
    }
}
