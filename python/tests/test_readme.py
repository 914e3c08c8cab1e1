# SPDX-License-Identifier: MIT OR Apache-2.0
"""The examples in the sections of the package's README.md about OpenCV, several cameras, asyncio and other packages."""

from __future__ import annotations

import re
import sys
import time
from typing import Callable, Iterator, List

import pytest
from helpers import PATIENCE, ROOT, Channel, Process

import rsshm

Start = Callable[..., Process]


def code_of(section: str) -> str:
    """The first example of a section."""
    readme = (ROOT / "python" / "README.md").read_text()
    return readme.split(f"\n## {section}\n", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]


@pytest.fixture
def channels() -> Iterator[List[Channel]]:
    pair = [Channel(), Channel()]
    yield pair
    for channel in pair:
        channel.remove()


@pytest.mark.parametrize(
    "section, printed",
    [
        ("Programs for OpenCV", r"\(48, 64, 3\) \d+\.\d+"),
        ("Several cameras", r"\d+ \d+ 1\.0 ms apart"),
        ("asyncio", r"NAME \d+ \(48, 64, 3\)"),
        ("Other packages", r"\(48, 64, 3\)"),
    ],
    ids=["opencv", "sync", "aio", "exports"],
)
def test_example_of_readme_runs(section: str, printed: str, channels: List[Channel], start: Start) -> None:
    code = code_of(section)
    names = sorted({name for name in ("cam0", "left", "right") if f'"{name}"' in code})
    for name, channel in zip(names, channels):
        code = code.replace(f'"{name}"', repr(channel.name))
    writers = [rsshm.Writer(channel.name, (48, 64), fps=50) for _, channel in zip(names, channels)]
    program = start([sys.executable, "-W", "error", "-c", code], env={"PYTHONPATH": str(ROOT / "python")})
    deadline = time.monotonic() + PATIENCE
    remaining = 20
    try:
        # The example ends at the end of the stream. The "Other packages" example reads one frame.
        while program.process.poll() is None and time.monotonic() < deadline:
            taken = time.monotonic_ns()
            for index, writer in enumerate(writers):
                with writer.buffer() as slot:
                    slot.array[:] = 100
                    slot.pts_ns = taken + index * 1_000_000
            time.sleep(0.02)
            remaining -= all(writer.readers for writer in writers)
            if remaining == 0:
                for writer in writers:
                    writer.end_stream()
                break
    finally:
        for writer in writers:
            writer.close()
    lines = program.wait_ok().decode().splitlines()
    pattern = printed.replace("NAME", f"({'|'.join(channel.name for channel in channels)})")
    assert any(re.fullmatch(pattern, line) for line in lines), lines
