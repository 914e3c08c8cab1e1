// SPDX-License-Identifier: MIT OR Apache-2.0

//! Encodes the events between frames as the bytes that go through the channel, and decodes them. docs/PROTOCOL.md has
//! the format.
//!
//! # How to add a kind of event
//!
//! 1. Describe its bytes in docs/PROTOCOL.md, and add its number to `kind`. If it is sticky, add its index to `sticky`.
//! 2. Encode it in [`Encoder::encode_any`]. Add the parts that cannot be sent to [`EncodeResult::left_out`], so that the
//!    user learns about the loss.
//! 3. Decode it in [`Decoder::decode`], which must survive any bytes. Text goes through [`Names::structure`], never
//!    directly to GStreamer's parser.
//! 4. In `tests.rs`, add a round-trip test. Add a sample to `samples()` too, because the tests for truncated
//!    and mutated bytes use it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, Hasher, RandomState},
    sync::{LazyLock, Mutex},
};

use gst::{glib, prelude::*};
use rsshm_channel::{MAX_EVENT_SIZE, MAX_MESSAGE_SIZE, NewEvent, STICKY_EVENT_COUNT, TIME_NONE};

use crate::{
    codec::{Bytes, Names, is_plain_type, put_structure, put_text},
    left_out::{LeftOut, Reason},
    sync::lock,
    time::Times,
};

mod newer;

pub(crate) use newer::with_gap_flags;

/// The kinds of events in the channel.
mod kind {
    pub(super) const STREAM_START: u32 = 1;
    pub(super) const TAGS: u32 = 2;
    pub(super) const GAP: u32 = 3;
    pub(super) const CUSTOM: u32 = 4;
    pub(super) const STICKY_CUSTOM: u32 = 5;
}

/// The indices of sticky events. A new sticky event replaces the one with the same index.
mod sticky {
    pub(super) const STREAM_START: usize = 0;
    pub(super) const STREAM_TAGS: usize = 1;
    pub(super) const GLOBAL_TAGS: usize = 2;
    pub(super) const FIRST_CUSTOM: usize = 3;
}

/// The name of the structure of all navigation events.
const NAVIGATION_NAME: &str = "application/x-gst-navigation";

/// The field of a navigation event that has the pressed modifier keys and mouse buttons. Its value is not plain.
const MODIFIERS_FIELD: &str = "state";

/// The end of the names of events that latency tracers send through a pipeline: `latency_probe.id`,
/// `sub_latency_probe.id`. The fields of these events are pads and times of one process.
const TRACER_PROBE_SUFFIX: &str = "latency_probe.id";

/// The names of other custom events that are valid only in the writer's own pipeline.
const LOCAL_NAMES: [&str; 5] = [
    // These events contain times of the writer's pipeline, and what they mean to a reader is not known.
    "GstNtpOffset",
    "GstOnvifTimestamp",
    // These events are signals between parts of a playback bin.
    "decodebin3-custom-eos",
    "decodebin3-custom-final-eos",
    "urisourcebin-custom-eos",
];

/// The fields of a custom event that have times of one pipeline. The channel has the time and the duration instead.
#[derive(Clone, Copy, Debug)]
struct TimeFields {
    /// The name of the event.
    event: &'static str,
    /// The field that has the time of the event in its stream.
    timestamp: &'static str,
    /// Further fields that have the time of the event.
    others: &'static [&'static str],
    duration: Option<&'static str>,
}

/// The field that has the running time of an event.
const RUNNING_TIME_FIELD: &str = "running-time";

/// The custom events that have times.
const TIME_FIELDS: [TimeFields; 2] = [
    TimeFields {
        event: "GstForceKeyUnit",
        timestamp: "timestamp",
        others: &[RUNNING_TIME_FIELD, "stream-time"],
        duration: None,
    },
    TimeFields {
        event: "GstRTPPacketLost",
        timestamp: "timestamp",
        others: &[],
        duration: Some("duration"),
    },
];

/// The time fields of custom events of this name.
fn time_fields(event: &str) -> Option<TimeFields> {
    TIME_FIELDS.into_iter().find(|fields| fields.event == event)
}

