//! What happens between frames, as bytes that go through the channel, and back. docs/PROTOCOL.md has the format.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{LazyLock, Mutex},
};

use gst::{glib, prelude::*};
use gst_video::NavigationModifierType;
use rsshm_channel::{MAX_EVENT_SIZE, MAX_MESSAGE_SIZE, NewEvent, STICKY_EVENT_COUNT, TIME_NONE};

use crate::{
    codec::{Bytes, Names, is_plain_type, put_structure, put_text},
    sync::lock,
    time::Times,
};

/// What an event is.
mod kind {
    pub(super) const STREAM_START: u32 = 1;
    pub(super) const TAGS: u32 = 2;
    pub(super) const GAP: u32 = 3;
    pub(super) const CUSTOM: u32 = 4;
    pub(super) const STICKY_CUSTOM: u32 = 5;
}

/// Where events that last have their places.
mod place {
    pub(super) const STREAM_START: usize = 0;
    pub(super) const STREAM_TAGS: usize = 1;
    pub(super) const GLOBAL_TAGS: usize = 2;
    pub(super) const FIRST_CUSTOM: usize = 3;
}

/// The name of all navigation events.
const NAVIGATION: &str = "application/x-gst-navigation";

/// The field of a navigation event that is no plain value.
const MODIFIERS: &str = "state";

/// A custom event that is about times of the writer's own pipeline.
const FORCE_KEY_UNIT: &str = "GstForceKeyUnit";

/// An event as the channel takes it.
#[derive(Debug)]
pub(crate) struct Encoded {
    kind: u32,
    time: Option<gst::ClockTime>,
    duration: Option<gst::ClockTime>,
    bytes: Vec<u8>,
    /// Its place, if it lasts.
    pub(crate) place: Option<usize>,
    /// Another stream begins: nothing of the former lasts.
    pub(crate) begins_stream: bool,
}

impl Encoded {
    fn new(kind: u32) -> Self {
        Self {
            kind,
            time: None,
            duration: None,
            bytes: Vec::new(),
            place: None,
            begins_stream: false,
        }
    }

    /// When it happens in the stream, and for how long.
    pub(crate) fn times(&self, segment: &gst::FormattedSegment<gst::ClockTime>) -> Times {
        Times::of_span(self.time, self.duration, segment)
    }

    /// What the channel is told, with the times as all programs understand them.
    pub(crate) fn at(&self, time: u64, duration: u64) -> NewEvent<'_> {
        NewEvent {
            kind: self.kind,
            time,
            duration,
            bytes: &self.bytes,
        }
    }
}

/// What becomes of an event of the writer's stream.
#[derive(Debug)]
pub(crate) enum Carried {
    /// It is none that is carried.
    No,
    /// It would be, but it says so many things that no reader would take, and nothing else.
    LeftOut(u64),
    /// It is, but for so many of the tags in it.
    Yes(Encoded, u64),
}

/// Turns a stream's events into what the channel takes.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// The custom events that last, in the order of their places.
    sticky: Vec<String>,
}

impl Encoder {
    pub(crate) fn encode(&mut self, event: &gst::EventRef) -> Carried {
        use gst::EventView;
        match event.view() {
            EventView::StreamStart(start) => {
                self.sticky.clear();
                Self::stream_start(start)
            }
            EventView::Tag(tags) => Self::tags(tags.tag()),
            EventView::Gap(gap) => {
                let (time, duration) = gap.get();
                let encoded = Encoded {
                    time: Some(time),
                    duration,
                    bytes: gap.gap_flags().bits().to_ne_bytes().to_vec(),
                    ..Encoded::new(kind::GAP)
                };
                Carried::Yes(encoded, 0)
            }
            EventView::CustomDownstream(_) | EventView::CustomBoth(_) => Self::custom(event, kind::CUSTOM, None),
            EventView::CustomDownstreamSticky(_) => {
                let place = event.structure().and_then(|structure| self.place_of(structure.name()));
                Self::custom(event, kind::STICKY_CUSTOM, place)
            }
            _ => Carried::No,
        }
    }

    fn stream_start(event: &gst::event::StreamStart) -> Carried {
        let mut encoded = Encoded {
            place: Some(place::STREAM_START),
            begins_stream: true,
            ..Encoded::new(kind::STREAM_START)
        };
        // The bindings do not let its number out.
        let group = event
            .structure()
            .and_then(|structure| structure.get::<u32>("group-id").ok());
        encoded.bytes.extend(this_process().to_ne_bytes());
        encoded.bytes.extend(group.unwrap_or(0).to_ne_bytes());
        encoded.bytes.extend(event.stream_flags().bits().to_ne_bytes());
        match put_text(&mut encoded.bytes, event.stream_id()) {
            Some(()) => Carried::Yes(encoded, 0),
            None => Carried::LeftOut(1),
        }
    }

