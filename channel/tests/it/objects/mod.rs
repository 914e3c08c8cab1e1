// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of frames of objects: their bytes stay in memfds, whose descriptors readers get once.

pub mod buffers;
pub mod containers;
pub mod deaths;
pub mod frames;
pub mod hostile;
pub mod lossless;
pub mod memory;
pub mod pool;
mod segments;
pub mod sockets;
mod superseded;

use std::time::Duration;

use rsshm_channel::{Frame, FrameData, Next, ReadLimits, Reader, Writer};
use rsshm_testkit::{
    frames::is_filled,
    role::{Role, say},
};

use self::pool::{Pool, object_writer};
use crate::support::{SIZE, Service, check_bytes, next_within, slots};

pub const ROLES: &[(&str, Role)] = &[("objects/writer", |arguments| writer(arguments[0]))];

/// Caps of frames of the same size as those with [`CAPS`].
const OTHER_CAPS: &str = "video/x-raw,format=GRAY8,width=256,height=64,framerate=30/1";

/// The limits of a reader that accepts objects.
pub fn accepting() -> ReadLimits {
    ReadLimits::default().accepts_objects(true)
}

/// The next frame, in place or copied. Each of its bytes has been checked.
#[track_caller]
pub fn next_frame(reader: &mut Reader, limits: ReadLimits) -> Frame {
    let mut copy = Vec::new();
    let frame = next_within(reader, &mut copy, limits);
    check_objects(&frame, &copy);
    frame
}

/// Checks each byte of a frame that [`Pool::publish`] has published.
#[track_caller]
pub fn check_objects(frame: &Frame, copy: &[u8]) {
    let value = frame.descriptor.offset as u8;
    match &frame.data {
        FrameData::Objects(objects) => {
            assert_eq!(objects.parts().len(), 1);
            let mapped = objects.map(0).unwrap();
            assert_eq!(mapped.len(), SIZE);
            assert!(is_filled(mapped, value), "frame {}", frame.seq);
        }
        FrameData::Copied => check_bytes(frame, copy),
        other => panic!("{other:?}"),
    }
}

fn is_object(frame: &Frame) -> bool {
    matches!(frame.data, FrameData::Objects(_))
}

/// Publishes frames with values from `from` on until the reader gets one in place, and returns it.
#[track_caller]
fn next_in_place(pool: &Pool, writer: &Writer, reader: &mut Reader, from: u64) -> Frame {
    for value in from.. {
        assert!(pool.publish(writer, value), "the camera has no buffer");
        let frame = next_frame(reader, accepting());
        if is_object(&frame) {
            return frame;
        }
        assert!(value < from + 1000, "no frame in place");
        std::thread::sleep(Duration::from_millis(1));
    }
    unreachable!()
}

/// Publishes frames of objects until the test ends the process.
fn writer(channel: &str) {
    let writer = object_writer(channel, slots(16), 6);
    let service = Service::of(&writer);
    let pool = Pool::new(&writer, 8);
    let mut value = 0;
    loop {
        value += 1;
        assert!(pool.publish(&writer, value), "the camera has no buffer");
        std::thread::sleep(Duration::from_millis(2));
        if value == 1 {
            say("published");
        }
        if value == u64::MAX {
            break;
        }
    }
    drop(service);
}

#[track_caller]
fn poll_for(reader: &mut Reader, timeout: Duration) -> Next {
    reader.next(&mut Vec::new(), accepting(), Some(timeout)).unwrap()
}
