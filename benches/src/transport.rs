// SPDX-License-Identifier: MIT OR Apache-2.0

//! The transports that carry frames from one process to another, and the limits of the machine.

use clap::ValueEnum;
use serde::{Deserialize, Serialize};

use crate::case::{Case, Mode};

/// The highest number of bytes per second at which TCP is measured.
const MAX_TCP_RATE: u64 = 400_000_000;

/// The names by which the consumers of a run find their producer.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Endpoint {
    /// Name of the channel.
    pub channel: String,
    /// Directory for sockets.
    pub dir: String,
    pub port: u16,
}

/// A transport, or a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Transport {
    /// rsshmsink and rsshmsrc with their defaults
    Rsshm,
    /// rsshmsink and rsshmsrc with lossless=true
    RsshmLossless,
    /// shmsink and shmsrc
    Shm,
    /// unixfdsink and unixfdsrc (GStreamer 1.24)
    Unixfd,
    /// iceoryx2sink and iceoryx2src, a plugin of another project (GStreamer 1.24)
    Iceoryx2,
    /// gdppay, tcpserversink, tcpclientsrc, gdpdepay
    Tcp,
    /// udpsink and udpsrc on the loopback device, only for bursts
    Udp,
    /// the producer alone, which is the base for the figures over fakesink
    Fakesink,
    /// shared memory and one futex, which is the fastest way to notify a process
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
            Self::Iceoryx2 => "iceoryx2",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Fakesink => "fakesink",
            Self::Futex => "futex",
            Self::Memcpy => "memcpy",
        }
    }

    /// The elements that the transport needs.
    pub fn elements(self) -> &'static [&'static str] {
        match self {
            Self::Rsshm | Self::RsshmLossless => &["rsshmsink", "rsshmsrc"],
            Self::Shm => &["shmsink", "shmsrc"],
            Self::Unixfd => &["unixfdsink", "unixfdsrc"],
            Self::Iceoryx2 => &["iceoryx2sink", "iceoryx2src"],
            Self::Tcp => &["gdppay", "tcpserversink", "tcpclientsrc", "gdpdepay"],
            Self::Udp => &["udpsink", "udpsrc"],
            Self::Fakesink => &["fakesink"],
            Self::Futex | Self::Memcpy => &[],
        }
    }

    /// What a user can do to get the elements of the transport.
    pub fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Unixfd => Some("GStreamer 1.24 has it: `make bench-releases`"),
            Self::Iceoryx2 => {
                Some("`make bench-iceoryx2` builds it, and it needs GStreamer 1.24: `make bench-releases`")
            }
            _ => None,
        }
    }

    /// Whether the transport belongs to this project.
    pub fn is_own(self) -> bool {
        matches!(self, Self::Rsshm | Self::RsshmLossless)
    }

    /// Whether the transport belongs to another project. The benchmark succeeds even if runs of foreign transports
    /// fail.
    pub fn is_foreign(self) -> bool {
        matches!(self, Self::Shm | Self::Unixfd | Self::Iceoryx2 | Self::Tcp | Self::Udp)
    }

    /// How often a run is attempted until it succeeds. Foreign transports have several attempts, because readers of
    /// shmsink sometimes lose their connection while other readers connect.
    pub fn tries(self) -> usize {
        if self.is_foreign() { 3 } else { 1 }
    }

    /// Whether the transport works without GStreamer.
    pub fn is_bare(self) -> bool {
        self.elements().is_empty()
    }

    /// Whether the transport has a producer but no consumers.
    pub fn is_producer_only(self) -> bool {
        matches!(self, Self::Fakesink | Self::Memcpy)
    }

    /// Whether every frame must reach every consumer.
    pub fn is_exact(self, case: Case) -> bool {
        match self {
            Self::Rsshm | Self::Futex => false,
            // At a rate it has its defaults, with which its queue drops the oldest frame.
            Self::Iceoryx2 => !case.is_paced(),
            _ => true,
        }
    }

    /// Whether the transport is measured in this case of frames.
    pub fn supports(self, case: Case) -> bool {
        match self {
            // Unthrottled, both transports would lose frames: rsshm drops frames for slow readers by design, and the
            // producer of `futex` waits for no process.
            Self::Rsshm | Self::Futex => case.is_paced(),
            // More readers than this are refused.
            Self::Iceoryx2 => case.readers <= 8,
            // The queue of tcpserversink has no limit, so TCP is measured only at rates up to MAX_TCP_RATE.
            Self::Tcp => case.is_paced() && u64::from(case.rate) * case.size.bytes() as u64 <= MAX_TCP_RATE,
            Self::Memcpy => case.mode == Mode::Foreign,
            // Before version 1.28, unixfdsink accepts no foreign memory.
            Self::Unixfd => case.mode != Mode::Foreign || gst::version() >= (1, 28, 0, 0),
            // A frame is larger than a datagram.
            Self::Udp => false,
            Self::RsshmLossless | Self::Shm | Self::Fakesink => true,
        }
    }

    /// The elements after the producer's source, in the syntax of gst-launch-1.0. shmsink gets memory of `shm_size`
    /// bytes, and waits while this memory is full. If the case has no rate, iceoryx2sink waits for its readers.
    pub fn sink(self, is_paced: bool, shm_size: usize, endpoint: &Endpoint) -> String {
        let Endpoint { channel, dir, port } = endpoint;
        match self {
            Self::Rsshm => format!("rsshmsink name={channel} sync=false"),
            Self::RsshmLossless => format!("rsshmsink name={channel} sync=false lossless=true"),
            Self::Shm => {
                format!("shmsink socket-path={dir}/shm shm-size={shm_size} wait-for-connection=false sync=false")
            }
            Self::Unixfd => format!("unixfdsink socket-path={dir}/unixfd sync=false"),
            Self::Iceoryx2 => format!("iceoryx2sink service={channel} lossless={} sync=false", !is_paced),
            Self::Tcp => "gdppay ! tcpserversink host=127.0.0.1 port=0 sync=false".to_owned(),
            Self::Udp => format!("udpsink host=127.0.0.1 port={port} sync=false"),
            Self::Fakesink => "fakesink sync=false enable-last-sample=false".to_owned(),
            Self::Futex | Self::Memcpy => String::new(),
        }
    }

    /// The elements before the consumer's sink, in the syntax of gst-launch-1.0.
    pub fn source(self, is_paced: bool, endpoint: &Endpoint, caps: &str) -> String {
        let Endpoint { channel, dir, port } = endpoint;
        match self {
            Self::Rsshm | Self::RsshmLossless => format!("rsshmsrc channel={channel}"),
            Self::Shm => format!("shmsrc socket-path={dir}/shm is-live=true ! {caps}"),
            Self::Unixfd => format!("unixfdsrc socket-path={dir}/unixfd"),
            // The two elements must agree on the overflow, and a lossless sink has none.
            Self::Iceoryx2 => format!("iceoryx2src service={channel} safe-overflow={is_paced}"),
            Self::Udp => format!("udpsrc address=127.0.0.1 port={port} ! {caps}"),
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
