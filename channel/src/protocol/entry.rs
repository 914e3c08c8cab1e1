// SPDX-License-Identifier: MIT OR Apache-2.0

//! A reader's entry: in which order its owner stores the values, and in which order the writer loads them.
//!
//! The lock of the entry, which the kernel keeps, orders the stores of successive owners.

// The paths begin with `super`, so that the loom model can include this file with its own atomics.
use super::{
    atomic::{AtomicU32, Ordering, fence},
    failpoint::{Failpoint, failpoint},
    layout::{ReaderEntry, reader_state},
};

/// The stores of the owner.
impl ReaderEntry {
    /// Removes the values of the last owner, and stores a new generation. `own` is the generation that the new owner
    /// used last; it is replaced by the new one, which is returned.
    pub(crate) fn begin(&self, own: &AtomicU32) -> u32 {
        // Relaxed: only owners of the entry store its generation, and the lock of the entry orders their stores.
        let former = self.generation.load(Ordering::Relaxed);
        // Relaxed: the release store of the generation below orders this store. A writer that loads the generation with
        // acquire order also sees that the state of a dead owner is gone.
        self.state.store(reader_state::NEW, Ordering::Relaxed);
        failpoint(Failpoint::EntryCleared);
        // The generation differs from that of every former owner in this segment, so that the writer does not apply its
        // records of a former owner to this one. Relaxed: only this reader's thread uses its own generation.
        let generation = match own.load(Ordering::Relaxed) {
            own if own > former => own,
            _ => former.wrapping_add(1),
        };
        own.store(generation, Ordering::Relaxed);
        // The pins that the former owner has left must not count as pins of this generation. Relaxed: the release store
        // of the generation orders this store.
        self.pins.store(0, Ordering::Relaxed);
        failpoint(Failpoint::PinsCleared);
        // Release: pairs with the acquire load of the writer. The reader stores the generation before its first pin, so
        // a writer that sees the pin also sees the generation.
        self.generation.store(generation, Ordering::Release);
        failpoint(Failpoint::GenerationStored);
        generation
    }

    /// Stores `seq` as the cursor: the owner has taken all frames up to `seq`, or does not want them.
    #[inline]
    pub(crate) fn set_cursor(&self, seq: u64) {
        // Release: pairs with the acquire load of a lossless writer, which may then take the slots of older frames. The
        // owner has finished its copies of them.
        self.cursor.store(seq, Ordering::Release);
    }

    /// Stores that this owner has not requested anything yet.
    pub(crate) fn forget_requests(&self) {
        // Relaxed: the release store of the state in `announce` orders these stores.
        self.keyframe_requests.store(0, Ordering::Relaxed);
        self.message_head.store(0, Ordering::Relaxed);
        self.keyframe_head.store(0, Ordering::Relaxed);
    }

    /// Stores the state JOINING, so that a lossless writer keeps the frames after the cursor, and increments `joins` of
    /// the segment. The caller then loads the segment's state.
    pub(crate) fn announce(&self, joins: &AtomicU32) {
        self.set_state(reader_state::JOINING);
        // Release: pairs with the acquire load of the writer, which then looks at the state above. The fence of each
        // pin comes later, so the writer knows this reader when it has to see the pin.
        joins.fetch_add(1, Ordering::Release);
        failpoint(Failpoint::Joining);
        // Pairs with the fence in `Status::mark`. Either a lossless writer sees this reader, and waits for it before it
        // publishes into the next segment, or the reader sees that the segment is superseded.
        fence(Ordering::SeqCst);
    }

    /// Stores a state. The caller has stored all that the state promises.
    pub(crate) fn set_state(&self, state: u32) {
        // Release: pairs with the acquire load of the state by the writer, which then also sees the cursor and the
        // counts. All reads of a reader that leaves come before this store.
        self.state.store(state, Ordering::Release);
    }
}

/// The loads of the writer.
impl ReaderEntry {
    /// The state and the generation. The state is loaded first, so the generation belongs to the owner of this state or
    /// to a later owner.
    pub(crate) fn owner(&self) -> (u32, u32) {
        // Both are acquire loads, which pair with the release stores of a reader that attaches.
        let state = self.state.load(Ordering::Acquire);
        (state, self.generation.load(Ordering::Acquire))
    }

    /// The cursor, if the owner is present and is not the ignored one.
    pub(crate) fn wanted_cursor(&self, ignored: Option<u32>) -> Option<u64> {
        self.cursor_if(reader_state::is_present, ignored)
    }

    /// The cursor, if the owner is attached and is not the ignored one.
    pub(crate) fn attached_cursor(&self, ignored: Option<u32>) -> Option<u64> {
        self.cursor_if(|state| state == reader_state::ATTACHED, ignored)
    }

    /// The cursor, if the owner has one of the states and is not the ignored one.
    #[inline]
    fn cursor_if(&self, is_counted: impl Fn(u32) -> bool, ignored: Option<u32>) -> Option<u64> {
        let (state, generation) = self.owner();
        // Acquire: pairs with the release store of the cursor. If the state says that the owner is present, the cursor
        // is not older than the owner's first one.
        (is_counted(state) && ignored != Some(generation)).then(|| self.cursor.load(Ordering::Acquire))
    }
}
