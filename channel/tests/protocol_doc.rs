//! docs/PROTOCOL.md says where everything lies; this holds its tables to the structures themselves.

use core::mem::offset_of;
use std::{collections::BTreeMap, fs, path::Path};

use rsshm_channel::{FrameDescriptor, layout::*};

/// A field's name, its offset and its size.
type Fields = BTreeMap<&'static str, (usize, usize)>;

fn size_behind<T, F>(_: impl Fn(&T) -> &F) -> usize {
    size_of::<F>()
}

macro_rules! fields {
    ($type:ty: $($field:ident)*) => {
        Fields::from([$((stringify!($field), (
            offset_of!($type, $field),
            size_behind(|value: &$type| &value.$field),
        ))),*])
    };
}

fn document() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/PROTOCOL.md");
    fs::read_to_string(path).unwrap()
}

/// The text under the heading `### name`, up to the next heading.
fn section<'a>(document: &'a str, name: &str) -> &'a str {
    let heading = format!("\n### {name}\n");
    let (_, text) = document
        .split_once(&heading)
        .unwrap_or_else(|| panic!("no section {name}"));
    text.split("\n#").next().unwrap()
}

/// The cells of each row of the section's table, without its head.
fn rows(section: &str) -> impl Iterator<Item = Vec<&str>> {
    section
        .lines()
        .filter(|line| line.starts_with('|'))
        .skip(2)
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

#[track_caller]
fn check(structure: &str, size: usize, fields: Fields) {
    let document = document();
    let section = section(&document, structure);
    assert!(
        section.trim_start().starts_with(&format!("Size {size}")),
        "{structure} has {size} bytes"
    );
    let mut documented = BTreeMap::new();
    for row in rows(section) {
        let [offset, size, kind, field, _] = row[..] else {
            panic!("{structure}: {row:?}");
        };
        let (offset, size): (usize, usize) = (offset.parse().unwrap(), size.parse().unwrap());
        assert_eq!(size_of_kind(kind), size, "{structure}: {row:?}");
        assert_eq!(
            documented.insert(field.trim_matches('`'), (offset, size)),
            None,
            "{row:?}"
        );
    }
    assert_eq!(documented, fields, "{structure}: left the document, right the code");
}

/// Bytes of a type as the tables name it: `a64`, `u64[13]`, or `bytes`, of which there is only the magic.
fn size_of_kind(kind: &str) -> usize {
    let (base, count) = match kind.trim_end_matches(']').split_once('[') {
        None => (kind, 1),
        Some((base, count)) => (base, count.parse().unwrap()),
    };
    count
        * match base {
            "a64" | "u64" | "bytes" => 8,
            "a32" | "u32" | "i32" => 4,
            _ => panic!("{kind}"),
        }
}

#[test]
fn structures_are_as_documented() {
    check(
        "Fixed",
        size_of::<Fixed>(),
        fields!(Fixed: magic version fixed_size created_ns first_number lock_device lock_inode caps_offset caps_size
            live_offset grants_offset seats_offset seat_stride seat_count ring_offset ring_count slot_count
            descriptors_offset slots_offset slot_size descriptor_stride retain writer_pid flags events_offset event_stride
            event_count mail_offset mail_stride mail_count reserved),
    );
    check(
        "Live",
        size_of::<Live>(),
        fields!(Live: head eos_number latency_ns published state eos_count event_head writer_word writer_waits),
    );
    check(
        "Seat",
        size_of::<Seat>(),
        fields!(Seat: pins position ticket state pid key_requests mail_head),
    );
    check(
        "EventRecord",
        size_of::<EventRecord>(),
        fields!(EventRecord: number words),
    );
    check(
        "EventDescriptor",
        size_of::<EventDescriptor>(),
        fields!(EventDescriptor: after time duration kind size eos_count reserved0 reserved),
    );
    check("MailRecord", size_of::<MailRecord>(), fields!(MailRecord: number words));
    check("SlotHead", size_of::<SlotHead>(), fields!(SlotHead: number words));
    check(
        "FrameDescriptor",
        size_of::<FrameDescriptor>(),
        fields!(FrameDescriptor: pts dts duration offset offset_end data_offset size flags planes plane_offset
            plane_stride extra_size reserved0 reserved),
    );
}

#[test]
fn constants_are_as_documented() {
    let document = document();
    let documented: BTreeMap<&str, u64> = rows(section(&document, "Constants"))
        .map(|row| (row[0].trim_matches('`'), row[1].parse().unwrap()))
        .collect();
    macro_rules! constants {
        ($($name:ident)*) => { BTreeMap::from([$((stringify!($name), $name as u64)),*]) };
    }
    let constants = constants!(VERSION SEATS RING MAX_SLOTS MAX_CAPS MAX_PLANES MAX_GRANT EVICTED DESCRIPTOR_STRIDE
        EXTRA_ROOM STICKY_EVENTS EVENT_RING EVENT_STRIDE EVENT_ROOM MAIL_RING MAIL_STRIDE MAIL_ROOM DELTA_UNIT SLOT_ALIGN SLOTS_ALIGN WRITER_BYTE FIRST_SEAT_BYTE);
    assert_eq!(documented, constants, "left the document, right the code");
    assert_eq!(MAGIC.to_ne_bytes(), [0x72, 0x73, 0x73, 0x68, 0x6d, 0x0d, 0x0a, 0x1a]);
    let states = [
        seat_state::NEW,
        seat_state::ATTACHED,
        seat_state::MOVED,
        seat_state::LEFT,
    ];
    assert_eq!(
        (states, state::SUPERSEDED, state::CLOSED, flags::LOSSLESS),
        ([0, 1, 2, 3], 1, 2, 1)
    );
    let fixed = Fixed::new(0, 1, 1, false).unwrap();
    assert_eq!((fixed.live_offset, fixed.caps_offset), (256, 4096));
}
