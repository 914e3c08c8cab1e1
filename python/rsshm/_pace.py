# SPDX-License-Identifier: MIT OR Apache-2.0
"""A limit on the turns of a loop that other processes can wake: after a burst, one turn per interval."""

from __future__ import annotations

import time
from typing import Optional


class Pace:
    """Counts the turns of a loop."""

    def __init__(self, burst: int, each: float) -> None:
        self._burst = burst
        self._each = each
        self._until = 0.0
        """The time when the turns so far would have ended at one turn per interval."""

    def turn(self) -> Optional[float]:
        """Counts a turn. If wakes without news caused too many turns, returns how long to sleep before this one."""
        now = time.monotonic()
        self._until = max(self._until, now) + self._each
        return self._each if self._until - now > self._each * self._burst else None

    def reset(self) -> None:
        """Forgets the turns so far, because there was news."""
        self._until = 0.0
