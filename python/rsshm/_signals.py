# SPDX-License-Identifier: MIT OR Apache-2.0
"""Closes the channels of this process when a signal ends it.

Without this module, SIGTERM and SIGHUP would end a Python program at once, and the files of its channels would remain.

The module never replaces the program's own handlers: it handles a signal only while the signal has its default disposition.
"""

from __future__ import annotations

import os
import signal
import threading
import weakref
from types import FrameType
from typing import Any, Optional

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""The signals that end a program by default, and that service managers and terminals send to end one."""

_channels: weakref.WeakSet[Any] = weakref.WeakSet()
"""The open channels, also those that a forked child has inherited."""

_process = 0
"""The process that opened a channel last. A signal can come before a forked child knows that its channels are copies."""


def add(channel: Any) -> None:
    """Makes sure that the channel is closed when a signal ends the process."""
    global _process
    _process = os.getpid()
    _channels.add(channel)
    # Only the main thread can set handlers.
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) == signal.SIG_DFL:
                try:
                    signal.signal(number, _end)
                except ValueError:
                    # This is the main thread of a subinterpreter, which cannot set handlers either.
                    return


def discard(channel: Any) -> None:
    """Forgets a channel that is closed. After the last one, the signals have their default disposition again."""
    _channels.discard(channel)
    if not _channels and threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            if signal.getsignal(number) == _end:
                signal.signal(number, signal.SIG_DFL)


def _end(number: int, _frame: Optional[FrameType]) -> None:
    """Closes all channels, and ends the process by the same signal, so that its exit status names the signal."""
    for channel in list(_channels) if os.getpid() == _process else []:
        try:
            channel.close()
        except Exception:  # noqa: BLE001
            # The process ends in any case, and the next writer takes over files that remain.
            pass
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
