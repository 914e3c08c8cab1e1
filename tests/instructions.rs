// SPDX-License-Identifier: MIT OR Apache-2.0

//! Counts the instructions per frame in the code of this project, and in the functions of GStreamer and libc that this
//! code calls.
//!
//! Valgrind counts them, so a busy machine does not change the result. The counted elements are those of the plugin that
//! `make build` puts into target/plugin, because the counts of a debug build are of no use.

use std::process::Command;

use gst::prelude::*;
use gst_check::Harness;
use rsshm_testkit::Channel;

/// The plugin as users have it.
const PLUGIN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/plugin/libgstrsshm.so");

/// The number of frames of a counted run. The number is large, so that work which is done only once does not matter.
const FRAMES: u64 = 2000;

/// The largest accepted growth, in percent.
const MAX_GROWTH: u64 = 20;

/// The counted functions. Each entry has a name, the kind of memory of the frames, a valgrind pattern of the function,
/// and the recorded number of instructions. The functions that the counted function calls are counted too.
const COUNTED: [(&str, &str, &str, u64); 8] = [
    (
        "writer, a buffer of the pool",
        IN_PLACE,
        "*subclass::buffer_pool::buffer_pool_acquire_buffer*",
        2275,
    ),
    (
        "writer, publish in place",
        IN_PLACE,
        "*base_sink::base_sink_render*",
        3254,
    ),
    (
        "writer, publish with a copy",
        FOREIGN,
        "*base_sink::base_sink_render*",
        4886,
    ),
    ("reader, a frame", IN_PLACE, "*push_src::push_src_create*", 5636),
    ("both, a buffer is freed", IN_PLACE, "*memory_wrapped::free*", 403),
    ("writer, a small buffer", SMALL, "*base_sink::base_sink_render*", 2878),
    (
        "writer, a small one of a list",
        LISTS,
        "*base_sink::base_sink_render_list*",
        2444,
    ),
    ("reader, a small buffer", SMALL, "*push_src::push_src_create*", 5074),
];

/// The environment variable that makes this test the counted program. Its value is the kind of memory of the frames.
const MEMORY: &str = "RSSHM_COUNTED";
const IN_PLACE: &str = "in place";
const FOREIGN: &str = "foreign";
/// Buffers of an MPEG transport stream, of one packet each.
const SMALL: &str = "small";
const LISTS: &str = "small in lists";
const SMALL_SIZE: usize = 188;
/// How many small buffers are in a list.
const LIST_LENGTH: u64 = 10;

/// Runs a writer and a reader in this process. For each frame, the writer runs first, and then the reader.
fn pair(memory: &str) {
    gst::init().unwrap();
    gst::Plugin::load_file(PLUGIN).unwrap();
    let channel = Channel::new();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, 64, 64)
        .fps(gst::Fraction::new(60, 1))
        .build()
        .unwrap();
    let caps = match memory {
        SMALL | LISTS => gst::Caps::builder("video/mpegts")
            .field("systemstream", true)
            .field("packetsize", SMALL_SIZE as i32)
            .build(),
        _ => info.to_caps().unwrap(),
    };
    let element = |factory| {
        let element = gst::ElementFactory::make(factory).property("channel", channel.as_str());
        element.build().unwrap()
    };
    let sink = element("rsshmsink");
    sink.set_property("lossless", ![SMALL, LISTS].contains(&memory));
    let mut writer = Harness::with_element(&sink, Some("sink"), None);
    let mut reader = Harness::with_element(&element("rsshmsrc"), None, Some("src"));
    for harness in [&mut writer, &mut reader] {
        harness.use_systemclock();
        harness.play();
    }
    writer.set_src_caps(caps.clone());
    if [SMALL, LISTS].contains(&memory) {
        return push_small(memory, &mut writer, &mut reader);
    }
    let mut allocation = gst::query::Allocation::new(Some(&caps), true);
    assert!(sink.static_pad("sink").unwrap().query(&mut allocation));
    let pool = allocation.allocation_pools().next().unwrap().0.unwrap();
    pool.set_active(true).unwrap();
    for number in 0..FRAMES {
        let mut buffer = match memory {
            IN_PLACE => pool.acquire_buffer(None).unwrap(),
            _ => gst::Buffer::with_size(info.size()).unwrap(),
        };
        let target = buffer.make_mut();
        target.set_offset(number);
        target.set_pts(gst::ClockTime::from_useconds(number));
        writer.push(buffer).unwrap();
        assert_eq!(reader.pull().unwrap().offset(), number);
    }
    let stats = sink.property::<gst::Structure>("channel-stats");
    let field = if memory == IN_PLACE {
        "frames-in-place"
    } else {
        "copied-foreign"
    };
    assert_eq!(stats.get::<u64>(field).unwrap(), FRAMES);
}

/// Lets the writer and the reader pass on small buffers.
fn push_small(memory: &str, writer: &mut Harness, reader: &mut Harness) {
    let small = |number: u64| {
        let mut buffer = gst::Buffer::with_size(SMALL_SIZE).unwrap();
        let target = buffer.make_mut();
        target.set_offset(number);
        target.set_pts(gst::ClockTime::from_useconds(number));
        buffer
    };
    // The reader begins with the newest buffer.
    writer.push(small(FRAMES)).unwrap();
    assert_eq!(reader.pull().unwrap().offset(), FRAMES);
    for first in (0..FRAMES).step_by(LIST_LENGTH as usize) {
        let numbers = first..first + LIST_LENGTH;
        if memory == LISTS {
            let list: gst::BufferList = numbers.clone().map(small).collect();
            writer.srcpad().unwrap().push_list(list).unwrap();
        } else {
            numbers.clone().for_each(|number| {
                writer.push(small(number)).unwrap();
            });
        }
        for number in numbers {
            assert_eq!(reader.pull().unwrap().offset(), number);
        }
    }
}

/// Counts the instructions of `function` per frame.
fn count(memory: &str, function: &str) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(format!("--toggle-collect={function}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "frame_costs_no_more_instructions_than_recorded"])
        .env(MEMORY, memory)
        .output()
        .expect("valgrind is installed");
    let report = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{report}\n{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let collected = report.lines().find_map(|line| line.split_once("Collected : "));
    collected.unwrap().1.trim().parse::<u64>().unwrap() / FRAMES
}

#[test]
#[ignore = "make instructions builds the plugin, and runs this test"]
fn frame_costs_no_more_instructions_than_recorded() {
    if let Ok(memory) = std::env::var(MEMORY) {
        return pair(&memory);
    }
    let mut too_many = Vec::new();
    for (name, memory, function, recorded) in COUNTED {
        let now = count(memory, function);
        println!("{name:30} {now:6} instructions, {recorded:6} recorded");
        assert!(now > 0, "valgrind finds no {function}");
        if now * 100 > recorded * (100 + MAX_GROWTH) {
            too_many.push(name);
        }
    }
    assert!(too_many.is_empty(), "more than {MAX_GROWTH} % more: {too_many:?}");
}
