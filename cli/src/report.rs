// SPDX-License-Identifier: MIT OR Apache-2.0

//! A report on one channel: everything that an observer can see. Its fields are the schema of `list` and `info`, which
//! docs/CLI.md describes.

use rsshm_channel::{
    ChannelName, Error, ObservedReader, Observer, TIME_NONE, has_writer,
    layout::{FrameDescriptor, MAX_SLOTS, flags, object_kind, reader_state},
    monotonic_ns,
};
use serde::Serialize;

use crate::{
    caps::Summary,
    failure::{Code, Failure, is_other_version},
    process::{Processes, Program, group_name, user_name},
    statistics::Window,
};

/// The most frames whose intervals are compared.
const MOST_INTERVALS: u64 = 32;

/// The state of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The writer lives.
    Alive,
    /// The writer lives, and its source is closed until a reader attaches.
    Idle,
    /// The writer lives and does not know the format yet, so there is no segment.
    NoFormat,
    /// The writer is dead.
    NoWriter,
    /// The writer has closed the channel.
    Closed,
    /// This user may not read the channel.
    Denied,
    /// The segment is not valid.
    Damaged,
    /// The segment has another version of the protocol.
    OtherVersion,
}

impl State {
    /// Whether the channel has a living writer.
    pub(crate) fn has_writer(self) -> bool {
        matches!(self, Self::Alive | Self::Idle | Self::NoFormat)
    }

    /// The name in JSON and CSV.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoFormat => "no-format",
            Self::NoWriter => "no-writer",
            Self::OtherVersion => "other-version",
            other => other.text(),
        }
    }

    /// The name for people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Alive => "alive",
            Self::Idle => "idle",
            Self::NoFormat => "no format",
            Self::NoWriter => "no writer",
            Self::Closed => "closed",
            Self::Denied => "denied",
            Self::Damaged => "damaged",
            Self::OtherVersion => "other version",
        }
    }
}

impl Serialize for State {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// A report on one channel.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) channel: String,
    pub(crate) state: State,
    /// Why the channel is not alive, and what to do.
    pub(crate) problem: Option<String>,
    pub(crate) caps: Option<String>,
    pub(crate) media: Option<String>,
    pub(crate) format: Option<String>,
    pub(crate) width: Option<u32>,
    pub(crate) height: Option<u32>,
    pub(crate) framerate: Option<String>,
    /// The rate of the frames that are still in the segment, by their timestamps.
    pub(crate) measured_fps: Option<f64>,
    /// The standard deviation of the time between the timestamps of these frames, in nanoseconds.
    pub(crate) jitter_ns: Option<u64>,
    /// The seq of the newest frame.
    pub(crate) head: Option<u64>,
    /// Nanoseconds since the timestamp of the newest frame.
    pub(crate) newest_age_ns: Option<u64>,
    /// How many nanoseconds the timestamp of the newest frame lies in the future.
    #[serde(skip)]
    pub(crate) newest_ahead_ns: Option<u64>,
    /// The size of the newest frame.
    pub(crate) newest_bytes: Option<u64>,
    /// Nanoseconds since the segment was made.
    pub(crate) age_ns: Option<u64>,
    pub(crate) latency_ns: Option<u64>,
    pub(crate) writer: Option<Writer>,
    pub(crate) memory: Option<Memory>,
    pub(crate) options: Option<Options>,
    /// The memory of the frames that are still there, if it is not in the segment.
    pub(crate) objects: Vec<Object>,
    pub(crate) reader_count: Option<usize>,
    pub(crate) readers: Vec<Reader>,
    #[serde(skip)]
    pub(crate) summary: Summary,
}

/// The writer of a channel.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Writer {
    pub(crate) pid: u32,
    pub(crate) program: Option<String>,
    pub(crate) alive: bool,
    /// `None` if the process cannot be seen from here.
    pub(crate) stopped: Option<bool>,
}

