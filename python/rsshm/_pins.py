# SPDX-License-Identifier: MIT OR Apache-2.0
"""The pin rule: how a reader holds a slot, and how the writer takes one, with no lock between them.

The reader sets its bit, then looks at the slot's number; the writer sets the number to 0, then looks at the bits. A full
fence between the two steps on both sides means that at least one of them sees the other, whatever the timing.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import Callable, Deque

from . import layout
from ._libc import acquire, full_fence, release
from ._segment import Segment


class Pins:
    """What one reader holds: the pin word in shared memory is the shadow of these counts.

    A reader may hold a slot more than once, so a bit is set when a count leaves 0 and cleared when it returns to 0.
    """

    def __init__(self, segment: Segment, word: int) -> None:
        self._segment = segment
        self._word = word
        self._counts = [0] * layout.MAX_SLOTS
        self._bits = 0
        self.held = 0
        """How many different slots are held."""
        self._lock = threading.Lock()
        self._given_back: Deque[int] = deque()

    def pin(self, slot: int, wanted: int) -> bool:
        """Pins the slot if it still holds the frame ``wanted``, which is not 0. On True the frame's bytes stay as they are
        until it is given back."""
        segment = self._segment
        words = segment.words
        try:
            with self._lock:
                held_already = self._counts[slot] > 0
                if not held_already:
                    self._bits |= 1 << slot
                    release()
                    words[self._word] = self._bits
                # Pairs with the fence in `take_for_writing`: either the writer's second look sees the bit, or the load
                # below sees the 0.
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
        """Gives one pin of the slot back. Also from a finaliser, which may run anywhere, even where this very thread has
        the lock: what cannot be done at once is done by who has it."""
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
            # So that this reader's last look at the pixels is over by then.
            release()
            self._segment.words[self._word] = self._bits


def take_for_writing(segment: Segment, slot: int, is_pinned: Callable[[], bool]) -> bool:
    """Takes a slot for writing unless somebody holds it.

    On False the number may have been left at 0: nothing is put back, as somebody may have seen the 0 already.
    """
    if is_pinned():
        return False
    segment.numbers[slot] = 0
    # Pairs with the fence in `Pins.pin`.
    full_fence()
    return not is_pinned()
