# SPDX-License-Identifier: MIT OR Apache-2.0
"""The reader: it follows a channel from writer to writer and from segment to segment, and returns the frames in order."""

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
"""Interval in seconds at which a reader without a segment looks for one."""
CHECK = 0.25
"""The longest wait for a frame. After this time, the reader asks the kernel whether the writer is alive."""
BETWEEN_SEGMENTS = 1.0
"""How long a channel may have no segment, between two segments, before its writer counts as gone."""
FALSE_ALARMS, LOOK_AGAIN = 16, 0.001
"""After this many wakes without a frame, the reader looks for frames only once per interval. So needless wakes cannot keep it
busy."""
WARY, SHORT = 60.0, 0.004
"""For ``WARY`` seconds after a lost wake, each wait lasts at most ``SHORT`` seconds. Wakes can be lost because any process
that may read a segment can move the segment's sleepers to another futex."""
EVICTED_AGAIN = 1.0
"""A reader that is evicted twice within this time waits before it attaches again. This reader respects its quota, so a second
eviction shows that another process changes the quota word."""
MOST_MISSED = 1 << 35
"""A gap of more frames is not counted as missed frames, because only a damaged head can cause it."""
ASK_AGAIN = 1.0
"""How long the reader waits for a keyframe before it requests one again."""
MAX_NUMBER = (1 << 56) - 1
"""The largest valid seq, because a ring entry holds only 56 bits of a seq. Only a damaged head is larger."""

MAX_ENDS = 8
"""How often the count of ends of the stream is loaded again while it changes. A faulty writer could change it all the time."""

_DEFAULT = object()


