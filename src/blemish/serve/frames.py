"""Cameras and videos as sources: a frame is a part.

A camera doesn't wait: while no part can be accepted its frames are dropped, and what is inspected is what is in front
of it now. A video waits, and none of its frames is left out or inspected twice.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from itertools import islice
from typing import Literal

import numpy as np
import numpy.typing as npt

from blemish.data.video import Camera, frames
from blemish.errors import UsageError
from blemish.serve.configuration import CameraSettings, VideoSettings
from blemish.serve.history import History, Part, Verdict, delivery_key, new_uid
from blemish.serve.pictures import Pictures
from blemish.serve.pipeline import Pipeline
from blemish.serve.showing import encoded

log = logging.getLogger(__name__)


class FrameSource:
    """What cameras and videos have in common: a thread that brings frames to the pipeline.

    Args:
        settings: of the source.
        product: code of its parts where the settings don't say one.

    Attributes:
        name: what the history calls it. place: where it is, without passwords.
        newest: the frame (H, W, 3) that came last, for people who look whether it sees what it should.
        trouble: what doesn't work at the moment; None if all is well.
        finished: whether there is nothing left to inspect.
    """

    def __init__(
        self, settings: CameraSettings | VideoSettings, product: str, pictures: Pictures, pipeline: Pipeline
    ) -> None:
        self.name = settings.title
        self.place = ""
        self.trouble: str | None = None
        self.finished = False
        self.newest: npt.NDArray[np.uint8] | None = None
        self._product = settings.product or product
        self._pictures, self._pipeline = pictures, pipeline
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"frames {self.name}", daemon=True)

    def start(self) -> None:
        """Starts bringing frames."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; what was accepted will be judged."""
        self._stop.set()
        self._thread.join()

    def close(self) -> None:
        """Lets go of a source that was never started."""

    def _run(self) -> None:
        raise NotImplementedError

    def _accept(
        self, image: npt.NDArray[np.uint8], part: str, key: str | None = None
    ) -> Future[Verdict] | Literal[False] | None:
        """Brings a frame to the pipeline, as soon as there is a place; False if the station stops before.

        Returns:
            The verdict to come; None if the key was accepted before.
        """
        while not self._pipeline.reserve(timeout=0.2):
            if self._stop.is_set():
                return False
        content, uid = encoded(image, "PNG"), new_uid()
        path = self._pictures.store(uid, content)
        accepted = Part(self.name, part, self._product, None if path is None else str(path), key, uid)
        [verdict] = self._pipeline.offer([(accepted, content)]).result()
        return verdict


class CameraSource(FrameSource):
    """A camera, opened again and again while it is gone.

    Raises:
        UsageError: if it gives no picture.
        MissingExtraError: without OpenCV.
    """

    def __init__(self, settings: CameraSettings, product: str, pictures: Pictures, pipeline: Pipeline) -> None:
        super().__init__(settings, product, pictures, pipeline)
        self._every, self._triggered = settings.every, settings.trigger
        self._asked: queue.SimpleQueue[tuple[str, Future[Verdict]]] = queue.SimpleQueue()
        self._camera = Camera(settings.camera, patience=None, keep=1)
        self.place = self._camera.title
        first = self._camera.next(settings.patience)
        if first is None:
            reason = self._camera.trouble or "it gives no picture."
            self._camera.close()
            raise UsageError(
                f"The camera {self.name!r} can't be used: {reason} Check its index or address, and its cable."
            )
        self.newest = first.image

    def stop(self) -> None:
        """Ends; what was accepted will be judged."""
        super().stop()
        self._camera.close()

    def close(self) -> None:
        """Lets go of it, where it was never started."""
        self._camera.close()

    def trigger(self, part: str) -> Future[Verdict]:
        """Inspects the next frame that comes.

        Args:
            part: what it is called.

        Returns:
            Its verdict; cancelled if nobody waits any more, an error if it could not be accepted.

        Raises:
            UsageError: if this camera isn't one that is asked.
        """
        if not self._triggered:
            raise UsageError(f"The camera {self.name!r} inspects by itself. Give it trigger: true to be asked.")
        verdict: Future[Verdict] = Future()
        self._asked.put((part, verdict))
        return verdict

    def _answer(self, image: npt.NDArray[np.uint8], part: str, asked: Future[Verdict]) -> None:
        if not asked.set_running_or_notify_cancel():
            return
        try:
            found = self._accept(image, part)
            if not found:
                raise RuntimeError("the station stops")
            found.add_done_callback(lambda done: asked.set_result(done.result()))
        except Exception as error:
            asked.set_exception(error)
            raise

    def _run(self) -> None:
        due = time.monotonic()
        while not self._stop.is_set():
            waiting = self._asked.qsize()  # who has asked until here gets a frame that comes from here on
            shot = self._camera.next(0.2)
            if shot is None:
                self.trouble = self._camera.trouble
                continue
            self.newest, self.trouble = shot.image, None
            name = shot.name.rpartition("#")[2]
            try:
                if self._triggered:
                    for _ in range(waiting):
                        part, asked = self._asked.get()
                        self._answer(shot.image, part or name, asked)
                elif time.monotonic() >= due:
                    due = max(due + self._every, time.monotonic())
                    self._accept(shot.image, name)
            except Exception as error:  # such as a database that is gone for a while
                self.trouble = f"{type(error).__name__}: {error}"
                log.warning("camera %s: %s", self.name, self.trouble)
                self._stop.wait(1.0)


class VideoSource(FrameSource):
    """A video file. Its parts are called by the number of their frame, from 0 on.

    Raises:
        DataError: if it can't be read.
        MissingExtraError: without OpenCV.
    """

    def __init__(
        self, settings: VideoSettings, product: str, history: History, pictures: Pictures, pipeline: Pipeline
    ) -> None:
        super().__init__(settings, product, pictures, pipeline)
        self._path, self._step, self._history = settings.video, settings.step, history
        self.place = str(settings.video)
        self.newest = next(frames(self._path)).image

    def _run(self) -> None:
        while not (self.finished or self._stop.is_set()):
            try:
                self._bring()
                self.trouble = None
            except Exception as error:  # the next time begins behind the last frame that was accepted
                self.trouble = f"{type(error).__name__}: {error}"
                log.warning("video %s: %s", self.name, self.trouble)
                self._stop.wait(1.0)

    def _bring(self) -> None:
        status = self._path.stat()
        for number, image in self._chosen():
            key = delivery_key(self.name, self._path, status.st_size, status.st_mtime_ns, number)
            if self._stop.is_set() or (
                not self._history.keys([key]) and self._accept(image, str(number), key) is False
            ):
                return
            self.newest = image
        self.finished = True

    def _chosen(self) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        for number, shot in islice(enumerate(frames(self._path)), 0, None, self._step):
            yield number, shot.image
