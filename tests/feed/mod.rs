//! A writer that the test gives frame by frame, and its reader; and pictures in any layout whose every byte is known.
#![allow(dead_code)] // each test program uses a part of it

use gst::prelude::*;
use gst_video::{VideoInfo, prelude::*};

use crate::common::{Channel, Pipeline, Seen, Tap, eventually, layout};

pub const LOSSLESS: &str = "lossless=true wait-for-connection=true sync=false";

/// How many frames were published, in place, and copied as foreign and as repeated.
pub fn counts(writer: &Pipeline) -> (u64, u64, u64, u64) {
    let stat = |field| writer.stat("rsshmsink", field);
    assert_eq!(stat("frames-dropped"), 0);
    // A reader may have the last frame before the writer has counted it.
    eventually("all frames are counted", || {
        stat("frames-in-place") + stat("frames-copied") == stat("frames-published")
    });
    assert_eq!(
        stat("frames-copied"),
        stat("copied-foreign") + stat("copied-repeated") + stat("copied-no-slot")
    );
    (
        stat("frames-published"),
        stat("frames-in-place"),
        stat("copied-foreign"),
        stat("copied-repeated"),
    )
}

/// A writer that the test feeds buffer by buffer, and its reader.
pub struct Feed {
    pub writer: Pipeline,
    pub reader: Tap,
    pub caps: gst::Caps,
    pub info: VideoInfo,
    pushed: usize,
    _channel: Channel,
}

impl Feed {
    pub fn new(info: &VideoInfo, downstream: &str) -> Self {
        Self::of(&info.to_caps().unwrap(), downstream)
    }

    pub fn of(caps: &gst::Caps, downstream: &str) -> Self {
        let channel = Channel::new();
        let reader = Tap::playing(&format!("rsshmsrc channel={channel} ! {downstream}"));
        let writer = Pipeline::new(&format!(
            "appsrc name=source format=time ! rsshmsink channel={channel} {LOSSLESS}"
        ));
        writer.element("source").set_property("caps", caps);
        writer.0.set_state(gst::State::Playing).unwrap();
        Self {
            writer,
            reader,
            caps: caps.clone(),
            info: VideoInfo::from_caps(caps).unwrap(),
            pushed: 0,
            _channel: channel,
        }
    }

    /// Sends a buffer and returns what arrives.
    #[track_caller]
    pub fn push(&mut self, buffer: gst::Buffer) -> Seen {
        let result: gst::FlowReturn = self.writer.element("source").emit_by_name("push-buffer", &[&buffer]);
        assert_eq!(result, gst::FlowReturn::Ok);
        drop(buffer);
        self.pushed += 1;
        eventually("the buffer arrives", || self.reader.count() == self.pushed);
        self.reader.last().unwrap()
    }

    /// The pool that the sink offers, with padding all around where it is asked for.
    pub fn pool(&self, alignment: Option<&gst_video::VideoAlignment>) -> gst::BufferPool {
        let mut query = gst::query::Allocation::new(Some(&self.caps), true);
        // As a user of it does: once the element is started.
        let pad = self.writer.by_factory("rsshmsink").static_pad("sink").unwrap();
        eventually("the sink has caps", || pad.current_caps().is_some());
        assert!(pad.query(&mut query));
        assert!(query.find_allocation_meta::<gst_video::VideoMeta>().is_some());
        let (pool, size, min, max) = query.allocation_pools().next().unwrap();
        let pool = pool.clone().unwrap();
        assert_eq!((min, max), (2, 0));
        let mut config = pool.config();
        config.set_params(Some(&self.caps), size, min, max);
        if let Some(alignment) = alignment {
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_META.as_str());
            config.add_option(gst_video::BUFFER_POOL_OPTION_VIDEO_ALIGNMENT.as_str());
            config.set_video_alignment(alignment);
        }
        pool.set_config(config).unwrap();
        pool.set_active(true).unwrap();
        pool
    }

    pub fn counts(&self) -> (u64, u64, u64, u64) {
        counts(&self.writer)
    }
}

/// The byte that belongs at a place; another in each frame, plane, row and column.
fn value(frame: u8, plane: usize, row: usize, column: usize) -> u8 {
    (plane * 83 + row * 7 + column) as u8 ^ frame
}

