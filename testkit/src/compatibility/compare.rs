// SPDX-License-Identifier: MIT OR Apache-2.0

//! Differences between two records of one stream.

use std::collections::BTreeMap;

use super::record::{BufferRecord, PadRecord};

/// Fields of caps that differ from run to run, because elements choose them at random or from the time of day.
const VOLATILE: [&str; 9] = [
    "ssrc",
    "timestamp-offset",
    "seqnum-offset",
    "clock-base",
    "seqnum-base",
    "config-version",
    "boundary",
    "streamheader",
    "codec_data",
];

/// How exact the comparison is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Exactness {
    /// Two ends of one channel: everything must be equal.
    Channel,
    /// Two runs of one element: fields that elements choose at random, and the time at which data arrived, may differ.
    Runs,
}

impl Exactness {
    /// The largest difference of timestamps, in nanoseconds.
    fn tolerance(self) -> u64 {
        match self {
            Self::Channel => 1_000,
            // Demultiplexers of live streams correct the timestamps by the arrival of the data.
            Self::Runs => 40_000_000,
        }
    }
}

/// The differences between the records of several pads, in words. Empty if there are none.
pub fn pads(expected: &[PadRecord], seen: &[PadRecord], exactness: Exactness) -> Vec<String> {
    let (expected, seen) = (sorted(expected), sorted(seen));
    if expected.len() != seen.len() {
        return vec![format!("{} of {} streams arrive", seen.len(), expected.len())];
    }
    let mut differences = Vec::new();
    for (expected, seen) in expected.iter().zip(seen) {
        for difference in pad(expected, seen, exactness) {
            let media = expected.media();
            differences.push(format!("{media}: {difference}"));
        }
    }
    differences
}

/// The pads that carried something. The order in which an element adds its pads may differ from run to run.
fn sorted(pads: &[PadRecord]) -> Vec<&PadRecord> {
    let mut pads: Vec<_> = pads.iter().filter(|pad| !pad.buffers.is_empty()).collect();
    pads.sort_by_key(|pad| (pad.media(), &pad.name));
    pads
}

/// The differences between the records of two pads, in words. Empty if there are none.
pub fn pad(expected: &PadRecord, seen: &PadRecord, exactness: Exactness) -> Vec<String> {
    let pairs = Pairs::new(&expected.buffers, &seen.buffers);
    let mut differences = Vec::new();
    if let Some(difference) = caps(expected, seen, &pairs, exactness) {
        differences.push(difference);
    }
    differences.extend(pairs.differences(exactness));
    differences
}

/// The first difference of the caps of two buffers with the same content.
fn caps(expected: &PadRecord, seen: &PadRecord, pairs: &Pairs<'_>, exactness: Exactness) -> Option<String> {
    let text = |record: &PadRecord, buffer: &BufferRecord| record.caps.get(buffer.caps).cloned().unwrap_or_default();
    let different = |(before, after): &&(&BufferRecord, &BufferRecord)| {
        !same_caps(&text(expected, before), &text(seen, after), exactness)
    };
    let (before, after) = pairs.same.iter().find(different)?;
    Some(describe_caps(&text(expected, before), &text(seen, after)))
}

fn same_caps(expected: &str, seen: &str, exactness: Exactness) -> bool {
    // An element that sends no caps has pads with only one format, which the sink publishes.
    if expected == seen || expected.is_empty() {
        return true;
    }
    match (expected.parse::<gst::Caps>(), seen.parse::<gst::Caps>()) {
        (Ok(expected), Ok(seen)) if exactness == Exactness::Channel => expected == seen,
        (Ok(expected), Ok(seen)) => stable(expected) == stable(seen),
        _ => false,
    }
}

fn stable(mut caps: gst::Caps) -> gst::Caps {
    for structure in caps.make_mut().iter_mut() {
        VOLATILE.iter().for_each(|field| structure.remove_field(*field));
    }
    caps
}

