// SPDX-License-Identifier: MIT OR Apache-2.0

use gst::{TagMergeMode, event, tags};
use gst_video::{NavigationEvent, UpstreamForceKeyUnitEvent};
use proptest::prelude::*;

use super::*;
use crate::codec::{
    MAX_NAMES,
    samples::{self, plain_structure},
};

fn init() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        samples::init();
        tags::register::<Exposure>();
    });
}

/// A custom tag of an application.
enum Exposure {}

impl tags::Tag<'_> for Exposure {
    type TagType = gst::Fraction;
    const TAG_NAME: &'static glib::GStr = glib::gstr!("x-rsshm-exposure");
}

impl tags::CustomTag<'_> for Exposure {
    const FLAG: gst::TagFlag = gst::TagFlag::Meta;
    const NICK: &'static glib::GStr = glib::gstr!("exposure");
    const DESCRIPTION: &'static glib::GStr = glib::gstr!("exposure time in seconds");
}

/// The event that a reader receives.
fn received(encoded: &EncodedEvent) -> rsshm_channel::Event {
    let published = encoded.to_channel(
        5_000_001_000,
        encoded.duration.map_or(TIME_NONE, gst::ClockTime::nseconds),
    );
    assert!(published.bytes.len() <= MAX_EVENT_SIZE, "{}", published.bytes.len());
    let mut event = rsshm_channel::Event::new(published.kind, published.bytes.to_vec());
    (event.time, event.duration) = (published.time, published.duration);
    event
}

/// Encodes and decodes an event. Returns both results, and the number of values that were left out.
#[track_caller]
fn transfer_with(encoder: &mut Encoder, event: &gst::Event) -> (EncodedEvent, DecodedEvent, u64) {
    let result = encoder.encode(event);
    let left_out = result.left_out.count();
    let encoded = result.event.unwrap_or_else(|| panic!("{event:?} is not sent"));
    let decoded = Decoder::default().decode(&received(&encoded));
    let decoded = decoded.unwrap_or_else(|| panic!("{event:?} is refused: {encoded:?}"));
    (encoded, decoded, left_out)
}

/// The names of the parts of an event that were left out. The event itself must not be sent.
#[track_caller]
fn names(result: &EncodeResult) -> Vec<&str> {
    assert!(result.event.is_none(), "{result:?}");
    result.left_out.iter().map(|missing| &*missing.name).collect()
}