/// A row's bytes and the rows of each plane of the formats used here.
pub fn plane_size(info: &VideoInfo, plane: usize) -> (usize, usize) {
    let component = plane as u8;
    let columns = info.comp_width(component) as usize * info.comp_pstride(component) as usize;
    let rows = info.format_info().scale_height(component, info.field_height());
    (columns, rows as usize)
}

/// Draws frame number `frame` in any layout.
pub fn draw(bytes: &mut [u8], info: &VideoInfo, offset: &[usize], stride: &[i32], frame: u8) {
    for plane in 0..info.n_planes() as usize {
        let (columns, rows) = plane_size(info, plane);
        for row in 0..rows {
            let start = offset[plane] + row * stride[plane] as usize;
            for (column, byte) in bytes[start..start + columns].iter_mut().enumerate() {
                *byte = value(frame, plane, row, column);
            }
        }
    }
}

#[track_caller]
pub fn check(bytes: &[u8], info: &VideoInfo, offset: &[usize], stride: &[i32], frame: u8) {
    for plane in 0..info.n_planes() as usize {
        let (columns, rows) = plane_size(info, plane);
        for row in 0..rows {
            let start = offset[plane] + row * stride[plane] as usize;
            for (column, byte) in bytes[start..start + columns].iter().enumerate() {
                assert_eq!(
                    *byte,
                    value(frame, plane, row, column),
                    "frame {frame} plane {plane} row {row} column {column}"
                );
            }
        }
    }
}

/// Checks a frame in the layout that it says it has.
#[track_caller]
pub fn check_seen(seen: &Seen, info: &VideoInfo, frame: u8) {
    match &seen.layout {
        Some((offset, stride)) => check(&seen.bytes, info, offset, stride, frame),
        None => check_packed(seen, info, frame),
    }
}

#[track_caller]
pub fn check_packed(seen: &Seen, info: &VideoInfo, frame: u8) {
    assert_eq!((seen.bytes.len(), &seen.layout), (info.size(), &None));
    check(&seen.bytes, info, info.offset(), info.stride(), frame);
}

pub fn packed(info: &VideoInfo, frame: u8) -> Vec<u8> {
    let mut bytes = vec![0xee; info.size()];
    draw(&mut bytes, info, info.offset(), info.stride(), frame);
    bytes
}

/// A buffer of the test's own with rows and planes further apart than they would be, and a gap before the first.
pub fn padded(info: &VideoInfo, frame: u8) -> gst::Buffer {
    let stride: Vec<i32> = info.stride().iter().map(|stride| stride + 52).collect();
    let offset: Vec<usize> = info.offset().iter().map(|offset| offset * 4 + 40 + 128 * 34).collect();
    let mut bytes = vec![0xee; info.size() * 6 + 128 * 34];
    draw(&mut bytes, info, &offset, &stride, frame);
    let mut buffer = gst::Buffer::from_slice(bytes);
    let (flags, target) = (gst_video::VideoFrameFlags::empty(), buffer.get_mut().unwrap());
    let (format, width, height) = (info.format(), info.width(), info.height());
    gst_video::VideoMeta::add_full(target, flags, format, width, height, &offset, &stride).unwrap();
    buffer
}

/// A buffer of `pool` with frame number `frame` in the layout that it has.
pub fn drawn(pool: &gst::BufferPool, info: &VideoInfo, frame: u8) -> gst::Buffer {
    let mut buffer = pool.acquire_buffer(None).unwrap();
    let (offset, stride) = layout(&buffer).unwrap_or((info.offset().to_vec(), info.stride().to_vec()));
    let target = buffer.get_mut().unwrap();
    draw(
        target.map_writable().unwrap().as_mut_slice(),
        info,
        &offset,
        &stride,
        frame,
    );
    buffer
}

/// A feed whose sink has its caps, as it is when upstream asks for a pool.
pub fn begun(info: &VideoInfo, downstream: &str) -> Feed {
    let mut feed = Feed::new(info, downstream);
    check_packed(&feed.push(gst::Buffer::from_slice(packed(info, 0))), info, 0);
    feed
}

pub fn padding() -> gst_video::VideoAlignment {
    gst_video::VideoAlignment::new(8, 6, 16, 4, &[31; 4])
}
