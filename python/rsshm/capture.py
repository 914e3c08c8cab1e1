# SPDX-License-Identifier: MIT OR Apache-2.0
"""``VideoCapture``: a channel with the interface of OpenCV's ``cv2.VideoCapture``. Only JPEG and PNG need OpenCV."""

from __future__ import annotations

import operator
import sys
import warnings
from typing import Any, Dict, NoReturn, Optional, Sequence, Tuple, Type, Union

import numpy

from ._memory import Array
from .caps import Caps
from .errors import BadOption, Closed, EndOfStream, Error, Timeout
from .frame import Frame
from .reader import Reader

# The numbers of the properties are OpenCV's.
CAP_PROP_POS_MSEC = 0
CAP_PROP_POS_FRAMES = 1
CAP_PROP_FRAME_WIDTH = 3
CAP_PROP_FRAME_HEIGHT = 4
CAP_PROP_FPS = 5
CAP_PROP_FOURCC = 6
CAP_PROP_FRAME_COUNT = 7
CAP_PROP_CONVERT_RGB = 16
CAP_PROP_BUFFERSIZE = 38
CAP_PROP_OPEN_TIMEOUT_MSEC = 53
CAP_PROP_READ_TIMEOUT_MSEC = 54

OPEN_TIMEOUT = 5000.0
"""Default time in milliseconds that ``open`` waits for a writer. A camera's program may start together with this one."""
READ_TIMEOUT = 10000.0
"""Default time in milliseconds that ``read`` waits for a frame. OpenCV waits as long for a V4L2 camera."""
BUFFERS = 4
"""Default of ``CAP_PROP_BUFFERSIZE``, as for a V4L2 camera."""
MOST_SKIPPED = 64
"""How many frames are read at most to find the newest one. A segment has at most 64 slots."""

# V4L2's codes of the formats, which OpenCV returns too.
_CODES: Dict[str, str] = {
    "BGR": "BGR3", "RGB": "RGB3", "BGRx": "XR24", "BGRA": "AR24", "RGBx": "XB24", "RGBA": "AB24", "GRAY8": "GREY",
    "GRAY16_LE": "Y16 ", "YUY2": "YUYV", "UYVY": "UYVY", "YVYU": "YVYU", "NV12": "NV12", "NV21": "NV21", "NV16": "NV16",
    "I420": "YU12", "YV12": "YV12", "Y42B": "422P", "Y444": "444P", "P010_10LE": "P010",
    "image/jpeg": "MJPG", "image/png": "PNG ", "video/x-h264": "H264", "video/x-h265": "HEVC", "video/x-vp8": "VP80",
    "video/x-vp9": "VP90",
}  # fmt: skip


