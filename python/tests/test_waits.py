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
"""Seconds within which Ctrl-C ends a wait. The tests allow a busy machine as much again."""


@pytest.mark.parametrize("wait", ["writer", "frame", "reader", "slot", "write"])
def test_interrupt_ends_wait(wait: str, channel: Channel, start: Start) -> None:
    process = start(python("interrupted", channel.name, wait))
    process.expect("waits")
    time.sleep(0.3)
    began = time.monotonic()
    process.signal(signal.SIGINT)
    process.expect("interrupted")
    assert time.monotonic() - began < 2 * INTERRUPT
    assert process.process.wait(PATIENCE) == 0
    channel.assert_gone()


def test_second_thread_may_not_read_at_the_same_time(channel: Channel) -> None:
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer, rsshm.Reader(channel.name) as reader:
        writer.write(grey(1))
        reader.read()
        waiting = threading.Thread(target=lambda: reader.read(PATIENCE), daemon=True)
        waiting.start()
        time.sleep(0.1)
        with pytest.raises(rsshm.Error, match="another thread"):
            for _ in range(1000):
                reader.read(0)
        writer.write(grey(2))
        waiting.join(5)
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
    waiting.join(5)
    assert ended and not waiting.is_alive()
    began = time.monotonic()
    with rsshm.Writer(channel.name, (48, 64), format="GRAY8") as writer:
        assert not writer.wait_for_reader(0.3)
    assert 0.3 <= time.monotonic() - began < 1
