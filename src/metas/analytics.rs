// SPDX-License-Identifier: MIT OR Apache-2.0

//! GstAnalyticsRelationMeta: the objects that a detector found, their classes and tracks, and how these are related.

use gst::MetaRef;

use super::{
    raw::{
        self,
        analytics::{Analytics, Item},
    },
    record::{Input, Output},
};
use crate::codec::MAX_NAME_SIZE;

/// The kinds of items. They are followed by the relations.
mod item_kind {
    pub(super) const OBJECT: u16 = 1;
    pub(super) const CLASSES: u16 = 2;
    pub(super) const TRACK: u16 = 3;
    pub(super) const RELATION: u16 = 4;
}

/// The maximum number of items of a meta. The smallest item needs about 30 bytes.
const MAX_ITEMS: usize = 128;

/// The bits of a relation.
const MAX_RELATION: u32 = 0xff;

pub(super) fn encode(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let analytics = raw::analytics::get(meta)?;
    // Items that are not sent have no index. Their relations are not sent either.
    let mut indexes = Vec::new();
    let mut next_index = 0_u16;
    for item in &analytics.items {
        let left_out = to.parts_left_out;
        to.part(|to| encode_item(item.as_ref()?, to));
        indexes.push((to.parts_left_out == left_out).then_some(next_index));
        next_index += u16::from(to.parts_left_out == left_out);
    }
    for relation in &analytics.relations {
        let index = |item: u32| *indexes.get(usize::try_from(item).ok()?)?;
        if let (Some(from), Some(towards)) = (index(relation.from), index(relation.to)) {
            to.part(|to| {
                to.u16(item_kind::RELATION);
                to.u16(from);
                to.u16(towards);
                to.numbers(&[relation.kind]);
                Some(())
            });
        }
    }
    Some(())
}

fn encode_item(item: &Item, to: &mut Output) -> Option<()> {
    let put_name = |to: &mut Output, name: &str| to.text(Some(name).filter(|name| name.len() <= MAX_NAME_SIZE)?);
    match item {
        Item::Object {
            name,
            rect,
            rotation,
            confidence,
        } => {
            to.u16(item_kind::OBJECT);
            put_name(to, name)?;
            for number in rect {
                to.i32(*number);
            }
            to.floats(&[*rotation, *confidence])
        }
        Item::Classes(classes) => {
            to.u16(item_kind::CLASSES);
            to.u16(u16::try_from(classes.len()).ok()?);
            classes.iter().try_for_each(|(name, confidence)| {
                put_name(to, name)?;
                to.floats(&[*confidence])
            })
        }
        Item::Track {
            id,
            first_seen,
            last_seen,
            is_lost,
        } => {
            to.u16(item_kind::TRACK);
            for number in [*id, *first_seen, *last_seen] {
                to.u64(number);
            }
            to.u16(u16::from(*is_lost));
            Some(())
        }
    }
}

pub(super) fn decode(input: &mut Input) -> Option<()> {
    let mut analytics = Analytics::default();
    while !input.record.0.is_empty() {
        match input.record.u16()? {
            item_kind::RELATION => analytics.relations.push(decode_relation(input)?),
            // The relations come last, so that they can be checked.
            kind if analytics.relations.is_empty() && analytics.items.len() < MAX_ITEMS => {
                let item = decode_item(kind, input)?;
                analytics.items.push(Some(item));
            }
            _ => return None,
        }
    }
    let count = analytics.items.len() as u32;
    let is_valid = |relation: &raw::analytics::Relation| {
        relation.from < count && relation.to < count && relation.kind <= MAX_RELATION
    };
    if !analytics.relations.iter().all(is_valid) {
        return None;
    }
    let added = raw::analytics::add(input.buffer, &analytics);
    input.skip_unless(added)
}

fn decode_relation(input: &mut Input) -> Option<raw::analytics::Relation> {
    Some(raw::analytics::Relation {
        from: input.record.u16()?.into(),
        to: input.record.u16()?.into(),
        kind: input.record.u32()?,
    })
}

fn decode_item(kind: u16, input: &mut Input) -> Option<Item> {
    Some(match kind {
        item_kind::OBJECT => {
            let name = decode_name(input)?;
            let [x, y, width, height] = input.record.numbers()?;
            let [rotation, confidence] = input.floats()?;
            Item::Object {
                name,
                rect: [x, y, width, height].map(u32::cast_signed),
                rotation,
                confidence,
            }
        }
        item_kind::CLASSES => {
            let mut classes = Vec::new();
            for _ in 0..input.record.u16()? {
                let name = decode_name(input)?;
                let [confidence] = input.floats()?;
                classes.push((name, confidence));
            }
            Item::Classes(Some(classes).filter(|classes| !classes.is_empty())?)
        }
        item_kind::TRACK => Item::Track {
            id: input.record.u64()?,
            first_seen: input.record.u64()?,
            last_seen: input.record.u64()?,
            is_lost: match input.record.u16()? {
                0 => false,
                1 => true,
                _ => return None,
            },
        },
        _ => return None,
    })
}

fn decode_name(input: &mut Input) -> Option<String> {
    let name = input.record.text().filter(|name| name.len() <= MAX_NAME_SIZE)?;
    input.names.admit(name).then(|| name.to_owned())
}
