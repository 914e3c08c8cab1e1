# SPDX-License-Identifier: MIT OR Apache-2.0
"""A stand-in for Picamera2, with the part of its interface that examples/picamera2_to_rsshm.py uses.

It makes pictures of one colour, in buffers whose rows are padded to 64 bytes. The clock CLOCK_BOOTTIME is ahead by
``SUSPENDED``, as on a machine that was suspended.
"""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Dict, List, Optional

import numpy

SUSPENDED = 1000 * 10**9
DELAY = 0.02
"""Seconds from the exposure until the request is complete."""
BLUE, GREEN, RED = 40, 120, 200
LUMA, U, V = 132, 81, 169  # the same colour in BT.601, limited range
PADDING = 0xEE

_clock_gettime_ns = time.clock_gettime_ns
time.clock_gettime_ns = lambda clock: _clock_gettime_ns(clock) + (SUSPENDED if clock == time.CLOCK_BOOTTIME else 0)

PIXELS = {
    "RGB888": (BLUE, GREEN, RED),
    "BGR888": (RED, GREEN, BLUE),
    "XRGB8888": (BLUE, GREEN, RED, 255),
    "XBGR8888": (RED, GREEN, BLUE, 255),
}


def picture(configuration: Dict[str, Any], index: int) -> Any:
    """The buffer of a picture. The index of the frame is the red, or the luma, of the pixel at the top left."""
    format, stride = configuration["format"], configuration["stride"]
    width, height = configuration["size"]
    if format in PIXELS:
        pixel = PIXELS[format]
        rows = numpy.full((height, stride), PADDING, numpy.uint8)
        rows[:, : width * len(pixel)] = numpy.tile(numpy.array(pixel, numpy.uint8), width)
        rows[0, pixel.index(RED)] = index
        return rows.reshape(-1)
    planes = []
    for down, value in ((1, LUMA), (2, U if format == "YUV420" else V), (2, V if format == "YUV420" else U)):
        plane = numpy.full((height // down, stride // down), PADDING, numpy.uint8)
        plane[:, : width // down] = value
        planes.append(plane)
    planes[0][0, 0] = index
    return numpy.concatenate([plane.reshape(-1) for plane in planes])


class CompletedRequest:
    def __init__(self, camera: Picamera2, taken_ns: int) -> None:
        self.camera = camera
        self.taken_ns = taken_ns
        self.index = camera.taken
        camera.requests.append(self)

    def get_metadata(self) -> Dict[str, Any]:
        return {"SensorTimestamp": self.taken_ns + SUSPENDED, "ExposureTime": 10_000}

    def release(self) -> None:
        self.camera.requests.remove(self)


class MappedArray:
    def __init__(self, request: CompletedRequest, stream: str, reshape: bool = True, write: bool = True) -> None:
        assert not reshape
        self._configuration = request.camera.camera_configuration()[stream]
        self._index = request.index
        self.array: Any = None

    def __enter__(self) -> MappedArray:
        self.array = picture(self._configuration, self._index)
        return self

    def __exit__(self, *_: object) -> None:
        # The memory is not mapped any more.
        self.array[:] = 0
        self.array = None


class Picamera2:
    def __init__(self, camera_num: int = 0) -> None:
        assert camera_num == 0
        self.taken = 0
        self.requests: List[CompletedRequest] = []
        self._configuration: Dict[str, Any] = {}
        self._started = False

    def create_video_configuration(
        self, main: Dict[str, Any], lores: Optional[Dict[str, Any]] = None, buffer_count: int = 6, controls: Any = None
    ) -> Dict[str, Any]:
        streams = {name: dict(stream) for name, stream in (("main", main), ("lores", lores)) if stream}
        return {**streams, "buffer_count": buffer_count, "controls": controls}

    def configure(self, configuration: Dict[str, Any]) -> None:
        for name in {"main", "lores"} & set(configuration):
            stream = configuration[name]
            row = stream["size"][0] * len(PIXELS.get(stream["format"], (0,)))
            stream["stride"] = -(-row // 64) * 64
        self._configuration = configuration

    def camera_configuration(self) -> Dict[str, Any]:
        return self._configuration

    def start(self) -> None:
        self._started = True

    def capture_request(self) -> CompletedRequest:
        assert self._started and len(self.requests) < self._configuration["buffer_count"], "a request was not released"
        self.taken += 1
        taken_ns = time.monotonic_ns()
        time.sleep(DELAY)
        return CompletedRequest(self, taken_ns)

    def close(self) -> None:
        assert not self.requests, "a request was not released"

    def __enter__(self) -> Picamera2:
        return self

    def __exit__(self, kind: Any, error: Optional[BaseException], trace: Optional[TracebackType]) -> None:
        self.close()