/// The names of the fields that differ.
fn describe_caps(expected: &str, seen: &str) -> String {
    let (Ok(expected), Ok(seen)) = (expected.parse::<gst::Caps>(), seen.parse::<gst::Caps>()) else {
        return format!("the caps {expected:?} are {seen:?}");
    };
    let (Some(expected), Some(seen)) = (expected.structure(0), seen.structure(0)) else {
        return format!("the caps {expected} are {seen}");
    };
    if expected.name() != seen.name() {
        return format!("the caps {} are {}", expected.name(), seen.name());
    }
    let names = expected.fields().chain(seen.fields()).map(|field| field.as_str());
    let value =
        |structure: &gst::StructureRef, name: &str| structure.value(name).ok().map(|value| format!("{value:?}"));
    let mut names: Vec<_> = names
        .filter(|name| value(expected, name) != value(seen, name))
        .collect();
    names.sort_unstable();
    names.dedup();
    format!("the caps differ in {}", names.join(", "))
}

/// The buffers of two records that have the same content, in order.
struct Pairs<'a> {
    same: Vec<(&'a BufferRecord, &'a BufferRecord)>,
    expected: usize,
    lost: usize,
    /// The lost buffers after the first pair.
    lost_inside: usize,
    added: usize,
}

impl<'a> Pairs<'a> {
    fn new(expected: &'a [BufferRecord], seen: &'a [BufferRecord]) -> Self {
        let mut places: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
        for (index, buffer) in expected.iter().enumerate() {
            places.entry(buffer.hash).or_default().push(index);
        }
        let mut same = Vec::new();
        let mut next = 0;
        let mut first = None;
        for buffer in seen {
            let place = places.get(&buffer.hash).and_then(|places| {
                let index = places.partition_point(|place| *place < next);
                places.get(index).copied()
            });
            if let Some(place) = place {
                first.get_or_insert(place);
                same.push((&expected[place], buffer));
                next = place + 1;
            }
        }
        let lost = expected.len() - same.len();
        Self {
            expected: expected.len(),
            lost,
            lost_inside: lost - first.unwrap_or(lost),
            added: seen.len() - same.len(),
            same,
        }
    }

    fn differences(&self, exactness: Exactness) -> Vec<String> {
        let mut differences = Vec::new();
        let Self {
            expected, lost, added, ..
        } = self;
        match (lost, added) {
            (0, 0) => {}
            (lost, 0) if self.lost_inside == 0 => {
                differences.push(format!("the first {lost} of {expected} buffers are lost"))
            }
            (lost, 0) => differences.push(format!("{lost} of {expected} buffers are lost")),
            (0, added) => differences.push(format!("{added} buffers are added to {expected}")),
            (lost, added) if lost == added => {
                differences.push(format!("{lost} of {expected} buffers have other bytes"))
            }
            (lost, added) => differences.push(format!("{lost} of {expected} buffers are lost, {added} are others")),
        }
        differences.extend(self.times(exactness));
        let count = |differs: &dyn Fn(&BufferRecord, &BufferRecord) -> bool| {
            self.same
                .iter()
                .filter(|(before, after)| differs(before, after))
                .count()
        };
        let memories = count(&|before, after| before.memories != after.memories);
        if memories > 0 {
            differences.push(format!("{memories} buffers have other memories"));
        }
        differences.extend(self.flags());
        differences
    }

    /// The names of the flags that differ.
    fn flags(&self) -> Option<String> {
        // rsshmsink removes DELTA_UNIT until the first buffer without this flag, because some streams mark no keyframes.
        let mut has_keyframes = false;
        // The first buffer, and the first buffer of new caps, are discontinuous in the reader.
        let mut caps = None;
        let differing = self.same.iter().map(|(before, after)| {
            has_keyframes |= !before.flags().contains(gst::BufferFlags::DELTA_UNIT);
            let mut flags = before.flags() ^ after.flags();
            if !has_keyframes {
                flags -= gst::BufferFlags::DELTA_UNIT;
            }
            if caps.replace(after.caps) != Some(after.caps) {
                flags -= gst::BufferFlags::DISCONT;
            }
            flags
        });
        let buffers: Vec<_> = differing.filter(|flags| !flags.is_empty()).collect();
        let all = buffers
            .iter()
            .fold(gst::BufferFlags::empty(), |all, flags| all | *flags);
        (!buffers.is_empty()).then(|| {
            let names: Vec<_> = all.iter_names().map(|(name, _)| name).collect();
            format!("{} buffers differ in {}", buffers.len(), names.join(", "))
        })
    }

