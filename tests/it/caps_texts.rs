// SPDX-License-Identifier: MIT OR Apache-2.0

//! The channel's grammar of caps, compared with GStreamer's own parser.

use proptest::prelude::*;
use rsshm_channel::caps_text::canonical_caps;

/// Initialises GStreamer. Its warnings are not printed, because its parser prints one for most wrong texts.
fn init() {
    gst::init().unwrap();
    gst::glib::log_set_default_handler(|_, _, _| {});
}

/// What GStreamer takes the text for; `None` unless it takes it for fixed caps.
fn as_gstreamer_reads(text: &str) -> Option<gst::Caps> {
    let caps: gst::Caps = text.parse().ok()?;
    caps.is_fixed().then_some(caps)
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
        "min", "max", "Max", "1/max", "1/MAX", "true", "FALSE", "yes", "No", "t", "f", "1", "0", "NULL", "little_endian", "Byte_Order",
        "nan", "inf", "-inf", "Infinity", "a", "NV12", "a.b-c:d/e+f", "None", "ANY", "EMPTY", "a-1", "/", "+", "-", ".", "-2147483648",
        "2147483648", "4294967295", "4294967296", "-2147483649", "1/-2147483648", "-2147483648/1", "1/0", "0/1", "0x", "0xffffffff",
        "255", "256", "3.5e38", "1e400", "a/b", "video/x-raw", "00", "0102",
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
        "", "", "", "(int)", "(i)", "(uint)", "( u )", "(gint64)", "(guint64)", "(glong)", "(gulong)", "(guchar)", "(float)", "(f)", "(double)",
        "(gdouble)", "(boolean)", "(b)", "(string)", "(s) ", "(fraction)", "(bitmask)", "(flagset)", "(GstFlagSet)",
        "(GstVideoMultiviewFlagsSet)", "(buffer)", "(GstBuffer)", "(structure)", "(GstStructure)", "(GstCaps)", "(array)", "(GstValueArray)",
        "(list)", "(GstValueList)", "(unknown)", "(", "()", "(int",
    ]);
    let single = (types.clone(), prop_oneof![4 => plain, 2 => quoted]).prop_map(|(kind, value)| format!("{kind}{value}"));
    single.prop_recursive(3, 12, 3, move |inner| {
        let fields = prop::collection::vec(("[a-c]{1,2}", inner.clone()), 0..3)
            .prop_map(|fields| fields.iter().map(|(name, value)| format!(", {name}={value}")).collect::<String>());
        let names = prop::sample::select(vec!["x", "a/b", "video/x-raw(memory:SystemMemory)", "5", "\"x\"", "a/b(meta:A, meta:B)"]);
        let structure = (names, fields, prop::sample::select(vec!["", ";"])).prop_map(|(name, fields, end)| format!("{name}{fields}{end}"));
        let escape = |text: &str| {
            let escaped: String = text.chars().flat_map(|c| (!c.is_alphanumeric()).then_some('\\').into_iter().chain([c])).collect();
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

fn text() -> impl Strategy<Value = String> {
    let name = prop::sample::select(vec![
        "video/x-raw", "a/b", " a", "\"a/b\"", "5", "", "ANY", "EMPTY", "\\ a", "x(memory:SystemMemory)", "x(a:B,c:D)", "x( a:B)", "x(a:B )", "x()", "x(ANY)",
        "x(a)", "x(a:B", "x (a:B)",
    ]);
    let field = (prop::sample::select(vec![", ", ",", " ,", ",\\ ", ",,"]), "[a-c]{1,2}|5|a\\.b", prop::sample::select(vec!["=", "= ", " =", "\\ =", ""]), value())
        .prop_map(|(comma, name, equals, value)| format!("{comma}{name}{equals}{value}"));
    let good_field = ("[a-c]{1,2}", value()).prop_map(|(name, value)| format!(", {name}={value}"));
    let end = prop::sample::select(vec!["", "", "", ";", ",", "; ", ";;", ";a", " ", "\\ "]);
    (prop_oneof![3 => Just("a/b"), 1 => name], prop::collection::vec(prop_oneof![4 => good_field, 1 => field], 0..3), end)
        .prop_map(|(name, fields, end)| format!("{name}{}{end}", fields.concat()))
}

fn check(text: &str) -> Result<(), String> {
    let (ours, theirs) = (canonical_caps(text), as_gstreamer_reads(text));
    match (ours, theirs) {
        (Ok(canonical), theirs) => {
            let read = as_gstreamer_reads(&canonical);
            if read.is_none() || (read != theirs && !canonical.contains("nan")) {
                return Err(format!("{text:?} is {theirs:?}, its canonical form {canonical:?} {read:?}"));
            }
            (canonical_caps(&canonical).as_ref() == Ok(&canonical)).then_some(()).ok_or_else(|| format!("{canonical:?} changes"))
        }
        (Err(mistake), Some(theirs)) => Err(format!("{text:?} is {theirs:?}, but {}", mistake.describe(text))),
        (Err(_), None) => Ok(()),
    }
}

#[test]
fn survey() {
    init();
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::default();
    let strategy = text();
    let mut both = 0;
    let mut failed = 0;
    for _ in 0..200_000 {
        let text = strategy.new_tree(&mut runner).unwrap().current();
        if canonical_caps(&text).is_ok() { both += 1; }
        if let Err(error) = check(&text) {
            println!("{error}");
            failed += 1;
            if failed > 100000 { break; }
        }
    }
    println!("ok {both} failed {failed}");
}
