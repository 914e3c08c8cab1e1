# SPDX-License-Identifier: MIT OR Apache-2.0
"""Stand-in for a reader with a descriptor: a thread reads the frames, and a pipe is readable while one waits."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import Any, Deque, Union

from .errors import EndOfStream, Error, Timeout
from .frame import Frame
from .reader import Reader


class QueuedReader(Reader):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._got: Deque[Union[Frame, Error]] = deque()
        self._pipe = os.pipe()
        self._thread = threading.Thread(target=self._pump, daemon=True)
        self._thread.start()

    def fileno(self) -> int:
        return self._pipe[0]

    def _pump(self) -> None:
        while not self._closed:
            try:
                got: Union[Frame, Error] = super().read(0.1)
            except Timeout:
                continue
            except Error as error:
                got = error
            self._got.append(got)
            os.write(self._pipe[1], b"x")
            if isinstance(got, Error) and not isinstance(got, EndOfStream):
                return
            del got

    def read(self, timeout: Any = None) -> Frame:
        assert timeout == 0
        self._check_open()
        if not self._got:
            raise Timeout("no frame came in time")
        os.read(self._pipe[0], 1)
        got = self._got.popleft()
        if isinstance(got, Error):
            raise got
        return got
