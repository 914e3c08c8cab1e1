//! What a fuzzer calls, with bytes that anybody may have written into a channel. Only with the feature `fuzzing`, for the
//! programs in `fuzz/`.

use std::sync::Once;

use gst::glib;

use crate::{caps, codec::Names, events, metas};

/// Starts GStreamer. Whatever a peer wrote, nobody complains of it aloud: a warning of GLib's ends the program.
fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if gst::init().is_ok() {
            glib::log_set_always_fatal(glib::LogLevels::LEVEL_CRITICAL | glib::LogLevels::LEVEL_WARNING);
            gst::meta::CustomMeta::register(metas::NO_SLOT_META, &[]);
            gst::meta::CustomMeta::register("RsShmFuzzMeta", &[]);
        }
    });
}

/// Reads what goes with a frame, and writes what came of it, as a reader that passes it on does.
pub fn metas(data: &[u8]) {
    init();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, 640, 480)
        .build()
        .ok();
    let mut buffer = gst::Buffer::new();
    if let Some(buffer) = buffer.get_mut() {
        metas::Decoder::default().decode(data, info.as_ref(), buffer);
        metas::encode(buffer, info.as_ref(), &mut Vec::new());
    }
}

/// Reads an event of the channel, whose kind is the first byte, and a reader's letter.
pub fn events(data: &[u8]) {
    init();
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let event = rsshm_channel::Event {
        kind: u32::from(kind % 8),
        time: 0,
        duration: data.len() as u64,
        bytes: bytes.to_vec(),
    };
    let decoded = events::Decoder::default().decode(&event);
    if let Some(events::Decoded::StreamStart(event) | events::Decoded::Event(event)) = &decoded {
        // As a writer that is a reader's downstream has it.
        let _ = events::Encoder::default().encode(event);
    }
    events::navigation_event(bytes, &mut Names::default());
}

/// Reads a segment's format.
pub fn caps(data: &[u8]) {
    init();
    if let Ok(text) = str::from_utf8(data)
        && let Ok(caps) = caps::parse(text)
    {
        let _ = caps::raw_video(&caps);
    }
}
