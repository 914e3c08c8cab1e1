// SPDX-License-Identifier: MIT OR Apache-2.0

//! The reports of producer and consumer processes. They are about the frames that count.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::pace::Usage;

/// The integers in an element's `channel-stats` by name. They count from the first frame.
pub type Counts = BTreeMap<String, u64>;

/// The report of a producer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ProducerReport {
    /// The usage per frame.
    pub usage: Usage,
    /// The CPU time per frame of the step that a limit measures.
    pub core_us: Option<f64>,
    pub counts: Counts,
}

/// The report of a consumer.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct ConsumerReport {
    /// The usage per frame.
    pub usage: Usage,
    pub missed: u64,
    /// Time between the first frame and the last one.
    pub span_ns: u64,
    pub latencies_ns: Vec<u64>,
    pub counts: Counts,
}
