// SPDX-License-Identifier: MIT OR Apache-2.0

//! One call of a C function.

use std::ffi::{CStr, c_char};

use super::{
    Handles, check,
    input::{Input, Structure, pointer},
    writer::call_writer,
};
use crate::{
    arguments::Sized32,
    convert::rsshm_frame_convert,
    events::{CEvent, rsshm_reader_get_event, rsshm_reader_send_message},
    formats::{CLayout, rsshm_caps_parts, rsshm_video_formats, rsshm_video_layout},
    frame::{
        CFrameInfo, CMetadata, CRegion, CTimeCode, rsshm_frame_get, rsshm_frame_metadata, rsshm_frame_ref,
        rsshm_frame_region, rsshm_frame_release, rsshm_frame_time_code,
    },
    handles::Handle,
    library::rsshm_channels,
    observer::{CChannelInfo, rsshm_observer_close, rsshm_observer_get, rsshm_observer_newest, rsshm_observer_open},
    reader::{
        CReaderOptions, CReaderStats, rsshm_reader_close, rsshm_reader_fd, rsshm_reader_get_stats, rsshm_reader_next,
        rsshm_reader_next_info, rsshm_reader_observing, rsshm_reader_open, rsshm_reader_request_keyframe,
        rsshm_reader_wake,
    },
    status::Status,
};

pub(super) const FORMATS: [&CStr; 8] = [
    c"GRAY8",
    c"NV12",
    c"I420",
    c"BGR",
    c"v210",
    c"RGB8P",
    c"P010_10LE",
    c"PINK",
];
pub(super) const CAPS: [&CStr; 8] = [
    c"video/x-raw,format=BGR,width=5,height=3,framerate=30/1",
    c"video/x-raw(format:Interlaced),format=NV12,width=6,height=6,interlace-mode=alternate,framerate=0/1",
    c"video/x-h264,stream-format=byte-stream,alignment=au",
    c"application/x-test",
    c"video/x-raw(memory:GLMemory),format=RGBA,width=4,height=4",
    c"video/x-raw,width=[1,5]",
    c"",
    c"a/b,c=\"\xff\"",
];
/// The channels with these indices have names; the others are names that are not valid.
const CHANNELS: usize = 3;

/// The name of a channel, and its index.
pub(super) fn channel(input: &mut Input) -> (Option<Vec<u8>>, usize) {
    match input.below(CHANNELS + 2) {
        index @ 0..CHANNELS => {
            let name = format!("rsshm-fuzz-{}-{index}\0", std::process::id());
            (Some(name.into_bytes()), index)
        }
        index => (input.text(&[c"", c"a/b", c".", c"\xff"]), index),
    }
}

/// Mostly NULL. Then the function has nowhere to store its result.
pub(super) fn out<T>(input: &mut Input, variable: &mut T) -> *mut T {
    if input.byte() % 8 == 1 {
        std::ptr::null_mut()
    } else {
        variable
    }
}

/// A structure of this type with arbitrary fields.
pub(super) fn structure<T: Sized32>(input: &mut Input) -> Box<Structure> {
    Structure::new(input).sized(input, size_of::<T>())
}

/// Reads the first and the last byte.
///
/// # Safety
/// The memory has this size, and nobody writes it.
unsafe fn look_at(data: *const u8, size: usize) {
    if size > 0 {
        // SAFETY: as the caller guarantees.
        std::hint::black_box(unsafe { (data.read(), data.add(size - 1).read()) });
    }
}

/// Looks at all that a frame says it has.
fn look_at_frame(info: &CFrameInfo) {
    // SAFETY: the frame has not ended, so its memory has the sizes that it says.
    unsafe {
        look_at(info.data, info.size);
        look_at(info.metadata, info.metadata_size);
        assert!(CStr::from_ptr(info.caps).count_bytes() <= 65536);
        assert!(CStr::from_ptr(info.format).count_bytes() <= 32);
    }
    for plane in &info.planes[..info.plane_count as usize] {
        for row in [0, plane.rows.saturating_sub(1)] {
            let row = plane.data.wrapping_offset(row as isize * plane.stride as isize);
            // SAFETY: as above.
            unsafe { look_at(row, plane.row_bytes as usize) };
        }
    }
}

/// Calls the function that `input` selects.
pub(super) fn call(input: &mut Input, handles: &mut Handles) {
    match input.below(4) {
        0 => call_reader(input, handles),
        1 => call_writer(input, handles),
        2 => call_frame(input, handles),
        _ => call_other(input, handles),
    }
}

