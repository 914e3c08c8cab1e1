# SPDX-License-Identifier: MIT OR Apache-2.0
from __future__ import annotations

import signal
from typing import Any, Callable, Iterator

import pytest
from helpers import Channel, Process

# A shell that starts the tests in the background may ignore these signals, and the processes of the tests would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def channel() -> Iterator[Channel]:
    """A channel for this test alone. Its files are removed after the test."""
    channel = Channel()
    yield channel
    channel.remove()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts processes, which are killed after the test."""
    processes = []

    def start(*arguments: Any, **options: Any) -> Process:
        processes.append(Process(*arguments, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.close()
