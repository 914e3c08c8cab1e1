// SPDX-License-Identifier: MIT OR Apache-2.0

//! Deltas at the end of a stream, and in the next segment or stream.

use rsshm_channel::{Caps, layout::DELTA_UNIT};
use rsshm_testkit::{
    Channel, Process,
    role::{self, Role, listen, say},
};

use super::{compressed, expect, h264, join, now, publish_all};
use crate::support::{descriptor, open_writer, publish_frame, slots};

pub const ROLES: &[(&str, Role)] = &[("keyframes/writer", |arguments| compressing_writer(arguments[0]))];

/// A writer of a compressed stream that publishes the frames that each line from the test lists.
fn compressing_writer(channel: &str) {
    let writer = open_writer(channel, slots(12));
    writer.set_caps(h264()).unwrap();
    loop {
        publish_all(&writer, &listen());
        say("done");
    }
}

/// Each writer begins a new stream, so the deltas of a restarted writer are not delivered before this writer's first
/// keyframe.
#[test]
fn restarted_writers_deltas_wait_for_its_keyframe() {
    let channel = Channel::new();
    let mut first = role::start("keyframes/writer", &[channel.as_str()]);
    let publish = |writer: &mut Process, frames: &str| {
        writer.send(frames);
        writer.expect("done");
    };
    publish(&mut first, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    first.kill();
    let mut second = role::start("keyframes/writer", &[channel.as_str()]);
    publish(&mut second, "d3 d4");
    expect(&mut readers, &[]);
    publish(&mut second, "k5 d6");
    for reader in &mut readers {
        assert_eq!(now(reader), ["5", "6"]);
        assert_eq!(reader.stats().missed, 2);
    }
}

/// The stream continues in a new segment if only the slots become larger. If the caps change, another stream begins.
#[test]
fn deltas_continue_in_segment_of_larger_slots() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1");
    let mut readers = join(&channel, &["1"]);
    assert!(publish_frame(&writer, descriptor(600_000, 2).with_flags(DELTA_UNIT)));
    publish_all(&writer, "d3");
    for reader in &mut readers {
        assert_eq!(now(reader), ["2", "3"]);
        assert_eq!(reader.segment_changes(), 1);
    }
    writer.set_caps(Caps::variable_size("video/x-h265")).unwrap();
    publish_all(&writer, "d4 d5");
    for reader in &mut readers {
        assert_eq!(now(reader), [""; 0], "no delta of other caps");
    }
    publish_all(&writer, "k6");
    expect(&mut readers, &["6"]);
}

#[test]
fn no_delta_is_decoded_across_end_of_stream() {
    let channel = Channel::new();
    let writer = compressed(&channel, slots(12));
    publish_all(&writer, "k1 d2");
    let mut readers = join(&channel, &["1", "2"]);
    writer.end_of_stream();
    publish_all(&writer, "d3 k4 d5");
    expect(&mut readers, &["end", "4", "5"]);
}