fn call_reader(input: &mut Input, handles: &mut Handles) {
    // SAFETY: the pointers are NULL, or point to variables, to texts that end with NUL, or to as many bytes as the call
    // says.
    unsafe {
        match input.below(12) {
            0 | 1 => {
                let (name, _) = channel(input);
                let mut options = structure::<CReaderOptions>(input);
                let mut reader = Handle::NULL;
                let to = out(input, &mut reader);
                check(rsshm_reader_open(pointer(name.as_deref()), options.at(), to));
                handles.add(reader);
            }
            call @ 2..=4 => {
                let mut frame = Handle::NULL;
                let to = out(input, &mut frame);
                let (reader, wait) = (handles.any(input), input.wait_ns());
                let status = if call == 4 {
                    let mut info = structure::<CFrameInfo>(input);
                    check(rsshm_reader_next_info(reader, wait, to, info.at()))
                } else {
                    check(rsshm_reader_next(reader, wait, to))
                };
                assert_eq!(status == 0, frame.bits() != 0);
                if status == Status::Event as i32 {
                    let mut event = structure::<CEvent>(input);
                    check(rsshm_reader_get_event(reader, event.at()));
                }
                handles.add(frame);
            }
            5 => drop(check(rsshm_reader_wake(handles.any(input)))),
            6 => drop(rsshm_reader_fd(handles.any(input))),
            7 => drop(check(rsshm_reader_request_keyframe(handles.any(input), input.number()))),
            8 => {
                let mut stats = structure::<CReaderStats>(input);
                check(rsshm_reader_get_stats(handles.any(input), stats.at()));
            }
            9 => {
                let text = rsshm_reader_observing(handles.any(input));
                if !text.is_null() {
                    assert!(CStr::from_ptr(text).count_bytes() < 100);
                }
            }
            10 => {
                let message = vec![7; input.number() as usize % 600];
                let (data, size) = match input.byte() % 8 {
                    0 => (std::ptr::null(), message.len()),
                    _ => (message.as_ptr(), message.len()),
                };
                check(rsshm_reader_send_message(handles.any(input), data, size));
            }
            _ => drop(check(rsshm_reader_close(handles.any(input)))),
        }
    }
}

fn call_frame(input: &mut Input, handles: &mut Handles) {
    // SAFETY: as in `call_reader`.
    unsafe {
        match input.below(10) {
            0..=2 => {
                let mut info = structure::<CFrameInfo>(input);
                let frame = handles.any(input);
                if check(rsshm_frame_get(frame, info.at())) == 0 {
                    handles.frames_seen += 1;
                    look_at_frame(&*info.at::<CFrameInfo>());
                }
            }
            3 => convert(input, handles),
            4 => {
                let mut metadata = structure::<CMetadata>(input);
                check(rsshm_frame_metadata(
                    handles.any(input),
                    input.number() as u32,
                    metadata.at(),
                ));
            }
            5 => {
                let mut region = structure::<CRegion>(input);
                check(rsshm_frame_region(
                    handles.any(input),
                    input.number() as u32,
                    region.at(),
                ));
            }
            6 => {
                let mut code = structure::<CTimeCode>(input);
                check(rsshm_frame_time_code(
                    handles.any(input),
                    input.number() as u32,
                    code.at(),
                ));
            }
            7 => drop(rsshm_frame_ref(handles.any(input))),
            _ => drop(check(rsshm_frame_release(handles.any(input)))),
        }
    }
}

/// Converts a frame to a picture in memory that is exactly as large as the picture.
fn convert(input: &mut Input, handles: &mut Handles) {
    let frame = handles.any(input);
    let mut info = Structure::new(input);
    info.set_u64(0, size_of::<CFrameInfo>() as u64);
    // SAFETY: as in `call_reader`.
    unsafe {
        let (width, rows) = match rsshm_frame_get(frame, info.at()) {
            0 => {
                let info = &*info.at::<CFrameInfo>();
                (info.width as usize, info.planes[0].rows as usize)
            }
            _ => (0, 0),
        };
        let order = input.text(&[c"BGR", c"RGB", c"RGB", c"NV12"]);
        let stride = match input.byte() % 8 {
            0 => 0,
            1 => -(input.byte() as i64),
            2 => i64::MAX,
            _ => 3 * width as i64 + i64::from(input.byte()),
        };
        let size = usize::try_from(stride).unwrap_or(0).clamp(3 * width, 1 << 12) * rows;
        let mut picture = vec![0; size];
        let to = if input.byte() % 16 == 0 {
            std::ptr::null_mut()
        } else {
            picture.as_mut_ptr()
        };
        check(rsshm_frame_convert(frame, pointer(order.as_deref()), to, stride));
    }
}

fn call_other(input: &mut Input, handles: &mut Handles) {
    let mut memory = vec![0; 1 << 13];
    let mut needed = 0;
    // SAFETY: as in `call_reader`.
    unsafe {
        match input.below(8) {
            0 => {
                let (name, _) = channel(input);
                let mut observer = Handle::NULL;
                let to = out(input, &mut observer);
                check(rsshm_observer_open(pointer(name.as_deref()), to));
                handles.add(observer);
            }
            1 => {
                let mut info = structure::<CChannelInfo>(input);
                check(rsshm_observer_get(handles.any(input), info.at()));
            }
            2 => {
                let mut frame = Handle::NULL;
                let to = out(input, &mut frame);
                check(rsshm_observer_newest(handles.any(input), to));
                handles.add(frame);
            }
            3 => drop(check(rsshm_observer_close(handles.any(input)))),
            4 => {
                let format = input.text(&FORMATS);
                let mut layout = structure::<CLayout>(input);
                let (width, height, align) = (input.pixels(), input.pixels(), input.number() as u32);
                check(rsshm_video_layout(
                    pointer(format.as_deref()),
                    width,
                    height,
                    align,
                    layout.at(),
                ));
            }
            choice => {
                let size = input.number() as usize % memory.len();
                let needed = out(input, &mut needed);
                let to: *mut c_char = if input.byte() % 8 == 0 {
                    std::ptr::null_mut()
                } else {
                    memory.as_mut_ptr()
                };
                let status = match choice {
                    5 => rsshm_channels(to, size, needed),
                    6 => rsshm_video_formats(to, size, needed),
                    _ => {
                        let caps = input.text(&CAPS);
                        rsshm_caps_parts(pointer(caps.as_deref()), to, size, needed)
                    }
                };
                check(status);
            }
        }
    }
}
