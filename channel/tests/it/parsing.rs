// SPDX-License-Identifier: MIT OR Apache-2.0

//! Property tests. They check that peers validate all data that another peer wrote, before they use the data.

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytemuck::Zeroable;
use proptest::prelude::*;
use rsshm_channel::{
    Caps, FrameDescriptor, MAX_EVENT_SIZE, MAX_MESSAGE_SIZE, Next, Observer, ReadLimits, STICKY_EVENT_COUNT, Writer,
    layout::{
        DESCRIPTOR_STRIDE, EVENT_RING_LENGTH, EVENT_STRIDE, EventDescriptor, EventRecord, Header, MAX_CAPS_SIZE,
        MAX_READERS, MAX_SLOTS, MESSAGE_RING_LENGTH, MESSAGE_STRIDE, MessageRecord, RING_LENGTH, ReaderEntry,
        SLOT_ALIGN, SLOTS_ALIGN, SlotRecord, Status,
    },
};
use rsshm_testkit::Channel;

use crate::support::{
    CAPS, ChannelExt, SECOND, SIZE, Service, behind, bytes, check, drain, is_in_place, next, publish,
    publish_compressed, publish_event, raw::RawPeer, slots,
};

const HEADER_SIZE: usize = size_of::<Header>();

/// Checks the properties that a peer relies on after it has accepted a header.
fn assert_usable(header: &Header, file_size: u64) {
    let inside = |offset: u64, size: u64, align: u64| {
        let end = offset.checked_add(size).expect("no overflow");
        assert!(
            offset >= HEADER_SIZE as u64 && end <= header.slots_offset && offset.is_multiple_of(align),
            "{header:?}"
        );
    };
    let slot_count = u64::from(header.slot_count);
    assert!((1..=MAX_SLOTS as u64).contains(&slot_count));
    inside(
        header.status_offset,
        size_of::<Status>() as u64,
        align_of::<Status>() as u64,
    );
    inside(header.caps_offset, header.caps_size, 1);
    inside(header.evictions_offset, 8 * MAX_READERS as u64, 8);
    inside(
        header.readers_offset,
        (MAX_READERS * size_of::<ReaderEntry>()) as u64,
        align_of::<ReaderEntry>() as u64,
    );
    inside(header.ring_offset, 8 * RING_LENGTH, 8);
    let events = STICKY_EVENT_COUNT as u64 + EVENT_RING_LENGTH;
    assert_eq!(u64::from(header.event_count), events);
    inside(
        header.events_offset,
        events * size_of::<EventRecord>() as u64,
        align_of::<EventRecord>() as u64,
    );
    assert!([0, MESSAGE_RING_LENGTH].contains(&u64::from(header.message_count)));
    if header.message_count > 0 {
        inside(
            header.messages_offset,
            MAX_READERS as u64 * MESSAGE_RING_LENGTH * size_of::<MessageRecord>() as u64,
            align_of::<MessageRecord>() as u64,
        );
    }
    inside(
        header.descriptors_offset,
        slot_count * DESCRIPTOR_STRIDE as u64,
        align_of::<SlotRecord>() as u64,
    );
    assert!(header.caps_size <= MAX_CAPS_SIZE as u64);
    assert!(header.slots_offset <= file_size && header.slots_offset.is_multiple_of(SLOTS_ALIGN));
    assert!(header.slot_size > 0 && header.slot_size.is_multiple_of(SLOT_ALIGN));
    let total = header.total_size().expect("a size that a file can have");
    assert_eq!(total - header.slots_offset, slot_count * header.slot_size);
    assert!(isize::try_from(total).is_ok());
}

/// Numbers that easily make arithmetic overflow, and ordinary numbers.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        0u64..512,
        (0u32..64, -3i64..=3).prop_map(|(bit, near)| (1u64 << bit).wrapping_add_signed(near)),
        (0u64..1 << 22).prop_map(|page| page * 4096),
        Just(u64::MAX),
        Just(i64::MAX as u64),
    ]
}

