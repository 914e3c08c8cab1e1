// SPDX-License-Identifier: MIT OR Apache-2.0

//! The limits of the metadata of a frame.

use super::*;

#[test]
fn only_meta_that_does_not_fit_is_left_out() {
    let (bytes, left_out) = encoded(&buffer(|buffer| {
        for size in [2000, 3000, 1000] {
            let mut meta = VideoRegionOfInterestMeta::add(buffer, "face", (0, 0, 1, 1));
            meta.set_id(size);
            meta.add_param(
                gst::Structure::builder("x")
                    .field("text", "x".repeat(size as usize))
                    .build(),
            );
        }
        VideoCropMeta::add(buffer, (0, 0, 640, 480));
    }));
    assert_eq!(left_out, 1);
    let (buffer, _) = decoded(&bytes);
    let regions: Vec<_> = buffer.iter_meta::<VideoRegionOfInterestMeta>().collect();
    // The second region arrives without its parameter.
    let found: Vec<_> = regions.iter().map(|meta| (meta.id(), meta.params().count())).collect();
    assert_eq!(found, [(2000, 1), (3000, 0), (1000, 1)]);
    assert!(buffer.meta::<VideoCropMeta>().is_some());

    let (bytes, left_out) = encoded(&buffer_of_crops(500));
    let (buffer, refused) = decoded(&bytes);
    assert_eq!(
        (count(&buffer), left_out, refused),
        (MAX_RECORDS, 500 - MAX_RECORDS as u64, 0)
    );
    // The decoder does not read more than `MAX_RECORDS` records either.
    let (buffer, refused) = decoded(&[&bytes[..], &bytes[..]].concat());
    assert_eq!((count(&buffer), refused), (MAX_RECORDS, 1));
}

#[test]
fn writer_cannot_fill_memory_of_reader_with_names() {
    let mut decoder = Decoder::default();
    let mut refused = 0;
    for number in 0..MAX_NAMES + 10 {
        let (bytes, _) = encoded(&buffer(|buffer| {
            VideoRegionOfInterestMeta::add(buffer, &format!("name {number}"), (0, 0, 1, 1));
        }));
        buffer(|buffer| refused += decoder.decode(&bytes, Format::default(), buffer).refused);
    }
    assert_eq!(refused, 10);
    assert_eq!(decoder.names.len(), MAX_NAMES);
}

#[test]
fn decoder_skips_records_of_unknown_kind() {
    let (crop, _) = encoded(&buffer_of_crops(1));
    let mut bytes = Vec::new();
    begin(&mut bytes, 999);
    bytes[2..4].copy_from_slice(&3u16.to_ne_bytes());
    bytes.extend([1, 2, 3]);
    bytes.extend(crop);
    let (buffer, refused) = decoded(&bytes);
    assert_eq!((count(&buffer), refused), (1, 0));
}
