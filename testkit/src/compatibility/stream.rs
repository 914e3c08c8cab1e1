// SPDX-License-Identifier: MIT OR Apache-2.0

//! Streams: the pipelines that the elements under test get their input from.
//!
//! The text of a stream is a pipeline in the syntax of `gst-launch-1.0`, in which sources are named in braces. Examples
//! are `{video:320x240@15/1}`, `{audio}` and `{made:0}`. [`expand`] replaces these names.

use serde::{Deserialize, Serialize};

use super::made;

/// How long a stream is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Length {
    pub seconds: f64,
    /// Whether the sources wait for the time of each buffer, as a camera does.
    pub is_live: bool,
}

/// A kind of media. A multiplexer gets at most one stream of each kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Media {
    Video,
    Audio,
    Other,
}

/// A stream.
#[derive(Clone, Debug)]
pub struct Stream {
    /// What the table calls it, such as `raw video` or `x264enc, h264parse`.
    pub name: String,
    pub text: String,
    /// The caps that the last element can make.
    pub caps: gst::Caps,
    /// Whether the stream is what a source makes, without an encoder.
    pub is_raw: bool,
}

/// Sizes and rates of raw video. Most encoders take the first; some take only the sizes of their standard.
const PICTURES: [&str; 8] = [
    "320x240@15/1",
    "176x144@15/1",
    "352x288@25/1",
    "720x576@25/1",
    "720x480@30000/1001",
    "1920x1080@25/1",
    "64x48@15/1",
    "32x32@15/1",
];

/// Filters of raw audio. Most encoders take the first stream; some take only the rate of their standard.
const SOUNDS: [&str; 5] = [
    "",
    " ! audio/x-raw,rate=8000,channels=1",
    " ! audio/x-raw,rate=16000,channels=1",
    " ! audio/x-raw,rate=44100,channels=2",
    " ! audio/x-raw,rate=22050,channels=1",
];

/// The streams that sources make.
pub fn raw() -> Vec<Stream> {
    let stream = |name: &str, text: String, caps: &str| Stream {
        name: name.to_owned(),
        text,
        caps: caps.parse().expect("valid caps"),
        is_raw: true,
    };
    let mut streams = Vec::new();
    for picture in PICTURES {
        streams.push(stream(
            "raw video",
            format!("{{video:{picture}}} ! videoconvert"),
            "video/x-raw",
        ));
    }
    for filter in SOUNDS {
        let text = format!("{{audio}} ! audioconvert ! audioresample{filter}");
        streams.push(stream("raw audio", text, "audio/x-raw"));
    }
    streams.push(stream("Bayer", "{bayer}".to_owned(), "video/x-bayer"));
    for (index, kind) in made::kinds().iter().enumerate() {
        let name = made_name(&kind.caps);
        streams.push(stream(&name, format!("{{made:{index}}}"), &kind.caps));
    }
    streams
}

/// The media type and the format of caps.
pub fn made_name(caps: &str) -> String {
    let caps = caps.parse::<gst::Caps>().expect("valid caps");
    let structure = caps.structure(0).expect("caps are not empty");
    let name = structure.name();
    match structure.get::<String>("format") {
        Ok(format) => format!("{name} {format}"),
        Err(_) => name.to_string(),
    }
}

impl Stream {
    /// The stream with another element behind it, which makes `caps`.
    pub fn then(&self, element: &str, caps: &gst::Caps) -> Self {
        let factory = element.split(' ').next().unwrap_or_default();
        Self {
            name: if self.is_raw {
                factory.to_owned()
            } else {
                format!("{}, {factory}", self.name)
            },
            text: format!("{} ! {element}", self.text),
            caps: caps.clone(),
            is_raw: false,
        }
    }

    /// Several streams in one multiplexer.
    pub fn multiplexed(streams: &[Self], element: &str, caps: &gst::Caps) -> Self {
        if let [stream] = streams {
            return stream.then(element, caps);
        }
        let inputs: String = streams
            .iter()
            .map(|stream| format!("{} ! queue ! m. ", stream.text))
            .collect();
        let (factory, properties) = element.split_once(' ').unwrap_or((element, ""));
        Self {
            name: factory.to_owned(),
            text: format!("{inputs}{factory} name=m {properties}"),
            caps: caps.clone(),
            is_raw: false,
        }
    }

    pub fn media(&self) -> Media {
        let name = self.caps.structure(0).map_or("", |structure| structure.name().as_str());
        match name.split('/').next() {
            Some("video" | "image") => Media::Video,
            Some("audio") => Media::Audio,
            _ => Media::Other,
        }
    }
}

/// Replaces the sources in braces with elements.
pub fn expand(text: &str, length: Length) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (source, after) = after.split_once('}').unwrap_or((after, ""));
        result.push_str(before);
        result.push_str(&source_element(source, length));
        rest = after;
    }
    result + rest
}

fn source_element(source: &str, length: Length) -> String {
    let Length { seconds, is_live } = length;
    let (kind, value) = source.split_once(':').unwrap_or((source, ""));
    match kind {
        "video" => {
            let (size, rate) = value.split_once('@').unwrap_or((value, "15/1"));
            let (width, height) = size.split_once('x').unwrap_or((size, size));
            let (count, of) = rate.split_once('/').unwrap_or((rate, "1"));
            let number = |text: &str| text.parse::<f64>().unwrap_or(1.0);
            let frames = (seconds * number(count) / number(of)) as u32;
            format!(
                "videotestsrc is-live={is_live} num-buffers={frames} \
                 ! video/x-raw,width={width},height={height},framerate={rate}"
            )
        }
        "bayer" => {
            let frames = (seconds * 15.0) as u32;
            format!(
                "videotestsrc is-live={is_live} num-buffers={frames} \
                 ! video/x-bayer,format=rggb,width=320,height=240,framerate=15/1"
            )
        }
        "audio" => {
            let buffers = (seconds * 50.0) as u32;
            format!(
                "audiotestsrc is-live={is_live} num-buffers={buffers} samplesperbuffer=960 \
                 ! audio/x-raw,rate=48000,channels=2"
            )
        }
        // The next two have a fixed number of short buffers, so that many of them can follow each other.
        "picture" => {
            let (width, height) = value.split_once('x').unwrap_or((value, value));
            format!("videotestsrc num-buffers=4 ! video/x-raw,width={width},height={height},framerate=25/1")
        }
        "sound" => {
            let (rate, channels) = value.split_once('x').unwrap_or((value, "1"));
            let mask = 1_u64.unbounded_shl(channels.parse().unwrap_or(1)).wrapping_sub(1);
            format!(
                "audiotestsrc num-buffers=8 samplesperbuffer=480 \
                 ! audio/x-raw,rate={rate},channels={channels},channel-mask=(bitmask){mask:#x}"
            )
        }
        // The fields that `made::feeders` sets are not in the text.
        _ => format!("appsrc name={}{value}", made::NAME),
    }
}
