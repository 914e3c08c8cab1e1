// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks the frames that a consumer receives, and collects their latencies.

use crate::{
    consume::Progress,
    frame::Mark,
    job::Job,
    pace::Usage,
    results::{ConsumerReport, Counts},
};

/// Checks and counts the frames that a consumer receives.
pub struct FrameChecker {
    /// Whether a consumer must receive every frame.
    is_exact: bool,
    warm: u64,
    previous: Option<u64>,
    /// Usage of the process at the first frame that counts.
    usage_before: Option<Usage>,
    first_ns: u64,
    last_ns: u64,
    latencies_ns: Vec<u64>,
}

impl FrameChecker {
    pub fn new(job: &Job) -> Self {
        Self {
            is_exact: job.transport.is_exact(job.case),
            warm: job.warm,
            previous: None,
            usage_before: None,
            first_ns: 0,
            last_ns: 0,
            // All memory is allocated before the run, because an allocation during the run would be measured too.
            latencies_ns: Vec::with_capacity(job.frames as usize),
        }
    }

    /// Checks and counts a frame that arrived at `now_ns`.
    pub fn receive(&mut self, mark: Mark, now_ns: u64) -> Result<Progress<ConsumerReport>, String> {
        let is_first = self.previous.is_none();
        self.check_order(mark)?;
        if is_first {
            return Ok(Progress::First { sent_ns: mark.sent_ns });
        }
        if mark.seq < mark.first {
            return Ok(Progress::Continue);
        }
        if self.usage_before.is_none() {
            self.usage_before = Some(Usage::now());
            self.first_ns = now_ns;
        }
        if mark.seq < mark.end {
            self.latencies_ns.push(now_ns.saturating_sub(mark.sent_ns));
            self.last_ns = now_ns;
            return Ok(Progress::Continue);
        }
        let latencies_ns = std::mem::take(&mut self.latencies_ns);
        let frames = latencies_ns.len() as u64;
        Ok(Progress::Complete(ConsumerReport {
            usage: Usage::now()
                .since(self.usage_before.unwrap_or_default())
                .per_frame(frames),
            missed: (mark.end - mark.first).saturating_sub(frames),
            span_ns: self.last_ns.saturating_sub(self.first_ns),
            latencies_ns,
            counts: Counts::new(),
        }))
    }

    /// Fails if the frame is out of order, or if an earlier frame that must arrive is missing.
    fn check_order(&mut self, mark: Mark) -> Result<(), String> {
        let seq = mark.seq;
        // By the time the frame `all_joined` is sent, every consumer has received a frame. Gaps before that frame are
        // permitted, because a consumer that has just joined may miss the frame after its first one. It gets the
        // newest frame when it joins, and may receive the next frame before its pipeline plays.
        let all_joined = mark.first.saturating_sub(self.warm);
        match self.previous.replace(seq) {
            None if seq < mark.first => Ok(()),
            None => Err(format!(
                "the first frame to arrive is frame {seq}, which already counts"
            )),
            Some(previous) if seq <= previous => Err(format!("frame {seq} comes after frame {previous}")),
            Some(previous) if self.is_exact && seq > previous + 1 && seq > all_joined => {
                Err(format!("frame {seq} comes after frame {previous}: some are lost"))
            }
            Some(_) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        case::Case,
        frame::SEQ_UNKNOWN,
        transport::{Endpoint, Transport},
    };

    const FRAMES: u64 = 3;
    const WARM: u64 = 2;

    fn checker(transport: Transport) -> FrameChecker {
        FrameChecker::new(&Job {
            transport,
            case: Case::USUAL,
            frames: FRAMES,
            warm: WARM,
            endpoint: Endpoint::default(),
            sabotage: None,
            traced: false,
            parent: 0,
        })
    }

    /// Receives a frame that was sent at the time 0. The frames 12 to 14 count. The marks of the frames before seq 10
    /// say that this range is not known yet.
    fn receive(checker: &mut FrameChecker, seq: u64) -> Result<Progress<ConsumerReport>, String> {
        let first = if seq < 10 { SEQ_UNKNOWN } else { 10 + WARM };
        let mark = Mark {
            seq,
            sent_ns: 0,
            first,
            end: first.saturating_add(FRAMES),
        };
        checker.receive(mark, seq * 1000)
    }

    #[test]
    fn only_frames_between_first_and_end_count() {
        let mut checker = checker(Transport::Shm);
        assert!(matches!(receive(&mut checker, 8), Ok(Progress::First { sent_ns: 0 })));
        for seq in 9..15 {
            assert!(matches!(receive(&mut checker, seq), Ok(Progress::Continue)), "{seq}");
        }
        let Ok(Progress::Complete(report)) = receive(&mut checker, 15) else {
            panic!("not complete");
        };
        assert_eq!(report.latencies_ns, [12_000, 13_000, 14_000]);
        assert_eq!((report.missed, report.span_ns), (0, 2000));
    }

    #[test]
    fn only_a_new_consumer_may_miss_frames() {
        let mut checker = checker(Transport::Shm);
        for seq in [0, 2, 9, 10] {
            assert!(receive(&mut checker, seq).is_ok(), "{seq}");
        }
        assert!(receive(&mut checker, 12).err().unwrap().contains("some are lost"));
    }

    #[test]
    fn permitted_misses_are_counted() {
        let mut checker = checker(Transport::Rsshm);
        for seq in [9, 12, 14] {
            assert!(receive(&mut checker, seq).is_ok(), "{seq}");
        }
        let Ok(Progress::Complete(report)) = receive(&mut checker, 17) else {
            panic!("not complete");
        };
        assert_eq!((report.missed, report.latencies_ns.len()), (1, 2));
    }

    #[test]
    fn repeated_or_older_frame_is_refused() {
        for seq in [9, 8] {
            let mut checker = checker(Transport::Rsshm);
            assert!(receive(&mut checker, 9).is_ok());
            assert!(receive(&mut checker, seq).is_err());
        }
    }
}
