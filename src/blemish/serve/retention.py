"""Pictures by age and by quota; verdicts outlive them."""

from __future__ import annotations

import logging
import threading
import time
from pathlib import Path

from blemish.serve.pictures import Pictures

log = logging.getLogger(__name__)
EVERY = 600.0
"""Seconds between two looks."""


class Retention:
    """Looks after a folder of pictures.

    Args:
        pictures: with the settings that say what stays.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="retention", daemon=True)

    def start(self) -> None:
        """Starts looking."""
        self._thread.start()

    def stop(self) -> None:
        """Ends."""
        self._stop.set()
        self._thread.join()

    def look(self) -> int:
        """Removes what is too old, then the oldest until the rest is within the quota; how many files went."""
        settings = self._pictures.settings
        files: list[tuple[float, int, Path]] = []
        for path in self._pictures.folder.rglob("*"):
            try:
                status = path.stat()
            except FileNotFoundError:  # the pipeline removes pictures as well
                continue
            if path.is_file():
                files.append((status.st_mtime, status.st_size, path))
        files.sort()
        oldest = -1.0 if settings.days is None else time.time() - settings.days * 86_400
        excess = 0.0 if settings.quota_gb is None else sum(size for _, size, _ in files) - settings.quota_gb * 1e9
        removed = 0
        for moment, size, path in files:
            if moment >= oldest and excess <= 0:
                break
            path.unlink(missing_ok=True)
            excess -= size
            removed += 1
        return removed

    def _run(self) -> None:
        while True:
            try:
                removed = self.look()
                if removed:
                    log.info("pictures removed by age or quota: %d", removed)
            except OSError as error:
                log.warning("pictures can't be looked after: %s", error)
            if self._stop.wait(EVERY):
                return
