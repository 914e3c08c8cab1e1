// SPDX-License-Identifier: MIT OR Apache-2.0

//! Metas of the core library: reference timestamps, protection and custom metas.

use gst::{MetaRef, ReferenceTimestampMeta};

use super::{
    raw,
    record::{Input, Output},
};

pub(super) fn encode_reference(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    let meta = meta.downcast_ref::<ReferenceTimestampMeta>()?;
    to.u64(raw::timestamp(meta)?);
    to.u64(meta.duration().map_or(u64::MAX, |time| time.nseconds()));
    let reference = meta.reference();
    let without_features =
        |features: &gst::CapsFeaturesRef| features.is_equal(&gst::CAPS_FEATURES_MEMORY_SYSTEM_MEMORY);
    let is_plain = reference.is_fixed() && reference.features(0).is_none_or(without_features);
    to.structure(reference.structure(0).filter(|_| is_plain)?)?;
    if let Some(info) = raw::reference_info(meta) {
        to.part(|to| to.structure(info));
    }
    Some(())
}

pub(super) fn decode_reference(input: &mut Input) -> Option<()> {
    let timestamp = gst::ClockTime::try_from(input.record.u64()?).ok()?;
    let duration = gst::ClockTime::try_from(input.record.u64()?).ok();
    let structure = input.names.structure(input.record.text()?)?;
    let info = match input.record.0 {
        [] => None,
        _ => Some(input.names.structure(input.record.text()?)?),
    };
    let caps = gst::Caps::builder_full().structure(structure).build();
    if !caps.is_fixed() {
        return None;
    }
    let meta = ReferenceTimestampMeta::add(input.buffer, &caps, timestamp, duration);
    if let Some(info) = info {
        raw::set_reference_info(meta, info);
    }
    Some(())
}

pub(super) fn encode_protection(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    to.structure_with_buffers(raw::protection(meta)?)
}

pub(super) fn decode_protection(input: &mut Input) -> Option<()> {
    let info = input.names.structure_with_buffers(input.record.text()?)?;
    raw::add_protection(input.buffer, info);
    Some(())
}

pub(super) fn encode_custom(meta: &MetaRef<gst::Meta>, to: &mut Output) -> Option<()> {
    to.text(meta.type_().name())?;
    to.structure(raw::custom::structure(meta)?)
}

pub(super) fn decode_custom(input: &mut Input) -> Option<()> {
    let name = input.record.text().filter(|name| !name.is_empty())?;
    let text = input.record.text()?;
    // A meta is never registered on behalf of a peer, because its registration decides what the meta means and how
    // elements treat it.
    if !raw::is_registered(name) {
        return input.skip_unknown();
    }
    let structure = input.names.structure(text)?;
    let to = raw::custom::add(input.buffer, name)?;
    for (field, value) in structure.iter() {
        to.set_value(field, value.clone());
    }
    Some(())
}
