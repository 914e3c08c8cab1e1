// SPDX-License-Identifier: MIT OR Apache-2.0

//! One call of a function of writers or slots.

use super::{
    Handles,
    call::{CAPS, FORMATS, channel, out, structure},
    check,
    input::{Input, STRUCTURE_SIZE, Structure, pointer},
};
use crate::{
    events::{CEvent, rsshm_writer_event, rsshm_writer_next_message},
    frame::CPlane,
    handles::Handle,
    publish_info::CPublishInfo,
    slot::{CSlotInfo, rsshm_slot_publish, rsshm_slot_release},
    writer::{
        CWriterOptions, CWriterStats, rsshm_writer_caps, rsshm_writer_claim, rsshm_writer_close,
        rsshm_writer_end_of_stream, rsshm_writer_get_stats, rsshm_writer_keyframe_wanted, rsshm_writer_open,
        rsshm_writer_readers, rsshm_writer_set_latency, rsshm_writer_video, rsshm_writer_wait_for_reader,
        rsshm_writer_wake, rsshm_writer_write, rsshm_writer_write_bytes,
    },
};

/// The memory for the rows of a plane. In both directions, it has room for 64 rows of any stride below.
const ROWS_SIZE: usize = 1 << 20;
const MAX_STRIDE: i64 = 4096;

/// What a program says about a frame. `memory` outlives the structure.
fn publish_info(input: &mut Input, memory: &mut [u8; STRUCTURE_SIZE]) -> Box<Structure> {
    let mut info = structure::<CPublishInfo>(input);
    let pointers = input.byte();
    let memory = memory.as_mut_ptr();
    info.set_u64(40, if pointers % 8 == 0 { input.size() as u64 } else { 0 });
    info.set_pointer(48, if pointers & 16 == 0 { std::ptr::null() } else { memory });
    info.set_u64(56, if pointers & 32 == 0 { 0 } else { input.number() });
    // The metadata has at most 3840 bytes, so this variable is behind it.
    info.set_pointer(
        72,
        if pointers & 64 == 0 {
            std::ptr::null()
        } else {
            memory.wrapping_add(4000)
        },
    );
    if pointers % 4 != 0 {
        info.set_u64(80, 0);
    }
    info
}

/// Writes the ends of each row of a slot that was claimed just now.
fn draw(info: &CSlotInfo) {
    let write = |data: *mut u8, size: usize| {
        if size > 0 {
            // SAFETY: the slot has not ended, so its memory has the sizes that it says. Nobody else uses it.
            unsafe {
                data.write(1);
                data.add(size - 1).write(2);
            }
        }
    };
    write(info.data, info.size);
    for plane in &info.planes[..info.plane_count as usize] {
        for row in 0..plane.rows {
            let row = plane.data.wrapping_offset(row as isize * plane.stride as isize);
            write(row.cast_mut(), plane.row_bytes as usize);
        }
    }
}