/// Whether a custom event of this name is valid only in the writer's own pipeline. The event is then not sent, and does
/// not count as left out.
fn is_local(name: &str) -> bool {
    name.ends_with(TRACER_PROBE_SUFFIX) || LOCAL_NAMES.contains(&name)
}

/// An event for the channel.
#[derive(Debug)]
pub(crate) struct EncodedEvent {
    kind: u32,
    time: Option<gst::ClockTime>,
    /// The running time of the event in nanoseconds, if the event has one. It is preferred to `time`.
    running_time: Option<i64>,
    duration: Option<gst::ClockTime>,
    bytes: Vec<u8>,
    /// The index of a sticky event; `None` for all other events.
    pub(crate) sticky_index: Option<usize>,
    /// The event begins another stream, so the sticky events of the former stream are no longer valid.
    pub(crate) begins_stream: bool,
}

impl EncodedEvent {
    fn new(kind: u32) -> Self {
        Self {
            kind,
            time: None,
            running_time: None,
            duration: None,
            bytes: Vec::new(),
            sticky_index: None,
            begins_stream: false,
        }
    }

    /// Takes over the times of a custom event. Returns its structure without them.
    fn take_times(
        &mut self,
        event: &gst::EventRef,
        structure: &gst::StructureRef,
        fields: TimeFields,
    ) -> gst::Structure {
        let mut rest = structure.to_owned();
        let mut take = |field| {
            let time = structure.get::<Option<gst::ClockTime>>(field).ok().flatten();
            rest.remove_field(field);
            time
        };
        self.time = take(fields.timestamp);
        self.duration = fields.duration.and_then(&mut take);
        for field in fields.others {
            let time = take(field);
            if *field == RUNNING_TIME_FIELD {
                // Pads that the event went through may have changed its running time.
                self.running_time = time
                    .and_then(|time| i64::try_from(time.nseconds()).ok())
                    .map(|time| time.saturating_add(event.running_time_offset()));
            }
        }
        rest
    }

    /// The time and the duration of the event, in running time.
    pub(crate) fn times(&self, segment: &gst::FormattedSegment<gst::ClockTime>) -> Times {
        let times = Times::of_span(self.time, self.duration, segment);
        Times {
            pts: self.running_time.or(times.pts),
            ..times
        }
    }

    /// The event as the channel takes it, with its time in CLOCK_MONOTONIC nanoseconds.
    pub(crate) fn to_channel(&self, time: u64, duration: u64) -> NewEvent<'_> {
        NewEvent::new(self.kind, &self.bytes)
            .with_time(time)
            .with_duration(duration)
    }
}

/// The result of encoding an event of the writer's stream.
#[derive(Debug, Default)]
pub(crate) struct EncodeResult {
    /// The event; `None` if nothing of it is sent.
    pub(crate) event: Option<EncodedEvent>,
    /// The event or the tags that would concern readers and cannot be sent.
    pub(crate) left_out: LeftOut,
}

impl EncodeResult {
    /// Nothing of the event concerns readers.
    fn not_sent() -> Self {
        Self::default()
    }

    /// The event concerns readers, but it cannot be sent.
    fn left_out(name: &str, reason: Reason) -> Self {
        let mut result = Self::default();
        result.left_out.add(name.to_owned(), reason, 1);
        result
    }
}

impl From<EncodedEvent> for EncodeResult {
    fn from(event: EncodedEvent) -> Self {
        Self {
            event: Some(event),
            ..Self::default()
        }
    }
}

/// Encodes the events of a stream for the channel.
#[derive(Debug, Default)]
pub(crate) struct Encoder {
    /// The sequence number and the stream id of the event that began the stream. An element may give the events of one
    /// operation one sequence number, so the number alone does not identify the event.
    stream: Option<(gst::Seqnum, String)>,
    /// The names of the custom sticky events, in the order of their indices.
    custom_sticky: Vec<String>,
}