/// Encodes and decodes an event. Nothing of the event may be left out. Returns the decoded event.
#[track_caller]
fn transferred(event: &gst::Event) -> gst::Event {
    init();
    match transfer_with(&mut Encoder::default(), event) {
        (_, DecodedEvent::StreamStart(event) | DecodedEvent::Event(event), 0) => event,
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn tags_of(event: &gst::EventRef) -> gst::TagList {
    match event.view() {
        gst::EventView::Tag(tags) => tags.tag_owned(),
        other => panic!("{other:?}"),
    }
}

fn tag_event(fill: impl FnOnce(&mut gst::TagListRef)) -> gst::Event {
    init();
    let mut tags = gst::TagList::new();
    fill(tags.make_mut());
    event::Tag::new(tags)
}

fn image() -> gst::Sample {
    let buffer = gst::Buffer::from_slice([1u8; 100]);
    let caps = gst::Caps::new_empty_simple("image/jpeg");
    gst::Sample::builder().buffer(&buffer).caps(&caps).build()
}

#[test]
fn stream_start_keeps_id_and_flags() {
    init();
    let flags = gst::StreamFlags::SPARSE | gst::StreamFlags::SELECT;
    let id = "a\"b/ä; src:0";
    let start = event::StreamStart::builder(id)
        .flags(flags)
        .group_id(gst::GroupId::next())
        .build();
    let (encoded, ..) = transfer_with(&mut Encoder::default(), &start);
    assert_eq!((encoded.sticky_index, encoded.begins_stream), (Some(0), true));
    let start = transferred(&start);
    let gst::EventView::StreamStart(start) = start.view() else {
        panic!("{start:?}");
    };
    assert_eq!((start.stream_id(), start.stream_flags()), (id, flags));
    assert!(start.group_id().is_some());
}

#[test]
fn repeated_stream_start_is_not_sent() {
    init();
    let mut encoder = Encoder::default();
    let start = event::StreamStart::new("stream");
    let mut is_sent = |event: &gst::Event| encoder.encode(event).event.is_some();
    assert_eq!([is_sent(&start), is_sent(&start)], [true, false]);
    // The streams of an rsshmsrc have one id. Another event begins another stream nevertheless.
    assert!(is_sent(&event::StreamStart::new("stream")));
}

/// An element may give the events of one operation one sequence number.
#[test]
fn streams_with_one_seqnum_are_both_sent() {
    init();
    let mut encoder = Encoder::default();
    let seqnum = gst::Seqnum::next();
    for id in ["first", "second", "first"] {
        let start = event::StreamStart::builder(id).seqnum(seqnum).build();
        let (encoded, decoded, _) = transfer_with(&mut encoder, &start);
        assert!(encoded.begins_stream);
        let DecodedEvent::StreamStart(decoded) = decoded else {
            panic!("{decoded:?}");
        };
        assert!(matches!(decoded.view(), gst::EventView::StreamStart(start) if start.stream_id() == id));
        assert!(encoder.encode(&start).event.is_none());
    }
}

fn group_of(event: &gst::EventRef) -> Option<gst::GroupId> {
    match event.view() {
        gst::EventView::StreamStart(start) => start.group_id(),
        other => panic!("{other:?}"),
    }
}

/// One program has two channels, for the picture and the sound of a film.
#[test]
fn streams_of_one_group_share_group_in_reader() {
    init();
    let (one, other) = (gst::GroupId::next(), gst::GroupId::next());
    let start = |id: &str, group| event::StreamStart::builder(id).group_id(group).build();
    let groups =
        [start("picture", one), start("sound", one), start("else", other)].map(|event| group_of(&transferred(&event)));
    assert_eq!(groups[0], groups[1]);
    assert_ne!(groups[0], groups[2]);
    let (encoded, ..) = transfer_with(&mut Encoder::default(), &start("picture", one));
    let mut elsewhere = received(&encoded);
    elsewhere.bytes[0] ^= 1;
    match Decoder::default().decode(&elsewhere) {
        Some(DecodedEvent::StreamStart(event)) => {
            assert_ne!(group_of(&event), groups[0], "the group is of another process")
        }
        other => panic!("{other:?}"),
    }
    let alone = event::StreamStart::new("alone");
    assert_eq!(group_of(&transferred(&alone)), None);
}

#[test]
fn tags_of_every_type_are_sent() {
    let event = tag_event(|tags| {
        let mode = TagMergeMode::Append;
        tags.add::<tags::Title>(&"a \"title\", ä=(int)5; \\", mode);
        tags.add::<tags::Artist>(&"one", mode);
        tags.add::<tags::Artist>(&"two, three", mode);
        tags.add::<tags::Artist>(&"four", mode);
        tags.add::<tags::TrackNumber>(&7, mode);
        tags.add::<tags::Bitrate>(&u32::MAX, mode);
        tags.add::<tags::Duration>(&gst::ClockTime::from_nseconds(u64::MAX - 1), mode);
        tags.add::<tags::BeatsPerMinute>(&(1.0 / 3.0), mode);
        tags.add::<tags::GeoLocationLatitude>(&-89.123_456_789, mode);
        tags.add::<tags::Date>(
            &glib::Date::from_dmy(29, glib::DateMonth::February, 2024).unwrap(),
            mode,
        );
        let time = gst::DateTime::from_iso8601_string("2026-02-04T10:53:17.123456+0200").unwrap();
        tags.add::<tags::DateTime>(&time, mode);
        tags.add::<Exposure>(&gst::Fraction::new(1, 250), mode);
    });
    let (sent, received) = (tags_of(&event), tags_of(&transferred(&event)));
    assert_eq!(received.n_tags(), 10);
    assert_eq!(received, sent, "{received:?}");
    let artists: Vec<_> = received
        .iter_tag::<tags::Artist>()
        .map(|artist| artist.get().to_owned())
        .collect();
    assert_eq!(artists, ["one", "two, three", "four"]);
    assert_eq!(received.scope(), gst::TagScope::Stream);
}

#[test]
fn partial_date_stays_partial() {
    init();
    for text in ["2026", "2026-02", "2026-02-04", "2026-02-04T10:53Z"] {
        let time = gst::DateTime::from_iso8601_string(text).unwrap();
        let event = tag_event(|tags| tags.add::<tags::DateTime>(&time, TagMergeMode::Append));
        let received = tags_of(&transferred(&event));
        let received = received.get::<tags::DateTime>().unwrap().get();
        assert_eq!(received.to_iso8601_string().unwrap(), text);
    }
}

#[test]
fn global_tags_have_their_own_sticky_index() {
    let event = |scope| {
        tag_event(|tags| {
            tags.add::<tags::Title>(&"title", TagMergeMode::Append);
            tags.set_scope(scope);
        })
    };
    for (scope, index) in [(gst::TagScope::Stream, 1), (gst::TagScope::Global, 2)] {
        let event = event(scope);
        let (encoded, ..) = transfer_with(&mut Encoder::default(), &event);
        assert_eq!(encoded.sticky_index, Some(index));
        assert_eq!(tags_of(&transferred(&event)).scope(), scope);
    }
}

#[test]
fn unsupported_or_too_large_tag_is_left_out_alone() {
    let event = tag_event(|tags| {
        let mode = TagMergeMode::Append;
        tags.add::<tags::Image>(&image(), mode);
        tags.add::<tags::Lyrics>(&"la ".repeat(MAX_EVENT_SIZE / 3).as_str(), mode);
        tags.add::<tags::Comment>(&"x".repeat(MAX_EVENT_SIZE / 2).as_str(), mode);
        tags.add::<tags::Description>(&"y".repeat(MAX_EVENT_SIZE / 2).as_str(), mode);
        tags.add::<tags::Title>(&"title", mode);
    });
    let (_, decoded, left_out) = transfer_with(&mut Encoder::default(), &event);
    let DecodedEvent::Event(event) = decoded else {
        panic!("{decoded:?}");
    };
    let received = tags_of(&event);
    assert_eq!((left_out, received.n_tags()), (3, 2), "{received:?}");
    assert_eq!(received.get::<tags::Title>().unwrap().get(), "title");
    assert!(received.get::<tags::Comment>().is_some());
}

#[test]
fn event_without_sendable_tags_is_not_sent() {
    let event = tag_event(|tags| {
        tags.add::<tags::Image>(&image(), TagMergeMode::Append);
        tags.add::<tags::PreviewImage>(&image(), TagMergeMode::Append);
    });
    let result = Encoder::default().encode(&event);
    assert_eq!(names(&result), ["image", "preview-image"]);
    // An event that has no tags from the start is sent.
    transfer_with(&mut Encoder::default(), &tag_event(|_| {}));
}

fn decoded_tags(text: &str) -> Option<gst::TagList> {
    init();
    let mut bytes = 0u32.to_ne_bytes().to_vec();
    put_text(&mut bytes, text).unwrap();
    let event = rsshm_channel::Event::new(kind::TAGS, bytes);
    match Decoder::default().decode(&event) {
        None => None,
        Some(DecodedEvent::Event(event)) => Some(tags_of(&event)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn decoder_leaves_out_unknown_tags_and_those_of_another_type() {
    let text = "taglist, title=(string)good, rsshm-nobody-knows=(int)5, artist=(int)5, bitrate=(string)much, \
                date=(string)2026, datetime=(string)yesterday, duration=(int){ 1, 2 }, genre={ (string)a, (string)b }, \
                comment=(string)NULL, image=(string)x, track-number=(uint)3;";
    let tags = decoded_tags(text).unwrap();
    let names: Vec<_> = tags.iter_generic().map(|(name, _)| name.to_string()).collect();
    assert_eq!(tags.get::<tags::Title>().unwrap().get(), "good");
    assert_eq!(tags.get::<tags::TrackNumber>().unwrap().get(), 3);
    assert_eq!(tags.iter_tag::<tags::Genre>().count(), 2);
    assert_eq!(tags.n_tags(), 3, "{names:?}");
    assert!(decoded_tags("taglist, title=(string)good, x=(buffer)00").is_none());
}

/// GST_GAP_FLAG_MISSING_DATA.
const MISSING_DATA: u32 = 1;

#[test]
fn gap_keeps_its_flags() {
    init();
    for (duration, flags) in [(Some(gst::ClockTime::SECOND), MISSING_DATA), (None, 0)] {
        let gap = event::Gap::builder(5 * gst::ClockTime::SECOND)
            .duration(duration)
            .build();
        let gap = with_gap_flags(gap, flags);
        let (encoded, decoded, left_out) = transfer_with(&mut Encoder::default(), &gap);
        assert_eq!((encoded.sticky_index, left_out), (None, 0));
        let DecodedEvent::Gap {
            time,
            duration: got,
            flags: got_flags,
        } = decoded
        else {
            panic!("{decoded:?}");
        };
        assert_eq!((time, got, got_flags), (5_000_001_000, duration, flags));
    }
}

#[test]
fn gap_without_time_is_refused() {
    let mut event = rsshm_channel::Event::new(kind::GAP, vec![]);
    event.duration = 5;
    assert!(Decoder::default().decode(&event).is_none());
}

#[test]
fn custom_events_are_sent() {
    let structure = plain_structure("app/event-1");
    for event in [
        event::CustomDownstream::new(structure.clone()),
        event::CustomBoth::new(structure.clone()),
        event::CustomDownstreamSticky::new(structure.clone()),
    ] {
        let sticky = event.is_sticky();
        let (encoded, ..) = transfer_with(&mut Encoder::default(), &event);
        assert_eq!(encoded.sticky_index.is_some(), sticky);
        let received = transferred(&event);
        assert_eq!(received.structure(), Some(structure.as_ref()));
        let expected = if sticky {
            gst::EventType::CustomDownstreamSticky
        } else {
            gst::EventType::CustomDownstream
        };
        assert_eq!(received.type_(), expected);
    }
}

#[test]
fn unsupported_or_too_large_custom_event_is_left_out() {
    init();
    let large = gst::Structure::builder("app").field("text", "x".repeat(70_000)).build();
    for structure in [
        gst::Structure::builder("app")
            .field("inner", plain_structure("x"))
            .build(),
        gst::Structure::builder("app")
            .field("buffer", gst::Buffer::new())
            .build(),
        gst::Structure::builder("app")
            .field("range", gst::IntRange::new(1, 2))
            .build(),
        large,
    ] {
        for event in [
            event::CustomDownstream::new(structure.clone()),
            event::CustomDownstreamSticky::new(structure.clone()),
        ] {
            let result = Encoder::default().encode(&event);
            assert_eq!(names(&result), ["app"], "{event:?}");
        }
    }
}

#[test]
fn custom_sticky_events_get_indices_until_none_is_left() {
    init();
    let mut encoder = Encoder::default();
    let sticky = |name: &str| event::CustomDownstreamSticky::new(gst::Structure::new_empty(name));
    let mut index = |name: &str| transfer_with(&mut encoder, &sticky(name)).0.sticky_index;
    assert_eq!(["a", "b", "a", "c", "b"].map(&mut index), [3, 4, 3, 5, 4].map(Some));
    assert_eq!(
        ["d", "e", "f", "g", "e", "f"].map(&mut index),
        [Some(6), Some(7), None, None, Some(7), None]
    );
    // A new stream ends the sticky events of the former stream, so their indices are free again.
    transfer_with(&mut encoder, &event::StreamStart::new("next"));
    assert_eq!(transfer_with(&mut encoder, &sticky("f")).0.sticky_index, Some(3));
}

#[test]
fn events_of_unlisted_types_are_not_sent() {
    init();
    let caps = gst::Caps::new_empty_simple("video/x-raw");
    let structure = gst::Structure::new_empty("app");
    for event in [
        event::Caps::new(&caps),
        event::Segment::new(gst::FormattedSegment::<gst::ClockTime>::new().as_ref()),
        event::Eos::new(),
        event::FlushStart::new(),
        event::FlushStop::new(true),
        event::StreamGroupDone::new(gst::GroupId::next()),
        event::SegmentDone::new(gst::ClockTime::ZERO),
        event::StreamCollection::new(&gst::StreamCollection::builder(None).build()),
        event::SinkMessage::new("app", &gst::message::Application::new(structure)),
        UpstreamForceKeyUnitEvent::builder().build(),
    ] {
        let result = Encoder::default().encode(&event);
        assert_eq!(names(&result), [""; 0], "{event:?}");
    }
}

#[test]
fn events_that_cannot_be_sent_are_left_out_by_name() {
    init();
    let structure = gst::Structure::new_empty("app");
    let toc = gst::Toc::new(gst::TocScope::Global);
    let force_key_unit = gst::Structure::new_empty("GstForceKeyUnit");
    for (event, name) in [
        (event::CustomDownstreamOob::new(structure.clone()), "app"),
        (event::CustomBothOob::new(structure), "app"),
        (event::CustomBoth::new(force_key_unit), "GstForceKeyUnit"),
        (event::Toc::new(&toc, false), "toc"),
        (
            event::Protection::new("system", &gst::Buffer::from_slice([1_u8; 4])),
            "protection",
        ),
        (event::StreamStart::new(&"x".repeat(MAX_EVENT_SIZE)), "stream-start"),
        (
            event::CustomDownstream::new(gst::Structure::builder("large").field("text", "x".repeat(4050)).build()),
            "large",
        ),
    ] {
        assert_eq!(names(&Encoder::default().encode(&event)), [name], "{event:?}");
    }
}

#[test]
fn events_of_one_process_are_not_sent() {
    init();
    let mut encoder = Encoder::default();
    for name in [
        "latency_probe.id",
        "sub_latency_probe.id",
        "GstNtpOffset",
        "GstOnvifTimestamp",
        "decodebin3-custom-eos",
        "decodebin3-custom-final-eos",
        "urisourcebin-custom-eos",
    ] {
        let structure = gst::Structure::builder(name).field("ts", 5u64).build();
        for event in [
            event::CustomDownstream::new(structure.clone()),
            event::CustomBoth::new(structure.clone()),
            event::CustomDownstreamSticky::new(structure.clone()),
        ] {
            let result = encoder.encode(&event);
            assert_eq!(names(&result), [""; 0], "{event:?}");
        }
    }
    // The events of one process take no sticky index.
    let sticky = event::CustomDownstreamSticky::new(gst::Structure::new_empty("app"));
    assert_eq!(transfer_with(&mut encoder, &sticky).0.sticky_index, Some(3));
}

#[test]
fn writer_cannot_fill_memory_of_reader_with_event_names() {
    init();
    let mut decoder = Decoder::default();
    let mut refused = 0;
    for number in 0..MAX_NAMES + 10 {
        let event = event::CustomDownstream::new(gst::Structure::new_empty(format!("name-{number}")));
        let encoded = Encoder::default().encode(&event).event.unwrap();
        refused += u32::from(decoder.decode(&received(&encoded)).is_none());
    }
    assert_eq!(refused, 10);
}

/// Bits of GstNavigationModifierType.
const SHIFT: u32 = 1;
const BUTTON_1: u32 = 1 << 8;

#[test]
fn navigation_events_arrive_unchanged() {
    init();
    let (x, y) = (12.25, -1.0 / 3.0);
    let key = "dead_acute \"ä\"".to_owned();
    let touch = gst::Structure::builder(NAVIGATION_NAME)
        .field("event", "touch-down")
        .field("identifier", 7_u32)
        .field("pointer_x", x)
        .field("pointer_y", y)
        .field("pressure", 0.5)
        .build();
    for (event, held) in [
        (NavigationEvent::KeyPress { key }.structure(), SHIFT | BUTTON_1),
        (NavigationEvent::new_key_release("Return").structure(), 0),
        (NavigationEvent::new_mouse_move(x, y).structure(), SHIFT | BUTTON_1),
        (NavigationEvent::new_mouse_button_press(3, x, y).structure(), SHIFT),
        (NavigationEvent::new_mouse_scroll(x, y, 0.0, -15.0).structure(), 0),
        (touch, SHIFT),
    ] {
        let without = navigation_event(&navigation_message(&event).unwrap(), &mut Names::default()).unwrap();
        assert_eq!(without.structure(), Some(event.as_ref()));
        let mut event = event;
        event.set_value(MODIFIERS_FIELD, newer::modifiers(held).unwrap());
        let message = navigation_message(&event).unwrap();
        let received = navigation_event(&message, &mut Names::default()).unwrap();
        let state = received.structure().unwrap().value(MODIFIERS_FIELD).unwrap();
        assert_eq!(newer::modifier_bits(state), Some(held));
        assert_eq!(received.structure(), Some(event.as_ref()));
    }
    // GStreamer's C code stores the code of a command as a number. The bindings would store it as an enum.
    let command = gst::Structure::builder(NAVIGATION_NAME)
        .field("event", "command")
        .field("command-code", 3u32)
        .build();
    let received = navigation_event(&navigation_message(&command).unwrap(), &mut Names::default()).unwrap();
    assert_eq!(received.structure(), Some(command.as_ref()));
}

#[test]
fn message_that_is_no_navigation_event_is_refused() {
    init();
    for text in [
        "app, event=(string)key-press",
        "GstForceKeyUnit",
        "",
        "application/x-gst-navigation, x=(buffer)00",
    ] {
        let mut message = Vec::new();
        put_text(&mut message, text).unwrap();
        assert!(navigation_event(&message, &mut Names::default()).is_none(), "{text}");
    }
}

#[test]
fn navigation_message_has_plain_values_and_limited_size() {
    init();
    let mut structure = NavigationEvent::new_key_press("a").structure();
    structure.set("inner", gst::Structure::new_empty("x"));
    let received = navigation_event(&navigation_message(&structure).unwrap(), &mut Names::default()).unwrap();
    let received = received.structure().unwrap();
    assert_eq!(received.get::<String>("key").unwrap(), "a");
    assert!(!received.has_field("inner"));
    // Bits that GStreamer does not know are left out.
    structure.set(MODIFIERS_FIELD, u32::MAX);
    let received = navigation_event(&navigation_message(&structure).unwrap(), &mut Names::default()).unwrap();
    let state = received.structure().unwrap().value(MODIFIERS_FIELD).unwrap();
    let bits = newer::modifier_bits(state).unwrap();
    assert!(
        bits & (SHIFT | BUTTON_1) == SHIFT | BUTTON_1 && bits >> 31 == 0,
        "{bits:x}"
    );
    let long = NavigationEvent::new_key_press(&"x".repeat(MAX_MESSAGE_SIZE));
    assert!(navigation_message(&long.structure()).is_none());
}

/// Decodes `bytes` as an event of `kind`.
fn decode(kind: u32, bytes: &[u8]) -> Option<DecodedEvent> {
    init();
    let mut event = rsshm_channel::Event::new(kind, bytes.to_vec());
    (event.time, event.duration) = (5, u64::MAX - 1);
    let decoded = Decoder::default().decode(&event);
    // Printing the event reads all of it.
    if let Some(DecodedEvent::StreamStart(event) | DecodedEvent::Event(event)) = &decoded {
        let _ = format!("{:?} {event:?}", event.structure().map(ToString::to_string));
    }
    decoded
}

/// The bytes of one event of each kind.
fn samples() -> Vec<(u32, Vec<u8>)> {
    init();
    let start = event::StreamStart::builder("stream")
        .group_id(gst::GroupId::next())
        .build();
    let tags = tag_event(|tags| {
        let mode = TagMergeMode::Append;
        tags.add::<tags::Title>(&"title", mode);
        tags.add::<tags::Date>(&glib::Date::from_julian(739_000).unwrap(), mode);
        tags.add::<tags::DateTime>(&gst::DateTime::from_y(2026).unwrap(), mode);
        tags.add::<tags::Genre>(&"a", mode);
        tags.add::<tags::Genre>(&"b", mode);
    });
    let gap = event::Gap::builder(gst::ClockTime::SECOND).build();
    let structure = plain_structure("app");
    let sticky = event::CustomDownstreamSticky::new(structure.clone());
    [start, tags, gap, event::CustomDownstream::new(structure), sticky]
        .iter()
        .map(|event| {
            let (encoded, ..) = transfer_with(&mut Encoder::default(), event);
            (encoded.kind, encoded.bytes)
        })
        .collect()
}

#[test]
fn truncated_event_is_refused() {
    for (kind, bytes) in samples() {
        assert!(decode(kind, &bytes).is_some());
        for end in 0..bytes.len() {
            let decoded = decode(kind, &bytes[..end]);
            assert!(decoded.is_none() || kind == kind::GAP, "{kind}: {decoded:?}");
        }
    }
}

#[test]
fn event_of_unknown_kind_is_refused() {
    for kind in [0, 6, 1000, u32::MAX] {
        assert!(decode(kind, &samples()[3].1).is_none());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn decoder_survives_any_bytes(kind in 0u32..7, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode(kind, &bytes);
        navigation_event(&bytes, &mut Names::default());
    }

    #[test]
    fn decoder_survives_mutated_events(
        (kind, bytes) in prop::sample::select(samples()), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = bytes;
        for (index, byte) in changes {
            let index = index.index(bytes.len());
            bytes[index] = byte;
        }
        decode(kind, &bytes);
    }

    /// The texts look like tags and events, because only such texts can reach GStreamer's own parsers.
    #[test]
    fn decoder_survives_any_text(
        kind in 2u32..6,
        text in r#"(taglist|application/x-gst-navigation|[a-c]{1,3})(, (title|date|datetime|duration|genre|image|state|event|key|pointer_x)=(\((int|uint|gint64|guint64|double|string|fraction|bitmask|boolean|guchar)\))?[{<\[( ]?(-?[0-9]{1,12}(/-?[0-9]{1,11})?|[0-9]{1,6}-[0-9]{1,3}-[0-9]{1,3}T?[0-9:+Z.-]{0,20}|[ -~]{0,12}|"[ -~]{0,12}"|"\\[0-7]{3}"|min|max|NULL|nan|""|mouse-move)[}>\]) ]?){0,5};?"#,
    ) {
        init();
        let mut bytes = if kind == kind::TAGS { vec![0; 4] } else { vec![] };
        put_text(&mut bytes, &text).unwrap();
        decode(kind, &bytes);
        let mut message = vec![];
        put_text(&mut message, &text).unwrap();
        if let Some(event) = navigation_event(&message, &mut Names::default()) {
            let _ = NavigationEvent::parse(&event);
        }
    }

    #[test]
    fn any_tag_is_sent(title in "[^\0]{1,100}", number in any::<u32>(), tempo in any::<f64>(), julian in 1u32..10_000_000) {
        let event = tag_event(|tags| {
            let mode = TagMergeMode::Append;
            tags.add::<tags::Title>(&title.as_str(), mode);
            tags.add::<tags::TrackNumber>(&number, mode);
            tags.add::<tags::BeatsPerMinute>(&tempo, mode);
            tags.add::<tags::Date>(&glib::Date::from_julian(julian).unwrap(), mode);
        });
        let received = tags_of(&transferred(&event));
        let got = received.get::<tags::Title>().unwrap();
        prop_assert_eq!(got.get(), title);
        prop_assert_eq!(received.get::<tags::TrackNumber>().unwrap().get(), number);
        let got = received.get::<tags::BeatsPerMinute>().unwrap().get();
        prop_assert!(got == tempo || (got.is_nan() && tempo.is_nan()));
        prop_assert_eq!(received.get::<tags::Date>().unwrap().get().julian(), julian);
    }
}
