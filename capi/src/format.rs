// SPDX-License-Identifier: MIT OR Apache-2.0

//! The caps of a writer's frames, and the layout of each frame.

use rsshm_channel::{Caps, FrameDescriptor, video::PlaneLayout};

use crate::{
    status::{Failure, Status},
    stream::{self, MAX_PLANES, PlanePlace, Stream},
};

/// The alignment of GStreamer's own layout, for which a frame needs no description of its planes.
const DEFAULT_ALIGN: u32 = 4;

/// The caps of a writer's frames, and the layout of each frame.
pub(crate) struct WriterFormat {
    stream: Stream,
    /// The size of each frame; 0 if the sizes differ.
    frame_size: usize,
    places: [PlanePlace; MAX_PLANES],
    plane_count: usize,
    /// The offsets and strides of the planes, if the layout is not GStreamer's own.
    described: Vec<(u64, i32)>,
}

impl WriterFormat {
    /// The format of frames with these caps. If they are raw video, their rows begin at multiples of `align`; 0 means
    /// GStreamer's own layout.
    pub(crate) fn new(caps: &str, frame_size: usize, align: u32) -> Result<Self, Failure> {
        let align = if align == 0 { DEFAULT_ALIGN } else { align };
        let stream = Stream::new(caps);
        let mut format = Self {
            stream,
            frame_size,
            places: Default::default(),
            plane_count: 0,
            described: Vec::new(),
        };
        if let Ok(video) = format.stream.video() {
            let layout = video.layout_aligned(align)?;
            format.set_layout(&layout)?;
            if align != DEFAULT_ALIGN {
                let planes = layout.planes().iter();
                // A stride of a layout has 31 bits.
                format.described = planes.map(|plane| (plane.offset, plane.stride as i32)).collect();
            }
        }
        Ok(format)
    }

    fn set_layout(&mut self, layout: &PlaneLayout) -> Result<(), Failure> {
        let size = layout.size() as usize;
        if self.frame_size == 0 {
            self.frame_size = size;
        }
        if self.frame_size < size {
            return Err(Failure::new(
                Status::Caps,
                format!(
                    "a frame of these caps has {size} bytes, more than the frame size {}",
                    self.frame_size
                ),
            ));
        }
        (self.places, self.plane_count) = stream::places(layout, self.frame_size).unwrap_or_default();
        Ok(())
    }

    pub(crate) fn places(&self) -> &[PlanePlace] {
        &self.places[..self.plane_count]
    }

    /// The size of each frame; 0 if the sizes differ.
    pub(crate) fn frame_size(&self) -> usize {
        self.frame_size
    }

    /// The size of a frame, of which the program says `size`; 0 means the size of each frame.
    pub(crate) fn size_of(&self, size: usize) -> Result<usize, Failure> {
        let wrong = |text: String| Err(Failure::new(Status::Caps, text));
        match (size, self.frame_size) {
            (0, 0) => wrong(
                "the size is 0, but the frames of these caps differ in size; pass the size of this frame".to_owned(),
            ),
            (0, fixed) => Ok(fixed),
            (size, fixed) if fixed != 0 && size != fixed => wrong(format!(
                "the size is {size}, but each frame of these caps has {fixed} bytes"
            )),
            (size, _) => Ok(size),
        }
    }

    /// `descriptor`, with the planes of the frame if readers cannot know them from the caps.
    pub(crate) fn describe(&self, descriptor: FrameDescriptor) -> FrameDescriptor {
        if self.described.is_empty() || descriptor.size < self.frame_size as u64 {
            descriptor
        } else {
            descriptor.with_planes(&self.described)
        }
    }

    /// Whether the planes that the descriptor has are those of the caps, and all inside the frame.
    pub(crate) fn has_planes(&self, descriptor: &FrameDescriptor) -> bool {
        self.stream.planes(descriptor).1 == self.plane_count
    }

    /// The caps of frames that stay in the program's memory.
    pub(crate) fn object_caps(&self) -> Caps {
        Caps::objects(self.stream.caps())
    }

    pub(crate) fn caps(&self) -> Caps {
        match self.frame_size {
            0 => Caps::variable_size(self.stream.caps()),
            size => Caps::fixed_size(self.stream.caps(), size),
        }
    }
}