    fn tags(tags: &gst::TagListRef) -> Carried {
        let is_global = tags.scope() == gst::TagScope::Global;
        let mut encoded = Encoded {
            place: Some(if is_global {
                place::GLOBAL_TAGS
            } else {
                place::STREAM_TAGS
            }),
            ..Encoded::new(kind::TAGS)
        };
        encoded.bytes.extend(u32::from(is_global).to_ne_bytes());
        let (mut taken, mut left_out) = (gst::Structure::new_empty("taglist"), 0);
        let mut room = MAX_EVENT_SIZE - encoded.bytes.len() - size_of_text(&taken).unwrap_or(0);
        for (name, values) in tags.iter_generic() {
            let mut tag = gst::Structure::new_empty("taglist");
            let values: Vec<_> = values.filter_map(plain_tag).collect();
            match values.len() {
                0 => {}
                1 => values.into_iter().for_each(|value| tag.set_value(name, value)),
                _ => tag.set(name, gst::List::new(values)),
            }
            // One that is too large, a song's text say, keeps no other from its way.
            let size = size_of_text(&tag).unwrap_or(room + 1);
            match tag.value(name) {
                Ok(value) if size <= room => {
                    taken.set_value(name, value.clone());
                    room -= size;
                }
                _ => left_out += 1,
            }
        }
        if left_out > 0 && taken.n_fields() == 0 {
            return Carried::LeftOut(left_out);
        }
        match put_structure(&mut encoded.bytes, &taken) {
            Some(()) => Carried::Yes(encoded, left_out),
            None => Carried::LeftOut(left_out + taken.n_fields() as u64),
        }
    }

    fn custom(event: &gst::EventRef, kind: u32, place: Option<usize>) -> Carried {
        let Some(structure) = event.structure() else {
            return Carried::LeftOut(1);
        };
        if structure.name() == FORCE_KEY_UNIT {
            return Carried::No;
        }
        let mut encoded = Encoded {
            place,
            ..Encoded::new(kind)
        };
        match put_structure(&mut encoded.bytes, structure) {
            Some(()) => Carried::Yes(encoded, 0),
            None => Carried::LeftOut(1),
        }
    }

    /// Where custom events of the name last; past the last place they do not.
    fn place_of(&mut self, name: &str) -> Option<usize> {
        let known = self.sticky.iter().position(|sticky| sticky == name);
        let index = known.unwrap_or(self.sticky.len());
        let place = Some(place::FIRST_CUSTOM + index).filter(|place| *place < STICKY_EVENT_COUNT)?;
        if known.is_none() {
            self.sticky.push(name.to_owned());
        }
        Some(place)
    }
}

/// How many bytes a structure takes; `None` when no reader would take it.
fn size_of_text(structure: &gst::StructureRef) -> Option<usize> {
    let mut bytes = Vec::new();
    put_structure(&mut bytes, structure).map(|()| bytes.len())
}

/// A tag's value as one that a text can say.
fn plain_tag(value: &glib::SendValue) -> Option<glib::SendValue> {
    if is_plain_type(value.type_()) {
        return Some(value.clone());
    }
    if let Ok(time) = value.get::<gst::DateTime>() {
        return Some(time.to_iso8601_string().ok()?.to_send_value());
    }
    value.get::<glib::Date>().ok().map(|date| date.julian().to_send_value())
}

/// A number that other processes hardly have.
fn this_process() -> u64 {
    static NUMBER: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    *NUMBER
}

/// The group of this program that stands for one of another: streams that belong together there do so here.
fn group_here(process: u64, group: u32) -> gst::GroupId {
    static GROUPS: LazyLock<Mutex<HashMap<(u64, u32), gst::GroupId>>> = LazyLock::new(Mutex::default);
    /// More are made by no honest writer.
    const MAX_GROUPS: usize = 1024;
    let mut groups = lock(&GROUPS);
    if groups.len() >= MAX_GROUPS {
        groups.clear();
    }
    *groups.entry((process, group)).or_insert_with(gst::GroupId::next)
}

/// An event of the channel, for a reader's own pipeline.
#[derive(Debug)]
pub(crate) enum Decoded {
    /// Another stream begins.
    StreamStart(gst::Event),
    /// To be passed on as it is.
    Event(gst::Event),
    /// No frame for so long, from a time on that all programs understand.
    Gap {
        time: u64,
        duration: Option<gst::ClockTime>,
        flags: gst::GapFlags,
    },
}