/// The memory of a channel.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Memory {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) slots: u32,
    pub(crate) slots_with_memory: u32,
    pub(crate) slots_held: u32,
    pub(crate) slot_bytes: u64,
    pub(crate) mode: String,
    pub(crate) owner: String,
    pub(crate) group: String,
}

/// Memory of frames, whose descriptor readers get.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Object {
    pub(crate) id: u64,
    pub(crate) kind: &'static str,
    /// The newest frame in the memory.
    pub(crate) seq: u64,
    /// The bytes of this frame in the memory.
    pub(crate) bytes: u64,
}

/// The options of the writer.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Options {
    pub(crate) lossless: bool,
    pub(crate) history: u32,
    /// Whether the writer takes messages, such as navigation events.
    pub(crate) messages: bool,
    /// Whether several small frames share a slot.
    pub(crate) runs: bool,
    pub(crate) objects: bool,
}

/// A reader of a channel.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Reader {
    pub(crate) entry: usize,
    pub(crate) pid: Option<u32>,
    pub(crate) program: Option<String>,
    pub(crate) behind: Option<u64>,
    /// The frames that it has missed, and those that were overwritten before it took them.
    pub(crate) missed: Option<u64>,
    /// The frames that the reader itself has counted as missed.
    #[serde(skip)]
    pub(crate) missed_by_own_count: u64,
    /// Whether it wants only the newest frame, so that it misses frames on purpose.
    pub(crate) latest: Option<bool>,
    pub(crate) holds: u32,
    pub(crate) slots: Vec<u32>,
    pub(crate) quota: Option<u32>,
    pub(crate) state: &'static str,
    pub(crate) stopped: Option<bool>,
    /// `None` if this user may not ask the kernel.
    pub(crate) alive: Option<bool>,
    pub(crate) cursor: Option<u64>,
}

impl Report {
    /// The report on the channel `name`.
    ///
    /// # Errors
    /// There is no such channel. A channel that cannot be read has a report with its state.
    pub(crate) fn new(name: &ChannelName, processes: &mut Processes) -> Result<Self, Failure> {
        match Observer::inspect(name) {
            Ok(Some(observer)) => Ok(Self::of_segment(name, &observer, processes)),
            Ok(None) if has_writer(name) == Some(true) => {
                let problem = "its writer has no format yet, so there are no frames";
                Ok(Self::without_segment(name, State::NoFormat, problem.to_owned()))
            }
            Ok(None) => Err(Failure::no_channel(name.as_str())),
            Err(error) => {
                let state = match error {
                    Error::Denied { .. } => State::Denied,
                    Error::Damaged { .. } if is_other_version(name) => State::OtherVersion,
                    Error::Damaged { .. } | Error::Foreign { .. } => State::Damaged,
                    error => return Err(Failure::of_channel(name, &error)),
                };
                Ok(Self::without_segment(name, state, error.to_string()))
            }
        }
    }

    /// The failure of a command that needs a channel whose segment can be read; `None` if it can.
    pub(crate) fn failure(&self) -> Option<Failure> {
        let code = match self.state {
            State::Denied => Code::Denied,
            State::Damaged | State::OtherVersion => Code::Damaged,
            State::Alive | State::Idle | State::NoFormat | State::NoWriter | State::Closed => return None,
        };
        Some(Failure::new(code, self.problem.clone().unwrap_or_default()))
    }

    fn without_segment(name: &ChannelName, state: State, problem: String) -> Self {
        Self {
            channel: name.to_string(),
            state,
            problem: Some(problem),
            caps: None,
            media: None,
            format: None,
            width: None,
            height: None,
            framerate: None,
            measured_fps: None,
            jitter_ns: None,
            head: None,
            newest_age_ns: None,
            newest_ahead_ns: None,
            newest_bytes: None,
            age_ns: None,
            latency_ns: None,
            writer: None,
            memory: None,
            options: None,
            objects: Vec::new(),
            reader_count: None,
            readers: Vec::new(),
            summary: Summary::default(),
        }
    }

