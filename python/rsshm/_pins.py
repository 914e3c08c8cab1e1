# SPDX-License-Identifier: MIT OR Apache-2.0
"""The pin rule: how a reader pins a slot, and how the writer takes a slot, although no lock protects the slot.

The reader sets its bit, then loads the seq of the slot. The writer sets the seq to 0, then loads the readers' bits. The
reader and the writer each issue a full fence between their two steps. So at least one of them sees the other's store.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Deque

from . import layout
from ._libc import acquire, full_fence, release
from ._segment import Segment


class Pins:
    """The pins of one reader: a count for each slot, and the reader's pin word in shared memory.

    A reader may pin a slot more than once. The slot's bit in the pin word is set while the count is above 0.
    """

    def __init__(self, segment: Segment, word: int) -> None:
        self._segment = segment
        self._word = word
        self._counts = [0] * layout.MAX_SLOTS
        self._bits = 0
        self.held = 0
        """Number of different slots that are pinned."""
        self._lock = threading.Lock()
        self._given_back: Deque[int] = deque()

    def pin(self, slot: int, wanted: int) -> bool:
        """Pins the slot if the seq of its frame is still ``wanted``. The caller passes no 0. If the result is True, the
        frame's bytes do not change until the pin is released."""
        segment = self._segment
        words = segment.words
        try:
            with self._lock:
                held_already = self._counts[slot] > 0
                if not held_already:
                    self._bits |= 1 << slot
                    release()
                    words[self._word] = self._bits
                # Pairs with the fence in `take_for_writing`. Either the writer's second check sees the bit, or the load
                # below sees that the seq is 0.
                full_fence()
                if segment.numbers[slot] == wanted:
                    acquire()
                    self._counts[slot] += 1
                    self.held += not held_already
                    return True
                if not held_already:
                    self._bits &= ~(1 << slot)
                    release()
                    words[self._word] = self._bits
                return False
        finally:
            if self._given_back:
                self._settle()

    def give_back(self, slot: int) -> None:
        """Releases one pin of the slot.

        A finaliser may call this at any time, even in the thread that holds the lock. If the lock is taken, its holder
        removes the pin later.
        """
        self._given_back.append(slot)
        self._settle()

    def _settle(self) -> None:
        while self._given_back and self._lock.acquire(blocking=False):
            try:
                while self._given_back:
                    self._unpin(self._given_back.popleft())
            finally:
                self._lock.release()

    def _unpin(self, slot: int) -> None:
        self._counts[slot] -= 1
        if self._counts[slot] == 0:
            self.held -= 1
            self._bits &= ~(1 << slot)
            # Because of this fence, the reader has loaded the pixels before the writer sees the cleared bit.
            release()
            self._segment.words[self._word] = self._bits


def take_for_writing(segment: Segment, slot: int, is_pinned: Callable[[], bool]) -> bool:
    """Takes a slot for writing unless a reader has pinned it.

    If the result is False, the seq of the slot may be 0. The old seq is not restored, because a reader may have seen
    the 0 already.
    """
    if is_pinned():
        return False
    segment.numbers[slot] = 0
    # Pairs with the fence in `Pins.pin`.
    full_fence()
    return not is_pinned()
