// SPDX-License-Identifier: MIT OR Apache-2.0

//! A consumer of bursts.

use super::{BurstJob, CAPS, check::BurstChecker};
use crate::{consume::receive_all, job::Sabotage};

pub fn run(job: &BurstJob) -> Result<(), String> {
    let mut checker = BurstChecker::new(job);
    receive_all(
        &job.transport.source(true, &job.endpoint, CAPS),
        job.sabotage == Some(Sabotage::Hang),
        move |bytes, now_ns| checker.receive(bytes, now_ns),
    )
}
