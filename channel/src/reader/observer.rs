// SPDX-License-Identifier: MIT OR Apache-2.0

//! An observer, which shows a channel to a program that may only read it.

use std::sync::atomic::Ordering;

use super::{attachment::Attachment, copy_target::CopyTarget};
use crate::{
    ChannelName, Error,
    protocol::layout::{FrameDescriptor, Header},
};

/// Shows the caps, the header and the newest frame of a channel. An observer has no reader entry, writes nothing, and
/// needs read permission only.
///
/// # Examples
///
/// ```no_run
/// use rsshm_channel::{ChannelName, Observer};
///
/// # fn main() -> Result<(), rsshm_channel::Error> {
/// if let Some(observer) = Observer::open(&ChannelName::new("cam0")?)? {
///     let mut bytes = Vec::new();
///     if let Some((seq, descriptor)) = observer.newest(&mut bytes) {
///         println!("{}: frame {seq} has {} bytes", observer.caps(), descriptor.size);
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Observer {
    attachment: Attachment,
}

impl Observer {
    /// Opens the channel; `None` if it has no living writer, or the writer has no segment yet.
    ///
    /// # Errors
    /// [`Error::Denied`], [`Error::Damaged`], [`Error::System`].
    pub fn open(name: &ChannelName) -> Result<Option<Self>, Error> {
        Ok(Attachment::open(name, true, None, None)?.map(|(attachment, _)| Self { attachment }))
    }

    /// The caps of the frames.
    pub fn caps(&self) -> &str {
        &self.attachment.segment.caps
    }

    /// The header of the segment, which never changes.
    pub fn header(&self) -> &Header {
        &self.attachment.segment.header
    }

    /// The seq of the newest frame; 0 before the first frame.
    pub fn head(&self) -> u64 {
        // Acquire: pairs with the release store of the head in a publish, so that the frame can be found.
        self.attachment.segment.tables.status().head.load(Ordering::Acquire)
    }

    /// Whether the writer can still publish frames in this segment: the writer lives, and the segment is neither
    /// superseded nor closed.
    pub fn is_current(&self) -> bool {
        self.attachment.segment.is_current()
    }

    /// Copies the newest frame; `None` if there is no frame, or if the writer overwrote it during the copy.
    pub fn newest(&self, target: &mut dyn CopyTarget) -> Option<(u64, FrameDescriptor)> {
        let seq = self.head();
        let location = self.attachment.runs().find(seq, None).filter(|_| seq != 0)?;
        let seq = location.seq();
        self.attachment
            .copy_unpinned(location, target)
            .map(|info| (seq, info.descriptor))
    }
}
