// SPDX-License-Identifier: MIT OR Apache-2.0

//! Maps errors of the channel to GStreamer's error messages.

use rsshm_channel::Error;

/// The message that reports `error` to the user. `other` is the kind of the message for all errors that have no more
/// specific kind.
pub(crate) fn message(error: &Error, other: gst::ResourceError) -> gst::ErrorMessage {
    match error {
        Error::Name { .. } | Error::Option { .. } | Error::Directory(_) => {
            gst::error_msg!(gst::ResourceError::Settings, ("{error}"), ["{error:?}"])
        }
        Error::Busy { .. } => gst::error_msg!(gst::ResourceError::Busy, ("{error}"), ["{error:?}"]),
        Error::Foreign { .. } | Error::Denied { .. } => {
            gst::error_msg!(gst::ResourceError::NotAuthorized, ("{error}"), ["{error:?}"])
        }
        Error::NoSharedMemory { .. } => gst::error_msg!(gst::ResourceError::OpenReadWrite, ("{error}"), ["{error:?}"]),
        Error::NoSpace { .. } => gst::error_msg!(gst::ResourceError::NoSpaceLeft, ("{error}"), ["{error:?}"]),
        Error::Damaged { .. } => gst::error_msg!(gst::StreamError::WrongType, ("{error}"), ["{error:?}"]),
        Error::TooLarge { .. } => gst::error_msg!(gst::StreamError::Format, ("{error}"), ["{error:?}"]),
        _ => gst::error_msg!(other, ("{error}"), ["{error:?}"]),
    }
}
