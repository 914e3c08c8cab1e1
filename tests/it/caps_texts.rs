// SPDX-License-Identifier: MIT OR Apache-2.0

//! The channel's grammar of caps, compared with GStreamer's own parser.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use rsshm_channel::{
    Caps, FrameDescriptor, ServiceThread, Writer, WriterOptions,
    caps_text::{Mistake, canonical_caps},
    monotonic_ns,
};
use rsshm_testkit::{
    Channel,
    caps_texts::{CapsText, caps_texts},
    eventually,
    gst::SourceRecorder,
};

/// Initialises GStreamer. Its warnings are not printed, because its parser prints one for most wrong texts.
fn init() {
    gst::init().unwrap();
    gst::glib::log_set_default_handler(|_, _, _| {});
}

/// What GStreamer takes the text for; `None` unless it takes it for fixed caps.
fn as_gstreamer_reads(text: &str) -> Option<gst::Caps> {
    let caps: gst::Caps = text.parse().ok()?;
    is_fixed_caps(&caps).then_some(caps)
}

/// Whether caps are fixed. Version 1.22 of GStreamer does not look into the caps in caps, newer versions do.
fn is_fixed_caps(caps: &gst::CapsRef) -> bool {
    let is_fixed_value = |(_, value): (_, &gst::glib::SendValue)| is_fixed_value(value);
    caps.is_fixed()
        && caps
            .structure(0)
            .is_some_and(|structure| structure.iter().all(is_fixed_value))
}

fn is_fixed_value(value: &gst::glib::Value) -> bool {
    if let Ok(caps) = value.get::<gst::Caps>() {
        is_fixed_caps(&caps)
    } else if let Ok(structure) = value.get::<gst::Structure>() {
        structure.iter().all(|(_, value)| is_fixed_value(value))
    } else if let Ok(array) = value.get::<gst::ArrayRef>() {
        array.iter().all(|value| is_fixed_value(value))
    } else {
        true
    }
}

