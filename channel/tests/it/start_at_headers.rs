// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of streams whose headers are frames of their own. A parser of H.264 that sends each NAL unit by itself flags the
//! parameter sets before a keyframe as headers and as delta frames.

use std::sync::Arc;

use rsshm_channel::{
    Caps, ReadLimits, Writer,
    layout::{DELTA_UNIT, HEADER},
};
use rsshm_testkit::Channel;

use crate::support::{ChannelExt, behind, descriptor, drain, publish_frame, slots};

/// A size with which each frame has a slot of its own, and one with which the frames share slots.
const SIZES: [usize; 2] = [200_000, 188];

fn writer_of_nal_units(channel: &Channel) -> Arc<Writer> {
    let writer = channel.writer(slots(24));
    writer.set_caps(Caps::variable_size("video/x-h264")).unwrap();
    writer
}

/// Publishes frames of `size` bytes: `k` is a keyframe, `d` a delta frame, `h` a header.
#[track_caller]
fn publish_units(writer: &Writer, size: usize, first: u64, kinds: &str) {
    for (value, kind) in (first..).zip(kinds.chars()) {
        let flags = match kind {
            'k' => 0,
            'd' => DELTA_UNIT,
            _ => DELTA_UNIT | HEADER,
        };
        assert!(publish_frame(writer, descriptor(size, value).with_flags(flags)));
    }
}

#[test]
fn joining_reader_begins_at_headers_before_keyframe() {
    for size in SIZES {
        for (kinds, wanted) in [
            ("hhkddhhkd", &["6", "7", "8", "9"][..]),
            // A header that does not precede the keyframe directly belongs to another frame.
            ("kdhdkd", &["5", "6"]),
            ("kdhkdhd", &["3", "4", "5", "6", "7"]),
        ] {
            let channel = Channel::new();
            let writer = writer_of_nal_units(&channel);
            publish_units(&writer, size, 1, kinds);
            for mut reader in [channel.reader(), channel.observer()] {
                assert_eq!(
                    drain(&mut reader, ReadLimits::default()),
                    wanted,
                    "{kinds} of {size} bytes"
                );
            }
        }
    }
}

#[test]
fn headers_that_reader_has_taken_do_not_come_again() {
    let channel = Channel::new();
    let writer = writer_of_nal_units(&channel);
    publish_units(&writer, 188, 1, "kdh");
    let mut readers = [channel.reader(), channel.observer()];
    for reader in &mut readers {
        assert_eq!(drain(reader, ReadLimits::default()), ["1", "2", "3"]);
    }
    publish_units(&writer, 188, 4, "hkd");
    for reader in &mut readers {
        reader.seek_newest();
        assert_eq!(drain(reader, ReadLimits::default()), ["4", "5", "6"]);
    }
}

#[test]
fn reader_does_not_go_back_to_headers_beyond_its_limit() {
    let channel = Channel::new();
    let writer = writer_of_nal_units(&channel);
    publish_units(&writer, 188, 1, "kdhhkd");
    for (max_behind, wanted) in [(2, &["5", "6"][..]), (3, &["4", "5", "6"]), (4, &["3", "4", "5", "6"])] {
        for mut reader in [channel.reader(), channel.observer()] {
            assert_eq!(drain(&mut reader, behind(max_behind)), wanted, "{max_behind}");
        }
    }
}
