# SPDX-License-Identifier: MIT OR Apache-2.0
"""The writer's side of a channel: slots, segments, readers and names. This module does not deal with pictures.

The writer keeps its state in its own memory. Of the values in the segment, it uses only those of the reader entries.
"""

from __future__ import annotations

import errno
import os
import threading
import time
from typing import Any, Callable, List, NamedTuple, Optional, Tuple

from . import _files, _libc, _signals, layout
from ._clients import Clients
from ._files import Name
from ._libc import KeptLock, full_fence, monotonic_ns, release
from ._pace import Pace
from ._segment import Segment
from ._slots import Claim, WriterSegment
from ._takeover import BUSY_PATIENCE, busy, open_control, take_channel
from .errors import BadOption, Busy, Closed, Error, Foreign
from .layout import FrameDescriptor, ReaderEntry

FIRST_SLOTS = 3
"""The number of slots that a segment starts with. A segment is not created with fewer slots."""
MANY_SLOTS, KEEP_MANY, KEEP_FEW = 12, 4, 2
"""The history. In a segment with 12 or more slots, a frame survives four later frames; in others, it survives two."""
KEEP_VARIABLE_BYTES, KEEP_VARIABLE = 4 << 20, 32
"""The limits of the history in bytes and frames, if frames vary in size. This history is longer, because a reader joins a
compressed stream at a keyframe. The limits leave slots that readers can hold."""
MAX_ADDRESS_SPACE = 1 << 30
"""The maximum address space of the slots if the number of slots is chosen automatically."""
MIN_VARIABLE_SLOT = 64 * 1024
"""The minimum size of a slot if the size of the frames varies."""
BLOCKED_CHECK = 0.01
"""How long a blocked writer sleeps before it asks the kernel whether the readers that it waits for are alive."""
NAMES_CHECK = 1.0
"""Interval at which the names in /dev/shm are checked."""
KEEP_RETIRED = 1.0
"""How long a superseded segment keeps frames that no reader holds."""
MAX_RETIRED = 8
"""The maximum number of superseded segments that the writer keeps. It drops older ones even if readers still use them."""
SERVICE = 0.25
"""Interval of the service while no peer notifies the writer."""
SERVICE_WAKES, SERVICE_LOOK = 16, 0.005
"""After this many notifications in a row, the service runs once per interval."""
BLOCKED_WAKES, BLOCKED_LOOK = 256, 0.001
"""The limits, as above, for a writer that waits for its readers: the number of wakes, and then the interval."""
STRANGERS = 1.0
"""After a lossless writer took over from a dead writer, it waits at most this long for readers in older segments."""


class Format(NamedTuple):
    """The format of the frames."""

    caps: str
    frame_size: int
    """Size of each frame. 0 if frames differ in size, as in a compressed stream; slots may then be larger than the frames."""


class KeyframeRule:
    """Decides with which frames of a stream a reader can start.

    A muxer or a payloader divides a keyframe into many frames, and marks none of them as a delta frame. A reader can start
    only with the first of them. So in a stream with delta frames, only a frame after a delta frame counts.
    """

    def __init__(self) -> None:
        self._has_deltas = False
        self._is_after_delta = True

    def is_keyframe(self, is_delta: bool) -> bool:
        """Whether a reader can start with the next frame of the stream."""
        self._has_deltas |= is_delta
        is_start = not is_delta and (self._is_after_delta or not self._has_deltas)
        self._is_after_delta = is_delta
        return is_start