/// Parts of texts. Most texts that are made of them are almost valid.
fn value() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        "-?[0-9]{1,3}",
        "[-+]?[0-9]{8,21}",
        "0x[0-9a-fA-F]{1,18}",
        "-?0[0-9]{1,4}",
        "-?[0-9]{0,3}\\.[0-9]{0,3}(e[-+]?[0-9]{1,3})?",
        "-?0x[0-9a-f]{0,2}\\.[0-9a-f]{0,2}(p-?[0-9]{1,2})?",
        "[-+]?[0-9]{1,3}/[-+]?[0-9]{1,3}",
        "-?[0-9]{1,11}/-?[0-9]{1,11}",
        "[0-9a-f]{1,9}:[0-9a-f]{1,9}(:[+/a-f0]{0,4})?",
        "[0-9a-f]{0,3}:?ffffffff(:(/[a-z]{1,2}){0,2})?",
        "-?[0-9a-f]{1,3}[-+:x]{0,2}[0-9a-f]{1,3}",
    ];
    let word = prop::sample::select(vec![
        "min",
        "max",
        "Max",
        "1/max",
        "1/MAX",
        "true",
        "FALSE",
        "yes",
        "No",
        "t",
        "f",
        "1",
        "0",
        "NULL",
        "little_endian",
        "Byte_Order",
        "nan",
        "inf",
        "-inf",
        "Infinity",
        "a",
        "NV12",
        "a.b-c:d/e+f",
        "None",
        "ANY",
        "EMPTY",
        "a-1",
        "/",
        "+",
        "-",
        ".",
        "-2147483648",
        "2147483648",
        "4294967295",
        "4294967296",
        "-2147483649",
        "1/-2147483648",
        "-2147483648/1",
        "1/0",
        "0/1",
        "0x",
        "0xffffffff",
        "255",
        "256",
        "3.5e38",
        "1e400",
        "a/b",
        "video/x-raw",
        "00",
        "0102",
    ]);
    let plain = prop_oneof![number, word.prop_map(str::to_owned), "[a-z0-9]{1,4}"];
    let quoted = prop_oneof![
        plain.clone().prop_map(|text| format!("\"{text}\"")),
        plain.clone().prop_map(|text| format!("\" {text}\"")),
        "\"([ -~]|\\\\[0-7]{1,3}|\\\\[ -~]|[äö\\n]){0,6}\"",
        Just("\"\"".to_owned()),
        Just("\"NULL\"".to_owned()),
    ];
    let types = prop::sample::select(vec![
        "",
        "",
        "",
        "(int)",
        "(i)",
        "(uint)",
        "( u )",
        "(gint64)",
        "(guint64)",
        "(glong)",
        "(gulong)",
        "(guchar)",
        "(float)",
        "(f)",
        "(double)",
        "(gdouble)",
        "(boolean)",
        "(b)",
        "(string)",
        "(s) ",
        "(fraction)",
        "(bitmask)",
        "(flagset)",
        "(GstFlagSet)",
        "(GstVideoMultiviewFlagsSet)",
        "(buffer)",
        "(GstBuffer)",
        "(structure)",
        "(GstStructure)",
        "(GstCaps)",
        "(array)",
        "(GstValueArray)",
        "(list)",
        "(GstValueList)",
        "(unknown)",
        "(",
        "()",
        "(int",
    ]);
    let single =
        (types.clone(), prop_oneof![4 => plain, 2 => quoted]).prop_map(|(kind, value)| format!("{kind}{value}"));
    single.prop_recursive(3, 12, 3, move |inner| {
        let fields = prop::collection::vec(inner.clone(), 0..3)
            .prop_map(|fields| fields.iter().map(|value| format!(", #={value}")).collect::<String>());
        let names = prop::sample::select(vec![
            "x",
            "a/b",
            "video/x-raw(memory:SystemMemory)",
            "5",
            "\"x\"",
            "a/b(meta:A, meta:B)",
        ]);
        let structure = (names, fields, prop::sample::select(vec!["", ";"]))
            .prop_map(|(name, fields, end)| format!("{name}{fields}{end}"));
        let escape = |text: &str| {
            let escaped: String = text
                .chars()
                .flat_map(|c| (!c.is_alphanumeric()).then_some('\\').into_iter().chain([c]))
                .collect();
            format!("\"{escaped}\"")
        };
        let body = prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("< {} >", values.join(", "))),
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("<{}>", values.join(","))),
            prop::collection::vec(inner.clone(), 0..3).prop_map(|values| format!("{{ {} }}", values.join(", "))),
            prop::collection::vec(inner, 1..3).prop_map(|values| format!("[ {} ]", values.join(", "))),
            structure.clone().prop_map(|text| format!("[{text}]")),
            structure.prop_map(move |text| escape(&text)),
        ];
        (types.clone(), body).prop_map(|(kind, body)| format!("{kind}{body}"))
    })
}

/// The text with a name for each `#`. If a name occurred twice, the value of the first field would not matter.
fn with_distinct_names(text: &str) -> String {
    let mut names = ('a'..='z').cycle();
    text.chars()
        .filter_map(|c| if c == '#' { names.next() } else { Some(c) })
        .collect()
}

