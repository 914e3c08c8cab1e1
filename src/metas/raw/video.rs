// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas of the video library that the bindings do not have, or that not all versions of GStreamer have.

use std::{ffi::c_void, ptr, sync::LazyLock};

use gst::{MetaRef, ffi::GstBuffer};
use gst_video::ffi::{GstAncillaryMeta, GstVideoAffineTransformationMeta, GstVideoSEIUserDataUnregisteredMeta};

use super::{fields, values};
use crate::library;

/// The 4x4 matrix of a GstVideoAffineTransformationMeta.
pub(in crate::metas) fn affine_matrix<'a>(meta: &'a MetaRef<gst::Meta>) -> Option<&'a [f32; 16]> {
    // SAFETY: metas of this name have this structure.
    unsafe { fields::<GstVideoAffineTransformationMeta>(meta) }.map(|meta| &meta.matrix)
}

pub(in crate::metas) fn add_affine_transformation(buffer: &mut gst::BufferRef, matrix: [f32; 16]) -> Option<()> {
    // SAFETY: the buffer is writable.
    let meta = unsafe { gst_video::ffi::gst_buffer_add_video_affine_transformation_meta(buffer.as_mut_ptr()) };
    // SAFETY: a meta that was just added belongs to this function until it returns.
    unsafe { meta.as_mut() }?.matrix = matrix;
    Some(())
}

/// The content of a GstVideoSEIUserDataUnregisteredMeta.
pub(in crate::metas) struct SeiUserData<'a> {
    pub(in crate::metas) uuid: [u8; 16],
    pub(in crate::metas) data: &'a [u8],
}

pub(in crate::metas) fn sei_user_data<'a>(meta: &'a MetaRef<gst::Meta>) -> Option<SeiUserData<'a>> {
    // SAFETY: metas of this name have this structure.
    let meta = unsafe { fields::<GstVideoSEIUserDataUnregisteredMeta>(meta) }?;
    Some(SeiUserData {
        uuid: meta.uuid,
        // SAFETY: the meta owns this many bytes, and outlives the slice.
        data: unsafe { values(meta.data, meta.size) }?,
    })
}

/// Adds a GstVideoSEIUserDataUnregisteredMeta; `None` if this GStreamer does not have it (before 1.22).
pub(in crate::metas) fn add_sei_user_data(buffer: &mut gst::BufferRef, content: &SeiUserData) -> Option<()> {
    type Add = unsafe extern "C" fn(*mut GstBuffer, *const u8, *const u8, usize) -> *mut c_void;
    static ADD: LazyLock<Option<Add>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe {
            library::function(library::VIDEO, c"gst_buffer_add_video_sei_user_data_unregistered_meta")
        });
    let (uuid, data) = (content.uuid.as_ptr(), content.data);
    // SAFETY: the buffer is writable, and the meta copies the bytes.
    let meta = unsafe { (*ADD)?(buffer.as_mut_ptr(), uuid, data.as_ptr(), data.len()) };
    (!meta.is_null()).then_some(())
}

/// A SMPTE 291 packet, the content of a GstAncillaryMeta.
pub(in crate::metas) struct Packet<'a> {
    pub(in crate::metas) field: u32,
    pub(in crate::metas) is_chrominance: bool,
    pub(in crate::metas) line: u16,
    pub(in crate::metas) offset: u16,
    pub(in crate::metas) did: u16,
    pub(in crate::metas) sdid: u16,
    /// The low eight bits are the number of words.
    pub(in crate::metas) count: u16,
    pub(in crate::metas) checksum: u16,
    pub(in crate::metas) words: &'a [u16],
}

pub(in crate::metas) fn packet<'a>(meta: &'a MetaRef<gst::Meta>) -> Option<Packet<'a>> {
    // SAFETY: metas of this name have this structure.
    let meta = unsafe { fields::<GstAncillaryMeta>(meta) }?;
    Some(Packet {
        field: meta.field.cast_unsigned(),
        is_chrominance: meta.c_not_y_channel != 0,
        line: meta.line,
        offset: meta.offset,
        did: meta.DID,
        sdid: meta.SDID_block_number,
        count: meta.data_count,
        checksum: meta.checksum,
        // SAFETY: the meta owns this many words, and outlives the slice.
        words: unsafe { values(meta.data, usize::from(meta.data_count & 0xff)) }?,
    })
}

/// Adds a GstAncillaryMeta; `None` if this GStreamer does not have it (before 1.24).
pub(in crate::metas) fn add_packet(buffer: &mut gst::BufferRef, packet: &Packet) -> Option<()> {
    type Add = unsafe extern "C" fn(*mut GstBuffer) -> *mut GstAncillaryMeta;
    static ADD: LazyLock<Option<Add>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::VIDEO, c"gst_buffer_add_ancillary_meta") });
    // SAFETY: the buffer is writable.
    let meta = unsafe { (*ADD)?(buffer.as_mut_ptr()) };
    // SAFETY: a meta that was just added belongs to this function until it returns.
    let meta = unsafe { meta.as_mut() }?;
    meta.field = packet.field.cast_signed();
    meta.c_not_y_channel = packet.is_chrominance.into();
    meta.line = packet.line;
    meta.offset = packet.offset;
    meta.DID = packet.did;
    meta.SDID_block_number = packet.sdid;
    meta.data_count = packet.count;
    meta.checksum = packet.checksum;
    // SAFETY: the meta owns the words and frees them with g_free. The new memory has room for all of them.
    unsafe {
        meta.data = gst::glib::ffi::g_malloc(size_of_val(packet.words)).cast();
        if !meta.data.is_null() {
            ptr::copy_nonoverlapping(packet.words.as_ptr(), meta.data, packet.words.len());
        }
    }
    Some(())
}

/// The content of a GstVideoHDRMeta.
pub(in crate::metas) struct HdrData<'a> {
    pub(in crate::metas) format: u32,
    pub(in crate::metas) data: &'a [u8],
}

/// The structure that GStreamer has from version 1.30 on.
#[repr(C)]
struct GstVideoHDRMeta {
    meta: gst::ffi::GstMeta,
    format: u32,
    data: *const u8,
    size: usize,
}

pub(in crate::metas) fn hdr<'a>(meta: &'a MetaRef<gst::Meta>) -> Option<HdrData<'a>> {
    // SAFETY: metas of this name have this structure.
    let meta = unsafe { fields::<GstVideoHDRMeta>(meta) }?;
    Some(HdrData {
        format: meta.format,
        // SAFETY: the meta owns this many bytes, and outlives the slice.
        data: unsafe { values(meta.data, meta.size) }?,
    })
}

/// Adds a GstVideoHDRMeta; `None` if this GStreamer does not have it (before 1.30).
pub(in crate::metas) fn add_hdr(buffer: &mut gst::BufferRef, content: &HdrData) -> Option<()> {
    type Add = unsafe extern "C" fn(*mut GstBuffer, u32, *const u8, usize) -> *mut c_void;
    static ADD: LazyLock<Option<Add>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::VIDEO, c"gst_buffer_add_video_hdr_meta") });
    let data = content.data;
    // SAFETY: the buffer is writable, and the meta copies the bytes.
    let meta = unsafe { (*ADD)?(buffer.as_mut_ptr(), content.format, data.as_ptr(), data.len()) };
    (!meta.is_null()).then_some(())
}
