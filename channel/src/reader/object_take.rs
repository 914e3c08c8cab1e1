// SPDX-License-Identifier: MIT OR Apache-2.0

//! Takes a frame of objects: in place, or as a copy.

use std::sync::Arc;

use super::{
    attachment::{Attachment, FrameInfo},
    copy_target::{CheckedTarget, CopyTarget, TakeFailure},
    frame::FrameData,
    object_cache::ObjectCache,
    object_fetch::{FetchError, ObjectFault},
    object_frame::ObjectFrame,
    options::ReadLimits,
    pinned::{PinnedFrame, Refused},
    received_object::{copy_parts, is_one_range},
    runs::FrameLocation,
};

/// Takes one frame, like `get_frame` for frames in slots. The result is `None` if the frame was overwritten or is
/// damaged.
pub(super) fn take_objects(
    attachment: &Arc<Attachment>,
    objects: &ObjectCache,
    location: FrameLocation,
    target: &mut dyn CopyTarget,
    limits: ReadLimits,
) -> Result<Option<(FrameInfo, FrameData)>, TakeFailure> {
    let (pinned, may_hold) = PinnedFrame::pin_within_quota(attachment, location, limits);
    let mut target = CheckedTarget::new(target);
    let result = match pinned {
        Ok(None) => Ok(None),
        Ok(Some((frame, info))) => {
            let limits = limits.accepts_objects(limits.accepts_objects && may_hold);
            take_pinned(attachment, objects, frame, info, limits, &mut target)
        }
        Err(Refused) => attachment
            .copy_objects_unpinned(objects, location, &mut target)
            .map(|info| info.map(|info| (info, FrameData::Copied))),
    };
    match (target.failed_size, result) {
        (Some(size), _) => Err(TakeFailure::NoTargetMemory(size)),
        (None, Ok(taken)) => Ok(taken),
        (None, Err(FetchError::Interrupted)) => Err(TakeFailure::Interrupted),
        (None, Err(FetchError::Denied(error))) => Err(TakeFailure::Denied(error)),
        (None, Err(FetchError::Failed(fault))) => Err(TakeFailure::Fault(fault)),
    }
}

/// Takes a frame whose slot is pinned.
fn take_pinned(
    attachment: &Attachment,
    objects: &ObjectCache,
    frame: PinnedFrame,
    info: FrameInfo,
    limits: ReadLimits,
    target: &mut CheckedTarget<'_>,
) -> Result<Option<(FrameInfo, FrameData)>, FetchError> {
    let Some(table) = frame.references() else {
        return Ok(None);
    };
    let size = info.descriptor.size;
    let parts = objects.find(&attachment.segment, &table, size)?;
    if limits.accepts_objects && (!limits.needs_one_range || is_one_range(&parts)) {
        return Ok(Some((info, FrameData::Objects(ObjectFrame::new(frame, parts)))));
    }
    let Some(memory) = target.prepare(size as usize) else {
        return Ok(None);
    };
    copy_parts(&parts, memory).map_err(ObjectFault::from)?;
    Ok(Some((info, FrameData::Copied)))
}
