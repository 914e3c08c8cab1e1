// SPDX-License-Identifier: MIT OR Apache-2.0

//! GstAnalyticsRelationMeta, which GStreamer has from version 1.24 on.

use super::*;
use raw::analytics::{Analytics, Item, Relation};

fn analytics() -> Analytics {
    let object = |name: &str, rotation| Item::Object {
        name: name.to_owned(),
        rect: [-1, 2, 30, 40],
        rotation,
        confidence: 0.75,
    };
    let classes = Item::Classes(vec![("cat".to_owned(), 0.5), (String::new(), 0.25)]);
    let track = |is_lost| Item::Track {
        id: u64::MAX,
        first_seen: 1,
        last_seen: 2,
        is_lost,
    };
    let relation = |from, to, kind| Relation { from, to, kind };
    Analytics {
        items: [object("face", 0.0), object("", 0.5), classes, track(true), track(false)]
            .map(Some)
            .into(),
        relations: vec![relation(0, 2, 8), relation(2, 0, 4), relation(3, 1, 2)],
    }
}

/// Whether this GStreamer has the meta.
fn has_meta() -> bool {
    gst::version() >= (1, 24, 0, 0)
}

#[test]
fn analytics_are_sent_if_gstreamer_has_them() {
    let mut is_added = false;
    let buffer = transferred(|buffer| is_added = raw::analytics::add(buffer, &analytics()).is_some());
    assert_eq!(is_added, has_meta());
    if is_added {
        let found = raw::analytics::get(&meta_of(&buffer, "GstAnalyticsRelationMeta")).unwrap();
        let mut expected = analytics();
        if gst::version() < (1, 26, 0, 0)
            && let Some(Some(Item::Object { rotation, .. })) = expected.items.get_mut(1)
        {
            *rotation = 0.0;
        }
        assert_eq!(format!("{:?}", found.items), format!("{:?}", expected.items));
        assert_eq!(format!("{:?}", found.relations), format!("{:?}", expected.relations));
    }
}

/// The record of one object, and of relations.
fn object(rotation: f32, relations: &[[u16; 2]], kind_of_relation: u32) -> Vec<u8> {
    let mut content = 1_u16.to_ne_bytes().to_vec();
    put_text(&mut content, "face").unwrap();
    content.extend([0; 16]);
    content.extend(rotation.to_ne_bytes());
    content.extend(0.5_f32.to_ne_bytes());
    for [from, to] in relations {
        for number in [4, *from, *to] {
            content.extend(number.to_ne_bytes());
        }
        content.extend(kind_of_relation.to_ne_bytes());
    }
    record(kind::ANALYTICS, &content)
}

#[test]
fn valid_record_is_read_or_skipped() {
    let unknown = u64::from(!has_meta());
    for bytes in [record(kind::ANALYTICS, &[]), object(0.0, &[[0, 0]], 255)] {
        assert_eq!(skipped(&bytes), Skipped { refused: 0, unknown });
    }
}

#[test]
fn hostile_analytics_are_refused() {
    let item = |kind: u16, content: &[u8]| [&kind.to_ne_bytes()[..], content].concat();
    let after_relation = [object(0.0, &[[0, 0]], 2), object(0.0, &[], 0)[4..].to_vec()].concat();
    let mut after_relation = after_relation;
    record::set_size(&mut after_relation);
    let track = [0; 24];
    for bytes in [
        object(f32::NAN, &[], 0),
        object(f32::INFINITY, &[], 0),
        object(0.0, &[[0, 1]], 2),
        object(0.0, &[[1, 0]], 2),
        object(0.0, &[[0, 0]], 256),
        after_relation,
        record(kind::ANALYTICS, &item(0, &[])),
        record(kind::ANALYTICS, &item(5, &[])),
        record(kind::ANALYTICS, &item(2, &[0, 0])),
        record(kind::ANALYTICS, &item(2, &[255, 255])),
        record(kind::ANALYTICS, &item(3, &[&track[..], &[2, 0]].concat())),
        record(kind::ANALYTICS, &item(3, &track)),
        record(kind::ANALYTICS, &item(3, &[&track[..], &[0, 0]].concat()).repeat(129)),
        record(kind::ANALYTICS, &item(4, &[0; 8])),
    ] {
        let (buffer, refused) = decoded(&bytes);
        assert_eq!((count(&buffer), refused), (0, 1), "{bytes:?}");
    }
}
