// SPDX-License-Identifier: MIT OR Apache-2.0

//! The writer accepts exactly the texts that describe fixed caps, and names the position of a mistake.

use rsshm_channel::{
    Caps, Error, WriterOptions,
    caps_text::{canonical_caps, canonical_structure},
};
use rsshm_testkit::{
    Channel,
    caps_texts::{CapsText, caps_texts},
};

use crate::support::{ChannelExt, next, publish_sized};

#[test]
fn parser_agrees_with_table_of_texts() {
    let mut counts = [0, 0];
    for entry in caps_texts() {
        match entry {
            CapsText::Fixed { text, canonical } => {
                counts[0] += 1;
                assert_eq!(canonical_caps(text).as_deref(), Ok(canonical), "{text}");
                assert_eq!(canonical_caps(canonical).as_deref(), Ok(canonical));
            }
            CapsText::Refused { text, position } => {
                counts[1] += 1;
                let mistake = canonical_caps(text).unwrap_err();
                assert_eq!(mistake.position, position, "{text}: {mistake}");
            }
        }
    }
    assert!(counts[0] > 50 && counts[1] > 80, "{counts:?}");
}

#[test]
fn writer_publishes_any_fixed_caps_unchanged() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    let mut copy = Vec::new();
    let long = format!(
        "video/x-theora, streamheader=(buffer)< {} >",
        vec!["0102"; 10_000].join(", ")
    );
    let texts = caps_texts().filter_map(|entry| match entry {
        CapsText::Fixed { text, .. } => Some(text),
        CapsText::Refused { .. } => None,
    });
    for text in texts.chain([long.as_str()]) {
        writer.set_caps(Caps::variable_size(text)).unwrap();
        assert!(publish_sized(&writer, 1, 10));
        let mut reader = channel.reader();
        next(&mut reader, &mut copy);
        assert_eq!(reader.caps(), text);
    }
}

#[test]
fn writer_refuses_other_texts_and_keeps_its_caps() {
    let channel = Channel::new();
    let writer = channel.writer(WriterOptions::default());
    writer.set_caps(Caps::variable_size("good")).unwrap();
    for entry in caps_texts() {
        let CapsText::Refused { text, position } = entry else {
            continue;
        };
        let error = writer.set_caps(Caps::variable_size(text)).unwrap_err();
        assert!(matches!(error, Error::Caps { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(&format!("at byte {position} ")), "{message}");
        assert!(message.contains(&channel.0.to_string()), "{message}");
    }
    assert!(publish_sized(&writer, 1, 10));
    let mut reader = channel.reader();
    next(&mut reader, &mut Vec::new());
    assert_eq!(reader.caps(), "good");
}

#[test]
fn deep_nesting_is_refused() {
    for (open, close) in [
        ("<", ">"),
        ("[x,y=", "]"),
        ("(structure)[x,y=", "]"),
        ("(GstCaps)[x,y=", "]"),
        ("[x(a:B),y=", "]"),
    ] {
        let text = format!("a/b, c={}1{}", open.repeat(3000), close.repeat(3000));
        assert!(canonical_caps(&text).is_err(), "{open}");
    }
    let long_name = "a".repeat(129);
    for text in [
        long_name.clone(),
        format!("a,{long_name}=1"),
        format!("a(a:{long_name})"),
    ] {
        assert!(canonical_caps(&text).is_err());
    }
}

#[test]
fn plain_structures_have_lists_but_no_buffers() {
    for (text, canonical) in [
        ("a; ", "a"),
        (
            "a, b={ 1, { (string)x } }, c=<NULL2>;",
            "a, b={ (int)1, { (string)x } }, c=< (string)NULL2 >",
        ),
        ("a, b=(string)NULL", "a, b=(string)NULL"),
        ("a, b=(fraction){ 1/2 }", "a, b={ (fraction)1/2 }"),
    ] {
        assert_eq!(canonical_structure(text, |_| true).as_deref(), Ok(canonical), "{text}");
    }
    for text in [
        "",
        "a(memory:SystemMemory)",
        "a, b=(buffer)00",
        "a, b=(structure)c",
        "a, b=[c]",
        "a, b=[1,2]",
        "a, b=(GstCaps)c",
        "a, b={ NULL }",
        "a, b=(int/uniquelist){ 1 }",
        "a; b",
        "video/x-raw-rgb",
    ] {
        assert!(canonical_structure(text, |_| true).is_err(), "{text}");
    }
    assert!(canonical_structure("a, b=1", |name| name != "b").is_err());
    assert_eq!(
        canonical_caps("a, b=(int/uniquelist){ 1, 2 }").as_deref(),
        Ok("a, b=(/uniquelist){ (int)1, (int)2 }")
    );
}