impl Encoder {
    pub(crate) fn encode(&mut self, event: &gst::EventRef) -> EncodeResult {
        let result = self.encode_any(event);
        match &result.event {
            Some(encoded) if encoded.bytes.len() > MAX_EVENT_SIZE => {
                EncodeResult::left_out(&name_of(event), Reason::Size)
            }
            _ => result,
        }
    }

    /// Encodes an event of any size.
    fn encode_any(&mut self, event: &gst::EventRef) -> EncodeResult {
        use gst::EventView;
        let name = event.structure().map_or("", |structure| structure.name().as_str());
        match event.view() {
            // Elements send an event again when their pads are linked again. This does not begin another stream.
            EventView::StreamStart(start) if self.repeats_stream(start) => EncodeResult::not_sent(),
            EventView::StreamStart(start) => {
                self.stream = Some((start.seqnum(), start.stream_id().to_owned()));
                self.custom_sticky.clear();
                Self::stream_start(start)
            }
            EventView::Tag(tags) => Self::tags(tags.tag()),
            EventView::Gap(gap) => {
                let (time, duration) = gap.get();
                let encoded = EncodedEvent {
                    time: Some(time),
                    duration,
                    bytes: newer::gap_flags(gap).to_ne_bytes().to_vec(),
                    ..EncodedEvent::new(kind::GAP)
                };
                encoded.into()
            }
            EventView::CustomDownstream(_)
            | EventView::CustomBoth(_)
            | EventView::CustomDownstreamSticky(_)
            | EventView::CustomDownstreamOob(_)
            | EventView::CustomBothOob(_)
                if is_local(name) =>
            {
                EncodeResult::not_sent()
            }
            // GStreamer sends events of these names as CUSTOM_DOWNSTREAM events only.
            EventView::CustomBoth(_) | EventView::CustomDownstreamSticky(_) if time_fields(name).is_some() => {
                EncodeResult::left_out(name, Reason::Type)
            }
            EventView::CustomDownstream(_) | EventView::CustomBoth(_) => Self::custom(event, kind::CUSTOM, None),
            EventView::CustomDownstreamSticky(_) => {
                let index = self.sticky_index(name);
                Self::custom(event, kind::STICKY_CUSTOM, index)
            }
            // The caps, the times and the ends of frames go through the channel in other ways. The other events concern
            // the elements of the writer's pipeline only.
            EventView::Caps(_)
            | EventView::Segment(_)
            | EventView::Eos(_)
            | EventView::FlushStart(_)
            | EventView::FlushStop(_)
            | EventView::StreamCollection(_)
            | EventView::StreamGroupDone(_)
            | EventView::SegmentDone(_)
            | EventView::SinkMessage(_)
            | EventView::Buffersize(_)
            | EventView::InstantRateChange(_) => EncodeResult::not_sent(),
            _ if event.is_downstream() => EncodeResult::left_out(&name_of(event), Reason::Type),
            _ => EncodeResult::not_sent(),
        }
    }

    /// Whether the event is the one that began the stream.
    fn repeats_stream(&self, start: &gst::event::StreamStart) -> bool {
        let stream = self.stream.as_ref();
        stream.is_some_and(|(seqnum, id)| *seqnum == start.seqnum() && id == start.stream_id())
    }

    fn stream_start(event: &gst::event::StreamStart) -> EncodeResult {
        let mut encoded = EncodedEvent {
            sticky_index: Some(sticky::STREAM_START),
            begins_stream: true,
            ..EncodedEvent::new(kind::STREAM_START)
        };
        // The group is read from the structure, because the bindings hide the group id.
        let group = event
            .structure()
            .and_then(|structure| structure.get::<u32>("group-id").ok());
        encoded.bytes.extend(random_process_id().to_ne_bytes());
        encoded.bytes.extend(group.unwrap_or(0).to_ne_bytes());
        encoded.bytes.extend(event.stream_flags().bits().to_ne_bytes());
        match put_text(&mut encoded.bytes, event.stream_id()) {
            Some(()) => encoded.into(),
            None => EncodeResult::left_out(&name_of(event), Reason::Size),
        }
    }

