//! The ways from one process to another, and the limits beside them.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::{
    case::{Case, Mode},
    order::Place,
};

/// Bytes a second.
const TCP_LIMIT: u64 = 400_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// rsshmsink and rsshmsrc as they are by default
    Rsshm,
    /// the same with lossless=true
    RsshmLossless,
    /// shmsink and shmsrc
    Shm,
    /// unixfdsink and unixfdsrc (GStreamer 1.24)
    Unixfd,
    /// gdppay, tcpserversink, tcpclientsrc, gdpdepay
    Tcp,
    /// the producer alone: what all others are compared above
    Fakesink,
    /// shared memory and a futex, nothing else: the fastest that a process can be told
    Futex,
    /// one copy of the frame in one process
    Memcpy,
}

impl Transport {
    pub fn name(self) -> &'static str {
        match self {
            Self::Rsshm => "rsshm",
            Self::RsshmLossless => "rsshm-lossless",
            Self::Shm => "shm",
            Self::Unixfd => "unixfd",
            Self::Tcp => "tcp",
            Self::Fakesink => "fakesink",
            Self::Futex => "futex",
            Self::Memcpy => "memcpy",
        }
    }

    /// The elements that it takes.
    pub fn elements(self) -> &'static [&'static str] {
        match self {
            Self::Rsshm | Self::RsshmLossless => &["rsshmsink", "rsshmsrc"],
            Self::Shm => &["shmsink", "shmsrc"],
            Self::Unixfd => &["unixfdsink", "unixfdsrc"],
            Self::Tcp => &["gdppay", "tcpserversink", "tcpclientsrc", "gdpdepay"],
            Self::Fakesink => &["fakesink"],
            Self::Futex | Self::Memcpy => &[],
        }
    }

    /// Whether it is this project's.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Rsshm | Self::RsshmLossless)
    }

    /// Whether it is somebody else's: then its failures are no fault of this project's.
    pub fn is_peer(self) -> bool {
        matches!(self, Self::Shm | Self::Unixfd | Self::Tcp)
    }

    /// How often a run is tried. Clients of shmsink now and then lose their connection while others come.
    pub fn tries(self) -> usize {
        if self.is_peer() { 3 } else { 1 }
    }

    /// Whether it uses no GStreamer.
    pub fn is_bare(self) -> bool {
        self.elements().is_empty()
    }

    /// Whether nobody receives.
    pub fn is_alone(self) -> bool {
        matches!(self, Self::Fakesink | Self::Memcpy)
    }

    /// Whether each frame must arrive.
    pub fn is_exact(self) -> bool {
        !matches!(self, Self::Rsshm | Self::Futex)
    }

    /// Whether the case says something about it.
    pub fn suits(self, case: Case) -> bool {
        match self {
            // The one drops frames for a slow reader, which is what it promises; the other waits for nobody.
            Self::Rsshm | Self::Futex => case.is_paced(),
            // Its server queues without a limit what the network does not take.
            Self::Tcp => case.is_paced() && u64::from(case.rate) * case.size.bytes() as u64 <= TCP_LIMIT,
            Self::Memcpy => case.mode == Mode::Foreign,
            // Before that it takes nothing but its own.
            Self::Unixfd => case.mode == Mode::InPlace || gst::version() >= (1, 28, 0, 0),
            Self::RsshmLossless | Self::Shm | Self::Fakesink => true,
        }
    }

    /// What the producer's frames go into, as for gst-launch-1.0.
    pub fn sink(self, case: Case, place: &Place) -> String {
        let Place { channel, dir, .. } = place;
        match self {
            Self::Rsshm => format!("rsshmsink name={channel} sync=false"),
            Self::RsshmLossless => format!("rsshmsink name={channel} sync=false lossless=true"),
            Self::Shm => {
                // Room for what a few slow readers keep; full, it waits.
                let size = case.size.bytes() * 16 + (1 << 20);
                format!("shmsink socket-path={dir}/shm shm-size={size} wait-for-connection=false sync=false")
            }
            Self::Unixfd => format!("unixfdsink socket-path={dir}/unixfd sync=false"),
            Self::Tcp => "gdppay ! tcpserversink host=127.0.0.1 port=0 sync=false".to_owned(),
            Self::Fakesink => "fakesink sync=false enable-last-sample=false".to_owned(),
            Self::Futex | Self::Memcpy => String::new(),
        }
    }

    /// Where a consumer's frames come from.
    pub fn source(self, place: &Place, caps: &str) -> String {
        let Place { channel, dir, port } = place;
        match self {
            Self::Rsshm | Self::RsshmLossless => format!("rsshmsrc channel={channel}"),
            Self::Shm => format!("shmsrc socket-path={dir}/shm is-live=true ! {caps}"),
            Self::Unixfd => format!("unixfdsrc socket-path={dir}/unixfd"),
            Self::Tcp => format!("tcpclientsrc host=127.0.0.1 port={port} ! gdpdepay"),
            Self::Fakesink | Self::Futex | Self::Memcpy => String::new(),
        }
    }
}

impl std::fmt::Display for Transport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