class Reader:
    """Reads a channel.

    >>> with rsshm.Reader("cam0") as reader:
    ...     for frame in reader:
    ...         print(frame.seq, frame.array.mean())

    The channel need not exist yet. The reader follows the channel if its writer dies, restarts, or changes the format.
    Each frame is in place, without a copy, unless the program keeps too many frames at a time. Small frames that share a slot
    are copied too.

    ``timeout``: seconds that :meth:`read` waits before it raises :class:`~rsshm.Timeout`. None waits forever.
    ``latest``: always read the newest frame, and skip older frames. By default, read every frame that the channel still has.
    ``max_held``: how many frames the program may keep in place. More frames are copied.
    ``read_only``: only observe. The reader then writes nothing to the channel, but each frame is copied.
    A reader also only observes if the permissions forbid more, or if 64 readers are attached. :attr:`observing` says why.

    Only one thread at a time may read, but any thread may call :meth:`close`.
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
        """The segment from which the reader takes frames."""
        self._former: Optional[Attachment] = None
        """The superseded segment, until the reader has attached to the next one. The writer still counts this reader there."""
        self._former_since = 0.0
        self._seat: Optional[HeldSeat] = None
        """The reader entry. The reader keeps it across segments."""
        self._caps = caps.parse("")
        self._segment_id: Optional[Identity] = None
        self._position = 0
        """The cursor: the seq of the last frame returned or skipped."""
        self._waiting_since: Optional[int] = None
        self._want_newest = False
        self._newly_attached = True
        self._discontinuity = True
        self._lost = False
        """Whether frames before the next frame are missing. If so, the next frame must be a keyframe."""
        self._skipped = 0
        """Number of frames skipped since the last frame that was returned."""
        self._asked: Optional[float] = None
        """When the reader last requested a keyframe."""
        self._eos_seen = 0
        self._checked = 0.0
        self._observing: Optional[str] = None
        self._undecodable = False
        """Whether the reader skipped a frame that was available, because it could not be decoded without a missing frame."""
        self._writer_pid = 0
        self._pace = Pace(FALSE_ALARMS, LOOK_AGAIN)
        self._paced = 0
        """The value of ``received`` at the last call of :meth:`_slow_down`."""
        self._robbed_at: Optional[float] = None
        """When a lost wake was last noticed."""
        self._evicted_at: Optional[float] = None
        self._not_before = 0.0
        """When a reader that was evicted twice may attach again."""
        self.received = 0
        """Number of frames returned."""
        self.copied = 0
        """Number of returned frames that are copies."""
        self.missed = 0
        """Number of frames that were lost or skipped."""
        self.reconnects = 0
        """How often the reader followed the channel to another writer or segment."""

    # The public interface.

    @property
    def name(self) -> str:
        """The channel's name."""
        return self._name.text

    @property
    def caps(self) -> caps.Caps:
        """The format of the last frame returned."""
        return self._caps

    @property
    def connected(self) -> bool:
        """Whether the reader is attached to the segment of a writer."""
        return self._at is not None

    @property
    def latency_ns(self) -> int:
        """The writer's latency: the time from the ``pts_ns`` of a frame until it is published, in nanoseconds."""
        at = self._at
        return 0 if at is None else int(at.segment.words[at.segment.latency_ns])

    @property
    def observing(self) -> Optional[str]:
        """The reason why this reader has no reader entry and copies each frame. None if it has a reader entry."""
        return self._observing

    def read(self, timeout: Union[float, None, object] = _DEFAULT) -> Frame:
        """Waits for the next frame, and returns it.

        Raises :class:`~rsshm.Timeout` if no frame came in time, and :class:`~rsshm.EndOfStream` if the writer ended the
        stream. Raises :class:`~rsshm.Denied` if this user may not read the channel, and :class:`~rsshm.Damaged` if the
        channel's segment is not valid.
        """
        patience = self.timeout if timeout is _DEFAULT else timeout
        self._check_timeout(patience)
        self._check_open()
        if not self._reading.acquire(blocking=False):
            raise Error(f"channel {self._name}: another thread is reading with this reader; use one reader per thread")
        try:
            return self._next(None if patience is None else time.monotonic() + float(patience))  # type: ignore[arg-type]
        finally:
            self._reading.release()
            if self._closed:
                self._leave()

    def __iter__(self) -> Iterator[Frame]:
        """Yields the frames up to the end of the stream."""
        while True:
            try:
                frame = self.read()
            except EndOfStream:
                return
            yield frame
            # Drop this reference. Otherwise the frame would stay in use while the reader waits for the next frame.
            del frame

    def request_key_frame(self, at_ns: Optional[int] = None) -> bool:
        """Requests a keyframe of a compressed stream. False if there is no writer, or if this reader only observes.

        ``at_ns``: the keyframe is the first frame with this ``pts_ns`` or a later one. Without it, the keyframe comes as
        soon as possible.
        """
        if at_ns is not None and not 0 <= at_ns < layout.TIME_NONE:
            raise BadOption(f"at_ns is {at_ns}, not a time in nanoseconds")
        at = self._at
        return at is not None and at.request_key_unit(at_ns)

    def close(self) -> None:
        """Leaves the channel. Frames that the program still has stay valid."""
        self._closed = True
        if self._forks != _libc.forks():
            return
        if self._reading.acquire(blocking=False):
            try:
                self._leave()
            finally:
                self._reading.release()
            return
        # Another thread is reading. It sees `_closed` when it wakes, and leaves the channel itself.
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
            raise Closed(f"channel {self._name}: this reader belongs to the parent process; a child makes its own")

    def _check_timeout(self, timeout: object) -> None:
        if timeout is not None and not (isinstance(timeout, (int, float)) and timeout >= 0):
            raise BadOption(f"channel {self._name}: timeout is {timeout!r}, not a number of seconds or None")

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
            # The order of the loads matters. A frame published after the first load changes `published`. If the state says
            # that the segment is superseded or closed, the writer publishes no frame after the head that is loaded below.
            # Because the count is loaded before the head, the head includes all frames before each counted end of stream.
            seen: int = halves[segment.published]
            acquire()
            state: int = halves[segment.state]
            acquire()
            for _ in range(MAX_ENDS):
                eos: int = halves[segment.eos_count]
                acquire()
                end: Optional[int] = None
                if eos != self._eos_seen:
                    eos, end = self._newest_end(segment, eos)
                head: int = segment.words[segment.head]
                acquire()
                # If the count has grown, the head may include frames after an end that is not counted yet.
                if halves[segment.eos_count] == eos:
                    break
            events: int = segment.words[segment.event_head]
            allowance = at.allowance()
            # The quota of an evicted reader counts as 0.
            if allowance == 0 and at.is_evicted():
                warnings.warn(
                    f"channel {self._name}: the writer evicted this reader, which held more slots than its quota; frames that "
                    "it still has may change. The reader attaches again",
                    RuntimeWarning,
                    stacklevel=4,
                )
                self._go_away(at)
                self._seat = None
                again, self._evicted_at = self._evicted_at, time.monotonic()
                if again is not None and self._evicted_at - again < EVICTED_AGAIN:
                    self._not_before = again + EVICTED_AGAIN
                continue
            # Do not return frames after an end of stream before the end is reported. If the cursor is beyond the head, a
            # head was damaged, so the cursor is reset.
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
                # The next frame belongs to another stream, although the seqs continue.
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
            # Check by the time since the last check. A wait may be shorter, because the caller's timeout may be short.
            if now - self._checked >= CHECK:
                self._checked = now
                # Load the state after the lock was checked. A segment that was superseded meanwhile has a successor, so the
                # reader does not go away.
                if (
                    not segment.has_writer()
                    and not halves[segment.state] & (layout.SUPERSEDED | layout.CLOSED)
                    and segment.words[segment.head] == head
                    and segment.words[segment.event_head] == events
                    and halves[segment.eos_count] == eos
                ):
                    self._go_away(at)
                    continue
            # Prepare before the wait, so that this work does not delay the next frame.
            at.prepare()
            self._slow_down()
            wary = self._robbed_at is not None and now - self._robbed_at < WARY
            if segment.wait(segment.published, seen, self._patience(deadline, SHORT if wary else CHECK)):
                self._robbed_at = now

    def _slow_down(self) -> None:
        """Counts a wake without a frame. After too many of these wakes, it sleeps for an interval."""
        if self.received != self._paced:
            self._paced = self.received
            self._pace.reset()
        rest = self._pace.turn()
        if rest is not None:
            time.sleep(rest)

    def _newest_end(self, segment: Segment, count: int) -> Tuple[int, Optional[int]]:
        """How many ends of stream the writer has counted. Also the last seq before the newest end, if it is not reported yet.

        ``count`` is the value of ``eos_count`` that the caller has just loaded.
        """
        number: Optional[int] = None
        # The writer overwrites the seq of an end only after the count has grown. So if the count is unchanged after the load
        # of the seq, the seq belongs to this count.
        for _ in range(MAX_ENDS):
            if count == self._eos_seen:
                return count, None
            number = segment.words[segment.eos_seqs + count % 2]
            acquire()
            again: int = segment.halves[segment.eos_count]
            if again == count:
                break
            count = again
        return count, number

    def _patience(self, deadline: Optional[float], longest: float) -> float:
        """How long to wait now. Raises Timeout if the deadline has passed."""
        if deadline is None:
            return longest
        left = deadline - time.monotonic()
        if left > 0:
            return min(left, longest)
        if self._at is not None:
            raise Timeout(f"channel {self._name}: no frame came in time")
        others = ", ".join(name for name in _files.channels() if name != self._name.text) or "none"
        raise Timeout(f"channel {self._name}: no writer came in time (other channels: {others})")

    def _attach(self) -> bool:
        """Attaches to the segment that has the channel's name now. False if there is none."""
        try:
            position = None if self._former is None else self._position
            opened = Attachment.open(self._name, self._read_only, self._seat, position)
        except BaseException:
            self._leave_former(layout.READER_LEFT)
            raise
        if opened is None:
            if self._waiting_since is None:
                self._waiting_since = time.monotonic_ns()
            return False
        at, observing = opened
        at.wait_for_grant()
        first: int = at.segment.header.first_seq
        follows = self._former is not None and first > self._position
        if self._segment_id is not None and self._segment_id != at.segment.identity:
            self.reconnects += 1
        if follows:
            # The count of ends of stream begins at 0 in each segment. So this reader has not reported any end of this
            # segment.
            self._eos_seen = 0
            if at.segment.caps != self._caps.text or at.segment.header.writer_pid != self._writer_pid:
                # This is another stream. Its frames do not depend on the frames of the former stream.
                self._lost = True
        else:
            # This is another stream, or the reader's first stream. A reader that joins late begins at the frame that was the
            # newest when it attached. A reader that has waited since before the segment was made begins at the first frame.
            if self._waiting_since is not None and self._waiting_since < at.segment.header.created_ns:
                self._position, self._eos_seen = max(first - 1, at.kept_behind, 0), 0
            else:
                self._position, self._eos_seen = max(at.head_then - 1, first - 1, 0), at.eos_then
            self._want_newest = False
            self._newly_attached = True
        self._waiting_since = None
        self._discontinuity = True
        if at.segment.caps != self._caps.text or self._segment_id is None:
            self._caps = caps.parse(at.segment.caps)
        at.caps = self._caps
        # Request a keyframe again if needed, because the writer may not have seen a request in another segment.
        self._asked = None
        self._writer_pid = at.segment.header.writer_pid
        self._segment_id = at.segment.identity
        self._observing = observing
        self._seat = at.seat
        self._checked = time.monotonic()
        # Leave the former segment only now. A lossless writer waits until the reader has left it, and must then find the
        # reader in the new segment.
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
        # This releases the lock of the reader entry, or, if frames are still in use, the last of these frames releases it.
        self._seat = None

    # Taking frames.

    def _take(self, at: Attachment, newest: int, allowance: int) -> Optional[Frame]:
        """Takes the oldest frame up to ``newest`` that the reader wants, and that is available and can be decoded."""
        # A reader may begin with an older frame than the newest, but only with one after `behind`. It has not had these
        # frames, they are as new as `latest` demands, and a lossless writer keeps them for this reader.
        behind = max(at.kept_behind if self._newly_attached else self._position, newest - 1 if self.latest else 0)
        start = at.runs.newest_start(behind, newest) if self._want_newest else None
        """A frame with which the reader can start again: a keyframe, or a header before one."""
        if self._want_newest:
            number = start or newest
        else:
            number = max(self._position, behind) + 1
        while True:
            place = at.runs.find(number)
            if place is None:
                break
            number = place.first + place.ordinal - 1
            if number > newest:
                break
            continues = number == self._position + 1 and not self._newly_attached and not self._want_newest and not self._lost
            if not continues and number != start and not at.runs.is_keyframe(place):
                start = at.runs.newest_start(behind, newest)
                if start is None:
                    self._undecodable = True
                    break
                number = behind = start
                continue
            frame = at.get(place, number, allowance, self._max_held)
            if frame is None:
                # The slot was overwritten, or is damaged. In both cases, the whole run is lost.
                number = place.last_of_run + 1
                continue
            at.runs.took(place, frame._described)
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
        # All frames were overwritten, damaged, or not decodable. They stay unreadable, because the writer announces a frame
        # only when it is readable.
        self._skipped += self._miss_up_to(newest)
        self._lost = True
        self._discontinuity = True
        self._position = newest
        at.set_position(newest)
        return None

    def _miss_up_to(self, number: int) -> int:
        """Counts the frames from the cursor to ``number`` as missed. Counts none if the reader is new or wants the newest."""
        if self._want_newest or self._newly_attached:
            return 0
        missed = max(number - self._position, 0)
        if missed > MOST_MISSED:
            missed = 0
        self.missed += missed
        return missed

    def _ask_for_key_unit(self, at: Attachment) -> None:
        now = time.monotonic()
        if (self._asked is None or now - self._asked >= ASK_AGAIN) and at.request_key_unit():
            self._asked = now


class Observer(Reader):
    """A reader that only observes: it needs read permission, writes nothing, is not counted, and copies each frame."""

    def __init__(self, name: str, timeout: Optional[float] = None, latest: bool = False) -> None:
        super().__init__(name, timeout, latest, read_only=True)