/// A text that looks like caps.
fn text() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "video/x-raw",
        "a/b",
        " a",
        "\"a/b\"",
        "5",
        "",
        "ANY",
        "EMPTY",
        "\\ a",
        "x(memory:SystemMemory)",
        "x(a:B,c:D)",
        "x( a:B)",
        "x(a:B )",
        "x()",
        "x(ANY)",
        "x(a)",
        "x(a:B",
        "x (a:B)",
    ]);
    let field = (
        prop::sample::select(vec![", ", ",", " ,", ",\\ ", ",,"]),
        "#|5#|#\\.b",
        prop::sample::select(vec!["=", "= ", " =", "\\ =", ""]),
        value(),
    )
        .prop_map(|(comma, name, equals, value)| format!("{comma}{name}{equals}{value}"));
    let good_field = value().prop_map(|value| format!(", #={value}"));
    let end = prop::sample::select(vec!["", "", "", ";", ",", "; ", ";;", ";a", " ", "\\ "]);
    (
        prop_oneof![3 => Just("a/b"), 1 => name],
        prop::collection::vec(prop_oneof![4 => good_field, 1 => field], 0..3),
        end,
    )
        .prop_map(|(name, fields, end)| with_distinct_names(&format!("{name}{}{end}", fields.concat())))
}

/// The mistakes that this project sees where GStreamer takes the text for fixed caps. `docs/PROTOCOL.md` lists them.
const STRICTER: [&str; 13] = [
    "the name of one format",
    "a name of GStreamer 1.0, such as video/x-raw,",
    "a name, such as video/x-raw,",
    "a feature, such as memory:SystemMemory,",
    "an integer that fits its type",
    "a fraction whose numbers have at most 31 bits",
    "a decimal number",
    "a bit mask in hexadecimal digits",
    "flags with the mask ffffffff, such as 0:ffffffff,",
    "flags and a mask of at most 8 digits",
    "a string without the byte 0",
    "a string, not NULL,",
    "the end of the text, because there can be only one structure,",
];

/// Compares what the channel's parser and GStreamer's say about `text`. The result is `true` if the text is fixed caps.
fn compare(text: &str) -> Result<bool, String> {
    let theirs = as_gstreamer_reads(text);
    match canonical_caps(text) {
        Ok(canonical) => {
            let read = as_gstreamer_reads(&canonical);
            // Two values that are not a number are never equal.
            if read.is_none() || (read != theirs && !canonical.contains("nan")) {
                return Err(format!(
                    "{text:?} is {theirs:?}, but its canonical form {canonical:?} is {read:?}"
                ));
            }
            if canonical_caps(&canonical).as_ref() != Ok(&canonical) {
                return Err(format!("{canonical:?} is not canonical"));
            }
            Ok(true)
        }
        Err(mistake)
            if theirs.is_some() && !STRICTER.contains(&mistake.expected) && !has_replaced_flags(text, &mistake) =>
        {
            Err(format!("{text:?} is {theirs:?}, but {}", mistake.describe(text)))
        }
        Err(_) => Ok(false),
    }
}

/// Whether the mistake is in flags that are not fixed in GStreamer either, and a later field of the same name replaces
/// them.
fn has_replaced_flags(text: &str, mistake: &Mistake) -> bool {
    let Some((before, after)) = text.split_at_checked(mistake.position) else {
        return false;
    };
    let Some((flags, rest)) = after.split_once(',') else {
        return false;
    };
    let name = |field: &str| Some(field.split_once('=')?.0.trim().to_owned());
    let replaced = before.rsplit(',').next().and_then(name);
    mistake.expected.contains("which alone are fixed")
        && replaced.is_some()
        && rest.split(',').any(|field| name(field) == replaced)
        && as_gstreamer_reads(&format!("{before}{flags}")).is_none()
}

#[test]
fn flags_without_their_mask_may_be_replaced() {
    init();
    let has_replaced = |text| canonical_caps(text).is_err_and(|mistake| has_replaced_flags(text, &mistake));
    for (text, is_replaced) in [
        ("a/b,c=A:1,c=2", true),
        ("a/b,c=(flagset)A:1, d=1, c =2", true),
        ("a/b,c=A:1,d=2", false),
        ("a/b,c=A:1", false),
        ("a/b,c={1,2},c=2", false),
    ] {
        assert_eq!(has_replaced(text), is_replaced, "{text}");
    }
    assert_eq!(compare("a/b,c=A:1,c=2"), Ok(false));
    assert_eq!(compare("a/b,c=A:ffffffff,c=2"), Ok(true));
}