    fn tags(tags: &gst::TagListRef) -> EncodeResult {
        let is_global = tags.scope() == gst::TagScope::Global;
        let mut encoded = EncodedEvent {
            sticky_index: Some(if is_global {
                sticky::GLOBAL_TAGS
            } else {
                sticky::STREAM_TAGS
            }),
            ..EncodedEvent::new(kind::TAGS)
        };
        encoded.bytes.extend(u32::from(is_global).to_ne_bytes());
        let (mut sent, mut left_out) = (gst::Structure::new_empty("taglist"), LeftOut::default());
        let mut bytes_left = MAX_EVENT_SIZE - encoded.bytes.len() - encoded_size(&sent).unwrap_or(0);
        for (name, values) in tags.iter_generic() {
            let count = tags.size_by_name(name);
            let mut tag = gst::Structure::new_empty("taglist");
            let values: Vec<_> = values.filter_map(plain_tag).collect();
            // Values that are not plain are left out alone.
            left_out.add(
                name.to_string(),
                Reason::Values,
                count.saturating_sub(values.len()) as u64,
            );
            match values.len() {
                0 => continue,
                1 => values.into_iter().for_each(|value| tag.set_value(name, value)),
                _ => tag.set(name, gst::List::new(values)),
            }
            // A tag that is too large, such as the lyrics of a song, is left out alone. The other tags are sent.
            match (tag.value(name), encoded_size(&tag)) {
                (Ok(value), Some(size)) if size <= bytes_left => {
                    sent.set_value(name, value.clone());
                    bytes_left -= size;
                }
                (_, Some(_)) => left_out.add(name.to_string(), Reason::Size, 1),
                _ => left_out.add(name.to_string(), Reason::Values, 1),
            }
        }
        let has_tags = left_out == LeftOut::default() || sent.n_fields() > 0;
        if has_tags && put_structure(&mut encoded.bytes, &sent).is_none() {
            left_out.add("tags", Reason::Values, sent.n_fields() as u64);
            return EncodeResult { event: None, left_out };
        }
        EncodeResult {
            event: has_tags.then_some(encoded),
            left_out,
        }
    }

    fn custom(event: &gst::EventRef, kind: u32, sticky_index: Option<usize>) -> EncodeResult {
        let Some(structure) = event.structure() else {
            return EncodeResult::left_out(&name_of(event), Reason::Values);
        };
        let mut encoded = EncodedEvent {
            sticky_index,
            ..EncodedEvent::new(kind)
        };
        let encoding = match time_fields(structure.name()) {
            None => put_structure(&mut encoded.bytes, structure),
            Some(fields) => {
                let rest = encoded.take_times(event, structure, fields);
                put_structure(&mut encoded.bytes, &rest)
            }
        };
        match encoding {
            Some(()) => encoded.into(),
            None => EncodeResult::left_out(structure.name(), Reason::Values),
        }
    }

    /// The index of custom sticky events of this name; `None` if all indices are taken. An event without an index is
    /// not sticky for readers.
    fn sticky_index(&mut self, name: &str) -> Option<usize> {
        let known = self.custom_sticky.iter().position(|known| known == name);
        let position = known.unwrap_or(self.custom_sticky.len());
        let index = Some(sticky::FIRST_CUSTOM + position).filter(|index| *index < STICKY_EVENT_COUNT)?;
        if known.is_none() {
            self.custom_sticky.push(name.to_owned());
        }
        Some(index)
    }
}

/// The name under which an event counts as left out: that of a custom event, or that of the type of the event.
fn name_of(event: &gst::EventRef) -> String {
    let custom = event.structure().filter(|structure| match event.view() {
        gst::EventView::CustomDownstream(_)
        | gst::EventView::CustomBoth(_)
        | gst::EventView::CustomDownstreamSticky(_)
        | gst::EventView::CustomDownstreamOob(_)
        | gst::EventView::CustomBothOob(_) => !structure.name().is_empty(),
        _ => false,
    });
    custom.map_or_else(
        || event.type_().name().to_string(),
        |structure| structure.name().to_string(),
    )
}

/// How many bytes the encoded structure takes; `None` if it cannot be encoded.
fn encoded_size(structure: &gst::StructureRef) -> Option<usize> {
    let mut bytes = Vec::new();
    put_structure(&mut bytes, structure).map(|()| bytes.len())
}

