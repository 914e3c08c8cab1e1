"""A reader: follows a channel through its writers and their segments, and yields frames in order."""

from __future__ import annotations

import threading
import time
import warnings
from types import TracebackType
from typing import Iterator, Optional, Tuple, Type, Union

from . import _files, _libc, caps, layout
from ._attach import Attachment, HeldSeat
from ._files import Identity, Name
from ._libc import acquire
from ._pace import Pace
from ._segment import Segment
from .errors import BadOption, Closed, EndOfStream, Error, Timeout
from .frame import Frame

LOOK = 0.02
"""How often the name is looked at while there is no segment under it."""
CHECK = 0.25
"""The longest sleep on a segment; after it the kernel is asked whether the writer lives."""
BETWEEN_SEGMENTS = 1.0
"""How long a channel may be without a segment, between two of them, before it counts as gone."""
FALSE_ALARMS, LOOK_AGAIN = 16, 0.001
"""Looks without a frame after which the reader looks once in so long: whoever only rings, or wakes, does not keep it busy."""
WARY, SHORT = 60.0, 0.004
"""For so long after a missing wake no sleep is longer: whoever may read a segment can put its sleepers on a word of his own."""
EVICTED_AGAIN = 1.0
"""Who is evicted twice within this time has done no wrong, and waits before it comes back."""
MOST_MISSED = 1 << 35
"""More frames than anybody misses at once; a damaged head may be any number."""
ASK_AGAIN = 1.0
"""How long a frame that can be decoded alone is waited for before the writer is asked again."""
MAX_NUMBER = (1 << 56) - 1
"""The ring has the lower 56 bits of a number: only a damaged head has more."""

_DEFAULT = object()


