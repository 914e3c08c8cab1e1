# SPDX-License-Identifier: MIT OR Apache-2.0
"""How fast a loop may turn that others can wake: so many turns at once, then one each so often."""

from __future__ import annotations

import time
from typing import Optional


class Pace:
    """Counts the turns of a loop."""

    def __init__(self, burst: int, each: float) -> None:
        self._burst = burst
        self._each = each
        self._until = 0.0
        """When the turns so far would be over, one each so often."""

    def turn(self) -> Optional[float]:
        """Counts a turn; how long to sleep first, where there have been too many lately: somebody wakes without news."""
        now = time.monotonic()
        self._until = max(self._until, now) + self._each
        return self._each if self._until - now > self._each * self._burst else None

    def reset(self) -> None:
        """There was news: the turns so far do not count."""
        self._until = 0.0
