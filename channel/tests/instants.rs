//! What was found by killing and stopping processes at named instants (`channel/src/points.rs`, `tests/chaos`), each with a
//! process that ends or stops exactly there.

mod common;

use common::{
    Channel, check,
    child::{self, Child, listen, say},
    next, publish, slots,
};
use rsshm_channel::{ChannelName, Format, Writer};

const KILL: &str = "1000000,0";

#[test]
fn child() {
    child::play(&[("writes", writes)]);
}

/// A process that kills or stops itself when it first passes an instant.
struct AtInstant {
    child: Child,
    counts: String,
}

impl AtInstant {
    fn start(role: &str, channel: &Channel, rates: &str, instant: &str) -> Self {
        let counts = format!("{}/{}-{instant}", env!("CARGO_TARGET_TMPDIR"), channel.as_str());
        let points = format!("RSSHM_POINTS=1,{rates},{counts},{instant}");
        let child = Child::start_with(role, channel.as_str(), &["env", &points]);
        Self { child, counts }
    }
}

impl Drop for AtInstant {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.counts);
    }
}

fn writes(channel: &str) {
    let writer = Writer::open(ChannelName::new(channel).unwrap(), slots(6)).unwrap();
    writer.set_format(Format::fixed_size(common::CAPS, common::SIZE));
    for value in 1..=5 {
        assert!(publish(&writer, value));
    }
    say("published");
    listen();
}

/// A writer that dies when it has taken the channel over and has no frame yet: the next one finds the numbers all the same.
#[test]
fn numbers_go_on_where_a_writer_died_before_its_first_frame() {
    for instant in [
        "ChannelLocked",
        "LeftOpened",
        "LeftTaken",
        "SegmentMade",
        "SegmentWritten",
        "SegmentNamed",
    ] {
        let channel = Channel::new();
        let (mut reader, mut copy) = (channel.reader(), Vec::new());
        let mut first = Child::start("writes", channel.as_str());
        first.expect("published");
        assert_eq!(next(&mut reader, &mut copy).number, 5);
        first.kill();
        AtInstant::start("writes", &channel, KILL, instant).child.dies();
        let writer = channel.writer(slots(6));
        assert!(publish(&writer, 77));
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, 77);
        assert_eq!(frame.number, 6, "{instant}");
    }
}
