// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stream headers in the caps field `streamheader`. A reader that joins a stream gets them before its first frame.

use std::collections::VecDeque;

/// The caps whose `streamheader` is not a part of the stream. Only Ogg files contain these headers.
const OGG_ONLY: [&str; 2] = ["audio/x-opus", "video/x-vp8"];

/// What precedes the first header of FLAC in Ogg. The FLAC stream itself begins after it.
const OGG_FLAC_MARK: &[u8] = b"\x7fFLAC";
const OGG_FLAC_MARK_SIZE: usize = 9;

/// The headers of the current caps.
///
/// A reader that joins late would miss the headers at the beginning of the stream, so it gets those in the caps
/// instead. A reader that joins at the beginning gets the headers of the stream itself, and none of them twice, because
/// many demuxers do not accept headers twice.
#[derive(Default)]
pub(super) struct StreamHeaders {
    /// The headers, one after another.
    bytes: Vec<u8>,
    /// The sizes of the headers.
    sizes: Vec<usize>,
    /// The headers that must still be passed on.
    due: VecDeque<gst::Buffer>,
    /// The frame that follows the headers.
    held: Option<gst::Buffer>,
    /// Whether all frames since the headers have repeated them.
    is_at_start: bool,
    /// Whether the frame that comes next takes the place of a header that was due.
    takes_place: bool,
    /// The newest frames, one after another, as long as all of them are headers.
    passed: Vec<u8>,
}

/// The most bytes of headers that are remembered before their caps come.
const MAX_PASSED_SIZE: usize = 64 * 1024;

impl StreamHeaders {
    /// The headers of a stream with these caps. Some muxers send their headers before they set the caps; these headers
    /// are not due again. `former` are the headers of the former caps.
    pub(super) fn of_caps(caps: &gst::CapsRef, former: &Self) -> Self {
        let mut headers = Self::in_caps(caps);
        if !headers.bytes.is_empty() && former.passed.ends_with(&headers.bytes) {
            headers.due.clear();
        }
        headers
    }

    /// The headers in these caps.
    fn in_caps(caps: &gst::CapsRef) -> Self {
        let mut headers = Self {
            is_at_start: true,
            ..Self::default()
        };
        let Some(structure) = caps.structure(0) else {
            return headers;
        };
        let Ok(array) = structure.get::<gst::Array>("streamheader") else {
            return headers;
        };
        if OGG_ONLY.contains(&structure.name().as_str()) {
            return headers;
        }
        for header in array.iter().filter_map(|value| value.get::<gst::Buffer>().ok()) {
            let Ok(map) = header.map_readable() else {
                continue;
            };
            let is_marked = structure.name() == "audio/x-flac" && map.starts_with(OGG_FLAC_MARK);
            let bytes = &map[if is_marked {
                OGG_FLAC_MARK_SIZE.min(map.len())
            } else {
                0
            }..];
            if bytes.is_empty() {
                continue;
            }
            headers.bytes.extend_from_slice(bytes);
            headers.sizes.push(bytes.len());
            let mut buffer = gst::Buffer::from_slice(bytes.to_vec());
            buffer.make_mut().set_flags(gst::BufferFlags::HEADER);
            headers.due.push_back(buffer);
        }
        headers
    }

    /// Whether `frame` repeats the headers, so that it is skipped.
    pub(super) fn are_repeated_by(&mut self, frame: &gst::BufferRef) -> bool {
        if self.bytes.is_empty() {
            return false;
        }
        let is_header = frame.flags().contains(gst::BufferFlags::HEADER);
        if self.is_at_start && self.is_due(frame) {
            self.due.pop_front();
            self.takes_place = true;
            return false;
        }
        let repeats = bytes_of(frame, self.bytes.len()).is_some_and(|frame| {
            // A muxer may send one header in several buffers. Some muxers do not flag the headers of a new stream.
            is_header && self.bytes.windows(frame.len()).any(|part| part == frame)
                || self.is_at_start && self.each().any(|header| header == frame)
        });
        self.is_at_start &= repeats;
        repeats
    }

    /// Whether `frame` is the header that is due next.
    fn is_due(&self, frame: &gst::BufferRef) -> bool {
        let Some(Ok(due)) = self.due.front().map(|due| due.map_readable()) else {
            return false;
        };
        bytes_of(frame, due.len()).is_some_and(|frame| frame == due.as_slice())
    }

    /// Records a frame that is passed on.
    fn note_passed(&mut self, frame: &gst::BufferRef) {
        let is_header = frame.flags().contains(gst::BufferFlags::HEADER);
        let room = MAX_PASSED_SIZE - self.passed.len();
        match is_header.then(|| bytes_of(frame, room)).flatten() {
            Some(bytes) => self.passed.extend(bytes),
            None => self.passed.clear(),
        }
    }

    /// The headers one by one.
    fn each(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.bytes.as_slice();
        self.sizes.iter().map(move |size| {
            let (header, after) = rest.split_at(*size);
            rest = after;
            header
        })
    }

    /// The buffer to pass on first, if `frame` is the next frame: a header if one is due, otherwise `frame` itself.
    pub(super) fn precede(&mut self, mut frame: gst::Buffer) -> gst::Buffer {
        self.note_passed(&frame);
        if std::mem::take(&mut self.takes_place) {
            return frame;
        }
        let Some(mut first) = self.due.pop_front() else {
            return frame;
        };
        // The headers and the frame belong together, so only the first of these buffers is discontinuous.
        if frame.flags().contains(gst::BufferFlags::DISCONT) {
            frame.make_mut().unset_flags(gst::BufferFlags::DISCONT);
            first.make_mut().set_flags(gst::BufferFlags::DISCONT);
        }
        self.held = Some(frame);
        first
    }

    /// The next buffer that follows a buffer which [`Self::precede`] returned.
    pub(super) fn next(&mut self) -> Option<gst::Buffer> {
        self.held.as_ref()?;
        self.due.pop_front().or_else(|| self.held.take())
    }

    /// Drops the frame that follows the headers, because a newer one takes its place. Returns whether there was a frame.
    pub(super) fn drop_frame(&mut self) -> bool {
        self.held.take().is_some()
    }
}

/// A copy of the bytes of a frame; `None` if the frame is empty or has more than `max_size` bytes.
///
/// The buffer is not mapped, because GStreamer then merges its memories.
fn bytes_of(frame: &gst::BufferRef, max_size: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; Some(frame.size()).filter(|size| (1..=max_size).contains(size))?];
    frame.copy_to_slice(0, &mut bytes).ok()?;
    Some(bytes)
}
