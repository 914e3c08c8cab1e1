# SPDX-License-Identifier: MIT OR Apache-2.0
"""Waits end: by Ctrl-C, by another thread, and by the descriptor of a reader."""

from __future__ import annotations

import select
import signal
import threading
import time
from typing import Callable, List

import pytest
from helpers import PATIENCE, Channel, Process, eventually, grey, python

import rsshm

Start = Callable[..., Process]
INTERRUPT = 0.25
"""Seconds within which Ctrl-C ends a wait. The tests allow a busy machine as much again, and take the best of three."""


@pytest.mark.parametrize("wait", ["writer", "frame", "reader", "slot", "write"])
def test_interrupt_ends_wait(wait: str, channel: Channel, start: Start) -> None:
    def seconds() -> float:
        process = start(python("interrupted", channel.name, wait))
        process.expect("waits")
        time.sleep(0.3)
        began = time.monotonic()
        process.signal(signal.SIGINT)
        process.expect("interrupted")
        elapsed = time.monotonic() - began
        assert process.process.wait(PATIENCE) == 0
        channel.assert_gone()
        return elapsed

    assert any(seconds() < 2 * INTERRUPT for _ in range(3))


def test_second_thread_may_not_read_at_the_same_time(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer, rsshm.Reader(channel.name) as reader:
        writer.write(grey(1))
        reader.read()

        def is_refused(timeout: float) -> bool:
            try:
                reader.read(timeout)
            except rsshm.Timeout:
                return False
            except rsshm.Error as error:
                assert "another thread" in str(error)
                return True
            return False

        def wait() -> None:
            # The other thread may read first.
            while is_refused(PATIENCE):
                pass

        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        eventually("a second thread is refused", lambda: is_refused(0))
        writer.write(grey(2))
        waiting.join(PATIENCE)
        assert not waiting.is_alive()


def test_descriptor_is_readable_while_there_is_a_frame(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer, rsshm.Reader(channel.name) as reader:
        ready = lambda seconds: bool(select.select([reader], [], [], seconds)[0])  # noqa: E731
        assert not ready(0.05)
        with pytest.raises(rsshm.Timeout):
            reader.read(0)
        for value in range(1, 20):
            writer.write(grey(value))
            assert ready(5)
            assert reader.read(0).array[0, 0] == value
        assert not ready(0.05)
        writer.end_stream()
        assert ready(5)
        with pytest.raises(rsshm.EndOfStream):
            reader.read(0)
    with pytest.raises(rsshm.Closed):
        reader.fileno()


def test_wait_for_reader_ends_when_the_writer_is_closed(channel: Channel) -> None:
    writer = rsshm.Writer(channel.name, (48, 64), format="GRAY8")
    ended: List[BaseException] = []

    def wait() -> None:
        try:
            writer.wait_for_reader()
        except rsshm.Closed as error:
            ended.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    eventually("the segment", channel.exists)
    writer.close()
    waiting.join(PATIENCE)
    assert ended and not waiting.is_alive()
    began = time.monotonic()
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        assert not writer.wait_for_reader(0.3)
    assert 0.3 <= time.monotonic() - began < 10
