// SPDX-License-Identifier: MIT OR Apache-2.0

//! The table of docs/METAS.md and the code say the same.

use super::*;

const TABLE: &str = include_str!("../../../docs/METAS.md");

/// The names of the metas of the table, and whether they are carried.
fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    TABLE.lines().filter_map(|line| {
        let mut cells = line.split('|').map(str::trim).skip(1);
        let name = cells.next()?.strip_prefix('`')?.strip_suffix('`')?;
        Some((name, cells.nth(1)?))
    })
}

#[test]
fn table_says_what_is_carried() {
    assert!(rows().count() > 30);
    for (name, answer) in rows() {
        match answer {
            // The layout of the planes is in the frame's descriptor.
            "yes" if name == "GstVideoMeta" => assert!(encoder(name).is_none()),
            "yes" => assert!(encoder(name).is_some(), "{name}"),
            "as a custom meta" | "no" => assert!(encoder(name).is_none(), "{name}"),
            "not needed" => assert!(PROCESS_METAS.contains(&name), "{name}"),
            other => panic!("{name}: {other}"),
        }
    }
}

#[test]
fn table_has_every_meta_of_code() {
    let names: Vec<_> = rows().map(|(name, _)| name).collect();
    let source = include_str!("../mod.rs");
    let begin = source.find("fn encoder").unwrap();
    let body = &source[begin..begin + source[begin..].find("\n}\n").unwrap()];
    let carried: Vec<_> = body.split('"').skip(1).step_by(2).collect();
    assert!(carried.len() > 20);
    for name in carried
        .into_iter()
        .chain(PROCESS_METAS)
        .filter(|name| *name != no_slot::NAME)
    {
        assert!(names.contains(&name), "{name}");
    }
}
