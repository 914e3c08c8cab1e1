# SPDX-License-Identifier: MIT OR Apache-2.0
"""A limit for a loop that other processes can wake. After a burst of turns, it allows one turn per interval."""

from __future__ import annotations

import time
from typing import Optional


class Pace:
    """Counts the turns of a loop."""

    def __init__(self, burst: int, each: float) -> None:
        self._burst = burst
        self._each = each
        self._until = 0.0
        """When the turns so far would have ended, if each turn had taken one interval."""

    def turn(self) -> Optional[float]:
        """Counts a turn. If there were too many in a short time, returns how long to sleep before this turn."""
        now = time.monotonic()
        self._until = max(self._until, now) + self._each
        return self._each if self._until - now > self._each * self._burst else None

    def reset(self) -> None:
        """Forgets the turns so far. The caller calls this when it has found something new."""
        self._until = 0.0
