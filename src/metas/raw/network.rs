// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas about packets. Small installations of GStreamer do not have all of their libraries.

use std::{ffi::c_void, ptr, sync::LazyLock};

use gst::{
    MetaRef,
    ffi::{GstBuffer, GstMeta},
    glib::translate::from_glib_none,
};
use gst_net::{ffi::GstNetAddressMeta, gio};

use super::fields;
use crate::library;

/// The address of a GstNetAddressMeta, if it has one.
pub(in crate::metas) fn address(meta: &MetaRef<gst::Meta>) -> Option<gio::SocketAddress> {
    // SAFETY: metas of this name have this structure.
    let address = unsafe { fields::<GstNetAddressMeta>(meta) }?.addr;
    // SAFETY: the meta owns the address.
    (!address.is_null()).then(|| unsafe { from_glib_none(address) })
}

/// The maximum number of contributing sources of a GstRTPSourceMeta.
const CONTRIBUTING_SOURCES: usize = 15;

#[repr(C)]
struct GstRTPSourceMeta {
    meta: GstMeta,
    ssrc: u32,
    ssrc_valid: i32,
    csrc: [u32; CONTRIBUTING_SOURCES],
    csrc_count: u32,
}

/// The source, if it is known, and the contributing sources of a GstRTPSourceMeta.
pub(in crate::metas) fn rtp_source<'a>(meta: &'a MetaRef<gst::Meta>) -> Option<(Option<u32>, &'a [u32])> {
    // SAFETY: metas of this name have this structure.
    let meta = unsafe { fields::<GstRTPSourceMeta>(meta) }?;
    let source = (meta.ssrc_valid != 0).then_some(meta.ssrc);
    Some((source, meta.csrc.get(..usize::try_from(meta.csrc_count).ok()?)?))
}

/// Adds a GstRTPSourceMeta; `None` if this system does not have GStreamer's RTP library. There may be at most 15
/// contributing sources.
pub(in crate::metas) fn add_rtp_source(
    buffer: &mut gst::BufferRef,
    source: Option<u32>,
    contributing: &[u32],
) -> Option<()> {
    type Add = unsafe extern "C" fn(*mut GstBuffer, *const u32, *const u32, u32) -> *mut c_void;
    static ADD: LazyLock<Option<Add>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::RTP, c"gst_buffer_add_rtp_source_meta") });
    let source: *const u32 = source.as_ref().map_or(ptr::null(), ptr::from_ref);
    let count = u32::try_from(contributing.len()).ok()?;
    // SAFETY: the buffer is writable, and there are as many sources as `count` says. The meta copies them.
    let meta = unsafe { (*ADD)?(buffer.as_mut_ptr(), source, contributing.as_ptr(), count) };
    (!meta.is_null()).then_some(())
}

/// The content of a GstSctpSendMeta.
pub(in crate::metas) struct SctpSend {
    /// The protocol identifier of the payload.
    pub(in crate::metas) protocol: u32,
    pub(in crate::metas) is_ordered: bool,
    /// The kind of partial reliability.
    pub(in crate::metas) reliability: u32,
    pub(in crate::metas) reliability_parameter: u32,
}

#[repr(C)]
struct GstSctpSendMeta {
    meta: GstMeta,
    ppid: u32,
    ordered: i32,
    pr: u32,
    pr_param: u32,
}

pub(in crate::metas) fn sctp_send(meta: &MetaRef<gst::Meta>) -> Option<SctpSend> {
    // SAFETY: metas of this name have this structure.
    unsafe { fields::<GstSctpSendMeta>(meta) }.map(|meta| SctpSend {
        protocol: meta.ppid,
        is_ordered: meta.ordered != 0,
        reliability: meta.pr,
        reliability_parameter: meta.pr_param,
    })
}

/// Adds a GstSctpSendMeta; `None` if this system does not have GStreamer's SCTP library.
pub(in crate::metas) fn add_sctp_send(buffer: &mut gst::BufferRef, send: &SctpSend) -> Option<()> {
    type Add = unsafe extern "C" fn(*mut GstBuffer, u32, i32, u32, u32) -> *mut c_void;
    static ADD: LazyLock<Option<Add>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::SCTP, c"gst_sctp_buffer_add_send_meta") });
    // SAFETY: the buffer is writable.
    let meta = unsafe {
        (*ADD)?(
            buffer.as_mut_ptr(),
            send.protocol,
            send.is_ordered.into(),
            send.reliability,
            send.reliability_parameter,
        )
    };
    (!meta.is_null()).then_some(())
}

#[repr(C)]
struct GstSctpReceiveMeta {
    meta: GstMeta,
    ppid: u32,
}

/// The protocol identifier of a GstSctpReceiveMeta.
pub(in crate::metas) fn sctp_receive(meta: &MetaRef<gst::Meta>) -> Option<u32> {
    // SAFETY: metas of this name have this structure.
    unsafe { fields::<GstSctpReceiveMeta>(meta) }.map(|meta| meta.ppid)
}

/// Adds a GstSctpReceiveMeta; `None` if this system does not have GStreamer's SCTP library.
pub(in crate::metas) fn add_sctp_receive(buffer: &mut gst::BufferRef, protocol: u32) -> Option<()> {
    type Add = unsafe extern "C" fn(*mut GstBuffer, u32) -> *mut c_void;
    static ADD: LazyLock<Option<Add>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe { library::function(library::SCTP, c"gst_sctp_buffer_add_receive_meta") });
    // SAFETY: the buffer is writable.
    let meta = unsafe { (*ADD)?(buffer.as_mut_ptr(), protocol) };
    (!meta.is_null()).then_some(())
}

/// The content of a GstMpegtsPESMetadataMeta.
pub(in crate::metas) struct PesMetadata {
    pub(in crate::metas) service: u8,
    pub(in crate::metas) flags: u8,
}

/// The structure that GStreamer has from version 1.24 on.
#[repr(C)]
struct GstMpegtsPESMetadataMeta {
    meta: GstMeta,
    metadata_service_id: u8,
    flags: u8,
}

pub(in crate::metas) fn pes_metadata(meta: &MetaRef<gst::Meta>) -> Option<PesMetadata> {
    // SAFETY: metas of this name have this structure.
    unsafe { fields::<GstMpegtsPESMetadataMeta>(meta) }.map(|meta| PesMetadata {
        service: meta.metadata_service_id,
        flags: meta.flags,
    })
}

/// Adds a GstMpegtsPESMetadataMeta; `None` if this GStreamer does not have it (before 1.24).
pub(in crate::metas) fn add_pes_metadata(buffer: &mut gst::BufferRef, metadata: &PesMetadata) -> Option<()> {
    type Add = unsafe extern "C" fn(*mut GstBuffer) -> *mut GstMpegtsPESMetadataMeta;
    static ADD: LazyLock<Option<Add>> =
        // SAFETY: this is the type of the function.
        LazyLock::new(|| unsafe {
            library::function(library::MPEG_TS, c"gst_buffer_add_mpegts_pes_metadata_meta")
        });
    // SAFETY: the buffer is writable.
    let meta = unsafe { (*ADD)?(buffer.as_mut_ptr()) };
    // SAFETY: a meta that was just added belongs to this function until it returns.
    let meta = unsafe { meta.as_mut() }?;
    meta.metadata_service_id = metadata.service;
    meta.flags = metadata.flags;
    Some(())
}
