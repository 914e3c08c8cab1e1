from __future__ import annotations

from typing import Any, Callable, Iterator

import pytest
from helpers import Channel, Process


@pytest.fixture
def channel() -> Iterator[Channel]:
    """A channel of the test's own."""
    channel = Channel()
    yield channel
    channel.remove()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    """Starts processes that end with the test."""
    processes = []

    def start(*arguments: Any, **options: Any) -> Process:
        processes.append(Process(*arguments, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.close()