/// Calls a function of writers or slots.
pub(super) fn call_writer(input: &mut Input, handles: &mut Handles) {
    let mut memory = Box::new([0; STRUCTURE_SIZE]);
    // SAFETY: the pointers are NULL, or point to variables, to texts that end with NUL, or to as many bytes as the call
    // says.
    unsafe {
        match input.below(20) {
            0 | 1 => {
                let (name, index) = channel(input);
                if handles.has_writer(index) {
                    return;
                }
                let mut options = structure::<CWriterOptions>(input);
                // A lossless writer waits for a bounded time only if the library reads the field.
                options.set_u64(24, input.wait_ns() as u64 + 1);
                if options.stated_size() < size_of::<CWriterOptions>() {
                    options.set_u64(0, options.stated_size() as u64);
                }
                if input.byte() % 4 != 0 {
                    options.set_u64(8, 0);
                    options.set_u64(16, 64);
                }
                let mut writer = Handle::NULL;
                let to = out(input, &mut writer);
                check(rsshm_writer_open(pointer(name.as_deref()), options.at(), to));
                handles.add_writer(writer, index);
            }
            2 | 3 => {
                let format = input.text(&FORMATS);
                let (width, height) = (input.pixels(), input.pixels());
                let writer = handles.any(input);
                let (fps_n, fps_d) = (input.pixels(), input.pixels());
                check(rsshm_writer_video(
                    writer,
                    pointer(format.as_deref()),
                    width,
                    height,
                    fps_n,
                    fps_d,
                ));
            }
            4 => {
                let caps = input.text(&CAPS);
                check(rsshm_writer_caps(
                    handles.any(input),
                    pointer(caps.as_deref()),
                    input.size(),
                ));
            }
            5 | 6 => {
                let mut slot = Handle::NULL;
                let to = out(input, &mut slot);
                let mut info = structure::<CSlotInfo>(input);
                let size = if input.byte() % 4 == 0 { input.size() } else { 0 };
                let status = check(rsshm_writer_claim(handles.any(input), size, to, info.at()));
                assert_eq!(status == 0, slot.bits() != 0);
                if status == 0 {
                    draw(&*info.at::<CSlotInfo>());
                }
                handles.add(slot);
            }
            7 | 8 => {
                let mut info = publish_info(input, &mut memory);
                check(rsshm_slot_publish(handles.any(input), info.at()));
            }
            9 => drop(check(rsshm_slot_release(handles.any(input)))),
            10 => {
                let rows = vec![1_u8; ROWS_SIZE];
                let planes: Vec<CPlane> = (0..input.below(6)).map(|_| plane(input, &rows)).collect();
                let count = planes.len() as u32;
                let data = if count == 0 { std::ptr::null() } else { planes.as_ptr() };
                let mut info = publish_info(input, &mut memory);
                check(rsshm_writer_write(handles.any(input), data, count, info.at()));
            }
            11 => {
                let bytes = vec![1; input.number() as usize % (1 << 16)];
                let data = if input.byte() % 8 == 0 {
                    std::ptr::null()
                } else {
                    bytes.as_ptr()
                };
                let mut info = publish_info(input, &mut memory);
                check(rsshm_writer_write_bytes(
                    handles.any(input),
                    data,
                    bytes.len(),
                    info.at(),
                ));
            }
            12 => drop(check(rsshm_writer_end_of_stream(handles.any(input)))),
            13 => drop(check(rsshm_writer_readers(handles.any(input)))),
            14 => drop(check(rsshm_writer_wait_for_reader(handles.any(input), input.wait_ns()))),
            15 => drop(check(rsshm_writer_keyframe_wanted(handles.any(input)))),
            16 => {
                let mut stats = structure::<CWriterStats>(input);
                check(rsshm_writer_get_stats(handles.any(input), stats.at()));
                check(rsshm_writer_set_latency(handles.any(input), input.number()));
            }
            17 => {
                let mut event = structure::<CEvent>(input);
                let pointers = input.byte();
                let (memory, null) = (memory.as_ptr(), std::ptr::null());
                event.set_pointer(24, if pointers & 1 == 0 { null } else { memory });
                event.set_u64(
                    32,
                    if pointers & 2 == 0 {
                        0
                    } else {
                        input.number() % STRUCTURE_SIZE as u64
                    },
                );
                event.set_pointer(40, if pointers & 4 == 0 { null } else { memory });
                let sticky = i32::from(input.byte() % 16) - 3;
                check(rsshm_writer_event(handles.any(input), event.at(), sticky));
            }
            18 => {
                let mut needed = 0;
                let to = out(input, &mut needed);
                let size = input.number() as usize % STRUCTURE_SIZE;
                let data = if input.byte() % 8 == 0 {
                    std::ptr::null_mut()
                } else {
                    memory.as_mut_ptr()
                };
                check(rsshm_writer_next_message(handles.any(input), data, size, to));
                check(rsshm_writer_wake(handles.any(input)));
            }
            _ => drop(check(rsshm_writer_close(handles.any(input)))),
        }
    }
}

/// A plane of any stride whose rows are inside `rows`.
fn plane(input: &mut Input, rows: &[u8]) -> CPlane {
    let stride = (input.number() as i64 % (2 * MAX_STRIDE)) - MAX_STRIDE;
    let sizes = input.byte();
    CPlane {
        data: if sizes == 0 {
            std::ptr::null()
        } else {
            rows[ROWS_SIZE / 2..].as_ptr()
        },
        stride,
        row_bytes: if sizes % 4 == 0 { input.number() as u32 } else { 0 },
        rows: if sizes % 8 == 0 { input.number() as u32 } else { 0 },
    }
}