    fn of_segment(name: &ChannelName, observer: &Observer, processes: &mut Processes) -> Self {
        let header = observer.header();
        let status = observer.status();
        let file = observer.file().ok();
        let inode = file.map_or(0, |file| file.inode);
        // The lock is queried after the status, so that a writer that has just closed the channel is not called dead.
        let is_alive = observer.has_writer();
        let state = match (status.is_closed, is_alive) {
            (false, true) if status.is_idle => State::Idle,
            (false, true) => State::Alive,
            (true, _) => State::Closed,
            (false, false) => State::NoWriter,
        };
        // The oldest frame is described first. A fast writer may otherwise have overwritten the newest one meanwhile.
        let oldest = observer.describe(header.first_seq.max(1));
        let newest = observer.describe_newest();
        // The newest frame may have come after the status was read.
        let head = newest.map_or(status.head, |(seq, _)| seq);
        let now = monotonic_ns();
        let newest_pts = newest.map(|(_, newest)| newest.pts).filter(|pts| *pts != TIME_NONE);
        let mut present = observer.readers();
        present.retain(ObservedReader::is_present);
        let held = present.iter().fold(0, |held, reader| held | reader.pins);
        let readers: Vec<Reader> = present
            .iter()
            .map(|reader| Reader::new(reader, observer, inode, processes))
            .collect();
        let program = if is_alive {
            processes.peer(header.writer_pid, inode)
        } else {
            None
        };
        let summary = Summary::new(observer.caps());
        let problem = match state {
            State::NoWriter => Some(format!(
                "its writer (process {}) is dead; start it again, or remove its files: rsshm clean {name}",
                header.writer_pid,
            )),
            State::Closed => Some("its writer has closed it".to_owned()),
            _ => None,
        };
        Self {
            channel: name.to_string(),
            state,
            problem,
            caps: Some(observer.caps().to_owned()),
            media: Some(summary.media.clone()),
            format: summary.format.clone(),
            width: summary.width,
            height: summary.height,
            framerate: summary.framerate.clone(),
            measured_fps: measured_fps(oldest, newest),
            jitter_ns: jitter_ns(observer, head),
            head: Some(head),
            newest_age_ns: newest_pts.map(|pts| now.saturating_sub(pts)),
            newest_ahead_ns: newest_pts.and_then(|pts| pts.checked_sub(now)),
            newest_bytes: newest.map(|(_, newest)| newest.size),
            age_ns: Some(now.saturating_sub(header.created_ns)),
            latency_ns: Some(status.latency_ns),
            writer: Some(Writer {
                pid: header.writer_pid,
                program: program.as_ref().map(|program| program.name.clone()),
                alive: is_alive,
                stopped: program.as_ref().map(|program| program.is_stopped),
            }),
            memory: file.map(|file| Memory {
                path: name.segment_path(),
                bytes: file.memory,
                slots: header.slot_count,
                slots_with_memory: file.committed_slots,
                slots_held: held.count_ones(),
                slot_bytes: header.slot_size,
                mode: format!("{:04o}", file.mode),
                owner: user_name(file.owner),
                group: group_name(file.group),
            }),
            options: Some(Options {
                lossless: header.flags & flags::LOSSLESS != 0,
                history: header.history,
                messages: header.message_count > 0,
                runs: header.flags & flags::RUNS != 0,
                objects: header.flags & flags::OBJECTS != 0,
            }),
            objects: objects(observer, head),
            reader_count: Some(readers.len()),
            readers,
            summary,
        }
    }
}

