//! What others wrote is checked before it is believed, whatever it is.

mod common;

use std::{
    fs::OpenOptions,
    os::unix::fs::FileExt,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytemuck::Zeroable;
use common::{Channel, SIZE, peer::Peer, publish, slots};
use proptest::prelude::*;
use rsshm_channel::{
    FrameDescriptor, Next, Observer, ReadLimits, Writer,
    layout::{
        DESCRIPTOR_STRIDE, Fixed, Live, MAX_CAPS, MAX_SLOTS, RING, SEATS, SLOT_ALIGN, SLOTS_ALIGN, Seat, SlotHead,
    },
};

const FIXED: usize = size_of::<Fixed>();

/// What a peer that has accepted a header relies on.
fn assert_usable(fixed: &Fixed, file_size: u64) {
    let inside = |offset: u64, size: u64, align: u64| {
        let end = offset.checked_add(size).expect("no overflow");
        assert!(
            offset >= FIXED as u64 && end <= fixed.slots_offset && offset.is_multiple_of(align),
            "{fixed:?}"
        );
    };
    let slot_count = u64::from(fixed.slot_count);
    assert!((1..=MAX_SLOTS as u64).contains(&slot_count));
    inside(fixed.live_offset, size_of::<Live>() as u64, align_of::<Live>() as u64);
    inside(fixed.caps_offset, fixed.caps_size, 1);
    inside(fixed.grants_offset, 8 * SEATS as u64, 8);
    inside(
        fixed.seats_offset,
        (SEATS * size_of::<Seat>()) as u64,
        align_of::<Seat>() as u64,
    );
    inside(fixed.ring_offset, 8 * RING, 8);
    inside(
        fixed.descriptors_offset,
        slot_count * DESCRIPTOR_STRIDE as u64,
        align_of::<SlotHead>() as u64,
    );
    assert!(fixed.caps_size <= MAX_CAPS as u64);
    assert!(fixed.slots_offset <= file_size && fixed.slots_offset.is_multiple_of(SLOTS_ALIGN));
    assert!(fixed.slot_size > 0 && fixed.slot_size.is_multiple_of(SLOT_ALIGN));
    let total = fixed.total_size().expect("a size that a file can have");
    assert_eq!(total - fixed.slots_offset, slot_count * fixed.slot_size);
    assert!(isize::try_from(total).is_ok());
}

/// Numbers at which arithmetic goes wrong, and ordinary ones.
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

/// A header that a writer would make.
fn valid() -> impl Strategy<Value = Fixed> {
    (0..=MAX_CAPS, 1..=MAX_SLOTS as u32, 0u64..1 << 40, any::<bool>())
        .prop_map(|(caps, slots, size, mail)| Fixed::new(caps, slots, size, mail).expect("these are possible"))
}

/// Writes 4 or 8 bytes somewhere into a header.
fn change(fixed: Fixed, at: usize, wide: bool, value: u64) -> Fixed {
    let mut bytes: [u8; FIXED] = bytemuck::must_cast(fixed);
    let (at, length) = if wide { (at / 8 * 8, 8) } else { (at / 4 * 4, 4) };
    bytes[at..at + length].copy_from_slice(&value.to_ne_bytes()[..length]);
    bytemuck::must_cast(bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_checked_without_a_panic(words in prop::array::uniform32(any::<u64>()), file_size in number()) {
        let fixed: Fixed = bytemuck::must_cast(words);
        prop_assert!(fixed.check(file_size).is_err(), "it would have to begin with the magic");
    }

    /// What is behind the magic and the sizes that a version prescribes.
    #[test]
    fn any_layout_is_refused_or_usable(
        fixed in valid(),
        offsets in prop::array::uniform6(prop_oneof![3 => (0u64..100).prop_map(|page| page * 64), 1 => number()]),
        (slots_offset, slot_size) in ((0u64..100).prop_map(|page| page * SLOTS_ALIGN), number()),
        (slot_count, caps_size, file_size) in (0u32..70, 0..2 * MAX_CAPS as u64, number()),
    ) {
        let [live_offset, caps_offset, grants_offset, seats_offset, ring_offset, descriptors_offset] = offsets;
        let fixed = Fixed {
            live_offset,
            caps_offset,
            grants_offset,
            seats_offset,
            ring_offset,
            descriptors_offset,
            slots_offset,
            slot_size,
            slot_count,
            caps_size,
            ..fixed
        };
        if fixed.check(file_size).is_ok() {
            assert_usable(&fixed, file_size);
        }
    }

    #[test]
    fn what_a_writer_makes_is_accepted(fixed in valid(), more in 0u64..1 << 30) {
        let file_size = fixed.slots_offset + more;
        prop_assert_eq!(fixed.check(file_size), Ok(()));
        assert_usable(&fixed, file_size);
        prop_assert!(fixed.check(fixed.slots_offset - 1).is_err());
    }

    #[test]
    fn a_changed_header_is_refused_or_usable(
        fixed in valid(),
        changes in prop::collection::vec((0..FIXED, any::<bool>(), number()), 1..3),
        file_size in prop_oneof![number(), Just(u64::MAX)],
    ) {
        let fixed = changes.iter().fold(fixed, |fixed, (at, wide, value)| change(fixed, *at, *wide, *value));
        if fixed.check(file_size).is_ok() {
            assert_usable(&fixed, file_size);
        }
    }

    #[test]
    fn new_makes_a_layout_or_nothing(caps in 0..2 * MAX_CAPS, slots in 0u32..100, size in number()) {
        match Fixed::new(caps, slots, size, false) {
            Some(fixed) => {
                prop_assert_eq!(fixed.check(fixed.slots_offset), Ok(()));
                prop_assert!(fixed.slot_size >= size && fixed.slot_count == slots);
            }
            None => prop_assert!(caps > MAX_CAPS || slots == 0 || slots > 64 || size > (isize::MAX / 65) as u64),
        }
    }

    #[test]
    fn a_descriptor_that_fits_lies_in_its_slot(
        (data_offset, size, extra, planes) in (number(), number(), number(), number()),
        plane_offset in prop::array::uniform4(number()),
        slot_size in number(),
    ) {
        let descriptor = FrameDescriptor {
            data_offset,
            size,
            extra_size: extra as u32,
            planes: planes as u32,
            plane_offset,
            ..FrameDescriptor::default()
        };
        if descriptor.fits(slot_size) {
            let end = data_offset.checked_add(size).expect("no overflow");
            prop_assert!(end <= slot_size && descriptor.planes <= 4);
            for offset in &plane_offset[..descriptor.planes as usize] {
                prop_assert!(*offset <= size);
            }
            prop_assert!(extra as u32 as usize + size_of::<SlotHead>() <= DESCRIPTOR_STRIDE);
        }
    }
}

/// A living writer's channel, and what its control area should be.
struct Victim {
    channel: Channel,
    writer: Arc<Writer>,
    good: Vec<u8>,
}

impl Victim {
    fn new() -> Self {
        let channel = Channel::new();
        let writer = channel.writer(slots(5));
        for value in 1..=3 {
            assert!(publish(&writer, value));
        }
        let good = std::fs::read(channel.segment()).unwrap();
        Self { channel, writer, good }
    }

    /// Writes into the segment, as who may write it can. Never changes its size: that is not a value.
    fn spoil(&self, at: u64, bytes: &[u8]) {
        let file = OpenOptions::new().write(true).open(self.channel.segment()).unwrap();
        file.write_all_at(bytes, at).unwrap();
    }

    /// Every kind of peer looks at it: whatever it says, it says something, soon. The writer goes on.
    fn look(&self) {
        let began = Instant::now();
        let mut copy = Vec::new();
        for mut reader in [self.channel.reader(), self.channel.observer()] {
            for _ in 0..3 {
                let patience = Some(Duration::from_millis(1));
                if let Ok(Next::Frame(frame)) = reader.next(&mut copy, ReadLimits::default(), patience) {
                    assert!(common::bytes(&frame, &copy).len() as u64 == frame.descriptor.size);
                    assert!(frame.descriptor.size <= SIZE as u64 || !common::is_in_place(&frame));
                }
                let _ = (reader.latency_ns(), reader.is_connected());
            }
        }
        if let Ok(Some(observer)) = Observer::open(&self.channel) {
            let _ = (observer.newest(&mut copy), observer.is_current(), observer.head());
        }
        let _ = self.writer.service();
        let _ = publish(&self.writer, 9);
        assert!(began.elapsed() < Duration::from_secs(5));
    }
}

/// Offsets in the control area: its beginning, where a lie is most telling, and all of it.
fn place(length: usize) -> impl Strategy<Value = usize> {
    prop_oneof![
        (0..FIXED / 4).prop_map(|word| word * 4),
        (0..96usize).prop_map(|word| FIXED + word * 4),
        (0..length / 8).prop_map(|word| word * 8),
        (0..4usize, 0..64usize).prop_map(move |(slot, word)| length - (5 - slot) * DESCRIPTOR_STRIDE + word * 8),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// The header, the live words, seats, ring and descriptors of a living channel say something else.
    #[test]
    fn spoilt_segments_are_no_danger(changes in prop::collection::vec((place(control_length()), number(), any::<bool>()), 1..6)) {
        let victim = Victim::new();
        for (at, value, wide) in changes {
            let bytes = value.to_ne_bytes();
            victim.spoil(at as u64, if wide { &bytes } else { &bytes[..4] });
        }
        victim.look();
    }

    /// Any bytes under the name, of any length; beside them the semaphore of a living writer.
    #[test]
    fn any_file_is_no_danger(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        like_a_segment in any::<bool>(),
        length in prop_oneof![Just(None), (0usize..400_000).prop_map(Some)],
    ) {
        let victim = Victim::new();
        std::fs::remove_file(victim.channel.segment()).unwrap();
        let mut content = if like_a_segment { victim.good.clone() } else { Vec::new() };
        let common = bytes.len().min(content.len());
        if like_a_segment {
            // All but the header, which is looked at first.
            let at = FIXED + (bytes.len() % 200) * 8;
            content[at..at + common].copy_from_slice(&bytes[..common]);
        } else {
            content = bytes;
        }
        if let Some(length) = length {
            content.resize(length, 0);
        }
        std::fs::write(victim.channel.segment(), content).unwrap();
        victim.look();
    }
}

/// Where the control area of [`Victim`] ends.
fn control_length() -> usize {
    Fixed::new(common::CAPS.len(), 5, SIZE as u64, true)
        .map_or(0, |fixed| fixed.descriptors_offset as usize + 5 * DESCRIPTOR_STRIDE)
}

/// A slot said to be huge: no room is made for what cannot be there.
#[test]
fn a_huge_frame_is_not_believed() {
    for slot_size in [1u64 << 40, 1 << 46, 1 << 56] {
        let victim = Victim::new();
        let mut fixed = Fixed::zeroed();
        bytemuck::bytes_of_mut(&mut fixed).copy_from_slice(&victim.good[..FIXED]);
        fixed.slot_size = slot_size;
        victim.spoil(0, bytemuck::bytes_of(&fixed));
        for slot in 0..5 {
            let size_at = size_of::<u64>() + std::mem::offset_of!(FrameDescriptor, size);
            let at = fixed.descriptors_offset + slot * DESCRIPTOR_STRIDE as u64 + size_at as u64;
            victim.spoil(at, &slot_size.to_ne_bytes());
        }
        victim.look();
    }
}

/// A frame that would lie outside its slot, or in a slot that the file does not reach to: nobody gets it, or makes room
/// for it.
#[test]
fn a_frame_outside_its_slot_is_no_frame() {
    let huge = 1 << 40;
    let lies = [
        (SIZE as u64, SIZE as u64 + 1, 0),
        (SIZE as u64, 1, SIZE as u64),
        (SIZE as u64, 2, u64::MAX),
        (huge, huge, 0),
    ];
    for (slot_size, size, data_offset) in lies {
        let victim = Victim::new();
        let mut fixed = Fixed::zeroed();
        bytemuck::bytes_of_mut(&mut fixed).copy_from_slice(&victim.good[..FIXED]);
        fixed.slot_size = slot_size;
        victim.spoil(0, bytemuck::bytes_of(&fixed));
        let fields = [
            (std::mem::offset_of!(FrameDescriptor, size), size),
            (std::mem::offset_of!(FrameDescriptor, data_offset), data_offset),
        ];
        for slot in 0..5 {
            for (field, value) in fields {
                let at = fixed.descriptors_offset as usize + slot * DESCRIPTOR_STRIDE + size_of::<u64>() + field;
                victim.spoil(at as u64, &value.to_ne_bytes());
            }
        }
        let service = common::Service::of(&victim.writer);
        for mut reader in [victim.channel.reader(), victim.channel.observer()] {
            let patience = Some(Duration::from_millis(100));
            let nothing = reader.next(&mut Vec::new(), ReadLimits::default(), patience);
            assert!(matches!(nothing, Ok(Next::TimedOut)), "{nothing:?}");
        }
        drop(service);
    }
}

/// A head that jumps about: numbers that no frame has, and counts that no frame explains.
#[test]
fn a_head_that_jumps_about_is_no_danger() {
    let victim = Victim::new();
    let (mut reader, mut copy) = (victim.channel.reader(), Vec::new());
    common::next(&mut reader, &mut copy);
    let peer = Peer::open(&victim.channel);
    for head in [u64::MAX, 1, u64::MAX, 2, 1 << 63, 0, u64::MAX, 3] {
        peer.live().head.store(head, Ordering::SeqCst);
        for max_behind in [0, 1, 5] {
            let limits = ReadLimits {
                max_behind,
                ..ReadLimits::default()
            };
            let _ = reader.next(&mut copy, limits, Some(Duration::from_millis(1))).unwrap();
        }
    }
    assert!(publish(&victim.writer, 4));
    common::check(&common::next(&mut reader, &mut copy), &copy, 4);
    let missed = reader.stats().missed;
    assert!(missed < 1 << 40, "{missed} is no count of frames");
}