class Reader:
    """Reads a channel.

    >>> with rsshm.Reader("cam0") as reader:
    ...     for frame in reader:
    ...         print(frame.seq, frame.array.mean())

    The channel need not be there yet; a writer that is killed, restarted or comes back with another format is followed.
    Each frame comes in place, without a copy, as long as the program does not keep too many at a time.

    ``timeout``: seconds that :meth:`read` waits before it raises :class:`~rsshm.Timeout`; None is for ever.
    ``latest``: always the newest frame, those between are skipped; else every frame, as long as the channel keeps it.
    ``max_held``: how many frames the program may keep in place before further ones are copied.
    ``read_only``: observe: nothing is ever written, but each frame is copied. By itself where the permissions, or the number
    of readers, allow no more (:attr:`observing` says why).

    One thread reads; any may call :meth:`close`.
    """

    def __init__(
        self,
        name: str,
        timeout: Optional[float] = None,
        latest: bool = False,
        max_held: int = 4,
        read_only: bool = False,
    ) -> None:
        self._name = Name(name)
        self._check_timeout(timeout)
        if not isinstance(max_held, int) or max_held < 0:
            raise BadOption(f"channel {name}: max_held is {max_held!r}, not a number of frames")
        self.timeout = timeout
        self.latest = latest
        self._max_held = max_held
        self._read_only = read_only
        self._forks = _libc.forks()
        self._closed = False
        self._reading = threading.Lock()
        self._at: Optional[Attachment] = None
        """Where the reader takes frames."""
        self._former: Optional[Attachment] = None
        """The segment is superseded, and the next one not there yet. The writer still finds the reader here."""
        self._former_since = 0.0
        self._seat: Optional[HeldSeat] = None
        """Kept over segments."""
        self._caps = caps.parse("")
        self._segment_id: Optional[Identity] = None
        self._position = 0
        """Number of the last frame given or skipped."""
        self._want_newest = False
        self._newly_attached = True
        self._discontinuity = True
        self._lost = False
        """What came last is not there to decode the next frame with."""
        self._skipped = 0
        """Frames given up since the last one given."""
        self._asked: Optional[float] = None
        """When the writer was asked for a frame that can be decoded alone."""
        self._eos_seen = 0
        self._checked = 0.0
        self._observing: Optional[str] = None
        self._undecodable = False
        """Some of the frames given up were there, and could not be decoded."""
        self._writer_pid = 0
        self._pace = Pace(FALSE_ALARMS, LOOK_AGAIN)
        self._paced = 0
        """Frames that had been given when the looks were last counted."""
        self._robbed_at: Optional[float] = None
        """When a wake was last found missing."""
        self._evicted_at: Optional[float] = None
        self._not_before = 0.0
        """When a reader that is evicted again and again may come back."""
        self.received = 0
        """Frames given."""
        self.copied = 0
        """Of these, copied."""
        self.missed = 0
        """Frames not given."""
        self.reconnects = 0
        """How many times another writer, or another segment of the same, was followed."""

    # What users see.

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name.text

    @property
    def caps(self) -> caps.Caps:
        """The format of the frame given last."""
        return self._caps

    @property
    def connected(self) -> bool:
        """Whether the reader has a living writer's segment."""
        return self._at is not None

    @property
    def latency_ns(self) -> int:
        """When frames leave the writer: nanoseconds after their time stamp."""
        at = self._at
        return 0 if at is None else int(at.segment.words[at.segment.latency_ns])

    @property
    def observing(self) -> Optional[str]:
        """Why this reader has no seat, so that each frame is copied; None when it has one."""
        return self._observing

    def read(self, timeout: Union[float, None, object] = _DEFAULT) -> Frame:
        """The next frame.

        :class:`~rsshm.Timeout` when none came in time, :class:`~rsshm.EndOfStream` when the writer ended the stream,
        :class:`~rsshm.Denied` when this user may not read the channel, :class:`~rsshm.Damaged` when it makes no sense.
        """
        patience = self.timeout if timeout is _DEFAULT else timeout
        self._check_timeout(patience)
        self._check_open()
        if not self._reading.acquire(blocking=False):
            raise Error(f"channel {self._name}: another thread reads with this reader; make one for each")
        try:
            return self._next(None if patience is None else time.monotonic() + float(patience))  # type: ignore[arg-type]
        finally:
            self._reading.release()
            if self._closed:
                self._leave()

    def __iter__(self) -> Iterator[Frame]:
        """Frames up to the end of the stream."""
        while True:
            try:
                frame = self.read()
            except EndOfStream:
                return
            yield frame
            # Else the former frame would be held while the next is waited for.
            del frame

    def request_key_frame(self) -> bool:
        """Asks the writer of a compressed stream for a frame that can be decoded alone. False when there is no writer, or
        this reader may only look."""
        at = self._at
        return at is not None and at.request_key_unit()

    def close(self) -> None:
        """Leaves the channel. Frames that the program still has stay good."""
        self._closed = True
        if self._forks != _libc.forks():
            return
        if self._reading.acquire(blocking=False):
            try:
                self._leave()
            finally:
                self._reading.release()
            return
        # The reading thread sees the flag when it wakes, and leaves.
        at = self._at
        if at is not None:
            at.segment.wake(at.segment.published)

    def __enter__(self) -> Reader:
        self._check_open()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if getattr(self, "_reading", None) is not None:
            self.close()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "connected" if self.connected else "waiting for a writer"
        return f"<rsshm.{type(self).__name__} of {self._name}, {state}>"

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"channel {self._name}: this reader is closed")
        if self._forks != _libc.forks():
            raise Closed(f"channel {self._name}: this reader is that of the parent process; a child makes its own")

    def _check_timeout(self, timeout: object) -> None:
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
            raise BadOption(f"channel {self._name}: timeout is {timeout!r}, not a number of seconds, or None")

    # Following the channel.

    def _next(self, deadline: Optional[float]) -> Frame:
        while True:
            if self._closed:
                raise Closed(f"channel {self._name}: this reader was closed")
            at = self._at
            if at is None:
                if time.monotonic() >= self._not_before and self._attach():
                    continue
                if self._former is not None and time.monotonic() - self._former_since > BETWEEN_SEGMENTS:
                    self._leave_former(layout.READER_LEFT)
                time.sleep(self._patience(deadline, LOOK))
                continue
            segment = at.segment
            halves = segment.halves
            # In this order: what is published after the count was read changes the count; a segment whose state says that
            # it is over has no frame after the head read next; an end that is not counted yet has none in this head.
            seen: int = halves[segment.published]
            acquire()
            state: int = halves[segment.state]
            acquire()
            eos: int = halves[segment.eos_count]
            acquire()
            end: Optional[int] = None
            if eos != self._eos_seen:
                eos, end = self._newest_end(segment, eos)
            head: int = segment.words[segment.head]
            acquire()
            events: int = segment.words[segment.event_head]
            allowance = at.allowance()
            # Only who may pin nothing can have been evicted.
            if allowance == 0 and at.is_evicted():
                warnings.warn(
                    f"channel {self._name}: the writer found this reader holding more than it was granted; frames that it "
                    "still has may change. It attaches again",
                    RuntimeWarning,
                    stacklevel=4,
                )
                self._go_away(at)
                self._seat = None
                again, self._evicted_at = self._evicted_at, time.monotonic()
                if again is not None and self._evicted_at - again < EVICTED_AGAIN:
                    self._not_before = again + EVICTED_AGAIN
                continue
            # What comes after an end is not given before it. A position beyond the head can only come of a damaged head: it
            # is given up.
            newest = min(head if end is None else min(head, end), MAX_NUMBER)
            if self._position > newest and newest != 0 and end is None:
                self._want_newest = True
                self._position = newest - 1
            if newest > self._position:
                frame = self._take(at, newest, allowance)
                if frame is not None:
                    return frame
                if self._undecodable:
                    self._undecodable = False
                    self._ask_for_key_unit(at)
            if end is not None:
                self._eos_seen = eos
                # What comes behind it is another stream, though the numbers run on.
                self._lost = True
                self._slow_down()
                raise EndOfStream(f"channel {self._name}: the stream ended")
            if state & layout.CLOSED:
                self._go_away(at)
                continue
            if state & layout.SUPERSEDED:
                self._at, self._former, self._former_since = None, at, time.monotonic()
                continue
            now = time.monotonic()
            # By the time since the last look and not by the length of a sleep: the caller's patience may be short.
            if now - self._checked >= CHECK:
                self._checked = now
                # Looked at after the lock: a segment that was superseded meanwhile is not lost.
                if (
                    not segment.has_writer()
                    and not halves[segment.state] & (layout.SUPERSEDED | layout.CLOSED)
                    and segment.words[segment.head] == head
                    and segment.words[segment.event_head] == events
                    and halves[segment.eos_count] == eos
                ):
                    self._go_away(at)
                    continue
            # Before the wait and not behind it, where a frame is there.
            at.prepare()
            self._slow_down()
            wary = self._robbed_at is not None and now - self._robbed_at < WARY
            if segment.wait(segment.published, seen, self._patience(deadline, SHORT if wary else CHECK)):
                self._robbed_at = now

    def _slow_down(self) -> None:
        """Counts a look that found no frame, and waits where there were too many."""
        if self.received != self._paced:
            self._paced = self.received
            self._pace.reset()
        rest = self._pace.turn()
        if rest is not None:
            time.sleep(rest)

    def _newest_end(self, segment: Segment, count: int) -> Tuple[int, Optional[int]]:
        """How many times the stream has ended, which was just read, and where there is an end that was not told, the number of
        its last frame."""
        number: Optional[int] = None
        # The number is stored before the count, so that it may be that of one more end. Bounded: it may be counted up for ever.
        for _ in range(8):
            if count == self._eos_seen:
                return count, None
            number = segment.words[segment.eos_seq]
            acquire()
            again: int = segment.halves[segment.eos_count]
            if again == count:
                break
            count = again
        return count, number

    def _patience(self, deadline: Optional[float], longest: float) -> float:
        """How long to wait now."""
        if deadline is None:
            return longest
        left = deadline - time.monotonic()
        if left > 0:
            return min(left, longest)
        if self._at is not None:
            raise Timeout(f"channel {self._name}: no frame came in time")
        others = ", ".join(name for name in _files.channels() if name != self._name.text) or "none"
        raise Timeout(f"channel {self._name}: no writer came in time (other channels that are there: {others})")

    def _attach(self) -> bool:
        """Attaches to the segment that is under the name now, if there is one."""
        try:
            position = None if self._former is None else self._position
            opened = Attachment.open(self._name, self._read_only, self._seat, position)
        except BaseException:
            self._leave_former(layout.READER_LEFT)
            raise
        if opened is None:
            return False
        at, observing = opened
        at.wait_for_grant()
        first: int = at.segment.header.first_seq
        follows = self._former is not None and first > self._position
        if self._segment_id is not None and self._segment_id != at.segment.identity:
            self.reconnects += 1
        if follows:
            # Only what ended in this segment is news; the count begins at 0 in each.
            self._eos_seen = 0
            if at.segment.caps != self._caps.text or at.segment.header.writer_pid != self._writer_pid:
                # Another stream, whose frames cannot be decoded with those before.
                self._lost = True
        else:
            # Another stream, or the first: the frame that was the newest on arrival comes first.
            self._position = max(at.head_then - 1, first - 1, 0)
            self._want_newest = False
            self._eos_seen = at.eos_then
            self._newly_attached = True
        self._discontinuity = True
        if at.segment.caps != self._caps.text or self._segment_id is None:
            self._caps = caps.parse(at.segment.caps)
        at.caps = self._caps
        # Whoever was asked before, or where, may never hear of it.
        self._asked = None
        self._writer_pid = at.segment.header.writer_pid
        self._segment_id = at.segment.identity
        self._observing = observing
        self._seat = at.seat
        self._checked = time.monotonic()
        # Only now: a lossless writer waits for that, and finds the reader in the new segment then.
        self._leave_former(layout.READER_MOVED)
        self._at = at
        return True

    def _leave_former(self, how: int) -> None:
        former, self._former = self._former, None
        if former is not None:
            former.leave(how)

    def _go_away(self, at: Attachment) -> None:
        self._at = None
        at.leave(layout.READER_LEFT)

    def _leave(self) -> None:
        at, self._at = self._at, None
        if at is not None:
            at.leave(layout.READER_LEFT)
        self._leave_former(layout.READER_LEFT)
        # The lock goes when the last frame has gone too.
        self._seat = None

    # Taking frames.

    def _take(self, at: Attachment, newest: int, allowance: int) -> Optional[Frame]:
        """Takes the oldest frame up to ``newest`` that is wanted, there, and can be decoded with what came before it."""
        # Whoever comes begins with an older frame than the newest if need be, but with none that it has had, that is too old
        # for what it wants, or that is gone before it has taken the next.
        reach = 1 if self.latest else layout.RING_LENGTH
        behind = max(at.kept_behind if self._newly_attached else self._position, newest - reach)
        if self._want_newest:
            number = self._newest_key(at, behind, newest) or newest
        else:
            number = max(self._position, behind) + 1
        while number <= newest:
            slot = at.find(number)
            if slot is None:
                number += 1
                continue
            continues = number == self._position + 1 and not self._newly_attached and not self._want_newest and not self._lost
            if not continues and at.is_delta(slot, number):
                key = self._newest_key(at, behind, newest)
                if key is None:
                    self._undecodable = True
                    break
                number = behind = key
                continue
            frame = at.get(slot, number, allowance, self._max_held)
            if frame is None:
                number += 1
                continue
            if not continues or self._skipped or self._discontinuity:
                frame.missed = self._miss_up_to(number - 1) + self._skipped
                frame.discontinuity = self._discontinuity or self._want_newest
                self._newly_attached = self._lost = self._discontinuity = self._want_newest = False
                self._skipped = 0
            self._asked = None
            self._position = number
            at.set_position(number)
            self.received += 1
            self.copied += not frame.in_place
            return frame
        # All were overwritten meanwhile, or are damaged, or cannot be decoded: a frame that is announced is never readable
        # only later.
        self._skipped += self._miss_up_to(newest)
        self._lost = True
        self._discontinuity = True
        self._position = newest
        at.set_position(newest)
        return None

    def _miss_up_to(self, number: int) -> int:
        """Counts the frames behind the last one given as missed. What was there before this reader came, or was told to
        look at the newest, is not."""
        if self._want_newest or self._newly_attached:
            return 0
        missed = max(number - self._position, 0)
        if missed > MOST_MISSED:
            missed = 0
        self.missed += missed
        return missed

    def _newest_key(self, at: Attachment, behind: int, newest: int) -> Optional[int]:
        """Number of the newest frame behind ``behind`` that can be decoded alone, if all frames from it on are there."""
        for number in range(newest, max(behind, newest - layout.RING_LENGTH), -1):
            slot = at.find(number)
            if slot is None:
                return None
            if not at.is_delta(slot, number):
                return number
        return None

    def _ask_for_key_unit(self, at: Attachment) -> None:
        now = time.monotonic()
        if (self._asked is None or now - self._asked >= ASK_AGAIN) and at.request_key_unit():
            self._asked = now


class Observer(Reader):
    """A reader that only looks: it needs read permission, writes nothing, is not counted, and copies each frame."""

    def __init__(self, name: str, timeout: Optional[float] = None, latest: bool = False) -> None:
        super().__init__(name, timeout, latest, read_only=True)
