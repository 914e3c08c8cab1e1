// SPDX-License-Identifier: MIT OR Apache-2.0

//! Follows the frames of a channel from one segment and one writer to the next, without their bytes. The channel's
//! writer does not notice it.

use std::time::{Duration, Instant};

use rsshm_channel::{ChannelName, FrameDescriptor, Observer, TIME_NONE, monotonic_ns};

use crate::failure::Failure;

/// How often a follower looks for a segment while there is none.
const NAME_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// How long a follower waits if frames disappear before it can look at them.
const OVERWRITTEN_PAUSE: Duration = Duration::from_millis(1);

/// A frame that a follower saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sight {
    pub(crate) seq: u64,
    pub(crate) descriptor: FrameDescriptor,
    /// How many frames between the last one and this one were overwritten first, or dropped by the writer.
    pub(crate) missed: u64,
    /// When the follower saw the frame, in CLOCK_MONOTONIC nanoseconds.
    pub(crate) seen_ns: u64,
    /// Whether this is the first frame of a segment, whose caps may be others.
    pub(crate) is_first_of_segment: bool,
}

impl Sight {
    /// How old the frame was when the follower saw it; `None` if the frame has no timestamp. A timestamp in the future
    /// gives a negative age.
    pub(crate) fn age_ns(&self) -> Option<i64> {
        let difference = i128::from(self.seen_ns) - i128::from(self.descriptor.pts);
        (self.descriptor.pts != TIME_NONE).then(|| i64::try_from(difference).unwrap_or(i64::MAX))
    }
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// With the newest frame that is there already.
    Newest,
    /// With the next frame that is published.
    Next,
}

/// Follows the frames of a channel.
#[derive(Debug)]
pub(crate) struct Follower {
    name: ChannelName,
    begin: Begin,
    observer: Option<Observer>,
    /// The seq of the last frame that was seen or skipped.
    seq: Option<u64>,
    is_new_segment: bool,
    caps: String,
}

impl Follower {
    /// A follower of the channel `name`, which need not exist yet.
    pub(crate) fn new(name: ChannelName, begin: Begin) -> Self {
        Self {
            name,
            begin,
            observer: None,
            seq: None,
            is_new_segment: false,
            caps: String::new(),
        }
    }

    /// The caps of the last frame.
    pub(crate) fn caps(&self) -> &str {
        &self.caps
    }

    /// Whether the channel has a living writer now.
    pub(crate) fn is_connected(&self) -> bool {
        self.observer.is_some()
    }

    /// The next frame; `None` if there is none within `timeout`.
    ///
    /// # Errors
    /// This user may not read the channel, or it is damaged.
    pub(crate) fn next(&mut self, timeout: Duration) -> Result<Option<Sight>, Failure> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(observer) = &self.observer else {
                if !self.open()? {
                    if left.is_zero() {
                        return Ok(None);
                    }
                    std::thread::sleep(left.min(NAME_POLL_INTERVAL));
                }
                continue;
            };
            let seq = self.seq.unwrap_or(0);
            if observer.wait(seq, left) {
                if let Some((found, descriptor)) = observer.describe(seq.saturating_add(1)) {
                    self.seq = Some(found);
                    return Ok(Some(Sight {
                        seq: found,
                        descriptor,
                        missed: found.saturating_sub(seq).saturating_sub(1),
                        seen_ns: monotonic_ns(),
                        is_first_of_segment: std::mem::take(&mut self.is_new_segment),
                    }));
                }
                // The frames were overwritten meanwhile. If this segment is over, they do not come back.
                if !observer.is_current() {
                    self.observer = None;
                } else if left.is_zero() {
                    return Ok(None);
                }
                std::thread::sleep(OVERWRITTEN_PAUSE.min(left));
            } else if !observer.is_current() {
                self.observer = None;
                // A segment may be over whenever it is looked at.
                if left.is_zero() {
                    return Ok(None);
                }
            } else {
                return Ok(None);
            }
        }
    }

    /// Copies the newest frame; the next frame is then a later one. `None` if the writer overwrote it during the copy, or
    /// if there is no frame.
    pub(crate) fn copy_newest(&mut self, bytes: &mut Vec<u8>) -> Option<Sight> {
        let (seq, descriptor) = self.observer.as_ref()?.newest(bytes)?;
        self.seq = Some(seq);
        Some(Sight {
            seq,
            descriptor,
            missed: 0,
            seen_ns: monotonic_ns(),
            is_first_of_segment: false,
        })
    }

    /// Opens the segment that has the channel's name now; `false` if there is none with a living writer.
    fn open(&mut self) -> Result<bool, Failure> {
        let observer = Observer::open(&self.name).map_err(|error| Failure::of_channel(&self.name, &error))?;
        let Some(observer) = observer else {
            return Ok(false);
        };
        let before_first = observer.header().first_seq.saturating_sub(1);
        let head = observer.head();
        self.seq = Some(match (self.seq, self.begin) {
            // The follower comes from an earlier segment. A seq beyond this segment's is that of another channel, which
            // had the same name.
            (Some(seq), _) if seq <= head => seq.max(before_first),
            (Some(_), _) => before_first,
            (None, Begin::Next) => head,
            (None, Begin::Newest) => head.saturating_sub(1).max(before_first),
        });
        self.caps = observer.caps().to_owned();
        self.is_new_segment = true;
        self.observer = Some(observer);
        Ok(true)
    }
}
