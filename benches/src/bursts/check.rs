// SPDX-License-Identifier: MIT OR Apache-2.0

//! Checks and counts the buffers that a consumer of bursts receives.

use super::{
    BurstCase, BurstJob,
    figures::ReaderReport,
    packet::{self, FIRST_SEQ},
};
use crate::{consume::Progress, pace::Usage, transport::Transport};

/// Checks and counts buffers.
pub struct BurstChecker {
    case: BurstCase,
    /// Whether a lost buffer is a failure.
    is_exact: bool,
    previous: Option<u64>,
    /// Usage of the process at the first buffer of a burst.
    usage_before: Option<Usage>,
    received: u64,
    /// When the last buffer of each burst arrived. It is 0 for a burst of which nothing arrived.
    ends_ns: Vec<u64>,
}

impl BurstChecker {
    pub fn new(job: &BurstJob) -> Self {
        Self {
            case: job.case,
            is_exact: job.transport == Transport::RsshmLossless,
            previous: None,
            usage_before: None,
            received: 0,
            ends_ns: vec![0; job.case.bursts as usize],
        }
    }

    /// Checks and counts a buffer that arrived at `now_ns`.
    pub fn receive(&mut self, bytes: &[u8], now_ns: u64) -> Result<Progress<ReaderReport>, String> {
        let seq = packet::read(bytes, self.case.size as usize)?;
        let previous = self.previous.replace(seq);
        let Some(previous) = previous else {
            return match seq {
                FIRST_SEQ.. => Err(format!("the first buffer to arrive is buffer {seq} of a burst")),
                // The small buffers have no time, and the figures of bursts contain no start.
                _ => Ok(Progress::First { sent_ns: now_ns }),
            };
        };
        if seq <= previous {
            return Err(format!("buffer {seq} comes after buffer {previous}"));
        }
        let Some(index) = seq.checked_sub(FIRST_SEQ) else {
            return Ok(Progress::Continue);
        };
        // The seqs before the first burst and those of the bursts are not adjacent.
        if self.is_exact && seq != (previous + 1).max(FIRST_SEQ) {
            return Err(format!("buffer {seq} comes after buffer {previous}: some are lost"));
        }
        let usage_before = *self.usage_before.get_or_insert_with(Usage::now);
        if let Some(end_ns) = self.ends_ns.get_mut((index / self.case.buffers) as usize) {
            self.received += 1;
            *end_ns = now_ns;
            return Ok(Progress::Continue);
        }
        Ok(Progress::Complete(ReaderReport {
            usage: Usage::now().since(usage_before).per_frame(self.received),
            lost: self.case.total() - self.received,
            ends_ns: std::mem::take(&mut self.ends_ns),
            counts: Default::default(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{bursts::Push, transport::Endpoint};

    fn checker(transport: Transport) -> BurstChecker {
        BurstChecker::new(&BurstJob {
            transport,
            case: BurstCase {
                size: 188,
                push: Push::Single,
                readers: 1,
                buffers: 3,
                bursts: 2,
                pause_ms: 0,
            },
            endpoint: Endpoint::default(),
            sabotage: None,
            parent: 0,
        })
    }

    /// Receives buffers that arrive at the time of their index in the bursts. Returns the last result.
    fn receive(checker: &mut BurstChecker, seqs: &[u64]) -> Result<Progress<ReaderReport>, String> {
        let mut last = Ok(Progress::Continue);
        for &seq in seqs {
            let mut bytes = [0; 188];
            packet::draw(&mut bytes, seq);
            last = checker.receive(&bytes, seq.saturating_sub(FIRST_SEQ));
        }
        last
    }

    const F: u64 = FIRST_SEQ;

    #[test]
    fn lost_buffers_are_counted() {
        let seqs = [0, 3, F, F + 1, F + 3, F + 5, F + 7];
        let Ok(Progress::Complete(report)) = receive(&mut checker(Transport::Rsshm), &seqs) else {
            panic!("the bursts are not complete");
        };
        assert_eq!((report.lost, report.ends_ns), (2, vec![1, 5]));
    }

    #[test]
    fn lost_buffer_of_a_lossless_transport_is_refused() {
        let lossless = || checker(Transport::RsshmLossless);
        let all = [0, F, F + 1, F + 2, F + 3, F + 4, F + 5, F + 6];
        assert!(matches!(receive(&mut lossless(), &all), Ok(Progress::Complete(_))));
        for lost in 1..all.len() {
            let seqs: Vec<u64> = all.iter().copied().filter(|seq| *seq != all[lost]).collect();
            let failed = (0..seqs.len()).any(|count| receive(&mut lossless(), &seqs[..=count]).is_err());
            assert!(failed || lost == all.len() - 1, "{lost}");
        }
    }

    #[test]
    fn repeated_buffer_is_refused() {
        assert!(receive(&mut checker(Transport::Udp), &[0, F, F]).is_err());
        assert!(receive(&mut checker(Transport::Udp), &[F]).is_err());
    }
}
