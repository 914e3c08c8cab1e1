// SPDX-License-Identifier: MIT OR Apache-2.0

//! The stream headers in the caps field `streamheader`. A reader that joins a stream gets them before its first frame.

use std::collections::VecDeque;

/// The caps whose `streamheader` is not a part of the stream. Only Ogg files contain these headers.
const OGG_ONLY: [&str; 2] = ["audio/x-opus", "video/x-vp8"];

/// What precedes the first header of FLAC in Ogg. The FLAC stream itself begins after it.
const OGG_FLAC_MARK: &[u8] = b"\x7fFLAC";
const OGG_FLAC_MARK_SIZE: usize = 9;

/// The most bytes of headers that are remembered before their caps come.
const MAX_PASSED_SIZE: usize = 64 * 1024;

/// The headers of the current caps.
///
/// A reader that joins late would miss the headers at the beginning of the stream, so it gets those in the caps
/// instead. A reader that joins at the beginning gets the headers of the stream itself. It gets none of them twice,
/// because many demuxers do not accept this. Frames after the beginning pass unchanged, also if they repeat headers.
#[derive(Default)]
pub(super) struct StreamHeaders {
    /// The headers that must still be passed on.
    due: VecDeque<gst::Buffer>,
    /// How many bytes of the first header that is due the stream itself has already passed on.
    passed_of_first: usize,
    /// Whether the next frame takes the place of headers that were due.
    takes_place: bool,
    /// The frame that follows the headers.
    held: Option<gst::Buffer>,
    /// The newest frames, one after another, as long as all of them are headers.
    passed: Vec<u8>,
}

impl StreamHeaders {
    /// The headers of a stream with these caps. Some muxers send their headers before they set the caps; these headers
    /// are not due again. `former` are the headers of the former caps.
    pub(super) fn of_caps(caps: &gst::CapsRef, former: &Self) -> Self {
        let mut headers = Self {
            due: in_caps(caps),
            ..Self::default()
        };
        let bytes = headers.due_bytes();
        if !bytes.is_empty() && former.passed.ends_with(&bytes) {
            headers.due.clear();
        }
        headers
    }

    /// The bytes of all headers that are due, apart from those that the stream itself has passed on.
    fn due_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for header in &self.due {
            bytes.extend(header.map_readable().map(|map| map.to_vec()).unwrap_or_default());
        }
        bytes.split_off(self.passed_of_first.min(bytes.len()))
    }

    /// Looks whether `frame`, which comes next, begins with headers that are due. They are not passed on then.
    ///
    /// The stream may divide its headers in another way than the caps, and a frame may contain more than headers.
    pub(super) fn note_next(&mut self, frame: &gst::BufferRef) {
        if self.due.is_empty() {
            return;
        }
        let due = self.due_bytes();
        let Some(beginning) = bytes_of(frame, frame.size().min(due.len())) else {
            return;
        };
        let is_whole_header = self.passed_of_first == 0 && self.due[0].size() == frame.size();
        let is_header = frame.flags().contains(gst::BufferFlags::HEADER) || is_whole_header;
        if !is_header || !due.starts_with(&beginning) {
            // The stream does not begin with the headers. A header that it has passed on in part cannot be repaired.
            if self.passed_of_first > 0 {
                self.due.pop_front();
            }
            self.passed_of_first = 0;
            return;
        }
        self.takes_place = true;
        self.passed_of_first += beginning.len();
        while let Some(first) = self.due.front()
            && first.size() <= self.passed_of_first
        {
            self.passed_of_first -= first.size();
            self.due.pop_front();
        }
    }

    /// Records a frame that is passed on.
    fn note_passed(&mut self, frame: &gst::BufferRef) {
        let is_header = frame.flags().contains(gst::BufferFlags::HEADER);
        let has_room = frame.size() <= MAX_PASSED_SIZE - self.passed.len();
        match (is_header && has_room).then(|| bytes_of(frame, frame.size())).flatten() {
            Some(bytes) => self.passed.extend(bytes),
            None => self.passed.clear(),
        }
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

    /// Drops the frame that follows the headers, because a newer one takes its place. Returns whether there was one.
    pub(super) fn drop_frame(&mut self) -> bool {
        self.held.take().is_some()
    }
}

/// The headers in these caps.
fn in_caps(caps: &gst::CapsRef) -> VecDeque<gst::Buffer> {
    let mut headers = VecDeque::new();
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
        let mut buffer = gst::Buffer::from_slice(bytes.to_vec());
        buffer.make_mut().set_flags(gst::BufferFlags::HEADER);
        headers.push_back(buffer);
    }
    headers
}

/// A copy of the first `size` bytes of a frame; `None` if there are none.
///
/// The buffer is not mapped, because GStreamer then merges its memories.
fn bytes_of(frame: &gst::BufferRef, size: usize) -> Option<Vec<u8>> {
    let mut bytes = vec![0; Some(size).filter(|size| *size > 0)?];
    frame.copy_to_slice(0, &mut bytes).ok()?;
    Some(bytes)
}
