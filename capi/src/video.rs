// SPDX-License-Identifier: MIT OR Apache-2.0

//! Raw video: what its caps say, and where the planes of a frame are. This module stands in for the channel crate's.

use rsshm_channel::FrameDescriptor;

/// A format with its name, and for each plane: bits a pixel, and the shifts of its width and height.
#[derive(Debug)]
struct Shape(&'static str, &'static [(u32, u32, u32)]);

const SHAPES: &[Shape] = &[
    Shape("GRAY8", &[(8, 0, 0)]),
    Shape("RGB", &[(24, 0, 0)]),
    Shape("BGR", &[(24, 0, 0)]),
    Shape("RGBA", &[(32, 0, 0)]),
    Shape("BGRA", &[(32, 0, 0)]),
    Shape("BGRx", &[(32, 0, 0)]),
    Shape("RGBx", &[(32, 0, 0)]),
    Shape("NV12", &[(8, 0, 0), (16, 1, 1)]),
    Shape("I420", &[(8, 0, 0), (8, 1, 1), (8, 1, 1)]),
];

#[derive(Clone, Copy, Debug)]
pub(crate) struct VideoFormat(&'static Shape);

impl VideoFormat {
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        SHAPES.iter().find(|shape| shape.0 == name).map(Self)
    }

    pub(crate) fn name(self) -> &'static str {
        self.0.0
    }
}

#[derive(Clone, Debug)]
pub(crate) struct VideoInfo {
    format: VideoFormat,
    width: u32,
    height: u32,
    framerate: (i32, i32),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Plane {
    pub(crate) offset: u64,
    pub(crate) stride: u32,
    pub(crate) row_bytes: u32,
    pub(crate) rows: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct PlaneLayout {
    planes: Vec<Plane>,
    size: u64,
}

impl PlaneLayout {
    pub(crate) fn planes(&self) -> &[Plane] {
        &self.planes
    }

    pub(crate) fn size(&self) -> u64 {
        self.size
    }
}

impl VideoInfo {
    pub(crate) fn new(format: VideoFormat, width: u32, height: u32, framerate: (i32, i32)) -> Result<Self, String> {
        let limit = 1..=32768;
        if !limit.contains(&width) || !limit.contains(&height) || framerate.1 <= 0 || framerate.0 < 0 {
            return Err(format!("a frame of {width}x{height} is not possible"));
        }
        Ok(Self {
            format,
            width,
            height,
            framerate,
        })
    }

    pub(crate) fn from_caps(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("video/x-raw,").ok_or("not raw video")?;
        let field = |name: &str| {
            let value = rest
                .split(',')
                .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
            value
                .map(|value| value.rsplit(')').next().unwrap_or(value))
                .ok_or("a field is missing")
        };
        let number = |text: &str| text.parse::<u32>().map_err(|_| "not a number");
        let framerate = field("framerate")?.split_once('/').ok_or("no fraction")?;
        Self::new(
            VideoFormat::from_name(field("format")?).ok_or("an unknown format")?,
            number(field("width")?)?,
            number(field("height")?)?,
            (number(framerate.0)? as i32, number(framerate.1)? as i32),
        )
    }

    pub(crate) fn to_caps(&self) -> String {
        format!(
            "video/x-raw,format={},width={},height={},framerate={}/{}",
            self.format.name(),
            self.width,
            self.height,
            self.framerate.0,
            self.framerate.1
        )
    }

    pub(crate) fn format(&self) -> VideoFormat {
        self.format
    }

    pub(crate) fn width(&self) -> u32 {
        self.width
    }

    pub(crate) fn height(&self) -> u32 {
        self.height
    }

    pub(crate) fn framerate(&self) -> (i32, i32) {
        self.framerate
    }

    pub(crate) fn layout(&self) -> Result<PlaneLayout, String> {
        let mut size = 0;
        let round_up = |value: u32, shift: u32| (value + (1 << shift) - 1) >> shift;
        let planes = self.format.0.1.iter().map(|(bits, x, y)| {
            let row_bytes = round_up(self.width, *x) * bits / 8;
            let rows = round_up(self.height, *y);
            // GStreamer rounds the height of the planes of these formats up to an even number.
            let height = if self.format.0.1.len() > 1 {
                (rows + 1) & !1
            } else {
                rows
            };
            let height = if *y > 0 { rows } else { height };
            let stride = row_bytes.next_multiple_of(4);
            let plane = Plane {
                offset: size,
                stride,
                row_bytes,
                rows,
            };
            size += u64::from(stride * height);
            plane
        });
        let planes = planes.collect();
        Ok(PlaneLayout { planes, size })
    }

    pub(crate) fn layout_of(&self, descriptor: &FrameDescriptor) -> Result<PlaneLayout, String> {
        let mut layout = self.layout()?;
        if descriptor.planes == 0 {
            return Ok(layout);
        }
        if descriptor.planes as usize != layout.planes.len() {
            return Err("the number of planes is wrong".to_owned());
        }
        for (index, plane) in layout.planes.iter_mut().enumerate() {
            plane.offset = descriptor.plane_offset[index];
            plane.stride = u32::try_from(descriptor.plane_stride[index]).map_err(|_| "a negative stride")?;
        }
        layout.size = descriptor.size;
        Ok(layout)
    }
}