impl Reader {
    fn new(reader: &ObservedReader, observer: &Observer, inode: u64, processes: &mut Processes) -> Self {
        let program: Option<Program> = processes.peer(reader.pid, inode);
        // A reader that comes from an earlier segment has not written its values into the entry yet.
        let is_known = reader.state != reader_state::NEW;
        Self {
            entry: reader.entry,
            pid: (is_known && reader.pid != 0).then_some(reader.pid),
            program: program
                .as_ref()
                .filter(|_| is_known)
                .map(|program| program.name.clone()),
            behind: is_known.then_some(reader.behind),
            missed: is_known.then(|| reader.missed.saturating_add(gone(observer, reader))),
            missed_by_own_count: reader.missed,
            latest: is_known.then_some(reader.wants_only_newest),
            holds: reader.held(),
            slots: (0..64).filter(|slot| reader.pins >> slot & 1 == 1).collect(),
            quota: reader.quota,
            state: match reader.state {
                _ if reader.is_evicted => "evicted",
                reader_state::ATTACHED => "attached",
                reader_state::JOINING => "joining",
                reader_state::LEFT => "left",
                reader_state::MOVED => "moved",
                _ => "new",
            },
            stopped: program.filter(|_| is_known).map(|program| program.is_stopped),
            alive: reader.is_alive,
            cursor: is_known.then_some(reader.cursor),
        }
    }
}

/// How many frames were overwritten before the reader took them. A reader that runs counts them when it takes its next
/// frame, and a stopped reader cannot count.
fn gone(observer: &Observer, reader: &ObservedReader) -> u64 {
    let next = reader.cursor.saturating_add(1);
    if reader.behind == 0 || reader.state != reader_state::ATTACHED {
        return 0;
    }
    observer
        .describe(next)
        .map_or(0, |(oldest, _)| oldest.saturating_sub(next))
}

/// The memory of the frames that are still there, without repetition, that of the newest frame first.
fn objects(observer: &Observer, head: u64) -> Vec<Object> {
    let mut objects: Vec<Object> = Vec::new();
    let oldest = head.saturating_sub(MAX_SLOTS as u64).max(1);
    for seq in (oldest..=head).rev() {
        for part in observer.references(seq) {
            match objects.iter_mut().find(|object| object.id == part.object) {
                Some(object) if object.seq == seq => object.bytes = object.bytes.saturating_add(part.size),
                Some(_) => {}
                None => objects.push(Object {
                    id: part.object,
                    kind: if part.kind == object_kind::DMABUF {
                        "dmabuf"
                    } else {
                        "memfd"
                    },
                    seq,
                    bytes: part.size,
                }),
            }
        }
    }
    objects
}

/// The rate of the frames from the oldest one in the segment to the newest one. Their timestamps say it without a wait.
fn measured_fps(oldest: Option<(u64, FrameDescriptor)>, newest: Option<(u64, FrameDescriptor)>) -> Option<f64> {
    let ((first, oldest), (last, newest)) = (oldest?, newest?);
    let is_timed = newest.pts != TIME_NONE && oldest.pts != TIME_NONE && newest.pts > oldest.pts && last > first;
    is_timed.then(|| (last - first) as f64 * 1e9 / (newest.pts - oldest.pts) as f64)
}

/// How much the time between two frames varies, by the timestamps of the frames that are still in the segment.
fn jitter_ns(observer: &Observer, head: u64) -> Option<u64> {
    let mut intervals = Window::new(MOST_INTERVALS as usize);
    let mut former: Option<u64> = None;
    let mut seq = head
        .saturating_sub(MOST_INTERVALS)
        .max(observer.header().first_seq.max(1));
    while seq <= head {
        let (found, frame) = observer.describe(seq)?;
        let is_next = found == seq && frame.pts != TIME_NONE;
        if let Some(former) = former.filter(|_| is_next) {
            intervals.push(frame.pts as f64 - former as f64);
        }
        former = (frame.pts != TIME_NONE).then_some(frame.pts);
        seq = found.checked_add(1)?;
    }
    let found = intervals.statistics().filter(|found| found.count > 1)?;
    Some(found.std_dev as u64)
}
