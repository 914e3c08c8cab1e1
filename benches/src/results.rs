// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reports that producer and consumer processes send. They cover only the frames that count, except for the counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pace::Usage;

/// The integers in an element's `channel-stats`, by name. The element counts from its first frame, so the warm-up
/// frames are included.
pub type Counts = BTreeMap<String, u64>;

/// The times, of CLOCK_MONOTONIC, around the first frame of a consumer.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct FirstFrame {
    /// When the consumer's pipeline had started.
    pub began_ns: u64,
    pub sent_ns: u64,
    pub arrived_ns: u64,
}

/// The report of a producer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ProducerReport {
    /// The usage per frame.
    pub usage: Usage,
    /// For a limit: the CPU time per frame of its wake or its copy alone.
    pub core_us: Option<f64>,
    pub counts: Counts,
}

/// The report of a consumer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ConsumerReport {
    /// The usage per frame.
    pub usage: Usage,
    pub missed: u64,
    /// Time between the first frame that counts and the last one.
    pub span_ns: u64,
    pub latencies_ns: Vec<u64>,
    pub counts: Counts,
}
