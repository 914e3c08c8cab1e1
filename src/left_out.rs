// SPDX-License-Identifier: MIT OR Apache-2.0

//! The metas and events that were not sent, by name.

use std::borrow::Cow;

use rsshm_channel::{MAX_EVENT_SIZE, MAX_METADATA_SIZE};

/// What was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Metas of a frame.
    Metas,
    /// Events or tags.
    Events,
}

/// The reason why a meta or an event, or a part of it, was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reason {
    /// Metas or events of this type are not sent.
    Type,
    /// The metas of the frame, or the event, are too large or too many.
    Size,
    /// A value is not valid, or is not plain.
    Values,
    /// Too many events waited for the first reader.
    Number,
}

impl Reason {
    /// The reason, as the rest of a sentence whose subject is the meta or event.
    pub(crate) fn text(self, kind: Kind) -> String {
        match (self, kind) {
            (Self::Type, Kind::Metas) => "metas of this type are not carried".to_owned(),
            (Self::Type, Kind::Events) => "events of this type are not carried".to_owned(),
            (Self::Size, Kind::Metas) => format!("the metas of a frame may have {MAX_METADATA_SIZE} bytes together"),
            (Self::Size, Kind::Events) => format!("an event may have {MAX_EVENT_SIZE} bytes"),
            (Self::Number, _) => "too many events came before the first reader".to_owned(),
            (Self::Values, _) => "some of its values are not valid or not plain".to_owned(),
        }
    }
}

/// Metas or events of one name that were not sent for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// The name of the type of the meta, of the event, or of the tag.
    pub(crate) name: Cow<'static, str>,
    pub(crate) reason: Reason,
    /// How many of them, or of their parts.
    pub(crate) count: u64,
}

/// The metas of a frame, or the parts of an event, that were not sent. It takes no memory if all were sent.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct LeftOut(Vec<Missing>);

impl LeftOut {
    pub(crate) fn add(&mut self, name: impl Into<Cow<'static, str>>, reason: Reason, count: u64) {
        if count == 0 {
            return;
        }
        let name = name.into();
        let same = |missing: &&mut Missing| missing.name == name && missing.reason == reason;
        match self.0.iter_mut().find(same) {
            Some(missing) => missing.count += count,
            None => self.0.push(Missing { name, reason, count }),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Missing> {
        self.0.iter()
    }

    #[cfg(test)]
    pub(crate) fn count(&self) -> u64 {
        self.0.iter().map(|missing| missing.count).sum()
    }
}