/// Turns what another program wrote into events.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    names: Names,
}

impl Decoder {
    /// `None` for what makes no sense, or is not known here.
    pub(crate) fn decode(&mut self, event: &rsshm_channel::Event) -> Option<Decoded> {
        let mut bytes = Bytes(&event.bytes);
        let decoded = match event.kind {
            kind::STREAM_START => {
                let (process, group, flags) = (bytes.u64()?, bytes.u32()?, bytes.u32()?);
                let id = bytes.text().filter(|id| !id.is_empty())?;
                let start = gst::event::StreamStart::builder(id)
                    .flags(gst::StreamFlags::from_bits_truncate(flags))
                    .group_id_if_some((group != 0).then(|| group_here(process, group)))
                    .build();
                Decoded::StreamStart(start)
            }
            kind::TAGS => {
                let is_global = bytes.u32()? == 1;
                let mut tags = self.tags(bytes.text()?)?;
                tags.make_mut().set_scope(if is_global {
                    gst::TagScope::Global
                } else {
                    gst::TagScope::Stream
                });
                Decoded::Event(gst::event::Tag::new(tags))
            }
            kind::GAP => Decoded::Gap {
                time: Some(event.time).filter(|time| *time != TIME_NONE)?,
                duration: gst::ClockTime::try_from(event.duration).ok(),
                flags: gst::GapFlags::from_bits_truncate(bytes.u32().unwrap_or(0)),
            },
            kind::CUSTOM => Decoded::Event(gst::event::CustomDownstream::new(self.names.structure(bytes.text()?)?)),
            kind::STICKY_CUSTOM => Decoded::Event(gst::event::CustomDownstreamSticky::new(
                self.names.structure(bytes.text()?)?,
            )),
            _ => return None,
        };
        Some(decoded)
    }

    /// The tags that this program knows; one of another kind here than there is left.
    fn tags(&mut self, text: &str) -> Option<gst::TagList> {
        let structure = self.names.structure(text)?;
        let mut tags = gst::TagList::new();
        let to = tags.make_mut();
        for (name, value) in structure.iter() {
            if !gst::tags::tag_exists(name) {
                continue;
            }
            let kind = gst::tags::tag_get_type(name);
            let one = [value.clone()];
            let list = value.get::<gst::List>().ok();
            for value in list.as_ref().map_or(&one[..], |list| list.as_slice()) {
                if let Some(value) = tag_value(value, kind) {
                    // Its kind is the tag's: it is taken.
                    let _ = to.add_value(name, &value, gst::TagMergeMode::Append);
                }
            }
        }
        Some(tags)
    }
}

/// The value of a tag of the kind, from what [`plain_tag`] made of it.
fn tag_value(value: &glib::SendValue, kind: glib::Type) -> Option<glib::SendValue> {
    if value.type_() == kind {
        return Some(value.clone());
    }
    if kind == gst::DateTime::static_type() {
        let time = gst::DateTime::from_iso8601_string(value.get::<&str>().ok()?).ok()?;
        return Some(time.to_send_value());
    }
    if kind == glib::Date::static_type() {
        return Some(glib::Date::from_julian(value.get::<u32>().ok()?).ok()?.to_send_value());
    }
    None
}

/// A navigation event as a letter to the writer; `None` when it is too long. Fields that a text cannot say are left out.
pub(crate) fn navigation_message(structure: &gst::StructureRef) -> Option<Vec<u8>> {
    let mut plain = gst::Structure::new_empty(structure.name());
    for (name, value) in structure.iter() {
        if let Ok(modifiers) = value.get::<NavigationModifierType>() {
            plain.set(name, modifiers.bits());
        } else if is_plain_type(value.type_()) {
            plain.set_value(name, value.clone());
        }
    }
    let mut message = Vec::new();
    put_structure(&mut message, &plain)?;
    (message.len() <= MAX_MESSAGE_SIZE).then_some(message)
}

/// The navigation event that a reader's letter says, whoever wrote it.
pub(crate) fn navigation_event(message: &[u8], names: &mut Names) -> Option<gst::Event> {
    let mut structure = names.structure(Bytes(message).text()?)?;
    if structure.name() != NAVIGATION {
        return None;
    }
    // Which keys and buttons are held meanwhile: flags, of which the letter has the number.
    if let Ok(bits) = structure.get::<u32>(MODIFIERS) {
        structure.set(MODIFIERS, NavigationModifierType::from_bits_truncate(bits));
    }
    Some(gst::event::Navigation::new(structure))
}

#[cfg(test)]
mod tests;
