// SPDX-License-Identifier: MIT OR Apache-2.0

//! Other processes write references to memory into the slots.

use std::{os::unix::fs::FileExt, time::Duration};

use proptest::{
    prelude::{ProptestConfig, any},
    prop_assert, proptest,
    strategy::Strategy,
};
use rsshm_channel::{
    Next,
    layout::{ObjectReference, object_kind},
};
use rsshm_testkit::{Channel, timed};

use super::open_segment;
use crate::{
    objects::{
        accepting, next_frame,
        pool::{Pool, object_writer},
    },
    support::{ChannelExt, SECOND, SIZE, slots},
};

fn reference_to(object: u64, offset: u64, size: u64, kind: u32) -> ObjectReference {
    let mut reference = ObjectReference::default();
    (reference.object, reference.offset) = (object, offset);
    (reference.size, reference.kind) = (size, kind);
    reference
}

/// Writes a table of `count` equal references into each slot, and the size of the frame into its descriptor.
fn write_tables(channel: &Channel, count: u32, reference: &ObjectReference) {
    let (segment, header) = open_segment(channel);
    for slot in 0..4 {
        let table = header.slots_offset + slot * header.slot_size;
        segment.write_all_at(&count.to_ne_bytes(), table).unwrap();
        for index in 0..4 {
            let at = table + 8 + index * 32;
            segment.write_all_at(bytemuck::bytes_of(reference), at).unwrap();
        }
        let record = header.descriptors_offset + slot * u64::from(header.descriptor_stride);
        let total = reference.size.wrapping_mul(u64::from(count));
        segment.write_all_at(&total.to_ne_bytes(), record + 24 + 48).unwrap();
    }
}

/// The reader has the object already, so the writer's answer does not show that a part is not inside it.
#[test]
fn parts_of_known_memory_are_checked() {
    let size = SIZE as u64;
    let kind = object_kind::MEMFD;
    for accepts in [false, true] {
        let limits = accepting().accepts_objects(accepts);
        for (offset, size, kind) in [
            (0, size + 1, kind),
            (1, size, kind),
            (size, 1, kind),
            (i64::MAX as u64 - 1, 1, kind),
            (0, size, object_kind::DMABUF),
        ] {
            let channel = Channel::new();
            let writer = object_writer(channel.as_str(), slots(0), 6);
            let pool = Pool::new(&writer, 2);
            let mut reader = channel.reader();
            assert!(pool.publish(&writer, 1));
            drop(next_frame(&mut reader, limits));
            // The next frame is in the other buffer, until the table says that it is in the first one.
            assert!(pool.publish(&writer, 2));
            write_tables(&channel, 1, &reference_to(1, offset, size, kind));
            let next = reader.next(&mut Vec::new(), limits, Some(Duration::from_millis(10)));
            assert!(
                matches!(&next, Ok(Next::Fault(fault)) if fault.to_string().contains("not inside its memory")),
                "{offset} {size} {kind}: {next:?}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Another process writes any table of references into the slot. The reader misses the frame or delivers bytes that
    /// are inside the memory, and never crashes.
    #[test]
    fn any_table_in_the_slot_is_checked(
        count in proptest::prop_oneof![any::<u32>(), 0u32..6],
        object in proptest::prop_oneof![any::<u64>(), (0u64..4).prop_map(|id| id)],
        kind in 0u32..4,
        offset in proptest::prop_oneof![any::<u64>(), (0u64..2 * SIZE as u64).prop_map(|offset| offset)],
        size in proptest::prop_oneof![any::<u64>(), (0u64..2 * SIZE as u64).prop_map(|size| size)],
        accepts in any::<bool>(),
    ) {
        let channel = Channel::new();
        let writer = object_writer(channel.as_str(), slots(0), 6);
        let pool = Pool::new(&writer, 8);
        assert!(pool.publish(&writer, 1));
        write_tables(&channel, count, &reference_to(object, offset, size, kind));
        let mut reader = channel.reader();
        let mut copy = Vec::new();
        let limits = accepting().accepts_objects(accepts);
        let end = offset.checked_add(size);
        let is_valid = (1..=4).contains(&count)
            && (1..=8).contains(&object)
            && kind == object_kind::MEMFD
            && size > 0
            && end.is_some_and(|end| end <= SIZE as u64);
        let (duration, next) = timed(|| reader.next(&mut copy, limits, Some(Duration::from_millis(10))));
        prop_assert!(duration < 3 * SECOND);
        match next {
            Ok(Next::Frame(frame)) => {
                prop_assert!(is_valid, "{:?}", frame.descriptor);
                prop_assert!(frame.descriptor.size == size * u64::from(count));
                for part in frame.objects() {
                    prop_assert!(part.offset() + part.size() <= part.object().size());
                }
            }
            Ok(other) => prop_assert!(!is_valid && matches!(other, Next::TimedOut | Next::Fault(_)), "{other:?}"),
            Err(error) => prop_assert!(matches!(error, rsshm_channel::Error::NoMemory { .. }), "{error}"),
        }
    }
}
