// SPDX-License-Identifier: MIT OR Apache-2.0

//! The counters of the sink's `channel-stats`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use rsshm_channel::{Space, WriterStats};

use crate::sync::lock;

/// A counter. All accesses are Relaxed, because no other data depends on its value.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn reset(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// The maximum number of counters of one kind. An application may send events of any number of names.
const MAX_NAMES: usize = 64;

/// The counter of all names beyond [`MAX_NAMES`].
const OTHER_NAMES: &str = "others";

/// A counter for each name.
#[derive(Debug, Default)]
pub(super) struct NamedCounters(Mutex<BTreeMap<String, u64>>);

impl NamedCounters {
    /// Adds `count` to the counter `name`. Returns whether the counter is new.
    pub(super) fn add(&self, name: &str, count: u64) -> bool {
        let mut counters = lock(&self.0);
        if let Some(counter) = counters.get_mut(name) {
            *counter += count;
            return false;
        }
        let name = if counters.len() < MAX_NAMES { name } else { OTHER_NAMES };
        let is_new = !counters.contains_key(name);
        *counters.entry(name.to_owned()).or_default() += count;
        is_new
    }

    fn sum(&self) -> u64 {
        lock(&self.0).values().sum()
    }

    /// A structure with a field for each counter.
    fn to_structure(&self, name: &str) -> gst::Structure {
        let mut structure = gst::Structure::new_empty(name);
        for (name, count) in lock(&self.0).iter() {
            structure.set(name.as_str(), *count);
        }
        structure
    }

    fn reset(&self) {
        lock(&self.0).clear();
    }
}

/// The numbers of frames that were published in place, copied or dropped, and of metas and events that were left out.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) in_place: Counter,
    pub(super) by_descriptor: Counter,
    pub(super) copied_foreign: Counter,
    pub(super) copied_repeated: Counter,
    pub(super) copied_no_slot: Counter,
    pub(super) dropped: Counter,
    /// By the name of the meta.
    pub(super) metas_left_out: NamedCounters,
    /// By the name of the event or tag.
    pub(super) events_left_out: NamedCounters,
}

impl Counters {
    pub(super) fn reset(&self) {
        for counter in [
            &self.in_place,
            &self.by_descriptor,
            &self.copied_foreign,
            &self.copied_repeated,
            &self.copied_no_slot,
            &self.dropped,
        ] {
            counter.reset();
        }
        self.metas_left_out.reset();
        self.events_left_out.reset();
    }

    /// The value of `channel-stats`, which has these counters and the writer's counters.
    pub(super) fn to_structure(&self, writer: &WriterStats, space: Option<&Space>) -> gst::Structure {
        let (foreign, repeated, no_slot) = (
            self.copied_foreign.get(),
            self.copied_repeated.get(),
            self.copied_no_slot.get(),
        );
        gst::Structure::builder("rsshm-sink-stats")
            .field("frames-published", writer.published)
            .field("frames-in-place", self.in_place.get())
            .field("frames-by-descriptor", self.by_descriptor.get())
            .field("frames-copied", foreign + repeated + no_slot)
            .field("copied-foreign", foreign)
            .field("copied-repeated", repeated)
            .field("copied-no-slot", no_slot)
            .field("frames-dropped", self.dropped.get())
            .field("missed-by-readers", writer.missed_by_readers)
            .field("metas-left-out", self.metas_left_out.sum())
            .field("metas-left-out-by-name", self.metas_left_out.to_structure("metas"))
            .field("events-left-out", self.events_left_out.sum())
            .field("events-left-out-by-name", self.events_left_out.to_structure("events"))
            .field("slots", writer.slots)
            .field("slots-in-use", writer.slots_in_use)
            .field("max-slots", writer.max_slots)
            .field("bytes", writer.bytes)
            .field(
                "space-limit",
                space.map_or_else(String::new, |space| space.limit.to_string()),
            )
            .field("space-total", space.map_or(0, |space| space.total))
            .field("space-free", space.map_or(0, |space| space.free))
            .field("semaphore-timeouts", writer.semaphore_timeouts)
            .field("readers-evicted", writer.evicted)
            .build()
    }
}
