# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the writer knows about a segment, and how it chooses the slot for the next frame."""

from __future__ import annotations

import time
from typing import Any, List, Optional, Tuple

from . import layout
from ._control import ControlFile
from ._libc import KeptLock, acquire, full_fence, release
from ._pins import take_for_writing
from ._segment import Segment
from .layout import MAX_READERS, MAX_SLOTS, ReaderEntry

REFUSED_ROUNDS = 4
"""How many rounds the writer tries to take a slot, if readers pin slots while it takes them."""


class Claim:
    """A slot to draw into, claimed for one frame. No other frame gets the slot while this object exists."""

    __slots__ = ("_owner", "index", "__weakref__")

    def __init__(self, owner: WriterSegment, index: int) -> None:
        self._owner = owner
        self.index = index

    def __del__(self) -> None:
        self._owner.let_go(self.index)


class WriterSegment:
    """A segment, and what the writer knows about its slots and reader entries.

    Callers hold the channel's lock for every method except :meth:`let_go`.
    """

    def __init__(self, segment: Segment, control: ControlFile, backed: int, lossless: bool, alive: Optional[KeptLock]) -> None:
        self.segment = segment
        self.control = control
        """The lock file that this segment's readers use. If this file was removed, the channel now has another lock file."""
        self.alive = alive
        """The lock that shows observers that the writer is alive. It is released when the segment is superseded."""
        self.lossless = lossless
        self.history: int = segment.header.history
        self.numbers = [0] * MAX_SLOTS
        """The seq of the frame in each slot. 0 means that the slot is free, or that a frame is being drawn into it."""
        self.runs = [0] * MAX_SLOTS
        """The number of the run in each slot. 0 in a segment of a dead writer. Each run of this writer has one frame."""
        self.newest_run = 0
        self.backed = backed
        """Number of committed slots."""
        self.full = False
        """Whether the system had no memory for one more slot."""
        self.growing = False
        """Whether a thread is committing one more slot. It does so without the channel's lock."""
        self.ignored: List[Optional[int]] = [None] * MAX_READERS
        """For each reader entry, the generation of a dead or evicted owner. The pins of this owner do not count."""
        self.in_hand = [False] * MAX_SLOTS
        """Slots that arrays of this process still refer to."""
        self.retired_at = 0.0
        self._given_back = 0
        """A bit for each slot whose memory was released."""

    def half(self, seat: int, field: Any) -> int:
        """A field of 32 bits of a reader entry."""
        value: int = self.segment.halves[self.segment.seat_half(seat, field)]
        acquire()
        return value

    def pins_of(self, seat: int) -> int:
        """The pin word of a reader entry."""
        bits: int = self.segment.pins[seat]
        acquire()
        return bits

    def is_alive(self, seat: int) -> bool:
        """Whether a process holds the lock of the reader entry."""
        return self.control.is_locked(layout.FIRST_READER_BYTE + seat)

    def has_reader_in(self, seat: int) -> bool:
        """Whether a living reader takes frames in this segment, or is about to take them."""
        return self.half(seat, ReaderEntry.state) in layout.READER_IS_PRESENT and self.is_alive(seat)

    def let_go(self, index: int) -> None:
        """Releases the claim of a slot. No array refers to the slot any more."""
        if self.segment.is_of_parent():
            return
        self.in_hand[index] = False
        # A thread of the writer may be waiting for this slot.
        full_fence()
        if self.segment.halves[self.segment.writer_waits]:
            self.segment.ring_bell(self.segment.writer_word)

    def pinned(self) -> int:
        """The slots with at least one pin that counts, as a bit mask."""
        pinned = 0
        for seat, bits in enumerate(self.segment.pins.tolist()):
            if bits:
                # Load the generation after the pins. It is then that of the owner that set the pins, or of a later owner.
                acquire()
                if self.ignored[seat] is None or self.ignored[seat] != self.half(seat, ReaderEntry.generation):
                    pinned |= bits
        acquire()
        return pinned

    def take(self, slot: int) -> bool:
        """Takes a slot for writing unless it is pinned."""
        taken = take_for_writing(self.segment, slot, lambda: bool(self.pinned() >> slot & 1))
        # If the first check found a pin, the slot still has its frame. If only the second check found a pin, the frame is
        # lost.
        if taken or self.segment.numbers[slot] == 0:
            self.numbers[slot] = self.runs[slot] = 0
        return taken

    def oldest(self, allowed: int, newest: int, newest_run: int) -> Optional[int]:
        """The slot with the oldest frame, among the slots ``allowed`` whose seq is at most ``newest`` and whose run is at most
        ``newest_run``. A free slot has the seq 0, so it comes first."""
        slots = [
            slot
            for slot in range(self.backed)
            if allowed >> slot & 1
            and self.numbers[slot] <= newest
            and self.runs[slot] <= newest_run
            and not self.in_hand[slot]
        ]
        return min(slots, key=self.numbers.__getitem__, default=None)

    def ignore_the_dead(self) -> bool:
        """Finds reader entries whose owners are dead, and ignores their pins. Returns whether it found one.

        It checks the lock after it reads the pins. If a later owner then pins a slot that the writer takes, this owner
        finds the seq 0, so its pin is not valid.
        """
        found = False
        for seat in range(MAX_READERS):
            if self.pins_of(seat) or self.half(seat, ReaderEntry.state) in layout.READER_IS_PRESENT:
                ticket = self.half(seat, ReaderEntry.generation)
                if self.ignored[seat] != ticket and not self.is_alive(seat):
                    self.ignored[seat] = ticket
                    found = True
        return found

    def taken_by_all(self) -> int:
        """The least cursor of all readers whose pins count. All these readers have taken the frames up to this seq."""
        least = layout.TIME_NONE
        for seat in range(MAX_READERS):
            if self.half(seat, ReaderEntry.state) in layout.READER_IS_PRESENT:
                if self.ignored[seat] is None or self.ignored[seat] != self.half(seat, ReaderEntry.generation):
                    position: int = self.segment.words[self.segment.seat_word(seat, ReaderEntry.cursor)]
                    acquire()
                    least = min(least, position)
        return least

    def _newest_to_take(self, retain: int) -> Tuple[int, int]:
        """The seq and the run of the newest frame whose slot may be taken. This frame is older than the history, and never the
        channel's newest frame. In a lossless channel, all readers have taken it."""
        return self.taken_by_all() if self.lossless else layout.TIME_NONE, max(self.newest_run - max(retain, 1), 0)

    def can_grow(self) -> bool:
        """Whether one more slot can be committed."""
        return not self.full and self.backed < self.segment.slot_count

    def count_in_hand(self) -> int:
        """Number of slots that arrays of this process refer to."""
        return sum(self.in_hand[: self.backed])

    def _take_oldest(self, retain: int) -> Optional[int]:
        newest = self._newest_to_take(retain)
        # Readers that lag far behind try to pin the slots that are taken here. During each try, the writer cannot take that
        # slot. The seq of the slot is then 0, so these readers do not try again in the next round.
        for _ in range(REFUSED_ROUNDS):
            allowed = ~self.pinned()
            refused = False
            while True:
                slot = self.oldest(allowed, *newest)
                if slot is None:
                    break
                if self.take(slot):
                    return slot
                refused = True
                allowed &= ~(1 << slot)
            if not refused:
                break
        return None

    def find(self) -> Optional[int]:
        """Takes a committed slot for the next frame."""
        slot = self._take_oldest(self.history)
        if slot is None and self.ignore_the_dead():
            slot = self._take_oldest(self.history)
        return slot

    def is_scarce(self) -> bool:
        """Whether the history may be shortened. This is allowed if memory is exhausted. It is also allowed if no more slots
        can be committed and no array of this process refers to a slot."""
        return self.full or (not self.can_grow() and not any(self.in_hand))

    def find_scarce(self) -> Optional[int]:
        """Like :meth:`find`, but keeps only the newest frame. It is used if slots are scarce, because otherwise the next
        frame could not be published."""
        return self._take_oldest(1)

    def has_claimable(self) -> bool:
        """Whether a slot can be claimed."""
        retain = 1 if self.is_scarce() else self.history
        for _ in range(2):
            if self.can_grow() and not self.growing:
                return True
            if self.oldest(~self.pinned(), *self._newest_to_take(retain)) is not None:
                return True
            if not self.ignore_the_dead():
                break
        return False

    def claim(self, index: int) -> Claim:
        """Makes a claim of a slot that the writer has taken."""
        self.in_hand[index] = True
        return Claim(self, index)

    def give_back(self) -> None:
        """Releases the memory of all slots that are not pinned. The segment is superseded. A lossless channel keeps the
        frames that some reader has not taken yet."""
        self.ignore_the_dead()
        newest = self.taken_by_all() if self.lossless else layout.TIME_NONE
        allowed = ~self.pinned()
        while True:
            slot = self.oldest(allowed & ~self._given_back, newest, self.newest_run)
            if slot is None:
                return
            if self.take(slot):
                self.segment.punch_slot(slot)
                self._given_back |= 1 << slot
            allowed &= ~(1 << slot)

    def is_empty(self) -> bool:
        """Whether the memory of all slots has been released."""
        return all(self._given_back >> slot & 1 for slot in range(self.backed))

    def supersede(self) -> None:
        """Notifies the readers to look for the next segment."""
        self.retired_at = time.monotonic()
        halves, segment = self.segment.halves, self.segment
        release()
        halves[segment.state] = halves[segment.state] | layout.SUPERSEDED
        # Pairs with the fence of a reader that has joined and then loads the state.
        full_fence()
        segment.ring_bell(segment.published)
        # The writer's service thread sleeps on this word. Wake it, so that it sleeps on the next segment's word.
        segment.ring_bell(segment.writer_word)
