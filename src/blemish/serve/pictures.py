"""The pictures of a station: what was uploaded, and heat maps.

`pictures/<day>/<uid>.<suffix>` is the file as it came, `<uid>.map.png` its map: 16-bit gray, normalized value times
65535. Which pictures of normal parts stay is decided by their uid alone, so that a restart decides alike; a person who
judges one of the others puts a copy into `pictures/judged/`.
"""

from __future__ import annotations

import os
import shutil
from collections import deque
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.data.image_io import write_png
from blemish.errors import OutputError
from blemish.files import replacing
from blemish.serve.configuration import PictureSettings
from blemish.serve.feedback import reason_to_ask
from blemish.serve.history import History, Verdict
from blemish.serve.tables import NORMAL

JUDGED = "judged"
"""Folder of pictures that stay since a person has judged the part."""
RECENT = 24
"""Pictures that don't stay are removed when so many others of their kind came after them."""


class Pictures:
    """A folder of pictures.

    Args:
        folder: where they lie; it is made.
        settings: which are kept.
        near: see `blemish.serve.feedback.reason_to_ask`: pictures of parts that people are asked about are kept.
    """

    def __init__(self, folder: Path, settings: PictureSettings, near: float) -> None:
        self.folder, self._near = folder, near
        self.settings = settings
        self._passing: deque[Path] = deque()  # of the newest parts, which are still looked at
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def has_room(self) -> bool:
        """Whether the disk has more than the reserve left, which the database needs."""
        return shutil.disk_usage(self.folder).free > self.settings.reserve_gb * 1e9

    def store(self, uid: str, content: bytes) -> Path | None:
        """Writes an uploaded picture, to the disk's surface; None where there is no room for it."""
        if not self.has_room:
            return None
        path = self._place(uid, suffix_of(content))
        try:
            path.parent.mkdir(exist_ok=True)
            with path.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError:
            with suppress(OSError):
                path.unlink(missing_ok=True)
            return None
        return path

    def take(self, uid: str, file: Path) -> Path | None:
        """Copies a picture from elsewhere, to the disk's surface; None where there is no room for it."""
        return self.store(uid, file.read_bytes())

    def remove(self, path: str) -> None:
        """Removes a stored picture that isn't needed after all."""
        Path(path).unlink(missing_ok=True)

    def keeps(self, verdict: Verdict) -> bool:
        """Whether the picture of a part stays: of all but normal ones, of those that people are asked about, and of a
        sample of the others.
        """
        drawn = int(verdict["uid"][-8:], 16) / 2**32
        asked = verdict["label"] != NORMAL or reason_to_ask(verdict, self._near) is not None
        return asked or drawn < self.settings.keep_normal

    def finish(self, verdict: Verdict, anomaly_map: npt.NDArray[np.float32] | None) -> None:
        """After a verdict: keeps picture and map, or removes what was only stored until then."""
        path = None if verdict["path"] is None else Path(verdict["path"])
        if not self.keeps(verdict):
            if path is not None and self.folder in path.parents:
                self._passing.append(path)
            while len(self._passing) > RECENT:
                self._passing.popleft().unlink(missing_ok=True)
            return
        if path is not None and self.folder not in path.parents and path.is_file():
            self.take(verdict["uid"], path)
        if anomaly_map is not None and self.has_room:
            with suppress(OutputError):
                write_png(self._place(verdict["uid"], ".map.png"), np.rint(anomaly_map * 65535).astype(np.uint16))

    def hold(self, verdict: Verdict) -> None:
        """Keeps the picture of a part that a person has judged, where there is room: a model may learn from it."""
        path = self.find(verdict)
        if path is None or self.keeps(verdict) or path.parent == self.folder / JUDGED or not self.has_room:
            return
        with suppress(OSError, OutputError):  # it was just removed, or the disk is full
            content = path.read_bytes()
            with replacing(self.folder / JUDGED / f"{verdict['uid']}{suffix_of(content)}") as temporary:
                temporary.write_bytes(content)

    def find(self, verdict: Verdict) -> Path | None:
        """The kept picture of a part, or the file it came from; None if neither is there any more."""
        uid = verdict["uid"]
        kept = [place for end in SUFFIXES for place in (self._place(uid, end), self.folder / JUDGED / f"{uid}{end}")]
        places = kept if verdict["path"] is None else [*kept, Path(verdict["path"])]
        return next((path for path in places if path.is_file()), None)

    def anomaly_map(self, verdict: Verdict) -> npt.NDArray[np.float32] | None:
        """(H, W) in [0, 1], as `finish` kept it; None if it didn't."""
        try:
            with Image.open(self._place(verdict["uid"], ".map.png")) as picture:
                return np.asarray(np.asarray(picture) / 65535, dtype=np.float32)
        except OSError:
            return None

    def tidy(self, history: History) -> None:
        """Removes what a killed process left: what was half-written, pictures of parts that it hadn't accepted, and of
        those whose verdict says that they don't stay. They are of its last moments, so two days' folders are looked
        through.
        """
        waiting = {part.uid for part in history.waiting()}
        days = (path for path in self.folder.iterdir() if path.is_dir() and path.name != JUDGED)
        for day in sorted(days)[-2:]:
            for path in day.iterdir():
                if path.is_dir():  # in which a map was being written
                    shutil.rmtree(path)
                    continue
                uid = path.name.partition(".")[0]
                verdict = None if uid in waiting else history.get(uid)
                if uid not in waiting and (verdict is None or not self.keeps(verdict)):
                    path.unlink(missing_ok=True)

    def _place(self, uid: str, suffix: str) -> Path:
        day = int(uid[:12], 16) // 86_400_000  # since 1970, UTC
        return self.folder / f"{np.datetime64(day, 'D')}" / f"{uid}{suffix}"


def suffix_of(content: bytes) -> str:
    """The usual suffix of a picture's format, by its first bytes; ".bin" for others, which are judged all the same."""
    for start, suffix in SIGNATURES.items():
        if content.startswith(start):
            return suffix
    return ".webp" if content[:4] == b"RIFF" and content[8:12] == b"WEBP" else ".bin"


SIGNATURES = {
    b"\x89PNG": ".png",
    b"\xff\xd8\xff": ".jpg",
    b"BM": ".bmp",
    b"II*\0": ".tif",
    b"MM\0*": ".tif",
    b"GIF8": ".gif",
}
SUFFIXES = (*dict.fromkeys(SIGNATURES.values()), ".webp", ".bin")
