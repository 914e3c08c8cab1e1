// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metas of a frame that were not sent, by name.

use rsshm_channel::MAX_METADATA_SIZE;

/// The reason why a meta, or a part of it, was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Metas of this type are not sent.
    Type,
    /// The metas of the frame are too large or too many.
    Size,
    /// A value is not valid, or is not plain.
    Values,
}

/// Metas of one name that were not sent for the same reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct MissingMeta {
    /// The name of the type of the meta.
    pub(crate) name: &'static str,
    pub(super) reason: Reason,
    /// How many metas, or parts of metas.
    pub(crate) count: u64,
}

impl MissingMeta {
    /// The reason, as the rest of a sentence whose subject is the meta.
    pub(crate) fn reason(&self) -> String {
        match self.reason {
            Reason::Type => "metas of this type are not carried".to_owned(),
            Reason::Size => format!("the metas of a frame may have {MAX_METADATA_SIZE} bytes together"),
            Reason::Values => "some of its values are not valid or not plain".to_owned(),
        }
    }
}

/// The metas of a frame that were not sent. It takes no memory if all were sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut(Vec<MissingMeta>);

impl LeftOut {
    pub(super) fn add(&mut self, name: &'static str, reason: Reason, count: u64) {
        if count == 0 {
            return;
        }
        let same = |missing: &&mut MissingMeta| missing.name == name && missing.reason == reason;
        match self.0.iter_mut().find(same) {
            Some(missing) => missing.count += count,
            None => self.0.push(MissingMeta { name, reason, count }),
        }
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, MissingMeta> {
        self.0.iter()
    }

    #[cfg(test)]
    pub(super) fn count(&self) -> u64 {
        self.0.iter().map(|missing| missing.count).sum()
    }
}
