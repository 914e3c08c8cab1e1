// SPDX-License-Identifier: MIT OR Apache-2.0

//! Caps in short: what a table shows of a format.

use rsshm_channel::caps_text::caps_parts;

/// The parts of caps that people want to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// The media type, such as `video/x-raw`.
    pub(crate) media: String,
    /// The format of raw media, such as `NV12`.
    pub(crate) format: Option<String>,
    /// The width in pixels.
    pub(crate) width: Option<u32>,
    /// The height in pixels.
    pub(crate) height: Option<u32>,
    /// The frame rate as a fraction, such as `30/1`; `None` if it is variable or not stated.
    pub(crate) framerate: Option<String>,
    /// The sample rate of audio in Hz.
    pub(crate) rate: Option<u32>,
    /// The channels of audio.
    pub(crate) audio_channels: Option<u32>,
    /// The colorimetry, such as `bt709`.
    pub(crate) colorimetry: Option<String>,
    /// The interlace mode, such as `progressive`.
    pub(crate) interlace_mode: Option<String>,
}

impl Summary {
    /// The summary of `text`. If the text is not fixed caps, only its beginning is left.
    pub(crate) fn new(text: &str) -> Self {
        let Ok(parts) = caps_parts(text) else {
            let media = text.split([',', ';', ' ']).next().unwrap_or_default();
            return Self {
                media: media.to_owned(),
                ..Self::default()
            };
        };
        let string = |name: &str| {
            let field = parts.fields.iter().rev().find(|(field, _)| field == name);
            field.map(|(_, value)| value.clone())
        };
        let number = |name| string(name).and_then(|value| value.parse().ok());
        Self {
            media: parts.media_type.clone(),
            format: string("format"),
            width: number("width"),
            height: number("height"),
            framerate: string("framerate").filter(|rate| !rate.starts_with("0/")),
            rate: number("rate"),
            audio_channels: number("channels"),
            colorimetry: string("colorimetry"),
            interlace_mode: string("interlace-mode"),
        }
    }

    /// The format in a few words: `NV12`, `S16LE 48 kHz x2`, `image/jpeg`.
    pub(crate) fn kind(&self) -> String {
        let mut words = vec![match &self.format {
            Some(format) if self.media.ends_with("/x-raw") || self.media.ends_with("/x-bayer") => format.clone(),
            _ => self.media.clone(),
        }];
        if let Some(rate) = self.rate.filter(|_| self.media.starts_with("audio/")) {
            words.push(if rate % 1000 == 0 {
                format!("{} kHz", rate / 1000)
            } else {
                format!("{:.1} kHz", f64::from(rate) / 1000.0)
            });
        }
        if let Some(channels) = self.audio_channels.filter(|_| self.media.starts_with("audio/")) {
            words.push(format!("x{channels}"));
        }
        words.join(" ")
    }

    /// The end of a pipeline of GStreamer that shows or plays the frames.
    pub(crate) fn sink(&self) -> &'static str {
        match self.media.as_str() {
            "video/x-raw" => "autovideosink",
            "audio/x-raw" => "audioconvert ! audioresample ! autoaudiosink",
            media if media.starts_with("audio/") => "decodebin ! audioconvert ! audioresample ! autoaudiosink",
            _ if self.is_visual() => "decodebin ! videoconvert ! autovideosink",
            _ => "fakesink dump=true",
        }
    }

    /// Whether people can look at the frames, raw or decoded.
    pub(crate) fn is_visual(&self) -> bool {
        self.media.starts_with("video/") || self.media.starts_with("image/")
    }

    /// The size of the picture, such as `1920x1080`.
    pub(crate) fn size(&self) -> Option<String> {
        Some(format!("{}x{}", self.width?, self.height?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caps_are_shown_in_short() {
        for (text, kind, size, rate) in [
            (
                "video/x-raw,format=NV12,width=1920,height=1080,framerate=30/1",
                "NV12",
                Some("1920x1080"),
                Some("30/1"),
            ),
            (
                "video/x-raw, format=(string)RGB, width=4, height=2, framerate=0/1",
                "RGB",
                Some("4x2"),
                None,
            ),
            (
                "audio/x-raw,format=S16LE,rate=48000,channels=2,layout=interleaved",
                "S16LE 48 kHz x2",
                None,
                None,
            ),
            (
                "audio/x-raw,format=F32LE,rate=44100,channels=1",
                "F32LE 44.1 kHz x1",
                None,
                None,
            ),
            (
                "image/jpeg,width=640,height=480,framerate=30000/1001",
                "image/jpeg",
                Some("640x480"),
                Some("30000/1001"),
            ),
            ("application/x-custom,format=abc", "application/x-custom", None, None),
            ("video/x-raw,width=[1,2]", "video/x-raw", None, None),
            ("", "", None, None),
        ] {
            let summary = Summary::new(text);
            assert_eq!(summary.kind(), kind, "{text}");
            assert_eq!(summary.size().as_deref(), size, "{text}");
            assert_eq!(summary.framerate.as_deref(), rate, "{text}");
        }
    }
}
