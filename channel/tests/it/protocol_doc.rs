// SPDX-License-Identifier: MIT OR Apache-2.0

//! The tables of docs/PROTOCOL.md agree with the structures themselves.

use std::{collections::BTreeMap, fs, path::Path};

use rsshm_channel::layout::*;

use crate::fields::{self, Fields};

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

/// The cells of each row of the section's table. The heading row is left out.
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
    assert_eq!(
        documented, fields,
        "{structure}: on the left the document, on the right the code"
    );
}

/// The size of a type that the tables name, such as `a64` or `u64[13]`. Only the magic has the type `bytes`.
fn size_of_kind(kind: &str) -> usize {
    let (base, count) = match kind.trim_end_matches(']').split_once('[') {
        None => (kind, 1),
        Some((base, count)) => (base, count.parse().unwrap()),
    };
    count
        * match base {
            "a64" | "u64" | "bytes" => 8,
            "a32" | "u32" | "i32" => 4,
            "ObjectReference" => size_of::<ObjectReference>(),
            _ => panic!("{kind}"),
        }
}

#[test]
fn structures_match_protocol_document() {
    for (structure, size, fields) in fields::structures() {
        check(structure, size, fields);
    }
}

#[test]
fn constants_match_protocol_document() {
    let document = document();
    let documented: BTreeMap<&str, u64> = rows(section(&document, "Constants"))
        .map(|row| (row[0].trim_matches('`'), row[1].parse().unwrap()))
        .collect();
    assert_eq!(
        documented,
        fields::constants(),
        "on the left the document, on the right the code"
    );
    assert_eq!(MAGIC.to_ne_bytes(), [0x72, 0x73, 0x73, 0x68, 0x6d, 0x0d, 0x0a, 0x1a]);
    let states = [
        reader_state::NEW,
        reader_state::ATTACHED,
        reader_state::MOVED,
        reader_state::LEFT,
        reader_state::JOINING,
    ];
    assert_eq!(
        (states, state::SUPERSEDED, state::CLOSED, flags::LOSSLESS),
        ([0, 1, 2, 3, 4], 1, 2, 1)
    );
    let header = Header::new(0, 1, 1, false).unwrap();
    assert_eq!((header.status_offset, header.caps_offset), (256, 4096));
}
