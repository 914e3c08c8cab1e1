// SPDX-License-Identifier: MIT OR Apache-2.0

//! Fills the time without a writer, so that muxers and mixers downstream continue with their other inputs.
//!
//! Streams get GAP events, and raw audio gets silence instead, because audio encoders keep a GAP event back until they have
//! the next samples.

use std::time::Duration;

use gst::prelude::*;
use gst_base::prelude::*;

use super::{CAT, events::EventForwarder, shared::Context, timing::Timing};

/// The time between two fillings. The other inputs of a muxer are delayed by up to this time, so it is that of a video
/// frame.
const INTERVAL: Duration = Duration::from_millis(40);

/// The most bytes a second that are filled with silence: a little more than 64 channels of 64-bit samples at 192 kHz have.
/// The caps of a writer may name any rate, and the memory of the reader is limited.
const MAX_BYTE_RATE: u64 = 100_000_000;

/// The greatest duration of one buffer of silence.
const MAX_SILENCE: gst::ClockTime = gst::ClockTime::SECOND;

/// How long a reader without a writer waits until the next filling is due; `None` if nothing is filled, because there
/// is a writer or the stream has not begun.
pub(super) fn time_until_filling(is_connected: bool, timing: &Timing) -> Option<Duration> {
    (!is_connected && timing.has_begun()).then_some(INTERVAL)
}

/// Fills the time since the last frame or the last filling. Call this only while there is no writer.
///
/// Returns a buffer of silence, or sends a GAP event.
pub(super) fn fill(
    context: Context,
    silence: Option<&Silence>,
    events: &EventForwarder,
    timing: &mut Timing,
    latency_ns: u64,
) -> Option<gst::Buffer> {
    // Before the first buffer, and after a flush, there is no segment that the times could belong to.
    if !events.has_segment(context.element) {
        return None;
    }
    let usable = |time: gst::ClockTime| silence.map_or(time, |silence| silence.whole_samples(time.min(MAX_SILENCE)));
    let (start, duration) = timing.take_absence(context.element, latency_ns, usable)?;
    gst::trace!(CAT, obj = context.element, "no writer from {start} on, for {duration}");
    if let Some(silence) = silence {
        return silence.buffer(start, duration);
    }
    let gap = gst::event::Gap::builder(start).duration(duration).build();
    context.element.src_pad().push_event(gap);
    None
}

/// How silence looks in a stream of raw audio.
pub(super) struct Silence {
    rate: u64,
    /// The bytes of one sample of all channels.
    sample: Vec<u8>,
}

impl Silence {
    /// `None` if the caps are not those of raw audio, or of a kind that is not filled with silence. These kinds are planar
    /// audio, unsigned samples of rare sizes, and more than [`MAX_BYTE_RATE`].
    pub(super) fn of(caps: &gst::CapsRef) -> Option<Self> {
        let structure = caps
            .structure(0)
            .filter(|structure| structure.name() == "audio/x-raw")?;
        if structure.get::<&str>("layout") != Ok("interleaved") {
            return None;
        }
        let channel: &[u8] = match structure.get::<&str>("format").ok()? {
            "S8" => &[0],
            "U8" => &[0x80],
            "S16LE" | "S16BE" => &[0; 2],
            "U16LE" => &[0, 0x80],
            "U16BE" => &[0x80, 0],
            "S24LE" | "S24BE" | "S20LE" | "S20BE" | "S18LE" | "S18BE" => &[0; 3],
            "S24_32LE" | "S24_32BE" | "S32LE" | "S32BE" | "F32LE" | "F32BE" => &[0; 4],
            "F64LE" | "F64BE" => &[0; 8],
            _ => return None,
        };
        let number = |field| structure.get::<i32>(field).ok().filter(|number| *number > 0);
        let channels = number("channels").filter(|channels| *channels <= 64)?;
        let rate = u64::try_from(number("rate")?).ok()?;
        let sample = channel.repeat(usize::try_from(channels).ok()?);
        let byte_rate = rate.checked_mul(sample.len() as u64)?;
        (byte_rate <= MAX_BYTE_RATE).then_some(Self { rate, sample })
    }

    fn samples(&self, time: gst::ClockTime) -> u64 {
        // The duration of whole samples is rounded down, so half a nanosecond would be too few.
        time.nseconds()
            .saturating_add(1)
            .saturating_mul(self.rate)
            .saturating_div(gst::ClockTime::SECOND.nseconds())
    }

    /// The duration of the whole samples in this time.
    fn whole_samples(&self, time: gst::ClockTime) -> gst::ClockTime {
        gst::ClockTime::SECOND
            .mul_div_floor(self.samples(time), self.rate)
            .unwrap_or_default()
            .min(time)
    }

    fn buffer(&self, start: gst::ClockTime, duration: gst::ClockTime) -> Option<gst::Buffer> {
        let samples = usize::try_from(self.samples(duration)).ok()?;
        let mut buffer = gst::Buffer::from_mut_slice(self.sample.repeat(samples));
        let silence = buffer.get_mut()?;
        silence.set_pts(start);
        silence.set_duration(duration);
        silence.set_flags(gst::BufferFlags::GAP);
        Some(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silence(caps: &str) -> Option<Silence> {
        gst::init().unwrap();
        Silence::of(&caps.parse::<gst::Caps>().unwrap())
    }

    #[test]
    fn silence_has_whole_samples_of_each_format() {
        for rate in [8000, 11025, 44100, 48000, 192_000] {
            let caps = format!("audio/x-raw,format=U16BE,rate={rate},channels=2,layout=interleaved");
            let silence = silence(&caps).unwrap();
            let mut samples = 0;
            let mut at = gst::ClockTime::ZERO;
            while at < gst::ClockTime::from_seconds(3) {
                let duration = silence.whole_samples(gst::ClockTime::from_nseconds(40_123_456));
                let buffer = silence.buffer(at, duration).unwrap();
                assert_eq!(buffer.size() % 4, 0);
                assert!(
                    buffer
                        .map_readable()
                        .unwrap()
                        .iter()
                        .step_by(2)
                        .all(|byte| *byte == 0x80)
                );
                samples += buffer.size() as u64 / 4;
                at += duration;
            }
            let expected = at.nseconds() * rate / 1_000_000_000;
            assert!(samples.abs_diff(expected) <= 1, "{samples} {expected}");
        }
    }

    #[test]
    fn other_streams_have_no_silence() {
        for caps in [
            "video/x-raw,format=I420,width=2,height=2",
            "audio/x-opus",
            "audio/x-raw,format=S16LE,rate=8000,channels=2,layout=non-interleaved",
            "audio/x-raw,format=S16LE,rate=8000,channels=0,layout=interleaved",
            "audio/x-raw,format=S16LE,rate=8000,channels=2000000000,layout=interleaved",
            "audio/x-raw,format=F64LE,rate=2147483647,channels=64,layout=interleaved",
            "audio/x-raw,format=F64LE,rate=200000,channels=64,layout=interleaved",
        ] {
            assert!(silence(caps).is_none(), "{caps}");
        }
        assert!(silence("audio/x-raw,format=F64LE,rate=192000,channels=64,layout=interleaved").is_some());
    }
}
