//! A writer and readers in one process: what the protocol promises, without GStreamer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rsshm_channel::{
    ChannelName, Error, Format, Frame, FrameData, FrameDescriptor, Next, ReadLimits, Reader, ReaderOptions, Writer,
    WriterOptions,
};

const SIZE: usize = 640 * 360;
const CAPS: &str = "video/x-raw,format=GRAY8,width=640,height=360,framerate=30/1";

fn name() -> ChannelName {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    ChannelName::new(format!("rsshm-test-{}-{count}", std::process::id())).unwrap()
}

fn writer(name: &ChannelName, options: WriterOptions) -> Arc<Writer> {
    let writer = Writer::open(name.clone(), options).unwrap();
    writer.set_format(Format::fixed_size(CAPS, SIZE));
    Arc::new(writer)
}

fn publish(writer: &Writer, value: u8) -> bool {
    let Some(mut slot) = writer.claim(SIZE).unwrap() else {
        return false;
    };
    slot.as_mut().fill(value);
    let descriptor = FrameDescriptor {
        size: SIZE as u64,
        offset: value.into(),
        ..Default::default()
    };
    writer.publish(&slot, descriptor).unwrap();
    true
}

#[track_caller]
fn next(reader: &mut Reader, copy: &mut Vec<u8>) -> Frame {
    match reader
        .next(copy, ReadLimits::default(), Some(Duration::from_secs(5)))
        .unwrap()
    {
        Next::Frame(frame) => frame,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn check(frame: &Frame, copy: &[u8], value: u8) {
    assert_eq!(frame.descriptor.offset, value.into());
    let bytes = match &frame.data {
        FrameData::InPlace(pinned) => pinned.as_ref(),
        FrameData::Copied => copy,
    };
    assert_eq!(bytes.len(), SIZE);
    assert!(bytes.iter().all(|byte| *byte == value));
}

#[test]
fn frames_arrive_in_order_and_nothing_is_left() {
    let name = name();
    let writer = writer(&name, WriterOptions::default());
    let mut reader = Reader::new(name.clone(), ReaderOptions::default());
    let mut copy = Vec::new();
    publish(&writer, 1);
    check(&next(&mut reader, &mut copy), &copy, 1);
    for value in 2..=200 {
        assert!(publish(&writer, value));
        writer.service().unwrap();
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, value);
        assert_eq!((frame.number, frame.missed), (value.into(), 0));
    }
    assert!(reader.stats().in_place >= 199, "{:?}", reader.stats());
    writer.end_of_stream();
    assert!(matches!(
        reader.next(&mut copy, ReadLimits::default(), None).unwrap(),
        Next::EndOfStream
    ));
    drop(writer);
    assert!(matches!(
        reader.next(&mut copy, ReadLimits::default(), None).unwrap(),
        Next::Lost
    ));
    for file in [format!("/dev/shm/{name}"), format!("/dev/shm/sem.{name}")] {
        assert!(!std::path::Path::new(&file).exists(), "{file} is left");
    }
}

#[test]
fn a_second_writer_is_refused_with_the_pid() {
    let name = name();
    let first = writer(&name, WriterOptions::default());
    publish(&first, 1);
    let second = Writer::open(name, WriterOptions::default());
    assert!(
        matches!(second, Err(Error::Busy { pid: Some(pid), .. }) if pid == std::process::id()),
        "{second:?}"
    );
}

#[test]
fn observers_copy_and_take_no_seat() {
    let name = name();
    let writer = writer(&name, WriterOptions::default());
    publish(&writer, 7);
    let mut reader = Reader::new(name, ReaderOptions { read_only: true });
    let mut copy = Vec::new();
    let frame = next(&mut reader, &mut copy);
    check(&frame, &copy, 7);
    assert!(matches!(frame.data, FrameData::Copied));
    assert_eq!(writer.service().unwrap().count, 0);
}