    fn times(&self, exactness: Exactness) -> Vec<String> {
        type Field = fn(&BufferRecord) -> Option<i64>;
        let fields: [(&str, Field, bool); 3] = [
            ("PTS", |buffer| buffer.pts, true),
            ("DTS", |buffer| buffer.dts, true),
            (
                "duration",
                |buffer| buffer.duration.map(|duration| duration as i64),
                false,
            ),
        ];
        // All timestamps of a stream move by the same time.
        let mut shift = None;
        let mut differences = Vec::new();
        for (name, field, moves) in fields {
            let (mut most, mut lost, mut added) = (0, 0, 0);
            for (index, (before, after)) in self.same.iter().enumerate() {
                let has_time = before.pts.or(before.dts).is_some();
                // The base class of all sources gives a buffer without a PTS its DTS, and the first buffer without both
                // the time 0.
                let sent = field(before).or(before.dts.filter(|_| name == "PTS"));
                match (sent, field(after)) {
                    (None, None) => {}
                    (None, Some(_)) if index == 0 && !has_time => {}
                    (Some(before), Some(after)) => {
                        let distance = i128::from(after) - i128::from(before);
                        let expected = if moves { *shift.get_or_insert(distance) } else { 0 };
                        most = most.max((distance - expected).unsigned_abs());
                    }
                    (Some(_), None) => lost += 1,
                    (None, Some(_)) => added += 1,
                }
            }
            if lost > 0 {
                differences.push(format!("{lost} buffers lose their {name}"));
            }
            if added > 0 {
                differences.push(format!("{added} buffers without {name} get one"));
            }
            if most > u128::from(exactness.tolerance()) {
                differences.push(format!("{name} differs by up to {:.3} ms", most as f64 / 1e6));
            }
        }
        differences
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(hashes: &[u64]) -> PadRecord {
        let buffer = |(index, hash): (usize, &u64)| BufferRecord {
            hash: *hash,
            memories: vec![1],
            pts: Some(index as i64 * 1_000_000),
            ..BufferRecord::default()
        };
        let mut record = PadRecord::default();
        record.caps = vec!["text/x-raw, format=(string)utf8".to_owned()];
        record.buffers = hashes.iter().enumerate().map(buffer).collect();
        record
    }

    fn differences(expected: &PadRecord, seen: &PadRecord) -> String {
        gst::init().unwrap();
        pad(expected, seen, Exactness::Channel).join("; ")
    }

    #[test]
    fn lost_added_and_changed_buffers_are_found() {
        let sent = record(&[1, 2, 2, 3]);
        assert_eq!(differences(&sent, &sent), "");
        assert!(differences(&sent, &record(&[1, 2, 3])).starts_with("1 of 4 buffers are lost"));
        assert!(differences(&sent, &record(&[2, 2, 3])).starts_with("the first 1 of 4 buffers are lost"));
        assert_eq!(
            differences(&sent, &record(&[1, 2, 2, 3, 4])),
            "1 buffers are added to 4"
        );
        assert_eq!(
            differences(&sent, &record(&[1, 2, 9, 3])),
            "1 of 4 buffers have other bytes"
        );
        assert_eq!(differences(&sent, &record(&[])), "the first 4 of 4 buffers are lost");
    }

    #[test]
    fn moved_timestamps_are_the_same() {
        let sent = record(&[1, 2, 3]);
        let mut seen = sent.clone();
        seen.buffers
            .iter_mut()
            .for_each(|buffer| buffer.pts = buffer.pts.map(|pts| pts + 7_000_000_000));
        assert_eq!(differences(&sent, &seen), "");
        seen.buffers[1].pts = seen.buffers[1].pts.map(|pts| pts + 2_000_000);
        assert_eq!(differences(&sent, &seen), "PTS differs by up to 2.000 ms");
        seen.buffers[1].pts = None;
        assert_eq!(differences(&sent, &seen), "1 buffers lose their PTS");
    }

    #[test]
    fn changed_caps_flags_and_memories_are_found() {
        let sent = record(&[1, 2, 3]);
        let mut seen = sent.clone();
        seen.caps = vec!["text/x-raw, format=(string)pango-markup".to_owned()];
        seen.buffers[0].flags = gst::BufferFlags::DISCONT.bits();
        seen.buffers[2].flags = gst::BufferFlags::HEADER.bits();
        seen.buffers[1].memories = vec![1, 0];
        assert_eq!(
            differences(&sent, &seen),
            "the caps differ in format; 1 buffers have other memories; 1 buffers differ in HEADER"
        );
    }
}
