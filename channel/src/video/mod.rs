// SPDX-License-Identifier: MIT OR Apache-2.0

//! Raw video: what caps say about the pixels, where they are in a frame, and how people can look at them.
//!
//! The formats and their layouts are those of GStreamer's `video/x-raw`, but this module does not need GStreamer.
//! Formats whose bytes are not rows of pixels, such as tiled formats, are refused; [`VideoFormat::LEFT_OUT`] has them.
//!
//! # Examples
//!
//! The planes of a frame, and a preview of it:
//! ```
//! use rsshm_channel::{
//!     FrameDescriptor,
//!     video::{RgbOrder, VideoInfo, convert},
//! };
//!
//! # fn main() -> Result<(), rsshm_channel::video::VideoError> {
//! // A reader has these three from the channel.
//! let caps = "video/x-raw, format=NV12, width=4, height=2, framerate=30/1";
//! let bytes = [235, 235, 16, 16, 235, 235, 16, 16, 128, 128, 128, 128];
//! let descriptor = FrameDescriptor::new(12);
//!
//! let info = VideoInfo::from_caps(caps)?;
//! let layout = info.layout_of(&descriptor)?;
//! let luma = layout.planes()[0];
//! assert_eq!((luma.offset, luma.stride, luma.rows), (0, 4, 2));
//!
//! let mut picture = [0; 4 * 2 * 3];
//! convert(&info, &layout, &bytes, RgbOrder::Rgb, &mut picture, 4 * 3)?;
//! assert_eq!(picture[..12], [255, 255, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0]);
//! # Ok(())
//! # }
//! ```

mod colour;
mod convert;
mod error;
mod fields;
mod format;
mod grouped;
mod info;
mod layout;
mod patterns;
mod shape;

pub use convert::{RgbOrder, convert};
pub use error::VideoError;
pub use fields::CapsParts;
pub use format::VideoFormat;
pub use info::{InterlaceMode, VideoInfo};
pub use layout::{Plane, PlaneLayout};
