// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas of other libraries that GStreamer itself can turn into bytes. GStreamer has this function since version 1.24.

use gst::MetaRef;

use super::{
    encoder, raw,
    record::{Input, Output},
};

/// Whether GStreamer can turn this meta into bytes.
pub(super) fn is_supported(meta: &MetaRef<gst::Meta>) -> bool {
    !has_own_record(meta.type_().name()) && raw::serialize::is_serializable(meta)
}

/// Whether metas of this name are sent in another way. GStreamer's functions for them trust the bytes.
fn has_own_record(name: &str) -> bool {
    // The layout of raw video is in the frame's descriptor.
    encoder(name).is_some() || name == "GstVideoMeta"
}

pub(super) fn encode(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let bytes = raw::serialize::to_bytes(meta)?;
    to.text(meta.type_().name())?;
    to.bytes(&bytes);
    Some(())
}

pub(super) fn decode(input: &mut Input) -> Option<()> {
    let name = input.record.text().filter(|name| !name.is_empty())?;
    let bytes = input.record.0;
    // Metas that have a record of their own must not get in unchecked.
    if has_own_record(name) || raw::custom::is_registered(name) || raw::serialize::name_in(bytes) != Some(name) {
        return None;
    }
    if !raw::serialize::is_deserializable(name) {
        return input.skip_unknown();
    }
    raw::serialize::add_from_bytes(input.buffer, bytes)
}
