"""A digest inside the file it is a digest of, for every format alike.

A writer puts `BLANK` somewhere into the file, in a metadata field, and `write_seal` replaces its zeros by the SHA-256
of the whole file (with the zeros) and of the files that belong to it. Whoever opens the file compares: one flipped bit,
in the tensors, the numbers that decide or the graph, and it is refused. Nothing has to understand the format, so a
session without torch, ONNX or an XML parser checks as much as anyone.
"""

from __future__ import annotations

import hashlib
import mmap
import re
from collections.abc import Sequence
from pathlib import Path

from blemish.errors import ArtifactError

_MARK = "blemish-sha256-"
BLANK = _MARK + "0" * 64
"""What a writer puts where the digest shall stand."""

_SEAL = re.compile(rb"blemish-sha256-([0-9a-f]{64})")


def write_seal(path: Path, companions: Sequence[Path] = ()) -> str:
    """Fills in the digest of a file that holds `BLANK` once; returns it as 64 hexadecimal digits.

    Raises:
        ValueError: if `BLANK` isn't there exactly once.
    """
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as content:
        places = [found.start(1) for found in _SEAL.finditer(content)]
        if len(places) != 1:
            raise ValueError(f"{path} must hold BLANK exactly once. Got {len(places)} times.")
        digest = _digest(content, places[0], companions)
        content[places[0] : places[0] + 64] = digest.encode()
    return digest


def read_seal(path: Path, companions: Sequence[Path] = ()) -> str | None:
    """The digest of a sealed file, compared with what the file and its companions hold; None for one without a seal.

    Raises:
        ArtifactError: if they differ: the file was changed or damaged, or belongs to other companions.
        OSError: if a file can't be read.
    """
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        places = [(found.start(1), found.group(1).decode()) for found in _SEAL.finditer(content)]
        if not places:
            return None
        place, written = places[0]
        if len(places) == 1 and _digest(content, place, companions) == written:
            return written
    together = "".join(f" and {one.name}" for one in companions)
    raise ArtifactError(
        f"{path}{together} don't have the digest that was written into them: something changed or damaged them, or "
        f"they are from different models. Copy them again from where they were written."
        if companions
        else f"{path} doesn't have the digest that was written into it: something changed or damaged it. Copy it again "
        f"from where it was written."
    )


def _digest(content: mmap.mmap, place: int, companions: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    with memoryview(content) as view:
        for part in (view[:place], b"0" * 64, view[place + 64 :]):
            digest.update(part)
            if isinstance(part, memoryview):
                part.release()
    for path in companions:
        digest.update(path.stat().st_size.to_bytes(8, "little"))
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()
