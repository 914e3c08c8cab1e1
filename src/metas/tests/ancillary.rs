// SPDX-License-Identifier: MIT OR Apache-2.0

//! Data that accompanies a picture.

use super::*;

#[test]
fn captions_are_sent() {
    // A field of CEA-608, and a CDP of CEA-708. Their content does not matter here.
    let captions: [(VideoCaptionType, &[u8]); 2] = [
        (VideoCaptionType::Cea608S3341a, &[0x80, 0x94, 0x2c]),
        (VideoCaptionType::Cea708Cdp, &[0x96; 256]),
    ];
    let buffer = transferred(|buffer| {
        for (kind, data) in captions {
            VideoCaptionMeta::add(buffer, kind, data);
        }
    });
    let found: Vec<_> = buffer.iter_meta::<VideoCaptionMeta>().collect();
    let found: Vec<_> = found.iter().map(|meta| (meta.caption_type(), meta.data())).collect();
    assert_eq!(found, captions);
}

#[test]
fn active_formats_and_bars_are_sent() {
    let buffer = transferred(|buffer| {
        VideoAFDMeta::add(buffer, 1, VideoAFDSpec::AtscA53, VideoAFDValue::_169Letter149Center);
        VideoBarMeta::add(buffer, 0, true, u32::MAX, 1000);
        VideoBarMeta::add(buffer, 1, false, 3, 4);
    });
    let format = buffer.meta::<VideoAFDMeta>().unwrap();
    assert_eq!(
        (format.field(), format.spec(), format.afd()),
        (1, VideoAFDSpec::AtscA53, VideoAFDValue::_169Letter149Center)
    );
    let bars: Vec<_> = buffer.iter_meta::<VideoBarMeta>().collect();
    let bars: Vec<_> = bars
        .iter()
        .map(|bar| (bar.field(), bar.is_letterbox(), bar.bar_data1(), bar.bar_data2()))
        .collect();
    assert_eq!(bars, [(0, true, u32::MAX, 1000), (1, false, 3, 4)]);
}

/// GStreamer returns NULL for these values, and the bindings would take the NULL for a meta.
#[test]
fn invalid_captions_formats_and_bars_are_refused() {
    for (kind, numbers) in [
        (kind::CAPTION, [0, 7, 7]),
        (kind::CAPTION, [5, 7, 7]),
        (kind::CAPTION, [u32::MAX, 7, 7]),
        (kind::ACTIVE_FORMAT, [2, 1, 4]),
        (kind::ACTIVE_FORMAT, [0, 3, 4]),
        (kind::ACTIVE_FORMAT, [0, 0, 0]),
        (kind::ACTIVE_FORMAT, [0, 1, 12]),
        (kind::ACTIVE_FORMAT, [0, 1, 0x104]),
        (kind::BARS, [0, 1, 2]),
    ] {
        let mut bytes = Vec::new();
        begin(&mut bytes, kind);
        put_numbers(&mut bytes, &numbers);
        bytes[2..4].copy_from_slice(&12u16.to_ne_bytes());
        let (buffer, refused) = decoded(&bytes);
        assert_eq!((count(&buffer), refused), (0, 1), "{kind} {numbers:?}");
    }
    let (buffer, refused) = decoded(&[6, 0, 4, 0, 1, 0, 0, 0]);
    assert_eq!((count(&buffer), refused), (0, 1), "an empty caption");
}

pub(super) fn add_sei_user_data(buffer: &mut gst::BufferRef) {
    let content = raw::video::SeiUserData {
        uuid: *b"0123456789abcdef",
        data: &[1, 0, 2],
    };
    raw::video::add_sei_user_data(buffer, &content).unwrap();
}

#[test]
fn sei_user_data_is_sent() {
    let buffer = transferred(add_sei_user_data);
    let meta = meta_of(&buffer, "GstVideoSEIUserDataUnregisteredMeta");
    let found = raw::video::sei_user_data(&meta).unwrap();
    assert_eq!((&found.uuid, found.data), (b"0123456789abcdef", &[1, 0, 2][..]));
}

#[test]
fn sei_user_data_may_be_empty() {
    let buffer = transferred(|buffer| {
        let content = raw::video::SeiUserData {
            uuid: [7; 16],
            data: &[],
        };
        raw::video::add_sei_user_data(buffer, &content).unwrap();
    });
    let meta = meta_of(&buffer, "GstVideoSEIUserDataUnregisteredMeta");
    assert_eq!(raw::video::sei_user_data(&meta).unwrap().data, [0_u8; 0]);
}

fn packet(words: &[u16]) -> raw::video::Packet<'_> {
    raw::video::Packet {
        field: 0x11,
        is_chrominance: true,
        line: 9,
        offset: 0xffe,
        did: 0x161,
        sdid: 0x102,
        count: 0x200 | words.len() as u16,
        checksum: 0x1b4,
        words,
    }
}

/// Before GStreamer 1.24, the meta does not exist, and readers skip its record.
#[test]
fn ancillary_packets_are_sent_if_gstreamer_has_them() {
    for words in [&[][..], &[0x296, 0x101, 0x3ff]] {
        let mut is_added = false;
        let buffer = transferred(|buffer| is_added = raw::video::add_packet(buffer, &packet(words)).is_some());
        assert_eq!(is_added, gst::version() >= (1, 24, 0, 0));
        if is_added {
            let meta = meta_of(&buffer, "GstAncillaryMeta");
            let found = raw::video::packet(&meta).unwrap();
            assert_eq!((found.field, found.is_chrominance), (0x11, true));
            assert_eq!(
                [found.line, found.offset, found.did, found.sdid, found.checksum],
                [9, 0xffe, 0x161, 0x102, 0x1b4]
            );
            assert_eq!(found.words, words);
        }
    }
    let content = [0_u32.to_ne_bytes(), 0_u32.to_ne_bytes(), [0; 4], [0; 4], [0; 4]].concat();
    let skipped = skipped(&record(kind::ANCILLARY, &content));
    let unknown = u64::from(gst::version() < (1, 24, 0, 0));
    assert_eq!(skipped, Skipped { refused: 0, unknown });
}

#[test]
fn ancillary_packet_with_other_number_of_words_is_refused() {
    init();
    for (field, chrominance, count, words) in [(0, 0, 1, 0), (0, 0, 0, 1), (1, 0, 0, 0), (0, 2, 0, 0), (0, 0, 0x101, 2)]
    {
        let mut content = Vec::new();
        put_numbers(&mut content, &[field, chrominance]);
        for word in [0, 0, 0, 0, count, 0_u16] {
            content.extend(word.to_ne_bytes());
        }
        content.extend(vec![0; words * 2]);
        assert_eq!(
            decoded(&record(kind::ANCILLARY, &content)).1,
            1,
            "{field} {count} {words}"
        );
    }
}

#[test]
fn hdr_record_is_skipped_or_read() {
    init();
    let skipped_all = [&[0, 0, 0, 0][..], &[0, 0, 1, 0, 5]].map(|content| skipped(&record(kind::HDR, content)));
    assert_eq!(skipped_all.map(|skipped| skipped.refused), [1, 1]);
    let skipped = skipped(&record(kind::HDR, &[1, 0, 0, 0, 0xb5, 0]));
    assert_eq!(skipped.refused, 0);
    assert_eq!(skipped.unknown, u64::from(gst::version() < (1, 29, 0, 0)));
}
