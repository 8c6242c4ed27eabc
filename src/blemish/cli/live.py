"""Sources that go on, as arguments of `predict`: videos, cameras, watched folders, standard input."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from pathlib import Path

from blemish.data.live import Shot, piped, watch
from blemish.data.video import VIDEO_SUFFIXES, Camera, frames
from blemish.errors import UsageError

STDIN = "-"
_URL = re.compile(r"(rtsps?|rtmp|https?|udp)://", re.IGNORECASE)


def is_live(text: str) -> bool:
    """Whether an argument names a source that goes on: - for standard input, a video, the index of a camera, a URL."""
    if text == STDIN or _URL.match(text):
        return True
    path = Path(text)
    return path.suffix.lower() in VIDEO_SUFFIXES or (text.isdecimal() and not path.exists())


@contextmanager
def live_shots(texts: Sequence[str], *, watched: bool) -> Iterator[tuple[Iterable[Shot], Camera | None]]:
    """What comes from the sources, and the camera if it is one.

    Args:
        texts: as users gave them.
        watched: they are folders to be watched.

    Raises:
        UsageError: for several sources, of which one never ends, and for images among them.
        DataError: for a source that isn't there.
    """
    if watched:
        if len(texts) > 1 or is_live(texts[0]):
            raise UsageError(f"--watch takes one folder. Got {' '.join(texts)}.")
        yield watch(texts[0]), None
        return
    others = [text for text in texts if not is_live(text)]
    if others:
        raise UsageError(f"Images, such as {others[0]!r}, and sources that go on need a run each. Name one kind.")
    endless = [text for text in texts if Path(text).suffix.lower() not in VIDEO_SUFFIXES or _URL.match(text)]
    if not endless:
        yield chain.from_iterable([frames(text) for text in texts]), None
    elif len(texts) > 1:
        raise UsageError("A camera, or standard input, is a source of its own. Name nothing beside it.")
    elif texts[0] == STDIN:
        yield piped(sys.stdin.buffer), None
    else:
        with Camera(int(texts[0]) if texts[0].isdecimal() else texts[0]) as camera:
            yield camera, camera
