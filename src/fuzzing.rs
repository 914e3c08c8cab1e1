// SPDX-License-Identifier: MIT OR Apache-2.0

//! Entry points for the fuzz targets in `fuzz/`. The input of each entry point stands for bytes that any program may
//! have written into a channel. The module exists only with the feature `fuzzing`.

use std::sync::Once;

use gst::glib;
use rsshm_channel::caps_text::canonical_caps;

use crate::{caps, codec::Names, events, metas};

/// Initialises GStreamer, and makes each GLib warning abort the program, because no input from a peer may cause a
/// warning.
fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if gst::init().is_ok() {
            glib::log_set_always_fatal(glib::LogLevels::LEVEL_CRITICAL | glib::LogLevels::LEVEL_WARNING);
            metas::register_custom("RsShmFuzzMeta");
        }
    });
}

/// Decodes the metas of a frame and encodes the result again. A pipeline that passes frames on from one channel to
/// another performs these two steps.
pub fn metas(data: &[u8]) {
    init();
    let info = gst_video::VideoInfo::builder(gst_video::VideoFormat::Gray8, 640, 480)
        .build()
        .ok();
    let audio = gst_audio::AudioInfo::builder(gst_audio::AudioFormat::S16le, 8000, 2)
        .layout(gst_audio::AudioLayout::NonInterleaved)
        .build()
        .ok();
    let format = metas::Format {
        video: info.as_ref(),
        audio: audio.as_ref(),
        opaque: None,
    };
    // The buffer has 32 bytes, because the fuzzing seed `memories` divides this number of bytes into memories.
    let mut buffer = gst::Buffer::from_slice([0; 32]);
    if let Some(buffer) = buffer.get_mut() {
        metas::Decoder::default().decode(data, format, buffer);
        metas::encode(buffer, format, &mut Vec::new());
        metas::encode(buffer, metas::Format::default(), &mut Vec::new());
        if let Some(audio) = &audio {
            metas::complete_audio_layout(buffer, audio);
        }
    }
}

/// Decodes an event of the channel and a reader's message. The first byte gives the kind of the event. The other bytes
/// are decoded twice: as an event of this kind, and as a message.
pub fn events(data: &[u8]) {
    init();
    let Some((kind, bytes)) = data.split_first() else {
        return;
    };
    let mut event = rsshm_channel::Event::new(u32::from(kind % 8), bytes.to_vec());
    (event.time, event.duration) = (0, data.len() as u64);
    let decoded = events::Decoder::default().decode(&event);
    if let Some(events::DecodedEvent::StreamStart(event) | events::DecodedEvent::Event(event)) = &decoded {
        // If a pipeline passes the event on to another channel, the sink of this pipeline encodes the event again.
        let _ = events::Encoder::default().encode(event);
    }
    events::navigation_event(bytes, &mut Names::default());
}

/// Parses `data` as the caps of a segment. GStreamer must take each canonical text for fixed caps.
pub fn caps(data: &[u8]) {
    init();
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    if let Ok(canonical) = canonical_caps(text) {
        assert_eq!(canonical_caps(&canonical).as_ref(), Ok(&canonical));
        let is_fixed = canonical.parse::<gst::Caps>().is_ok_and(|caps| caps.is_fixed());
        // Only newer versions of GStreamer know sets.
        assert!(is_fixed || canonical.contains("(/uniquelist)"), "{canonical}");
    }
    if let Ok(caps) = caps::parse(text) {
        let _ = caps::raw_video(&caps);
    }
}
