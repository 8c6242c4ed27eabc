"""A watched folder as a source: every complete picture in it is accepted once.

Nothing tells for sure that a file is complete. Here it counts as complete when size and time of change stay the same
for `settle` seconds of this machine's clock, and a PNG or JPEG has its end, for which `patience` seconds are waited.
After that it counts as it is, and the verdict will be that it could not be inspected. Names with a leading dot are
passed over: write under one and rename, and no picture is ever read half-written.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import watchfiles

from blemish.data.live import cut_off
from blemish.errors import UsageError
from blemish.files import is_image
from blemish.serve.configuration import FolderSettings
from blemish.serve.history import History, Part, delivery_key, new_uid
from blemish.serve.pictures import Pictures
from blemish.serve.pipeline import Pipeline

log = logging.getLogger(__name__)
LOOK = 30.0
"""Seconds between looks through the whole folder. In between, the operating system tells what has changed."""
TOGETHER = 64
"""Files that are accepted in one transaction at most."""


@dataclass
class _Seen:
    identity: tuple[int, int]  # size, time of change in nanoseconds
    since: float  # monotonic


class WatchedFolder:
    """Looks through a folder until it is stopped.

    Args:
        settings: which folder, and how.
        product: code of pictures for which neither the settings nor their names say one.

    Raises:
        UsageError: if the folder can't be read.
    """

    def __init__(
        self, settings: FolderSettings, product: str, history: History, pictures: Pictures, pipeline: Pipeline
    ) -> None:
        self.settings, self.folder, self.name = settings, settings.folder.resolve(), settings.title
        self._product = settings.product or product
        self._pattern = None if settings.pattern is None else re.compile(settings.pattern)
        self._history, self._pictures, self._pipeline = history, pictures, pipeline
        self._done: dict[str, tuple[int, int]] = {}  # of files that still lie there
        self._pending: dict[str, _Seen] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"folder {self.name}", daemon=True)
        self.trouble: str | None = None
        try:
            next(self.folder.iterdir(), None)
        except OSError as error:
            raise UsageError(
                f"The watched folder {self.folder} can't be read: {error.strerror}. Make it first."
            ) from error

    @property
    def place(self) -> str:
        """Where it is."""
        return str(self.folder)

    def close(self) -> None:
        """Nothing is open."""

    def start(self) -> None:
        """Starts watching."""
        self._thread.start()

    def stop(self) -> None:
        """Ends; what was accepted will be judged."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        changes, watching, looked = self._changes(), False, -LOOK
        while not self._stop.is_set():
            began = False
            try:
                names, began, watching = next(changes), not watching, True
                self._pending.update((name, _Seen((-1, -1), 0.0)) for name in names if name not in self._pending)
            except Exception:  # the folder itself was removed, or can't be watched: looks go on
                self._stop.wait(self.settings.settle)
                changes, watching = self._changes(), False
            try:
                # The watching begins with the first `next`; a look before it would miss what comes in between.
                if began or time.monotonic() - looked > LOOK:
                    looked = time.monotonic()
                    self._look()
                self._take_settled()
                self.trouble = None
            except Exception as error:  # a share that is gone for a while, a full disk: the next look may succeed
                self.trouble = f"{type(error).__name__}: {error}"
                log.warning("folder %s: %s", self.name, self.trouble)
                self._stop.wait(1.0)

    def _changes(self) -> Iterator[list[str]]:
        pause = int(1000 * min(self.settings.settle / 2, 1.0))
        watch = watchfiles.watch(
            self.folder, stop_event=self._stop, rust_timeout=pause, yield_on_timeout=True, step=20, debounce=100,
            raise_interrupt=False, watch_filter=None,
        )  # fmt: skip
        return ([name for _, name in found if is_image(Path(name))] for found in watch)

    def _look(self) -> None:
        """Notes every file that wasn't taken yet, and forgets those that are gone."""
        there = set()
        for path in _images(self.folder):
            name = str(path)
            there.add(name)
            if name not in self._pending:
                self._pending[name] = _Seen((-1, -1), 0.0)
        self._done = {name: identity for name, identity in self._done.items() if name in there}

    def _take_settled(self) -> None:
        now = time.monotonic()
        settled: list[tuple[int, str]] = []
        for name, seen in list(self._pending.items()):
            try:
                status = Path(name).stat()
            except OSError:
                del self._pending[name]
                continue
            identity = (status.st_size, status.st_mtime_ns)
            if self._done.get(name) == identity:
                del self._pending[name]
            elif seen.identity != identity:
                self._pending[name] = _Seen(identity, now)
            elif now - seen.since >= self.settings.patience or (
                now - seen.since >= self.settings.settle and not cut_off(Path(name))
            ):
                settled.append((status.st_mtime_ns, name))
        settled.sort()
        for start in range(0, len(settled), TOGETHER):
            if self._stop.is_set():
                return
            self._accept([name for _, name in settled[start : start + TOGETHER]])

    def _accept(self, names: list[str]) -> None:
        keys = {name: delivery_key(self.name, name, *self._pending[name].identity) for name in names}
        known = self._history.keys(list(keys.values()))
        offered: list[tuple[Part, bytes | None]] = []
        chosen: list[str] = []
        for name in names:
            if keys[name] in known:
                self._finish(name, remove=self.settings.take)
                continue
            while not self._pipeline.reserve(timeout=0.2):
                if offered:  # what has a place must not wait for those that have none
                    self._offer(offered, chosen)
                    offered, chosen = [], []
                if self._stop.is_set():
                    return
            try:
                offered.append((self._part(Path(name), keys[name]), None))
            except OSError:
                self._pipeline.release()
                raise
            chosen.append(name)
        if offered:
            self._offer(offered, chosen)

    def _offer(self, offered: list[tuple[Part, bytes | None]], names: list[str]) -> None:
        self._pipeline.offer(offered).result()
        for name, (part, _) in zip(names, offered, strict=True):
            self._finish(name, remove=self.settings.take and part.path != name)

    def _finish(self, name: str, *, remove: bool) -> None:
        """A file whose part is in the journal or the history."""
        if remove:
            Path(name).unlink(missing_ok=True)
        else:
            self._done[name] = self._pending[name].identity
        del self._pending[name]

    def _part(self, path: Path, key: str) -> Part:
        uid = new_uid()
        product, part = self._product, path.stem
        if self._pattern is not None:
            match = self._pattern.search(path.relative_to(self.folder).as_posix())
            found = {} if match is None else match.groupdict()
            product, part = found.get("product") or self._product, found.get("part") or part
        copy = self._pictures.take(uid, path) if self.settings.take else None  # None on a full disk: the file stays
        return Part(self.name, part[:256], product[:64], str(copy or path), key, uid)


def _images(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if is_image(path) and not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path
