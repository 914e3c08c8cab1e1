// SPDX-License-Identifier: MIT OR Apache-2.0

//! Bytes that no writer of this project writes.

use super::*;

#[test]
fn truncated_bytes_are_decoded_up_to_their_end() {
    let bytes = all();
    let mut last = 0;
    for end in 0..=bytes.len() {
        let (buffer, refused) = decoded(&bytes[..end]);
        assert!(refused <= 1 && count(&buffer) >= last);
        last = count(&buffer);
    }
    assert_eq!(last, 19);
    assert_eq!(check_memories(&decoded(&bytes).0), [12, 20]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoder_survives_any_bytes(bytes in prop::collection::vec(any::<u8>(), 0..MAX_METADATA_SIZE)) {
        decoded(&bytes);
    }

    /// Nearly all of the records have a known kind. Their content is random.
    #[test]
    fn decoder_survives_any_records(
        records in prop::collection::vec((0u16..28, prop::collection::vec(any::<u8>(), 0..100)), 0..20),
    ) {
        let mut bytes = Vec::new();
        for (kind, payload) in records {
            bytes.extend(kind.to_ne_bytes());
            bytes.extend((payload.len() as u16).to_ne_bytes());
            bytes.extend(payload);
        }
        decoded(&bytes);
    }

    #[test]
    fn any_memories_are_sent(cuts in prop::collection::vec(0..=32_usize, 1..16)) {
        let mut cuts = [cuts, vec![0, 32]].concat();
        cuts.sort_unstable();
        cuts.truncate(17);
        *cuts.last_mut().unwrap() = 32;
        let sizes: Vec<usize> = cuts.windows(2).map(|cuts| cuts[1] - cuts[0]).collect();
        let mut bytes = Vec::new();
        encode(&buffer_of_memories(&sizes), None, &mut bytes);
        let (buffer, refused) = decoded(&bytes);
        prop_assert_eq!((check_memories(&buffer), refused), (sizes, 0));
    }

    #[test]
    fn decoder_survives_any_memories(sizes in prop::collection::vec(prop_oneof![0..40_u64, any::<u64>()], 0..20)) {
        let (buffer, refused) = decoded(&record_of_memories(&sizes));
        let is_valid = (2..=16).contains(&sizes.len()) && sizes.iter().map(|size| u128::from(*size)).sum::<u128>() == 32;
        prop_assert_eq!(refused, u64::from(!is_valid));
        prop_assert_eq!(buffer.n_memory(), if is_valid { sizes.len() } else { 1 });
    }

    #[test]
    fn decoder_survives_mutated_bytes(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let mut bytes = all();
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        decoded(&bytes);
    }

    /// The texts look like structures, because only such texts can reach GStreamer's own parser.
    #[test]
    fn decoder_survives_any_text(
        text in r#"[a-c/]{1,3}(, [a-c]=(\((int|uint|gint64|guint64|float|double|string|fraction|bitmask|boolean|guchar|GstCaps|structure)\))?[{<\[( ]?(-?[0-9]{1,12}(/-?[0-9]{1,11})?|0x[0-9a-f]{1,20}|[ -~]{0,12}|"[ -~]{0,12}"|min|max|NULL|nan)[}>\]) ]?){0,4};?"#,
    ) {
        let mut bytes = Vec::new();
        begin(&mut bytes, kind::REFERENCE_TIMESTAMP);
        bytes.extend([0; 16]);
        put_text(&mut bytes, &text).unwrap();
        let size = bytes.len() as u16 - 4;
        bytes[2..4].copy_from_slice(&size.to_ne_bytes());
        decoded(&bytes);
    }

    #[test]
    fn any_region_is_sent(
        rect in any::<(u32, u32, u32, u32)>(), ids in any::<(i32, i32)>(),
        name in "[^\0]{1,30}", key in "[a-z][a-z0-9-]{0,20}", text in "[^\0]{0,100}", number in any::<f64>(),
    ) {
        let param = || gst::Structure::builder("param").field(&key, &text).field("number-", number).build();
        let buffer = transferred(|buffer| {
            let mut region = VideoRegionOfInterestMeta::add(buffer, &name, rect);
            region.set_id(ids.0);
            region.set_parent_id(ids.1);
            region.add_param(param());
        });
        let region = buffer.meta::<VideoRegionOfInterestMeta>().unwrap();
        prop_assert_eq!((region.rect(), (region.id(), region.parent_id()), region.roi_type()), (rect, ids, name.as_str()));
        let got = region.params().next().unwrap();
        prop_assert_eq!(got.get::<String>(&key).unwrap(), text);
        let got = got.get::<f64>("number-").unwrap();
        prop_assert!(got == number || (got.is_nan() && number.is_nan()));
    }
}