class VideoCapture:
    """Reads a channel as ``cv2.VideoCapture`` reads a camera, so that a program for OpenCV changes one line.

    >>> cap = rsshm.VideoCapture("cam0")
    >>> while cap.isOpened():
    ...     ok, picture = cap.read()
    ...     if not ok:
    ...         break
    ...     print(picture.shape, picture.mean())

    ``name``: a channel, ``rsshm://NAME``, or a number N for the channel camN, so that the number of a camera works too.
    ``apiPreference``: ignored. ``params``: properties and values in turn, as OpenCV takes them. Properties that cannot be set
    are ignored.

    Each picture is a BGR array that belongs to the program. The package converts raw formats; JPEG and PNG need OpenCV.

    ``open`` (and the constructor) waits for a writer for at most ``CAP_PROP_OPEN_TIMEOUT_MSEC``, 5 seconds by default.
    ``read`` and ``grab`` wait for a frame for at most ``CAP_PROP_READ_TIMEOUT_MSEC``, 10 seconds by default. 0 means without
    limit, as in OpenCV. If nothing came in time, they return False, and a warning says why.

    ``isOpened`` says whether the channel has been opened and its stream has not ended. It never waits.
    If the writer goes away without an end of stream, ``isOpened`` stays True, and ``read`` waits for the next writer.
    At the end of the stream, ``read`` returns ``(False, None)`` and ``isOpened`` becomes False, so that the loop above ends.
    In OpenCV, ``isOpened`` would stay True there. A program that reads on waits for the next stream.

    One thread at a time may read, but any thread may call ``release``.
    """

    def __init__(self, name: Union[str, int, None] = None, apiPreference: int = 0, params: Sequence[float] = ()) -> None:
        self._reader: Optional[Reader] = None
        self._frame: Optional[Frame] = None
        """The frame that ``retrieve`` returns."""
        self._first: Optional[Frame] = None
        """The frame with which the channel was opened. The next ``grab`` takes it."""
        self._caps: Optional[Caps] = None
        self._ended = False
        self._later: Optional[Error] = None
        """What came after the newest frame. The next ``grab`` reports it."""
        self._convert = True
        self._buffers = BUFFERS
        self._open_timeout, self._read_timeout = OPEN_TIMEOUT, READ_TIMEOUT
        self._throw = False
        self._pts_ns, self._seq = 0, 0
        if name is not None:
            self._open(name, params)

    def open(self, name: Union[str, int], apiPreference: int = 0, params: Sequence[float] = ()) -> bool:
        """Opens another channel, and closes the one before. False if no writer came in time. The arguments are the class's."""
        return self._open(name, params)

    def isOpened(self) -> bool:
        """Whether the channel has been opened and its stream has not ended."""
        return self._reader is not None and not self._ended

    def grab(self) -> bool:
        """Takes the next frame without converting it. False at the end of the stream, or if no frame came in time."""
        return self._grab()

    def retrieve(self, image: Optional[Array] = None, flag: int = 0) -> Tuple[bool, Optional[Array]]:
        """The picture of the frame that ``grab`` took. If ``image`` has its shape and type, the picture is stored there."""
        return self._retrieve(image)

    def read(self, image: Optional[Array] = None) -> Tuple[bool, Optional[Array]]:
        """``grab`` and ``retrieve`` in one call: True and the picture, or False and None."""
        return self._retrieve(image) if self._grab() else (False, None)

    def release(self) -> None:
        """Closes the channel."""
        reader, self._reader = self._reader, None
        self._frame = self._first = self._caps = self._later = None
        self._ended = False
        self._pts_ns, self._seq = 0, 0
        if reader is not None:
            reader.close()

    def getBackendName(self) -> str:
        """``RSSHM``."""
        return "RSSHM"

    def setExceptionMode(self, enable: bool) -> None:
        """Whether failures raise an error of this package. If the program has imported cv2, it is also a ``cv2.error``."""
        self._throw = bool(enable)

    def getExceptionMode(self) -> bool:
        """Whether failures raise an error."""
        return self._throw

    def get(self, propId: int) -> float:
        """The value of a property. 0 if it is unknown, as in OpenCV.

        The time ``CAP_PROP_POS_MSEC`` is ``pts_ns`` of the last frame in milliseconds, and ``CAP_PROP_POS_FRAMES`` is its seq.
        ``CAP_PROP_FRAME_COUNT`` is -1, because a channel has no last frame.
        """
        if propId == CAP_PROP_OPEN_TIMEOUT_MSEC:
            return self._open_timeout
        if propId == CAP_PROP_READ_TIMEOUT_MSEC:
            return self._read_timeout
        if propId == CAP_PROP_BUFFERSIZE:
            return float(self._buffers)
        if propId == CAP_PROP_CONVERT_RGB:
            return float(self._convert)
        reader, caps = self._reader, self._caps
        if reader is None:
            return 0.0
        if propId == CAP_PROP_FRAME_COUNT:
            return -1.0
        if propId == CAP_PROP_POS_MSEC:
            return self._pts_ns / 1e6
        if propId == CAP_PROP_POS_FRAMES:
            return float(self._seq)
        if caps is None:
            # There is a writer, but it has published no frame yet.
            return 0.0
        if propId == CAP_PROP_FRAME_WIDTH:
            return float(caps.width or 0)
        if propId == CAP_PROP_FRAME_HEIGHT:
            return float(caps.height or 0)
        if propId == CAP_PROP_FPS:
            return float(caps.fps or 0)
        if propId == CAP_PROP_FOURCC:
            code = _CODES.get((caps.format or "") if caps.media == "video/x-raw" else caps.media, "\0\0\0\0")
            return float(int.from_bytes(code.encode(), "little"))
        return 0.0

    def set(self, propId: int, value: float) -> bool:
        """Sets a property. False if that is not possible.

        ``CAP_PROP_BUFFERSIZE`` 1 makes ``read`` return the newest frame and skip those before it. With 2 or more, it returns
        every frame that the channel still has. ``CAP_PROP_CONVERT_RGB`` 0 makes it return the frame as it is in the channel.
        The time-outs can be set before ``open``. The writer decides the size and the rate, so that these can be set only to
        the values that they have.
        """
        done = self._set(propId, value)
        if not done and self._throw:
            _raise(
                BadOption(f"property {propId} cannot be {value}, because the writer of a channel decides it, or it is unknown")
            )
        return done

    def __repr__(self) -> str:
        reader = self._reader
        return f"<rsshm.VideoCapture of {'no channel' if reader is None else reader.name}>"

    def _open(self, name: Union[str, int], params: Sequence[float]) -> bool:
        self.release()
        params = [] if params is None else list(params)
        if len(params) % 2:
            raise BadOption("params are properties and values in turn, and the last property has no value")
        settings = list(zip(map(int, params[::2]), params[1::2]))
        for prop, value in settings:
            self._set(prop, value)
        channel = _channel_of(name)
        try:
            # A capture holds one frame at a time, and for a moment the next one.
            reader = self._reader = Reader(channel, max_held=2)
            try:
                self._first = reader.read(_seconds(self._open_timeout))
                self._caps = self._first.caps
            except Timeout:
                if not reader.connected:
                    raise
        except Error as error:
            self.release()
            return self._failed(error)
        return True

    def _grab(self) -> bool:
        reader = self._reader
        if reader is None:
            return self._failed(Closed("the capture is not opened"))
        # Release the last frame before the wait, so that its slot is free meanwhile.
        frame, self._frame, self._first = self._first, None, None
        later, self._later = self._later, None
        try:
            if later is not None:
                raise later
            if frame is None:
                frame = reader.read(_seconds(self._read_timeout))
            if self._buffers == 1:
                frame = self._newest(reader, frame)
        except Error as error:
            self._ended = self._ended or isinstance(error, EndOfStream)
            return self._failed(error)
        self._frame, self._caps, self._ended = frame, frame.caps, False
        self._pts_ns, self._seq = frame.pts_ns or 0, frame.seq
        return True

    def _newest(self, reader: Reader, frame: Frame) -> Frame:
        """The newest frame that is there."""
        try:
            for _ in range(MOST_SKIPPED):
                frame = reader.read(0)
        except Timeout:
            pass
        except Error as error:
            self._later = error
        return frame

    def _retrieve(self, image: Optional[Array]) -> Tuple[bool, Optional[Array]]:
        frame = self._frame
        if frame is None:
            return self._failed(Closed("no frame was grabbed")), None
        try:
            picture = frame.to_bgr() if self._convert else frame.array
        except Error as error:
            return self._failed(error), None
        if image is not None and image.shape == picture.shape and image.dtype == picture.dtype:
            numpy.copyto(image, picture)
            return True, image
        return True, picture if picture.flags.writeable else picture.copy()

    def _set(self, prop: int, value: float) -> bool:
        if prop in (CAP_PROP_OPEN_TIMEOUT_MSEC, CAP_PROP_READ_TIMEOUT_MSEC):
            if not value >= 0:
                return False
            if prop == CAP_PROP_OPEN_TIMEOUT_MSEC:
                self._open_timeout = float(value)
            else:
                self._read_timeout = float(value)
        elif prop == CAP_PROP_BUFFERSIZE:
            if not value >= 1:
                return False
            self._buffers = int(value)
        elif prop == CAP_PROP_CONVERT_RGB:
            self._convert = bool(value)
        else:
            fixed = (CAP_PROP_FRAME_WIDTH, CAP_PROP_FRAME_HEIGHT, CAP_PROP_FPS, CAP_PROP_FOURCC)
            # Rates such as 30000/1001 have no exact decimal number.
            return self._reader is not None and prop in fixed and abs(self.get(prop) - value) < 0.01
        return True

    def _failed(self, error: Error) -> bool:
        """Raises the error in exception mode. Otherwise warns of what the user can change, and returns False."""
        if self._throw:
            _raise(error)
        if not isinstance(error, (EndOfStream, Closed)):
            # The warning names the line of the program that called this class.
            warnings.warn(str(error), RuntimeWarning, stacklevel=4)
        return False


def _channel_of(name: object) -> str:
    if isinstance(name, str):
        return name[len("rsshm://") :] if name.startswith("rsshm://") else name
    try:
        return f"cam{operator.index(name)}"  # type: ignore[arg-type]
    except TypeError:
        raise BadOption(f"{name!r} is neither the name of a channel nor the number of a camera") from None


def _seconds(milliseconds: float) -> Optional[float]:
    return milliseconds / 1000 if milliseconds else None


_also_cv2: Dict[type, Type[Exception]] = {}


def _raise(error: Error) -> NoReturn:
    """Raises the error as a class that is also ``cv2.error``, if the program has imported cv2."""
    cv2: Any = sys.modules.get("cv2")
    kind = type(error)
    if cv2 is not None:
        if kind not in _also_cv2:
            _also_cv2[kind] = type(kind.__name__, (kind, cv2.error), {"__module__": kind.__module__})
        raise _also_cv2[kind](*error.args) from error
    raise error
