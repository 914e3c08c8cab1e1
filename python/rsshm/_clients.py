# SPDX-License-Identifier: MIT OR Apache-2.0
"""Reader bookkeeping: the reader table, the quotas, and eviction."""

from __future__ import annotations

import time
from typing import List, NamedTuple, Optional

from . import layout
from ._keyframes import KeyframeRequests, read_timed
from ._libc import monotonic_ns
from ._slots import WriterSegment
from .layout import EVICTED, MAX_QUOTA, MAX_READERS, ReaderEntry

GRACE = 1.0
"""How long a reader may hold its former quota after the quota was lowered."""
FIRST_GRANT = 3
"""The first quota of a reader: a slot to copy from, a slot to show, and the last one shown, which many programs keep."""
GRANT_AHEAD = 2
"""The number of slots by which a quota exceeds the number of slots that the reader holds."""


class _Record:
    """What the writer knows about the owner of a reader entry."""

    def __init__(self, ticket: Optional[int] = None, ceiling: int = 0) -> None:
        self.generation = ticket
        """The generation of the owner that is counted as a reader. None if no owner is."""
        self.grant = 0
        self.ceiling = ceiling
        """How many slots the owner may hold without eviction. It can exceed the quota after the quota was lowered."""
        self.lowered_at: Optional[float] = None
        self._suspect: Optional[int] = None
        """The generation of an owner that held too many slots at the last check."""
        self.heard = 0
        """Number of keyframe requests of this owner so far."""
        self.heard_in: Optional[WriterSegment] = None
        """The segment in which the owner sent the requests that ``heard_timed`` counts."""
        self.heard_timed = 0
        """Number of requests of this owner for a keyframe of a later time so far."""

    def followed_by(self, ticket: Optional[int]) -> _Record:
        """The record of the next owner that is a reader. If there is none yet, a record that keeps only the ceiling."""
        if ticket is not None:
            return _Record(ticket)
        # A reader that has left may still hold the frames that it has delivered.
        return _Record(None, self.ceiling)

    def breaks_rule(self, ticket: int, share: int, held: int) -> bool:
        """Whether this reader with the quota ``share`` holds too many slots. It holds ``held`` slots."""
        if share < self.grant:
            self.lowered_at = time.monotonic()
        self.grant = share
        if self.lowered_at is not None and time.monotonic() - self.lowered_at < GRACE:
            # The reader may not have seen the lower quota yet, so the former quota is still permitted. The quota may even
            # have been lowered because of the slots that this reader holds.
            self.ceiling = max(share, self.ceiling)
        else:
            # After the grace period, the reader may keep the slots that it was permitted to hold before.
            self.ceiling = max(share, min(self.ceiling, held))
            self.lowered_at = None
        return self._confirm(ticket, held > self.ceiling)

    def breaks_rule_unattached(self, ticket: int, held: int) -> bool:
        """Like :meth:`breaks_rule`, for an owner that is not counted as a reader. Its number of slots may only fall."""
        too_many = held > self.ceiling
        self.ceiling = min(self.ceiling, held)
        return self._confirm(ticket, too_many)

    def _confirm(self, ticket: int, too_many: bool) -> bool:
        """Whether this owner holds too many slots, now and at the last check.

        One check may see pins of a dead owner, which the next owner has just cleared. It may also see the pin of a reader that
        compares its pins with a lowered quota next, and then releases the pin.
        """
        again = self._suspect == ticket
        self._suspect = ticket if too_many else None
        return too_many and again


class _Held(NamedTuple):
    """What the owner of a reader entry holds."""

    owner: int
    slots: int
    """Number of slots that the owner has pinned. 0 if its pins do not count."""
    is_reader: bool
    """Whether the owner has a quota. False if the owner has left or was evicted."""


