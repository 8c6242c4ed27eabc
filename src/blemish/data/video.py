"""Frames of videos and cameras, read by OpenCV.

A video file waits: each frame is read when it is asked for, and none is left out. A camera doesn't. Its frames are
taken by a thread of their own as they come, a few are kept, and while verdicts take longer than frames the oldest are
dropped: what is judged is what is in front of the camera now, and memory is bounded.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt

from blemish.data.live import Shot
from blemish.errors import DataError
from blemish.extras import require

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".mjpeg")

WAITED = 5.0
"""Seconds that the opening of a network camera, and each of its frames, may take."""


def frames(path: str | os.PathLike[str]) -> Iterator[Shot]:
    """Every frame of a video file, as PATH#0, PATH#1 and so on.

    Raises:
        DataError: if it can't be read, or holds no frame. MissingExtraError: without OpenCV.
    """
    require("cv2")
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such video.")
    return _frames(path)


def _frames(path: Path) -> Iterator[Shot]:
    cv2 = require("cv2")
    video = _opened(str(path), cv2.CAP_FFMPEG)
    number = 0
    try:
        while True:
            there, frame = video.read()
            if not there:
                break
            yield Shot(f"{path}#{number}", _rgb(frame), Path(f"{path.name}#{number}"))
            number += 1
    finally:
        video.release()
    if number == 0:
        raise DataError(f"{path}: no frame of this video can be read. Is it whole, and a video?")


class Camera:
    """The frames of a camera, newest ones first to be kept; as a context manager, or until `close`.

        with Camera(0) as camera:
            for shot in camera:
                print(shot.name, shot.image.shape)

    Args:
        source: index of a camera of this machine, 0 being the first; or a URL: rtsp://, http:// with MJPEG, ...
        patience: seconds without a frame after which it counts as gone; meanwhile it is opened again and again. None
            waits for ever, also for a camera that isn't there to begin with.
        keep: frames that may wait to be taken, at least 1.

    Attributes:
        title: what it is called in names of frames, without user and password.
        taken, dropped: how many frames came, and how many of them were never asked for.
        trouble: why there are no frames at the moment; None when all is well.

    Raises:
        DataError: if it can't be opened, or was gone for longer than `patience`: then from the iteration.
        MissingExtraError: without OpenCV.
    """

    def __init__(self, source: int | str, *, patience: float | None = 10.0, keep: int = 2) -> None:
        self.source, self.patience = source, patience
        self.title = title_of(source)
        self.taken = self.dropped = 0
        self.trouble: str | None = None
        self._waiting: deque[Shot] = deque()
        self._keep = keep
        self._change = threading.Condition()
        self._ended = False
        self._capture = self._open()
        if self._capture is None and patience is not None:
            raise DataError(f"{self.trouble} Check the index or address, and that no other program has the camera.")
        self._thread = threading.Thread(target=self._run, name=self.title, daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Shot]:
        while (shot := self.next()) is not None:
            yield shot

    def next(self, timeout: float | None = None) -> Shot | None:
        """The oldest frame that is kept, as soon as there is one; None after `close`, or `timeout` seconds.

        Raises:
            DataError: if the camera is gone for good.
        """
        with self._change:
            self._change.wait_for(lambda: self._waiting or self._ended, timeout)
            if self._waiting:
                return self._waiting.popleft()
            if self._ended and self.trouble is not None:
                raise DataError(f"{self.trouble} Frames so far: {self.taken}.")
            return None

    def close(self) -> None:
        """Ends it; frames that wait are forgotten."""
        with self._change:
            self._ended, self.trouble = True, None
            self._waiting.clear()
            self._change.notify_all()
        self._thread.join(2 * WAITED)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._take()
        finally:
            if self._capture is not None:
                self._capture.release()
            with self._change:
                self._ended = True
                self._change.notify_all()

    def _take(self) -> None:
        last = opened = time.monotonic()
        while not self._ended:
            frame = None if self._capture is None else self._capture.read()[1]
            now = time.monotonic()
            if frame is not None:
                last = opened = now
                self._add(_rgb(frame))
                continue
            if self.patience is not None and now - last > self.patience:
                with self._change:
                    self.trouble = None if self._ended else f"{self.title} has given no frame for {self.patience:g} s."
                return
            if now - opened > 1.0:  # a frame that is torn costs that frame; a second of them, the connection
                if self._capture is not None:
                    self._capture.release()
                self._capture, opened = self._open(), time.monotonic()
            with self._change:
                self._change.wait_for(lambda: self._ended, 0.05)

    def _add(self, image: npt.NDArray[np.uint8]) -> None:
        name = f"{self.title}#{datetime.now(timezone.utc):%Y%m%dT%H%M%S.%f}"
        with self._change:
            if self._ended:
                return
            self.trouble = None
            self.taken += 1
            if len(self._waiting) == self._keep:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append(Shot(name, image, Path(name)))
            self._change.notify_all()

    def _open(self) -> Any:
        """OpenCV's reader; None, and `trouble`, if there is no camera."""
        cv2 = require("cv2")
        if isinstance(self.source, int):
            capture = _opened(self.source)
        else:
            limits = (cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, cv2.CAP_PROP_READ_TIMEOUT_MSEC)
            capture = _opened(
                self.source, cv2.CAP_FFMPEG, [number for limit in limits for number in (limit, int(1000 * WAITED))]
            )
        if capture.isOpened():
            return capture
        capture.release()
        self.trouble = f"{self.title} can't be opened."
        return None


def _opened(*arguments: Any) -> Any:
    """OpenCV's reader. What it and FFmpeg have to say about a source goes to stderr only where their own variables ask
    for it, OPENCV_LOG_LEVEL and OPENCV_FFMPEG_LOGLEVEL: whoever calls says in its own words that there is no picture.
    """
    cv2 = require("cv2")
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # FFmpeg's number for silence, read when it is first used
    talk = cv2.utils.logging
    before = talk.getLogLevel()
    if "OPENCV_LOG_LEVEL" not in os.environ:
        talk.setLogLevel(talk.LOG_LEVEL_ERROR)
    try:
        return cv2.VideoCapture(*arguments)
    finally:
        talk.setLogLevel(before)


def title_of(source: int | str) -> str:
    """What a camera is called: "camera0"; of a URL, host and path, in letters that any file name may have."""
    if isinstance(source, int):
        return f"camera{source}"
    parts = urlsplit(source)
    return re.sub(r"[^\w.]+", "-", f"{parts.hostname or ''}{parts.path}").strip("-.") or "camera"


def _rgb(frame: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(frame[..., ::-1])  # OpenCV gives (H, W, 3) BGR