/// Converts the value of a tag to a plain value; `None` if its type has no plain form.
fn plain_tag(value: &glib::SendValue) -> Option<glib::SendValue> {
    if is_plain_type(value.type_()) {
        return Some(value.clone());
    }
    if let Ok(time) = value.get::<gst::DateTime>() {
        return Some(time.to_iso8601_string().ok()?.to_send_value());
    }
    value.get::<glib::Date>().ok().map(|date| date.julian().to_send_value())
}

/// A random number that identifies this process.
fn random_process_id() -> u64 {
    static ID: LazyLock<u64> = LazyLock::new(|| RandomState::new().build_hasher().finish());
    *ID
}

/// The group in this program that stands for `group` of another process.
///
/// Streams that share a group in that process therefore share a group in this program.
fn local_group(process: u64, group: u32) -> gst::GroupId {
    static GROUPS: LazyLock<Mutex<HashMap<(u64, u32), gst::GroupId>>> = LazyLock::new(Mutex::default);
    /// The maximum number of groups in the table. No correct writer exceeds it.
    const MAX_GROUPS: usize = 1024;
    let mut groups = lock(&GROUPS);
    if groups.len() >= MAX_GROUPS {
        groups.clear();
    }
    *groups.entry((process, group)).or_insert_with(gst::GroupId::next)
}

/// An event of the channel, for the reader's pipeline.
#[derive(Debug)]
pub(crate) enum DecodedEvent {
    /// Another stream begins.
    StreamStart(gst::Event),
    /// An event to pass on unchanged.
    Event(gst::Event),
    /// A custom event with times. [`with_times`] makes the event. The time is in CLOCK_MONOTONIC nanoseconds.
    Timed {
        structure: gst::Structure,
        time: Option<u64>,
        duration: Option<gst::ClockTime>,
    },
    /// There are no frames for a while. The time is in CLOCK_MONOTONIC nanoseconds.
    Gap {
        time: u64,
        duration: Option<gst::ClockTime>,
        /// GstGapFlags.
        flags: u32,
    },
}

/// Decodes events that another program wrote.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    names: Names,
    /// The tags that were left out since the last call of [`Decoder::take_refused_tags`].
    refused_tags: u64,
}

impl Decoder {
    /// Decodes an event; `None` if it is invalid, or of an unknown kind.
    pub(crate) fn decode(&mut self, event: &rsshm_channel::Event) -> Option<DecodedEvent> {
        let mut bytes = Bytes(&event.bytes);
        let decoded = match event.kind {
            kind::STREAM_START => {
                let (process, group, flags) = (bytes.u64()?, bytes.u32()?, bytes.u32()?);
                let id = bytes.text().filter(|id| !id.is_empty())?;
                let start = gst::event::StreamStart::builder(id)
                    .flags(gst::StreamFlags::from_bits_truncate(flags))
                    .group_id_if_some((group != 0).then(|| local_group(process, group)))
                    .build();
                DecodedEvent::StreamStart(start)
            }
            kind::TAGS => {
                let is_global = bytes.u32()? == 1;
                let mut tags = self.tags(bytes.text()?)?;
                tags.make_mut().set_scope(if is_global {
                    gst::TagScope::Global
                } else {
                    gst::TagScope::Stream
                });
                DecodedEvent::Event(gst::event::Tag::new(tags))
            }
            kind::GAP => DecodedEvent::Gap {
                time: Some(event.time).filter(|time| *time != TIME_NONE)?,
                duration: gst::ClockTime::try_from(event.duration).ok(),
                flags: bytes.u32().unwrap_or(0),
            },
            kind::CUSTOM => {
                let structure = self.names.structure(bytes.text()?)?;
                match time_fields(structure.name()) {
                    None => DecodedEvent::Event(gst::event::CustomDownstream::new(structure)),
                    Some(_) => DecodedEvent::Timed {
                        structure,
                        time: Some(event.time).filter(|time| *time != TIME_NONE),
                        duration: gst::ClockTime::try_from(event.duration).ok(),
                    },
                }
            }
            kind::STICKY_CUSTOM => DecodedEvent::Event(gst::event::CustomDownstreamSticky::new(
                self.names.structure(bytes.text()?)?,
            )),
            _ => return None,
        };
        Some(decoded)
    }