class Clients:
    """The readers of a channel. All methods need the channel's lock."""

    def __init__(self) -> None:
        self._records = [_Record() for _ in range(MAX_READERS)]
        self.count = 0
        """Readers that are attached and alive."""
        self.evicted = 0
        self.keyframes = KeyframeRequests()

    def update(self, current: Optional[WriterSegment], retired: List[WriterSegment]) -> None:
        """Finds the readers that have attached or left since the last call."""
        count = 0
        for seat, record in enumerate(self._records):
            now = None if current is None else _reader_in(seat, current, retired, record.generation)
            if now != record.generation:
                self._records[seat] = record.followed_by(now)
            count += now is not None
        self.count = count
        if current is not None:
            current.ignore_the_dead()

    def _held(self, current: WriterSegment) -> List[_Held]:
        held = []
        for seat, record in enumerate(self._records):
            # Load the pins before the generation; `WriterSegment.pinned` gives the reason.
            bits = current.pins_of(seat)
            owner = current.half(seat, ReaderEntry.generation)
            ignored = current.ignored[seat]
            slots = 0 if ignored == owner else bin(bits).count("1")
            held.append(_Held(owner, slots, record.generation is not None and record.generation != ignored))
        return held

    def _wishes(self, current: WriterSegment, held: List[_Held]) -> List[int]:
        """The quota that each reader should get: more slots than it holds now, and no fewer than its last quota.

        Each quota is limited to ``share``. If every reader had the quota ``share`` and used all of it, the slots would
        still suffice.
        """
        if current.full:
            room = current.backed - _for_writer(current)
        else:
            room = current.segment.slot_count - (current.history + 2)
        share = next((share for share in range(MAX_QUOTA, 0, -1) if _sum(held, [share] * MAX_READERS) <= room), 0)
        return [
            min(max(seat.slots + GRANT_AHEAD, FIRST_GRANT, record.grant), share) for seat, record in zip(held, self._records)
        ]

    def slots_wanted(self, current: WriterSegment) -> int:
        """How many slots must be committed before all readers get the quotas that they should get."""
        held = self._held(current)
        return _sum(held, self._wishes(current, held)) + _for_writer(current)

    def update_grants(self, current: WriterSegment) -> None:
        """Sets the quota of each reader.

        A reader may pin as many slots as its quota allows, at once and for ever. So these slots, and the slots that the
        writer needs, are committed before the quota is set. Only a reader that ignores its quota can hold too many.
        The writer evicts this reader, and no longer counts its pins.
        """
        held = self._held(current)
        grants = self._wishes(current, held)
        there = current.backed - _for_writer(current)
        while _sum(held, grants) > there and max(grants) > 0:
            lower = max(grants) - 1
            grants = [min(grant, lower) for grant in grants]
        for seat, (record, has, grant) in enumerate(zip(self._records, held, grants)):
            ticket = has.owner if record.generation is None else record.generation
            if current.ignored[seat] == ticket:
                continue
            if record.generation is None:
                evicted = record.breaks_rule_unattached(ticket, has.slots)
            else:
                evicted = record.breaks_rule(ticket, grant, has.slots if has.owner == ticket else 0)
            if evicted:
                current.ignored[seat] = ticket
                self.evicted += 1
                grant = EVICTED
            if evicted or record.generation is not None:
                current.segment.grants[seat] = ticket << 32 | grant

    def hear_requests(self, current: WriterSegment, head: int) -> bool:
        """Whether to report a keyframe request of the readers now."""
        for seat, record in enumerate(self._records):
            if record.generation is None or current.half(seat, ReaderEntry.state) != layout.READER_ATTACHED:
                continue
            if current.half(seat, ReaderEntry.generation) != record.generation:
                continue
            asked = current.half(seat, ReaderEntry.keyframe_requests)
            if asked != record.heard:
                # The reader counts its requests from 0 in each segment.
                record.heard = asked
                if asked:
                    self.keyframes.add_immediate(head)
            if record.heard_in is not current:
                record.heard_in, record.heard_timed = current, 0
            record.heard_timed, times = read_timed(current.segment, seat, record.heard_timed)
            for at_ns in times:
                self.keyframes.add_timed(at_ns, (seat, record.generation))
        return self.keyframes.take_due(monotonic_ns())


def _reader_in(seat: int, current: WriterSegment, retired: List[WriterSegment], known: Optional[int]) -> Optional[int]:
    """The generation of the living reader that owns the entry and takes frames. None if there is no such reader.

    ``known`` is the result of the last call for this entry.
    """
    # Load the state first. The generation is then that of the owner that stored the state, or of a later owner.
    state = current.half(seat, ReaderEntry.state)
    ticket = current.half(seat, ReaderEntry.generation)
    if state == layout.READER_ATTACHED:
        return ticket if current.is_alive(seat) else None
    if state in (layout.READER_NEW, layout.READER_JOINING):
        # The owner may still be attached to a former segment.
        for former in reversed(retired):
            if former.control.identity == current.control.identity and former.has_reader_in(seat):
                return former.half(seat, ReaderEntry.generation)
        # The former segment may be forgotten before the reader is attached. The reader keeps its quota, so the writer keeps
        # the record.
        if known == ticket and current.is_alive(seat):
            return known
    return None


def _sum(held: List[_Held], grants: List[int]) -> int:
    """How many slots are pinned if each reader pins as many as it holds or as its quota allows, whichever is more."""
    return sum(max(seat.slots, grant) if seat.is_reader else seat.slots for seat, grant in zip(held, grants))


def _for_writer(current: WriterSegment) -> int:
    """The number of slots that the writer needs: one for the newest frame, and the claimed slots (at least one)."""
    return 1 + max(current.count_in_hand(), 1)