#[test]
fn gstreamer_reads_table_of_texts_alike() {
    init();
    // GStreamer has other values that are fixed, but no caps use them. Version 1.22 calls all caps in caps fixed.
    const OTHER: [&str; 3] = ["(G", "a/b,c=<<<<<<<<<", "a*b"];
    for entry in caps_texts() {
        let text = match entry {
            CapsText::Fixed { text, .. } | CapsText::Refused { text, .. } => text,
        };
        if let Err(error) = compare(text) {
            assert!(OTHER.iter().any(|part| text.contains(part)), "{error}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn gstreamer_reads_any_text_alike(text in text()) {
        init();
        prop_assert_eq!(compare(&text).map(drop), Ok(()));
    }

    #[test]
    fn gstreamer_reads_mutated_texts_alike(
        entry in prop::sample::select(caps_texts().filter(is_fixed).collect::<Vec<_>>()),
        at in any::<prop::sample::Index>(), length in 0_usize..3, inserted in "[ -~]{0,2}",
    ) {
        init();
        let CapsText::Fixed { text, canonical } = entry else { unreachable!() };
        for text in [text, canonical].into_iter().filter(|text| !text.contains('*')) {
            let (start, end) = (at.index(text.len() + 1), (at.index(text.len() + 1) + length).min(text.len()));
            if let (Some(before), Some(after)) = (text.get(..start), text.get(end..)) {
                let text = format!("{before}{inserted}{after}");
                let result = compare(&text);
                prop_assert!(result.is_ok() || text.contains('*') || has_other_type(&text), "{result:?}");
            }
        }
    }
}

fn is_fixed(entry: &CapsText) -> bool {
    matches!(entry, CapsText::Fixed { .. })
}

/// Whether a change of one byte made the name of another type.
fn has_other_type(text: &str) -> bool {
    canonical_caps(text).is_err_and(|mistake| mistake.expected.starts_with("a known type"))
}

/// A source passes on the caps of each text in the table, and of the text that GStreamer makes of them.
#[test]
fn source_reads_texts_of_other_writers() {
    rsshm_testkit::gst::init();
    let channel = Channel::new();
    let writer = Arc::new(Writer::open(channel.0.clone(), WriterOptions::default()).unwrap());
    let _service = ServiceThread::spawn(Arc::clone(&writer), Duration::from_millis(50), |_, _| {}).unwrap();
    let recorder = SourceRecorder::of(&channel);
    let mut count = 0;
    for entry in caps_texts() {
        let CapsText::Fixed { text, canonical } = entry else {
            continue;
        };
        let expected = as_gstreamer_reads(canonical).unwrap();
        let has_other_memory = |features: &gst::CapsFeaturesRef| features.iter().any(|feature| feature.contains("GL"));
        if expected.features(0).is_some_and(has_other_memory) {
            continue;
        }
        let size = gst_video::VideoInfo::from_caps(&expected).map_or(64, |info| info.size());
        // GStreamer's own text has one type for all values of an array, and does not protect brackets in brackets.
        let own = expected.to_string();
        let is_same = canonical_caps(&own).is_ok_and(|own| as_gstreamer_reads(&own).as_ref() == Some(&expected));
        let own = is_same.then_some(own);
        for text in [text, canonical].into_iter().chain(own.as_deref()) {
            writer.set_caps(Caps::fixed_size(text, size)).unwrap();
            let mut slot = writer.claim(size).unwrap().unwrap();
            slot.as_mut().fill(count);
            count = count.wrapping_add(1);
            let descriptor = FrameDescriptor::new(size as u64).with_pts(monotonic_ns());
            writer.publish(&slot, descriptor, &[]).unwrap();
            eventually(&format!("a frame of {text}"), || {
                recorder.last_frame().is_some_and(|frame| frame.caps() == &expected)
            });
        }
    }
}