    /// Returns how many tags were left out since the last call, because this program does not know them.
    pub(crate) fn take_refused_tags(&mut self) -> u64 {
        std::mem::take(&mut self.refused_tags)
    }

    /// Decodes the tags that this program knows. A tag is left out if its type in this program differs from its type in
    /// the writer.
    fn tags(&mut self, text: &str) -> Option<gst::TagList> {
        let structure = self.names.structure(text)?;
        let mut tags = gst::TagList::new();
        let to = tags.make_mut();
        for (name, value) in structure.iter() {
            let one = [value.clone()];
            let list = value.get::<gst::List>().ok();
            let values = list.as_ref().map_or(&one[..], |list| list.as_slice());
            let tag_type = gst::tags::tag_exists(name).then(|| gst::tags::tag_get_type(name));
            for value in values {
                match tag_type.and_then(|tag_type| tag_value(value, tag_type)) {
                    // This cannot fail, because the value has the type of the tag.
                    Some(value) => drop(to.add_value(name, &value, gst::TagMergeMode::Append)),
                    None => self.refused_tags += 1,
                }
            }
        }
        Some(tags)
    }
}

/// The custom event with `structure` and these times. In the reader's pipeline, `time` is the running time, the stream
/// time and the timestamp.
pub(crate) fn with_times(
    mut structure: gst::Structure,
    time: Option<gst::ClockTime>,
    duration: Option<gst::ClockTime>,
) -> gst::Event {
    if let Some(fields) = time_fields(structure.name()) {
        structure.set(fields.timestamp, time);
        for field in fields.others {
            structure.set(*field, time);
        }
        if let Some(field) = fields.duration {
            structure.set(field, duration);
        }
    }
    gst::event::CustomDownstream::new(structure)
}

/// Converts a plain value, which [`plain_tag`] made, to the type of its tag; `None` if that fails.
fn tag_value(value: &glib::SendValue, tag_type: glib::Type) -> Option<glib::SendValue> {
    if value.type_() == tag_type {
        return Some(value.clone());
    }
    if tag_type == gst::DateTime::static_type() {
        let time = gst::DateTime::from_iso8601_string(value.get::<&str>().ok()?).ok()?;
        return Some(time.to_send_value());
    }
    if tag_type == glib::Date::static_type() {
        return Some(glib::Date::from_julian(value.get::<u32>().ok()?).ok()?.to_send_value());
    }
    None
}

/// Encodes a navigation event as a message to the writer; `None` if the message is too long. Fields without a plain
/// value are left out.
pub(crate) fn navigation_message(structure: &gst::StructureRef) -> Option<Vec<u8>> {
    let mut plain = gst::Structure::new_empty(structure.name());
    for (name, value) in structure.iter() {
        if let Some(bits) = newer::modifier_bits(value) {
            plain.set(name, bits);
        } else if is_plain_type(value.type_()) {
            plain.set_value(name, value.clone());
        }
    }
    let mut message = Vec::new();
    put_structure(&mut message, &plain)?;
    (message.len() <= MAX_MESSAGE_SIZE).then_some(message)
}

/// Decodes a reader's message, which may hold any bytes; `None` if it is not a navigation event.
pub(crate) fn navigation_event(message: &[u8], names: &mut Names) -> Option<gst::Event> {
    let mut structure = names.structure(Bytes(message).text()?)?;
    if structure.name() != NAVIGATION_NAME {
        return None;
    }
    // The pressed modifier keys and mouse buttons are flags. The message holds them as a number.
    if let Some(modifiers) = structure.get(MODIFIERS_FIELD).ok().and_then(newer::modifiers) {
        structure.set_value(MODIFIERS_FIELD, modifiers);
    }
    Some(gst::event::Navigation::new(structure))
}

#[cfg(test)]
mod tests;
