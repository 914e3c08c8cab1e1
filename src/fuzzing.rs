// SPDX-License-Identifier: MIT OR Apache-2.0

//! Entry points for the fuzz targets in `fuzz/`. Their input is bytes that any program may have written into a channel.
//! They exist only with the feature `fuzzing`.

use std::sync::Once;

use gst::glib;

use crate::{caps, codec::Names, events, metas};

/// Initialises GStreamer so that a warning of GLib aborts the program, because no input from a peer may cause a
/// warning.
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

/// Decodes the metas of a frame and encodes the result again. A reader that passes the frame on to another channel does
/// this.
pub fn metas(data: &[u8]) {
    init();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, 640, 480)
        .build()
        .ok();
    // The seed `memories` divides 32 bytes.
    let mut buffer = gst::Buffer::from_slice([0; 32]);
    if let Some(buffer) = buffer.get_mut() {
        metas::Decoder::default().decode(data, info.as_ref(), buffer);
        metas::encode(buffer, info.as_ref(), &mut Vec::new());
        metas::encode(buffer, None, &mut Vec::new());
    }
}

/// Decodes an event of the channel, of the kind that the first byte gives. Also decodes the other bytes as a reader's
/// message.
pub fn events(data: &[u8]) {
    init();
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let mut event = rsshm_channel::Event::new(u32::from(kind % 8), bytes.to_vec());
    (event.time, event.duration) = (0, data.len() as u64);
    let decoded = events::Decoder::default().decode(&event);
    if let Some(events::DecodedEvent::StreamStart(event) | events::DecodedEvent::Event(event)) = &decoded {
        // A writer that is downstream of a reader encodes the event again.
        let _ = events::Encoder::default().encode(event);
    }
    events::navigation_event(bytes, &mut Names::default());
}

/// Parses the caps of a segment.
pub fn caps(data: &[u8]) {
    init();
    if let Ok(text) = str::from_utf8(data)
        && let Ok(caps) = caps::parse(text)
    {
        let _ = caps::raw_video(&caps);
    }
}
