// SPDX-License-Identifier: MIT OR Apache-2.0

//! Tests of systems with larger pages. The processes of the roles pretend that their system has such pages.

use nix::sys::resource::{UsageWho, getrusage};
use rsshm_channel::{Caps, ChannelName, Observer, ReaderOptions, Writer, WriterOptions};
use rsshm_testkit::{
    Channel, Process, need_real_machine,
    role::{self, Role, listen, say},
    shm::{OWN_MOUNTS, mount, unshared},
    skip,
};

use crate::support::{
    ChannelExt, SIZE, check, next, open_reader, open_writer, publish, publish_sized, raw::RawPeer, slots,
    try_open_writer,
};

/// The page sizes of ARM64.
const PAGE_SIZES: [u64; 3] = [4 << 10, 16 << 10, 64 << 10];

/// The size of a frame that does not fill whole pages of any size.
const LARGE_SIZE: usize = 9 * SIZE + 1;

pub const ROLES: &[(&str, Role)] = &[
    ("pages/writer", |arguments| {
        let writer = open_writer(arguments[0], slots(8));
        assert!(publish(&writer, 1));
        say(writer.stats().bytes);
        listen();
        // A larger frame needs another segment.
        assert!(publish_sized(&writer, 2, LARGE_SIZE));
        say(writer.stats().bytes);
        listen();
        say(page_faults_of_a_new_slot(&writer));
        listen();
    }),
    ("pages/variable", |arguments| {
        // With little free memory, slots are smaller than 512 KiB, and half a page is left over.
        mount("11m");
        let writer = try_open_writer(arguments[0], WriterOptions::default()).unwrap();
        writer.set_caps(Caps::variable_size("video/mpegts")).unwrap();
        assert!(publish_sized(&writer, 1, 188));
        let channel = ChannelName::new(arguments[0]).unwrap();
        say(Observer::inspect(&channel)
            .unwrap()
            .expect("a segment")
            .header()
            .slot_size);
    }),
    ("pages/reader", |arguments| {
        let mut reader = open_reader(arguments[0], ReaderOptions::default());
        let mut copy = Vec::new();
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, 1);
        say("read");
    }),
];

/// The page faults that it takes to fill a slot that has just got its memory.
fn page_faults_of_a_new_slot(writer: &Writer) -> i64 {
    let before = writer.stats().slots;
    let mut claimed = Vec::new();
    while writer.stats().slots == before {
        claimed.push(writer.upstream().claim(LARGE_SIZE).unwrap().expect("a slot"));
    }
    let slot = claimed.last_mut().unwrap();
    let faults = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().minor_page_faults();
    let before = faults();
    slot.as_mut().fill(1);
    faults() - before
}

fn start(page_size: u64, role: &str, channel: &Channel) -> Process {
    let variable = format!("RSSHM_TEST_PAGE_SIZE={page_size}");
    role::start_within(&["env", &variable], role, &[channel.as_str()])
}

/// Checks that each slot of the channel begins on a page, and that only whole pages have memory.
#[track_caller]
fn check_slots(channel: &Channel, page_size: u64, frame_size: usize) {
    let observer = Observer::inspect(channel).unwrap().expect("a segment");
    let header = observer.header();
    let file = observer.file().unwrap();
    assert!(header.slots_offset.is_multiple_of(page_size), "{header:?}");
    let pages = (frame_size as u64).div_ceil(page_size);
    assert_eq!(
        header.slot_size,
        pages * page_size,
        "no page is shared, and none is wasted"
    );
    assert_eq!(
        file.size,
        header.slots_offset + u64::from(file.committed_slots) * header.slot_size
    );
    // Tables get memory when they are first used.
    let slots = u64::from(file.committed_slots) * header.slot_size;
    let tables = RawPeer::open(channel).tables_memory(file.committed_slots);
    assert_eq!(file.memory, tables + slots, "{file:?}");
}

#[test]
fn slots_begin_on_pages_of_any_size() {
    for page_size in PAGE_SIZES {
        let channel = Channel::new();
        let mut writer = start(page_size, "pages/writer", &channel);
        let bytes: u64 = writer.receive().parse().unwrap();
        check_slots(&channel, page_size, SIZE);
        // The writer may have committed more slots since it counted the bytes.
        let header = *Observer::inspect(&channel).unwrap().unwrap().header();
        assert!(bytes > header.slots_offset);
        assert_eq!((bytes - header.slots_offset) % header.slot_size, 0, "whole slots");
        let mut reader = channel.reader();
        let mut copy = Vec::new();
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, 1);
        drop(frame);
        writer.send("larger");
        writer.receive();
        check_slots(&channel, page_size, LARGE_SIZE);
        let frame = next(&mut reader, &mut copy);
        check(&frame, &copy, 2);
        drop(frame);
        writer.send("end");
        writer.receive();
    }
}

#[test]
fn new_slot_is_prefaulted_with_pages_of_any_size() {
    need_real_machine!("the emulator has page faults of its own");
    for page_size in PAGE_SIZES {
        let channel = Channel::new();
        let mut writer = start(page_size, "pages/writer", &channel);
        writer.receive();
        writer.send("larger");
        writer.receive();
        writer.send("faults");
        assert_eq!(writer.receive(), "0", "pages of {page_size} bytes");
    }
}

#[test]
fn runs_have_slots_of_whole_pages() {
    let Some(wrapper) = unshared(&OWN_MOUNTS) else {
        skip!("no mount namespaces");
    };
    for page_size in PAGE_SIZES {
        let channel = Channel::new();
        let variable = format!("RSSHM_TEST_PAGE_SIZE={page_size}");
        let wrapper: Vec<_> = wrapper.iter().copied().chain(["env", &variable]).collect();
        let mut writer = role::start_within(&wrapper, "pages/variable", &[channel.as_str()]);
        let slot_size: u64 = writer.receive().parse().unwrap();
        assert!(
            (64 << 10..512 << 10).contains(&slot_size) && slot_size.is_multiple_of(page_size),
            "{slot_size} bytes with pages of {page_size}"
        );
    }
}

#[test]
fn reader_with_large_pages_reads_slots_of_small_pages() {
    let channel = Channel::new();
    let writer = channel.writer(slots(8));
    assert!(publish(&writer, 1));
    // The writer of this test is on a system with small pages, so that most of its slots begin between large pages.
    let observer = Observer::inspect(&channel).unwrap().expect("a segment");
    assert_eq!(observer.header().slot_size, SIZE as u64);
    let mut reader = start(64 << 10, "pages/reader", &channel);
    reader.expect("read");
}
