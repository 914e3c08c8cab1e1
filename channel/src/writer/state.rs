// SPDX-License-Identifier: MIT OR Apache-2.0

//! The state of a writer: its parts, which change under one lock.

use super::{
    chain::SegmentChain,
    channel_lock::ChannelLock,
    events::EventLog,
    messages::RequestLog,
    objects::owners::{DEFAULT_SPARE_OBJECTS, FramesOut},
    patience::Patience,
    readers::ReaderTable,
    sequence::Sequence,
    service::ServiceState,
    shortage::ShortageLog,
    sizing::SlotSizing,
    stats::WriterStats,
};

/// The parts of a writer. Each part owns its data. The steps of the writer call the parts in the right order.
#[derive(Debug)]
pub(super) struct State {
    pub(super) lock: ChannelLock,
    pub(super) chain: SegmentChain,
    pub(super) sizing: SlotSizing,
    pub(super) sequence: Sequence,
    pub(super) events: EventLog,
    pub(super) readers: ReaderTable,
    pub(super) patience: Patience,
    pub(super) requests: RequestLog,
    pub(super) service: ServiceState,
    pub(super) shortage: ShortageLog,
    /// The time in nanoseconds from a frame's timestamp until the frame leaves the writer.
    pub(super) latency_ns: u64,
    /// How many frames of objects are out, in all segments.
    pub(super) frames_out: FramesOut,
    /// How many frames of objects may be out.
    pub(super) spare_objects: u32,
    /// The inode of the socket's file; 0 before the first segment with objects.
    pub(super) socket: u64,
    /// Whether the source of the frames is closed until a reader attaches.
    pub(super) is_idle: bool,
    pub(super) stats: WriterStats,
}

impl State {
    /// The state of a writer that has just become the channel's writer. The seqs of frames and events continue after
    /// `head` and `event_head`.
    pub(super) fn new(lock: ChannelLock, chain: SegmentChain, head: u64, event_head: u64) -> Self {
        Self {
            lock,
            chain,
            sizing: SlotSizing::default(),
            sequence: Sequence::after(head),
            events: EventLog::after(event_head),
            readers: ReaderTable::new(),
            patience: Patience::default(),
            requests: RequestLog::new(),
            service: ServiceState::new(),
            shortage: ShortageLog::default(),
            latency_ns: 0,
            frames_out: FramesOut::default(),
            spare_objects: DEFAULT_SPARE_OBJECTS,
            socket: 0,
            is_idle: false,
            stats: WriterStats::default(),
        }
    }

    /// Tells the readers of all segments which file is the socket. The caller gives the file its name later, so a
    /// reader that finds the file finds its inode too.
    pub(super) fn set_socket(&mut self, inode: u64) {
        self.socket = inode;
        self.chain.set_socket(inode);
    }
}