class Channel:
    """A channel that this process writes."""

    def __init__(self, name: str, perms: int, max_slots: int, lossless: bool) -> None:
        self.name = Name(name)
        if max_slots != 0 and not FIRST_SLOTS <= max_slots <= layout.MAX_SLOTS:
            raise BadOption(f"channel {name}: max_slots is {max_slots}, not 0 (automatic) or 3 to 64")
        if not 0o600 <= perms <= 0o777 or perms & 0o600 != 0o600:
            raise BadOption(
                f"channel {name}: perms is {perms:#o}, not 0o600 to 0o777 with read and write permission for the owner"
            )
        self.perms = perms
        self.lossless = lossless
        self.published = 0
        self.segments = 0
        self.key_frame_wanted = False
        self._max_slots = max_slots
        self._forks = _libc.forks()
        # The lock is reentrant, because a finaliser that takes it may run in the thread that holds it.
        self._lock = threading.RLock()
        taken = take_channel(self.name, perms)
        self._control = taken.control
        self._writer_lock: Optional[KeptLock] = taken.lock
        """None once the channel is closed."""
        self._head = taken.head
        self._event_head = taken.event_head
        self._retired: List[WriterSegment] = [] if taken.retired is None else [taken.retired]
        self._current: Optional[WriterSegment] = None
        self._format: Optional[Format] = None
        self._placed = taken.placed
        """The file that has the channel's name: this writer's segment, or at first the segment of a dead writer."""
        self._took_over: Optional[float] = None if taken.placed is None else time.monotonic()
        """When this writer took over from a dead writer. Some readers may still be in older segments of the dead writer."""
        self._passed_over = 0
        """Number of frames dropped since the last published frame."""
        self._keyframes = KeyframeRule()
        self._pace = Pace(SERVICE_WAKES, SERVICE_LOOK)
        self._latency_ns = 0
        self._names_checked = time.monotonic()
        self._names_foreign_since: Optional[float] = None
        self._clients = Clients()
        self._served = 0
        self._failure: Optional[Error] = None
        """An error in the service. The next call of the program raises it."""
        self._wake = threading.Event()
        self._monitor = threading.Thread(target=self._look_after, name=f"rsshm {name}", daemon=True)
        self._monitor.start()
        _signals.add(self)

    # The service.

    def _look_after(self) -> None:
        """Runs the service for the readers and the names, even while no frames flow."""
        while self._writer_lock is not None:
            current = self._current
            if current is None:
                self._wake.wait(SERVICE)
                self._wake.clear()
            else:
                due = self._clients.keyframes.seconds_until_due(monotonic_ns())
                longest = SERVICE if due is None else min(due, SERVICE)
                current.segment.wait(current.segment.writer_word, self._served, longest)
            try:
                self._service()
            except Error as error:
                self._failure = error
            except OSError as error:
                self._failure = _files.system(self.name.text, "service the channel", error)
            # Drop the reference, because it would keep a superseded segment during the wait.
            del current
            rest = self._pace.turn()
            if rest is not None:
                time.sleep(rest)

    def _service(self) -> None:
        with self._lock:
            if self._writer_lock is None:
                return
            check_names = time.monotonic() - self._names_checked > NAMES_CHECK
            if check_names:
                self._names_checked = time.monotonic()
                if self._current is not None:
                    # The system may have memory again.
                    self._current.full = False
            self._control.mend()
            if check_names:
                self._restore_names()
            self._replace_spoilt(check_names)
            current = self._current
            if current is not None:
                self._mend_heads(current)
                # The update below finds readers that attached before this load. A reader that attaches later changes the
                # word, so the service runs again.
                self._served = current.segment.halves[current.segment.writer_word]
                full_fence()
            self._clients.update(current, self._retired)
            if current is not None:
                self.key_frame_wanted |= self._clients.hear_requests(current, self._head)
            wanted = 0 if current is None else self._clients.slots_wanted(current)
        if current is not None:
            self._back_slots(current, wanted)
        with self._lock:
            if current is not None and current is self._current:
                release()
                self._clients.update_grants(current)
            for retired in self._retired:
                if time.monotonic() - retired.retired_at > KEEP_RETIRED and not retired.is_empty():
                    retired.give_back()
            self._forget_retired()

    def _forget_retired(self) -> None:
        """Drops superseded segments that no process uses any more."""
        kept = [retired for retired in self._retired if not (retired.is_empty() and self._is_deserted(retired))]
        self._retired = kept[-MAX_RETIRED:]

    def _is_deserted(self, retired: WriterSegment) -> bool:
        """Whether no living reader takes frames in this superseded segment any more.

        If a reader entry is in use in the current segment, its reader has moved there, or a new reader owns the entry.
        """
        for seat in range(layout.MAX_READERS):
            followed = self._current is not None and self._current.half(seat, ReaderEntry.state) != layout.READER_NEW
            if not followed and retired.has_reader_in(seat):
                return False
        return True

    # The calls of the writer.

    def _check_open(self) -> None:
        if self._forks != _libc.forks():
            raise Closed(f"channel {self.name}: this writer belongs to the parent process; a child makes its own")
        if self._writer_lock is None:
            raise Closed(f"channel {self.name}: this writer is closed")
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def set_format(self, format: Format) -> None:
        """Sets the format of the frames from now on. The next claim of a slot creates a segment for this format."""
        with self._lock:
            if format != self._format:
                self._keyframes = KeyframeRule()
            self._format = format

    def claim(self, size: int) -> Optional[Claim]:
        """Claims a slot for a frame of ``size`` bytes. If readers hold every slot, a lossless writer waits for them, and for
        any other writer the result is None."""
        while True:
            self._check_open()
            self._ensure_segment(size)
            if self.lossless:
                self._wait_until(self._followers_arrived)
            claim = self._take_slot(size)
            # The claim can fail although a slot was free when the wait ended, because a reader may have pinned it since.
            if claim is not None or not self.lossless:
                return claim
            self._wait_until(lambda: self._current is None or self._current.has_claimable())

    def _take_slot(self, size: int) -> Optional[Claim]:
        with self._lock:
            current = self._current
            if current is None or size > current.segment.slot_size:
                return None
            slot = current.find()
            if slot is not None:
                return current.claim(slot)
        grown = self._grow(current)
        with self._lock:
            if current is not self._current:
                return None
            if grown is not None:
                return current.claim(grown) if current.take(grown) else None
            # Shorten the history only if no slot can be added, or if another thread is still adding one.
            if not current.growing and not current.is_scarce():
                return None
            # Take the slot of a frame within the history.
            slot = current.find_scarce()
            return None if slot is None else current.claim(slot)

    def _grow(self, current: WriterSegment) -> Optional[int]:
        """Commits one more slot without holding the lock, and returns its index. For a large frame, this takes milliseconds,
        because the system clears the memory."""
        with self._lock:
            if current.growing or not current.can_grow():
                return None
            current.growing = True
            index = current.backed
        backed = False
        try:
            backed = current.segment.back_slot(index)
        finally:
            with self._lock:
                current.growing = False
                if backed:
                    current.backed += 1
                else:
                    # The writer commits no further slot until the service allows another try.
                    current.full = True
        return index if backed else None

    def _back_slots(self, current: WriterSegment, wanted: int) -> None:
        while current is self._current and current.backed < wanted and self._grow(current) is not None:
            pass

    def begin(self, claim: Claim, descriptor: FrameDescriptor) -> Tuple[WriterSegment, Any]:
        """Returns the segment of the claimed slot, and the slot as a ctypes array that keeps the claim.

        Writes the descriptor, which must fit the slot. Later, :meth:`publish` writes the times and flags into it.
        """
        owner = claim._owner
        assert owner.segment.slots is not None
        exporter = owner.segment.slots.exporter(owner.segment.slot_offset(claim.index), descriptor.size)
        exporter.claim = claim
        owner.segment.write_descriptor(claim.index, descriptor)
        return owner, exporter

    def publish(self, owner: WriterSegment, index: int, pts: int, duration: int, flags: int) -> Optional[int]:
        """Publishes the frame in a claimed slot after :meth:`begin`, and returns its seq.

        Returns None if the slot's segment was superseded meanwhile or has another format, or if the slot is published
        already.
        """
        self._check_open()
        segment = owner.segment
        with self._lock:
            if owner is not self._current or self._format is None or self._format.caps != segment.caps:
                return None
            if owner.numbers[index] != 0:
                return None
            number = self._head + 1 + self._passed_over
            run = owner.newest_run + 1
            entry = (number & (1 << 56) - 1) << 8 | index
            is_keyframe = self._keyframes.is_keyframe(bool(flags & layout.DELTA_UNIT))
            taken = self._control.acquire()
            try:
                segment.complete_record(index, pts, duration, flags, is_keyframe)
                self._head = owner.numbers[index] = number
                owner.newest_run = owner.runs[index] = run
                self._passed_over = 0
                # The order matters: each store refers to data that the stores before it have completed.
                release()
                segment.numbers[index] = number
                release()
                segment.ring[run % layout.RING_LENGTH] = entry
                release()
                segment.words[segment.run_head] = run
                release()
                segment.words[segment.head] = number
            finally:
                self._control.give_back(taken)
            # Notify while holding the lock, because the word is not incremented by an atomic addition.
            segment.ring_bell(segment.published)
            # Do the remaining work only now, so that it does not delay the readers.
            self.published += 1
            self._clients.keyframes.note_frame(number, pts, is_keyframe)
        return number

    def pass_over(self) -> None:
        """Skips one seq for a frame that was dropped because no slot was free. Readers then see that a frame is missing."""
        with self._lock:
            self._passed_over += 1

    def end_of_stream(self) -> None:
        """Ends the stream after the last frame published. Another stream may follow."""
        self._check_open()
        with self._lock:
            if self._current is None:
                return
            segment = self._current.segment
            taken = self._control.acquire()
            try:
                count = (segment.halves[segment.eos_count] + 1) & 0xFFFF_FFFF
                segment.words[segment.eos_seqs + count % 2] = self._head
                release()
                segment.halves[segment.eos_count] = count
            finally:
                self._control.give_back(taken)
            self._keyframes = KeyframeRule()
            segment.ring_bell(segment.published)

    @property
    def latency_ns(self) -> int:
        """The time from the timestamp of a frame until the writer publishes the frame, in nanoseconds."""
        return self._latency_ns

    @latency_ns.setter
    def latency_ns(self, latency_ns: int) -> None:
        with self._lock:
            if latency_ns != self._latency_ns:
                self._latency_ns = latency_ns
                if self._current is not None:
                    segment = self._current.segment
                    segment.words[segment.latency_ns] = latency_ns
                    segment.ring_bell(segment.published)

    @property
    def readers(self) -> int:
        """Number of readers that are attached and alive."""
        with self._lock:
            self._clients.update(self._current, self._retired)
            return self._clients.count

    @property
    def evicted(self) -> int:
        """Number of evicted readers. They held more slots than their quota, so their pins no longer count."""
        return self._clients.evicted

    @property
    def semaphore_timeouts(self) -> int:
        """How often a publish continued without the semaphore, because another process held the semaphore too long."""
        return self._control.timeouts

    def wait_for_reader(self, size: int, timeout: Optional[float]) -> bool:
        """Waits until a reader is attached. Before the wait, it creates a segment, because a reader needs one to attach."""
        self._check_open()
        self._ensure_segment(size)
        deadline = None if timeout is None else time.monotonic() + timeout
        return self._wait_until(self._has_reader, deadline)

    def _has_reader(self) -> bool:
        current = self._current
        return current is not None and any(
            current.half(seat, ReaderEntry.state) == layout.READER_ATTACHED and current.is_alive(seat)
            for seat in range(layout.MAX_READERS)
        )

    def _followers_arrived(self) -> bool:
        """Whether no reader is left in a former segment. Each has moved to the current segment, or is gone."""
        if self._took_over is not None and time.monotonic() - self._took_over < STRANGERS and self._expects_strangers():
            return False
        self._took_over = None
        return all(self._is_deserted(retired) for retired in self._retired)

    def _expects_strangers(self) -> bool:
        """Whether a reader holds the lock of a reader entry that is unused in all segments that this writer knows."""
        current = self._current
        if current is None:
            return False
        known = [current, *self._retired]
        return any(
            all(segment.half(seat, ReaderEntry.state) == layout.READER_NEW for segment in known) and current.is_alive(seat)
            for seat in range(layout.MAX_READERS)
        )

    def _wait_until(self, ready: Callable[[], bool], deadline: Optional[float] = None) -> bool:
        """Waits until ``ready()`` is true, and calls it under the lock at least every 10 ms. False after the deadline."""
        pace = Pace(BLOCKED_WAKES, BLOCKED_LOOK)
        while True:
            self._check_open()
            with self._lock:
                if ready() or self._current is None:
                    return True
                segment = self._current.segment
            seen: int = segment.halves[segment.writer_word]
            _libc.acquire()
            segment.halves[segment.writer_waits] = 1
            # Pairs with the fence of a reader that removes a pin or sets its cursor, and then loads `writer_waits`.
            full_fence()
            try:
                with self._lock:
                    is_ready = ready()
                if not is_ready:
                    segment.wait(segment.writer_word, seen, BLOCKED_CHECK)
            finally:
                segment.halves[segment.writer_waits] = 0
            if is_ready:
                return True
            if deadline is not None and time.monotonic() > deadline:
                return False
            rest = pace.turn()
            if rest is not None:
                time.sleep(rest)

    def close(self) -> None:
        """Closes the channel: notifies the readers, removes the names, and releases the locks.

        Arrays of claimed slots stay valid.
        """
        # A forked child has a copy of this object, but the channel still belongs to the parent.
        if self._forks != _libc.forks():
            return
        with self._lock:
            lock, self._writer_lock = self._writer_lock, None
            if lock is None:
                return
            taken = self._control.acquire()
            try:
                if self._placed is not None:
                    _files.remove_if(self.name.segment_path, self._placed)
                current, self._current = self._current, None
                if current is not None:
                    segment = current.segment
                    release()
                    segment.halves[segment.state] = segment.halves[segment.state] | layout.CLOSED
                    segment.ring_bell(segment.published)
                    # The service thread sleeps on this word.
                    segment.ring_bell(segment.writer_word)
                _files.remove_if(self._control.path, self._control.identity)
                self._retired.clear()
            finally:
                self._control.give_back(taken)
            # Release the locks only after the names are removed. A process that then gets the locks finds the names free.
            if current is not None and current.alive is not None:
                current.alive.drop()
            lock.drop()
        _signals.discard(self)
        self._wake.set()
        if threading.current_thread() is not self._monitor:
            self._monitor.join(1.0)

    # Segments.

    def _ensure_segment(self, size: int) -> None:
        """Creates a segment unless the current segment has this format, and its slots have at least ``size`` bytes."""
        with self._lock:
            if self._format is None:
                raise BadOption(f"channel {self.name}: no caps were set before the first frame")
            current = self._current
            fits = (
                current is not None
                and current.segment.caps == self._format.caps
                and max(size, self._format.frame_size) <= current.segment.slot_size
            )
            if not fits:
                self._replace(size)

    def _slot_size(self, format: Format, size: int) -> int:
        least = max(size, format.frame_size, 1)
        if format.frame_size:
            return least
        former = MIN_VARIABLE_SLOT
        if self._current is not None and self._current.segment.caps == format.caps:
            former = self._current.segment.slot_size
        return former if least <= former else least * 2

    def _replace(self, size: int) -> None:
        """Creates a segment, and gives it the channel's name."""
        self._check_open()
        format = self._format
        assert format is not None
        slot_size = self._slot_size(format, size)
        free = _files.space(self._control.fd).free
        if self._current is not None:
            free += self._current.backed * self._current.segment.slot_size
        slots = self._max_slots
        if slots == 0:
            slots = min(max(min(free // 2, MAX_ADDRESS_SPACE) // slot_size, FIRST_SLOTS), layout.MAX_SLOTS)
        encoded_size = len(format.caps.encode())
        header = layout.new_header(encoded_size, slots, slot_size)
        if header is None:
            raise BadOption(
                f"channel {self.name}: cannot lay out a segment for frames of {slot_size} bytes with caps of {encoded_size} "
                f"bytes; caps have at most {layout.MAX_CAPS_SIZE} bytes"
            )
        header.created_ns = monotonic_ns()
        header.lock_device, header.lock_inode = self._control.identity
        header.history = _retain(slots, header.slot_size, format.frame_size == 0)
        header.writer_pid = os.getpid()
        header.flags = layout.LOSSLESS if self.lossless else 0
        try:
            made = Segment.create(header, format.caps, FIRST_SLOTS, self.perms)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.ENOMEM):
                raise _files.create_error(self.name.text, self.name.segment_path, error) from error
            # Release those slots of old segments that no reader has pinned. Often this frees enough memory.
            self._retire()
            for retired in self._retired:
                retired.give_back()
            self._forget_retired()
            try:
                made = Segment.create(header, format.caps, FIRST_SLOTS, self.perms)
            except OSError as second:
                if second.errno not in (errno.ENOSPC, errno.ENOMEM):
                    raise _files.create_error(self.name.text, self.name.segment_path, second) from second
                wanted = header.slots_offset + FIRST_SLOTS * header.slot_size
                frames = f" for {FIRST_SLOTS} frames of {header.slot_size} bytes"
                raise _files.no_space(self.name.text, wanted, frames, self._control.fd) from second
        self._install(*made)

    def _install(self, segment: Segment, aside: _files.Aside, alive: KeptLock) -> None:
        """Gives the new segment the channel's name, and notifies the readers of the old segment."""
        path = self.name.segment_path
        with aside:
            taken = self._control.acquire()
            try:
                segment.begin(self._head + 1, self._event_head, self._latency_ns)
                # A rename replaces the writer's own former segment. If another file has the name, an error is raised.
                replaces_own = self._placed is not None and _files.identity_of(path) == self._placed
                try:
                    aside.place(path, replaces_own)
                except FileExistsError:
                    raise Foreign(f"channel {self.name}: another program has created {path}") from None
                except OSError as error:
                    raise _files.system(self.name.text, f"rename to {path}", error) from error
                self._retire()
                self._placed = segment.identity
                self._served = 0
                self._current = WriterSegment(segment, self._control, FIRST_SLOTS, self.lossless, alive)
                self.segments += 1
            finally:
                self._control.give_back(taken)
        self._wake.set()

    def _retire(self) -> None:
        """Marks the current segment as superseded."""
        current, self._current = self._current, None
        if current is not None:
            current.supersede()
            current.alive = None
            self._retired.append(current)

    def _restore_names(self) -> None:
        """Creates the channel's files again if another program has removed them."""
        found = _files.identity_of(self._control.path)
        control_lost = found != self._control.identity
        current = self._current
        segment_lost = False
        if current is not None:
            found = _files.identity_of(self.name.segment_path)
            segment_lost = found is None
            if not segment_lost and found != current.segment.identity:
                raise self._taken_by_others()
        if control_lost:
            # Create the lock file. If another program has created one that no writer has locked, open that file.
            try:
                control, lock, _ = open_control(self.name, self.perms)
            except Busy:
                # A second writer may have created and locked a new lock file. It removes the file when it finds this writer
                # alive.
                return self._names_are_foreign()
            control.timeouts = self._control.timeouts
            self._control, self._writer_lock = control, lock
        self._names_foreign_since = None
        # Also replace the segment if it belongs to an older lock file, because an earlier call could not replace it.
        if current is not None and (segment_lost or current.control.identity != self._control.identity):
            self._replace(current.segment.slot_size)

    def _taken_by_others(self) -> Error:
        """The error that is raised if the channel's name belongs to a file of another writer or user."""
        path = self.name.segment_path
        try:
            fd = _files.open_existing(path, False)
            if fd is not None:
                try:
                    _files.require_own(self.name.text, path, fd)
                finally:
                    os.close(fd)
        except OSError as error:
            return _files.open_error(self.name.text, path, "read", error)
        except Error as error:
            return error
        return busy(self.name)

    def _replace_spoilt(self, thoroughly: bool) -> None:
        """Creates a new segment if another process has overwritten the header, the caps or the state. With the overwritten
        values, readers could not attach any more, or would leave."""
        current = self._current
        if current is not None:
            over = current.segment.halves[current.segment.state] != 0
            if over or (thoroughly and current.segment.is_spoilt()):
                self._replace(current.segment.slot_size)

    def _mend_heads(self, current: WriterSegment) -> None:
        """Restores the heads and the latency if another process has changed them. New readers need these values."""
        segment = current.segment
        for index, value in (
            (segment.head, self._head),
            (segment.run_head, current.newest_run),
            (segment.event_head, self._event_head),
            (segment.latency_ns, self._latency_ns),
        ):
            if segment.words[index] != value:
                release()
                segment.words[index] = value

    def _names_are_foreign(self) -> None:
        if self._names_foreign_since is None:
            self._names_foreign_since = time.monotonic()
        if time.monotonic() - self._names_foreign_since > BUSY_PATIENCE:
            raise busy(self.name)


def _retain(slots: int, slot_size: int, variable: bool) -> int:
    """The history of a segment with at most ``slots`` slots."""
    least = KEEP_MANY if slots >= MANY_SLOTS else KEEP_FEW
    if not variable:
        return least
    return max(min(KEEP_VARIABLE_BYTES // slot_size, KEEP_VARIABLE, slots // 2), least)
