// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas of the audio library that the bindings do not have, or that not all versions of GStreamer have.

use std::{ffi::c_void, sync::LazyLock};

use gst::{
    MetaRef,
    ffi::{GstBuffer, GstMeta},
};
use gst_audio::ffi::{GstAudioClippingMeta, GstAudioDownmixMeta, GstAudioLevelMeta};

use super::{fields, values};
use crate::library;

/// The content of a GstAudioClippingMeta.
pub(in crate::metas) struct Clipping {
    /// The GstFormat of `start` and `end`.
    pub(in crate::metas) format: u32,
    pub(in crate::metas) start: u64,
    pub(in crate::metas) end: u64,
}

pub(in crate::metas) fn clipping(meta: &MetaRef<gst::Meta>) -> Option<Clipping> {
    // SAFETY: metas of this name have this structure.
    unsafe { fields::<GstAudioClippingMeta>(meta) }.map(|meta| Clipping {
        format: meta.format.cast_unsigned(),
        start: meta.start,
        end: meta.end,
    })
}

pub(in crate::metas) fn add_clipping(buffer: &mut gst::BufferRef, clipping: &Clipping) -> Option<()> {
    let (format, start, end) = (clipping.format.cast_signed(), clipping.start, clipping.end);
    // SAFETY: the buffer is writable.
    let meta = unsafe { gst_audio::ffi::gst_buffer_add_audio_clipping_meta(buffer.as_mut_ptr(), format, start, end) };
    (!meta.is_null()).then_some(())
}

/// The content of a GstAudioLevelMeta.
pub(in crate::metas) struct Level {
    /// The level, in -dB.
    pub(in crate::metas) level: u8,
    pub(in crate::metas) has_voice: bool,
}

pub(in crate::metas) fn level(meta: &MetaRef<gst::Meta>) -> Option<Level> {
    // SAFETY: metas of this name have this structure.
    unsafe { fields::<GstAudioLevelMeta>(meta) }.map(|meta| Level {
        level: meta.level,
        has_voice: meta.voice_activity != 0,
    })
}

/// Adds a GstAudioLevelMeta; `None` if this GStreamer does not have it (before 1.20).
pub(in crate::metas) fn add_level(buffer: &mut gst::BufferRef, level: &Level) -> Option<()> {
    type Add = unsafe extern "C" fn(*mut GstBuffer, u8, i32) -> *mut c_void;
    static ADD: LazyLock<Option<Add>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::AUDIO, c"gst_buffer_add_audio_level_meta") });
    // SAFETY: the buffer is writable, and the caller has checked the level.
    let meta = unsafe { (*ADD)?(buffer.as_mut_ptr(), level.level, level.has_voice.into()) };
    (!meta.is_null()).then_some(())
}

/// The content of a GstAudioDownmixMeta.
pub(in crate::metas) struct Downmix {
    /// The positions of the channels before the downmix.
    pub(in crate::metas) from: Vec<i32>,
    /// The positions of the channels after the downmix.
    pub(in crate::metas) to: Vec<i32>,
    /// A row for each channel of `to`, with a coefficient for each channel of `from`.
    pub(in crate::metas) matrix: Vec<f32>,
}

pub(in crate::metas) fn downmix(meta: &MetaRef<gst::Meta>) -> Option<Downmix> {
    // SAFETY: metas of this name have this structure.
    let meta = unsafe { fields::<GstAudioDownmixMeta>(meta) }?;
    let (from, to) = (
        usize::try_from(meta.from_channels).ok()?,
        usize::try_from(meta.to_channels).ok()?,
    );
    // SAFETY: the meta owns this many pointers, and outlives the slice.
    let rows = unsafe { values(meta.matrix, to) }?;
    let mut matrix = Vec::new();
    for row in rows {
        // SAFETY: each row has a coefficient for each channel of `from`, and lives as long as the meta.
        matrix.extend(unsafe { values(*row, from) }?);
    }
    Some(Downmix {
        // SAFETY: the meta owns this many positions, and outlives the slice.
        from: unsafe { values(meta.from_position, from) }?.to_vec(),
        // SAFETY: as above.
        to: unsafe { values(meta.to_position, to) }?.to_vec(),
        matrix,
    })
}

/// Adds a GstAudioDownmixMeta. The matrix must have a coefficient for each pair of channels.
pub(in crate::metas) fn add_downmix(buffer: &mut gst::BufferRef, downmix: &Downmix) -> Option<()> {
    let (from, to) = (downmix.from.len(), downmix.to.len());
    let is_complete = from > 0 && to > 0 && from.checked_mul(to) == Some(downmix.matrix.len());
    let (from_channels, to_channels) = (i32::try_from(from).ok()?, i32::try_from(to).ok()?);
    if !is_complete {
        return None;
    }
    let mut rows: Vec<*const f32> = downmix.matrix.chunks_exact(from).map(<[f32]>::as_ptr).collect();
    // SAFETY: the buffer is writable, and the arrays have as many values as the numbers of channels say. The meta
    // copies them.
    let meta = unsafe {
        gst_audio::ffi::gst_buffer_add_audio_downmix_meta(
            buffer.as_mut_ptr(),
            downmix.from.as_ptr(),
            from_channels,
            downmix.to.as_ptr(),
            to_channels,
            rows.as_mut_ptr(),
        )
    };
    (!meta.is_null()).then_some(())
}

/// The content of a GstDsdPlaneOffsetMeta.
pub(in crate::metas) struct DsdLayout<'a> {
    /// The bytes of each channel.
    pub(in crate::metas) plane_size: usize,
    /// The offsets of the channels.
    pub(in crate::metas) offsets: &'a [usize],
}

/// The public part of the structure that GStreamer has from version 1.24 on.
#[repr(C)]
struct GstDsdPlaneOffsetMeta {
    meta: GstMeta,
    num_channels: i32,
    num_bytes_per_channel: usize,
    offsets: *const usize,
}

pub(in crate::metas) fn dsd_layout<'a>(meta: &'a MetaRef<gst::Meta>) -> Option<DsdLayout<'a>> {
    // SAFETY: metas of this name begin with this structure.
    let meta = unsafe { fields::<GstDsdPlaneOffsetMeta>(meta) }?;
    Some(DsdLayout {
        plane_size: meta.num_bytes_per_channel,
        // SAFETY: the meta owns an offset for each channel, and outlives the slice.
        offsets: unsafe { values(meta.offsets, usize::try_from(meta.num_channels).ok()?) }?,
    })
}

/// Adds a GstDsdPlaneOffsetMeta; `None` if this GStreamer does not have it (before 1.24).
pub(in crate::metas) fn add_dsd_layout(buffer: &mut gst::BufferRef, layout: &DsdLayout) -> Option<()> {
    type Add = unsafe extern "C" fn(*mut GstBuffer, i32, usize, *const usize) -> *mut c_void;
    static ADD: LazyLock<Option<Add>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::AUDIO, c"gst_buffer_add_dsd_plane_offset_meta") });
    let channels = i32::try_from(layout.offsets.len()).ok()?;
    // SAFETY: the buffer is writable, and there is an offset for each channel. The meta copies the offsets.
    let meta = unsafe {
        (*ADD)?(
            buffer.as_mut_ptr(),
            channels,
            layout.plane_size,
            layout.offsets.as_ptr(),
        )
    };
    (!meta.is_null()).then_some(())
}