/// A header as an honest writer writes it.
fn valid() -> impl Strategy<Value = Header> {
    (0..=MAX_CAPS_SIZE, 1..=MAX_SLOTS as u32, 0u64..1 << 40, any::<bool>())
        .prop_map(|(caps, slots, size, messages)| Header::new(caps, slots, size, messages).expect("a valid layout"))
}

/// Replaces the aligned word that contains the byte at the offset `at` of a header. The word has 8 bytes if `wide` is
/// set, otherwise 4.
fn change(header: Header, at: usize, wide: bool, value: u64) -> Header {
    let mut bytes: [u8; HEADER_SIZE] = bytemuck::must_cast(header);
    let (at, length) = if wide { (at / 8 * 8, 8) } else { (at / 4 * 4, 4) };
    bytes[at..at + length].copy_from_slice(&value.to_ne_bytes()[..length]);
    bytemuck::must_cast(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn header_check_refuses_random_bytes(words in prop::array::uniform32(any::<u64>()), file_size in number()) {
        let header: Header = bytemuck::must_cast(words);
        prop_assert!(header.check(file_size).is_err(), "it does not begin with the magic");
    }

    /// The header's magic is right, and so are all sizes that the version of the protocol prescribes. The other fields
    /// are random.
    #[test]
    fn accepted_header_of_any_layout_is_usable(
        header in valid(),
        offsets in prop::array::uniform8(prop_oneof![3 => (0u64..100).prop_map(|page| page * 64), 1 => number()]),
        (slots_offset, slot_size) in ((0u64..100).prop_map(|page| page * SLOTS_ALIGN), number()),
        (slot_count, caps_size, file_size) in (0u32..70, 0..2 * MAX_CAPS_SIZE as u64, number()),
        message_count in 0u32..6,
    ) {
        let [status_offset, caps_offset, evictions_offset, readers_offset, offsets @ ..] = offsets;
        let [ring_offset, events_offset, messages_offset, descriptors_offset] = offsets;
        let mut header = header;
        header.status_offset = status_offset;
        header.caps_offset = caps_offset;
        header.evictions_offset = evictions_offset;
        header.readers_offset = readers_offset;
        header.ring_offset = ring_offset;
        header.events_offset = events_offset;
        header.messages_offset = messages_offset;
        header.message_count = message_count;
        header.descriptors_offset = descriptors_offset;
        header.slots_offset = slots_offset;
        header.slot_size = slot_size;
        header.slot_count = slot_count;
        header.caps_size = caps_size;
        if header.check(file_size).is_ok() {
            assert_usable(&header, file_size);
        }
    }

    #[test]
    fn header_of_writer_is_accepted(header in valid(), more in 0u64..1 << 30) {
        let file_size = header.slots_offset + more;
        prop_assert_eq!(header.check(file_size), Ok(()));
        assert_usable(&header, file_size);
        prop_assert!(header.check(header.slots_offset - 1).is_err());
    }

    #[test]
    fn accepted_changed_header_is_usable(
        header in valid(),
        changes in prop::collection::vec((0..HEADER_SIZE, any::<bool>(), number()), 1..3),
        file_size in prop_oneof![number(), Just(u64::MAX)],
    ) {
        let header = changes.iter().fold(header, |header, (at, wide, value)| change(header, *at, *wide, *value));
        if header.check(file_size).is_ok() {
            assert_usable(&header, file_size);
        }
    }

    #[test]
    fn new_header_is_valid_or_none(
        caps in 0..2 * MAX_CAPS_SIZE,
        slots in 0u32..100,
        size in number(),
        messages in any::<bool>(),
    ) {
        match Header::new(caps, slots, size, messages) {
            Some(header) => {
                prop_assert_eq!(header.check(header.slots_offset), Ok(()));
                prop_assert!(header.slot_size >= size && header.slot_count == slots);
                prop_assert_eq!(header.message_count > 0, messages);
            }
            None => prop_assert!(caps > MAX_CAPS_SIZE || slots == 0 || slots > 64 || size > (isize::MAX / 65) as u64),
        }
    }

    #[test]
    fn accepted_descriptor_is_inside_its_slot(
        (data_offset, size, metadata, planes) in (number(), number(), number(), number()),
        plane_offset in prop::array::uniform4(number()),
        slot_size in number(),
    ) {
        let mut descriptor = FrameDescriptor::new(size);
        descriptor.data_offset = data_offset;
        descriptor.metadata_size = metadata as u32;
        descriptor.planes = planes as u32;
        descriptor.plane_offset = plane_offset;
        if descriptor.fits(slot_size) {
            let end = data_offset.checked_add(size).expect("no overflow");
            prop_assert!(end <= slot_size && descriptor.planes <= 4);
            for offset in &plane_offset[..descriptor.planes as usize] {
                prop_assert!(*offset <= size);
            }
            prop_assert!(metadata as u32 as usize + size_of::<SlotRecord>() <= DESCRIPTOR_STRIDE);
        }
    }
}

/// A live writer's channel, and the bytes of its segment before they are corrupted.
struct Victim {
    channel: Channel,
    writer: Arc<Writer>,
    good: Vec<u8>,
}

impl Victim {
    fn new() -> Self {
        let channel = Channel::new();
        let writer = channel.writer(slots(5).accept_messages(true));
        for value in 1..=3 {
            assert!(publish(&writer, value));
            publish_event(&writer, "sticky", Some(value as usize));
            publish_event(&writer, "passing", None);
        }
        let good = std::fs::read(channel.segment()).unwrap();
        Self { channel, writer, good }
    }

    /// Writes into the segment, as any peer with write permission can. The size of the file does not change.
    fn corrupt(&self, at: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.channel.segment()).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    /// Uses the channel with every kind of peer. Checks that each peer gets some result soon, and that the writer
    /// continues.
    fn use_channel(&self) {
        let began = Instant::now();
        let mut copy = Vec::new();
        for mut reader in [self.channel.reader(), self.channel.observer()] {
            for _ in 0..6 {
                let timeout = Some(Duration::from_millis(1));
                match reader.next(&mut copy, ReadLimits::default(), timeout) {
                    Ok(Next::Frame(frame)) => {
                        assert!(bytes(&frame, &copy).len() as u64 == frame.descriptor.size);
                        assert!(frame.descriptor.size <= SIZE as u64 || !is_in_place(&frame));
                    }
                    Ok(Next::Event(event)) => assert!(event.bytes.len() <= MAX_EVENT_SIZE),
                    _ => {}
                }
                let _ = (reader.latency_ns(), reader.is_connected());
            }
            let handle = reader.handle();
            let _ = (handle.send_message(b"message"), handle.request_keyframe());
        }
        if let Ok(Some(observer)) = Observer::open(&self.channel) {
            let _ = (observer.newest(&mut copy), observer.is_current(), observer.head());
        }
        let _ = self.writer.service();
        publish_event(&self.writer, "event", Some(0));
        let _ = publish(&self.writer, 9);
        assert!(began.elapsed() < 5 * SECOND);
    }
}

/// Offsets in the tables. Offsets at which a wrong value does the most harm come more often than the others.
fn offset(header: Header) -> impl Strategy<Value = usize> {
    let length = header.descriptors_offset as usize + 5 * DESCRIPTOR_STRIDE;
    prop_oneof![
        (0..HEADER_SIZE / 4).prop_map(|word| word * 4),
        (0..96usize).prop_map(|word| HEADER_SIZE + word * 4),
        (0..length / 8).prop_map(|word| word * 8),
        (0..2usize, 0..16usize).prop_map(move |(entry, word)| header.readers_offset as usize + entry * 64 + word * 4),
        (0..20usize, 0..9usize)
            .prop_map(move |(event, word)| header.events_offset as usize + event * EVENT_STRIDE + word * 8),
        (0..8usize, 0..3usize)
            .prop_map(move |(message, word)| header.messages_offset as usize + message * MESSAGE_STRIDE + word * 8),
        (0..4usize, 0..64usize).prop_map(move |(slot, word)| length - (5 - slot) * DESCRIPTOR_STRIDE + word * 8),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Another peer changes the header, the status, the reader table, the ring, events, messages or descriptors of a
    /// live channel.
    #[test]
    fn corrupted_segments_harm_no_peer(
        changes in prop::collection::vec((offset(layout()), number(), any::<bool>()), 1..6),
    ) {
        let victim = Victim::new();
        for (at, value, wide) in changes {
            let bytes = value.to_ne_bytes();
            victim.corrupt(at as u64, if wide { &bytes } else { &bytes[..4] });
        }
        victim.use_channel();
    }

    /// The file with the segment's name contains arbitrary bytes and has an arbitrary length. The lock file belongs to
    /// a live writer.
    #[test]
    fn any_file_under_the_name_harms_no_peer(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        like_a_segment in any::<bool>(),
        length in prop_oneof![Just(None), (0usize..400_000).prop_map(Some)],
    ) {
        let victim = Victim::new();
        std::fs::remove_file(victim.channel.segment()).unwrap();
        let mut content = if like_a_segment { victim.good.clone() } else { Vec::new() };
        let changed = bytes.len().min(content.len());
        if like_a_segment {
            // The header stays intact, because a peer would otherwise refuse the file before it reads the changed
            // bytes.
            let at = HEADER_SIZE + (bytes.len() % 200) * 8;
            content[at..at + changed].copy_from_slice(&bytes[..changed]);
        } else {
            content = bytes;
        }
        if let Some(length) = length {
            content.resize(length, 0);
        }
        std::fs::write(victim.channel.segment(), content).unwrap();
        victim.use_channel();
    }
}

/// The header of the segment of [`Victim`].
fn layout() -> Header {
    Header::new(CAPS.len(), 5, SIZE as u64, true).expect("a valid layout")
}

/// The number of event records, sticky and ring together.
const EVENT_COUNT: usize = STICKY_EVENT_COUNT + EVENT_RING_LENGTH as usize;

/// Seqs of events. Most are near 6, the event head of [`Victim`].
fn event_seq() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 0u64..8, 3 => 0u64..80, 1 => number()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    /// The event records contain garbage. Attached and new readers may deliver garbage events, but they get all frames.
    #[test]
    fn corrupted_events_withhold_no_frame(
        heads in prop::collection::vec(event_seq(), 1..4),
        records in prop::collection::vec((0..EVENT_COUNT + STICKY_EVENT_COUNT, event_seq(), event_seq(), number(), 0u32..3), 1..20),
        max_behind in 0u32..4,
    ) {
        let victim = Victim::new();
        let mut readers = [victim.channel.reader(), victim.channel.observer()];
        for reader in &mut readers {
            drain(reader, ReadLimits::default());
        }
        let peer = RawPeer::open(&victim.channel);
        for (place, seq, after, sizes, eos_count) in records {
            // A place above the last record selects one of the sticky events again, so that their records are hit more
            // often.
            let place = place % EVENT_COUNT;
            let mut descriptor = EventDescriptor::zeroed();
            (descriptor.after, descriptor.size, descriptor.eos_count) = (after, sizes as u32, eos_count);
            let at = peer.header.events_offset + (place * EVENT_STRIDE) as u64;
            victim.corrupt(at, &seq.to_ne_bytes());
            victim.corrupt(at + 8, bytemuck::bytes_of(&descriptor));
        }
        let mut all = Vec::from(readers);
        all.extend([victim.channel.reader(), victim.channel.observer()]);
        let mut copy = Vec::new();
        for head in heads {
            peer.status().event_head.store(head, Ordering::SeqCst);
            prop_assert!(publish(&victim.writer, 4));
            for reader in &mut all {
                let limits = behind(max_behind);
                let events = (0..100).take_while(|_| {
                    match reader.next(&mut copy, limits, Some(Duration::ZERO)).unwrap() {
                        Next::Event(event) => {
                            assert!(event.bytes.len() <= MAX_EVENT_SIZE);
                            true
                        }
                        Next::Frame(frame) => {
                            check(&frame, &copy, 4);
                            false
                        }
                        other => panic!("{other:?}"),
                    }
                });
                prop_assert!(events.count() < 100, "the reader gets a frame");
            }
        }
    }

    /// The message records and the message head of a reader entry contain garbage. The writer takes at most as many
    /// messages as fit into the ring, and loses no message of another entry.
    #[test]
    fn corrupted_messages_harm_no_peer(
        heads in prop::collection::vec(event_seq(), 1..6),
        records in prop::collection::vec((0..MESSAGE_RING_LENGTH, event_seq(), number()), 0..8),
    ) {
        let victim = Victim::new();
        let mut readers = [victim.channel.reader(), victim.channel.reader()];
        for reader in &mut readers {
            drain(reader, ReadLimits::default());
        }
        let peer = RawPeer::open(&victim.channel);
        for (place, seq, size) in records {
            let at = peer.header.messages_offset + place * MESSAGE_STRIDE as u64;
            victim.corrupt(at, &seq.to_ne_bytes());
            victim.corrupt(at + 8, &size.to_ne_bytes());
        }
        for head in heads {
            peer.entry(0).message_head.store(head, Ordering::SeqCst);
            prop_assert!(readers[1].handle().send_message(b"honest"));
            let mut messages = victim.writer.service().unwrap().messages;
            prop_assert_eq!(messages.pop(), Some(b"honest".to_vec()));
            prop_assert!(messages.len() as u64 <= MESSAGE_RING_LENGTH);
            prop_assert!(messages.iter().all(|message| message.len() <= MAX_MESSAGE_SIZE));
        }
    }
}

/// All records of sticky events have the seq of one event, which is no longer in the ring. The reader gets this event
/// once.
#[test]
fn sticky_records_of_equal_seq_are_one_event() {
    let victim = Victim::new();
    let mut reader = victim.channel.reader();
    drain(&mut reader, ReadLimits::default());
    let peer = RawPeer::open(&victim.channel);
    let received = peer.status().event_head.load(Ordering::SeqCst);
    for _ in 0..=EVENT_RING_LENGTH {
        publish_event(&victim.writer, "passing", None);
    }
    for place in 0..STICKY_EVENT_COUNT {
        let at = peer.header.events_offset + (place * EVENT_STRIDE) as u64;
        victim.corrupt(at, &(received + 1).to_ne_bytes());
    }
    assert_eq!(
        drain(&mut reader, ReadLimits::default()).len() as u64,
        EVENT_RING_LENGTH + 1
    );
    assert_eq!(reader.stats().events_missed, 0);
}

#[test]
fn messages_offset_is_unchecked_without_messages() {
    let mut header = Header::new(10, 5, SIZE as u64, false).expect("a valid layout");
    for messages_offset in [0, 1, u64::MAX] {
        header.messages_offset = messages_offset;
        assert_eq!(header.check(header.slots_offset), Ok(()));
        header.message_count = MESSAGE_RING_LENGTH as u32;
        assert!(header.check(header.slots_offset).is_err());
        header.message_count = 0;
    }
}

/// The header announces huge slots. No peer allocates memory for a frame of such a slot's size.
#[test]
fn frame_of_impossible_size_is_not_allocated() {
    for slot_size in [1u64 << 40, 1 << 46, 1 << 56] {
        let victim = Victim::new();
        let mut header = Header::zeroed();
        bytemuck::bytes_of_mut(&mut header).copy_from_slice(&victim.good[..HEADER_SIZE]);
        header.slot_size = slot_size;
        victim.corrupt(0, bytemuck::bytes_of(&header));
        for slot in 0..5 {
            let size_at = std::mem::offset_of!(SlotRecord, words) + std::mem::offset_of!(FrameDescriptor, size);
            let at = header.descriptors_offset + slot * DESCRIPTOR_STRIDE as u64 + size_at as u64;
            victim.corrupt(at, &slot_size.to_ne_bytes());
        }
        victim.use_channel();
    }
}

/// A descriptor says that the frame is outside its slot, or that it is in a slot beyond the end of the file. No reader
/// gets this frame or allocates memory for it.
#[test]
fn frame_outside_its_slot_is_not_delivered() {
    let huge = 1 << 40;
    let cases = [
        (SIZE as u64, SIZE as u64 + 1, 0),
        (SIZE as u64, 1, SIZE as u64),
        (SIZE as u64, 2, u64::MAX),
        (huge, huge, 0),
    ];
    for (slot_size, size, data_offset) in cases {
        let victim = Victim::new();
        let mut header = Header::zeroed();
        bytemuck::bytes_of_mut(&mut header).copy_from_slice(&victim.good[..HEADER_SIZE]);
        header.slot_size = slot_size;
        victim.corrupt(0, bytemuck::bytes_of(&header));
        let fields = [
            (std::mem::offset_of!(FrameDescriptor, size), size),
            (std::mem::offset_of!(FrameDescriptor, data_offset), data_offset),
        ];
        for slot in 0..5 {
            for (field, value) in fields {
                let in_record = std::mem::offset_of!(SlotRecord, words) + field;
                let at = header.descriptors_offset as usize + slot * DESCRIPTOR_STRIDE + in_record;
                victim.corrupt(at as u64, &value.to_ne_bytes());
            }
        }
        let service = Service::of(&victim.writer);
        for mut reader in [victim.channel.reader(), victim.channel.observer()] {
            let timeout = Some(Duration::from_millis(100));
            let mut next = || reader.next(&mut Vec::new(), ReadLimits::default(), timeout);
            let nothing = std::iter::repeat_with(&mut next).find(|next| !matches!(next, Ok(Next::Event(_))));
            let nothing = nothing.expect("an end");
            assert!(matches!(nothing, Ok(Next::TimedOut)), "{nothing:?}");
        }
        drop(service);
    }
}

/// Another peer sets the head to values that are not the seq of any frame. Readers still get the frame that is
/// published next.
#[test]
fn erratic_head_harms_no_reader() {
    let victim = Victim::new();
    let (mut reader, mut copy) = (victim.channel.reader(), Vec::new());
    drain(&mut reader, ReadLimits::default());
    let peer = RawPeer::open(&victim.channel);
    for head in [u64::MAX, 1, u64::MAX, 2, 1 << 63, 0, u64::MAX, 3] {
        peer.status().head.store(head, Ordering::SeqCst);
        for max_behind in [0, 1, 5] {
            let _ = reader
                .next(&mut copy, behind(max_behind), Some(Duration::from_millis(1)))
                .unwrap();
        }
    }
    assert!(publish(&victim.writer, 4));
    check(&next(&mut reader, &mut copy), &copy, 4);
    let missed = reader.stats().missed;
    assert!(missed < 1 << 40, "{missed} is not a plausible count of frames");
}

/// A reader that joins while the head is damaged continues after the next publish, which writes the right head.
#[test]
fn reader_joining_at_corrupted_head_recovers() {
    for lossless in [false, true] {
        for caps in [Caps::fixed_size("raw", SIZE), Caps::variable_size("compressed")] {
            let channel = Channel::new();
            let writer = channel.writer(slots(6).lossless(lossless));
            writer.set_caps(caps).unwrap();
            assert!(publish_compressed(&writer, 1, false));
            let peer = RawPeer::open(&channel);
            for (value, head) in [(2, u64::MAX), (3, 1 << 60), (4, u64::MAX - 1)] {
                peer.status().head.store(head, Ordering::SeqCst);
                let mut readers = [channel.reader(), channel.observer()];
                for reader in &mut readers {
                    assert!(drain(reader, ReadLimits::default()).is_empty());
                }
                assert!(publish_compressed(&writer, value, false));
                for reader in &mut readers {
                    assert_eq!(drain(reader, ReadLimits::default()), [value.to_string()]);
                }
            }
        }
    }
}
