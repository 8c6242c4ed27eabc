"""What people have judged, as a data set: pictures that a model may learn from, and others that it never sees.

    train/good/<uid>.png      to fit, or to update
    test/good/<uid>.png       a third of the good ones, drawn by their uid: no model of this station ever learns from
                              these, so that every candidate can be compared with what it shall replace
    test/<kind>/<uid>.png     defective ones, by what people called the defect

Pictures are linked, not copied, where the disk can: they cost no room.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import select

from blemish.data.index import index_folder
from blemish.data.words import GOOD_NAMES
from blemish.errors import UsageError
from blemish.files import READ_SUFFIXES
from blemish.serve.feedback import Feedback, truly_defective
from blemish.serve.history import History
from blemish.serve.pictures import Pictures
from blemish.serve.tables import FAILED, feedback, verdicts

MOST = 20_000
"""Opinions that are looked through, the newest first."""
HELD_OUT = 1 / 3
"""Share of good pictures that no model learns from."""


@dataclass
class Reviewed:
    """The pictures of a product by what people said of their parts.

    Attributes:
        good: uid -> picture, to learn from. held_out: the same, never to learn from.
        defective: kind of defect -> uid -> picture.
        gone: parts that were judged, and whose pictures aren't there any more.
    """

    good: dict[str, Path] = field(default_factory=dict)
    held_out: dict[str, Path] = field(default_factory=dict)
    defective: dict[str, dict[str, Path]] = field(default_factory=dict)
    gone: int = 0

    def counts(self) -> dict[str, object]:
        """How many there are of each, as JSON has it."""
        kinds = {kind: len(found) for kind, found in sorted(self.defective.items())}
        return {"good": len(self.good), "held_out": len(self.held_out), "defective": kinds, "gone": self.gone}


def reviewed_of(history: History, opinions: Feedback, pictures: Pictures, product: str) -> Reviewed:
    """What people have judged of a product; the newest opinion counts."""
    row, said = verdicts.c, feedback.c
    query = (
        select(row.uid, row.label, row.path)
        .join(feedback, said.uid == row.uid)
        .where(row.product == product, row.label != FAILED)
        .order_by(said.id.desc())
        .limit(MOST)
    )
    with history.engine.connect() as connection:
        judged = {found["uid"]: dict(found) for found in connection.execute(query).mappings()}
    result = Reviewed()
    for uid, opinion in opinions.of(judged).items():
        picture = pictures.find(judged[uid])
        if picture is None or picture.suffix.lower() not in READ_SUFFIXES:
            result.gone += 1
        elif truly_defective(judged[uid], opinion):
            result.defective.setdefault(folder_of(opinion["kind"]), {})[uid] = picture
        else:
            (result.held_out if is_held_out(uid) else result.good)[uid] = picture
    return result


def is_held_out(uid: str) -> bool:
    """Whether no model shall learn from a good part; decided by its uid, so that it is so for all of them."""
    return int(uid[-20:-16], 16) / 2**16 < HELD_OUT


def folder_of(kind: str) -> str:
    """What the folder of a kind of defect is called: never as those of good parts are."""
    name = re.sub(r"[^\w-]+", "-", kind.strip()).strip("-")[:64]
    return f"defect-{name}".rstrip("-") if not name or name.lower() in GOOD_NAMES else name


def write_data_set(found: Reviewed, folder: Path, base: Path | None) -> int:
    """Writes a data set in the layout of MVTec AD.

    Args:
        found: what people have judged.
        folder: where to; it is made.
        base: a data set whose good pictures are learned from as well, but for those of its test set; None for none.

    Returns:
        How many pictures there are to learn from.

    Raises:
        DataError: if the base can't be understood.
        UsageError: if there are fewer than two pictures to learn from.
    """
    learned = {f"{uid}{path.suffix.lower()}": path for uid, path in found.good.items()}
    if base is not None:
        samples = [one for one in index_folder(base).samples if one.label is False and one.subset in ("train", None)]
        learned |= {f"base-{number:06d}{one.path.suffix.lower()}": one.path for number, one in enumerate(samples)}
    if len(learned) < 2:
        raise UsageError(
            f"There are {len(learned)} good pictures to learn from, and at least 2 are needed; a third of those that "
            f"people judged is kept for comparisons. Judge more parts: right ones called normal, and false alarms."
        )
    places = {folder / "train" / "good" / name: path for name, path in learned.items()}
    tested = {"good": found.held_out, **found.defective}
    for kind, pictures in tested.items():
        places |= {folder / "test" / kind / f"{uid}{path.suffix.lower()}": path for uid, path in pictures.items()}
    for place, path in places.items():
        place.parent.mkdir(parents=True, exist_ok=True)
        _link(path, place)
    return len(learned)


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place)
    except OSError:  # another disk, or one that knows no links
        try:
            shutil.copyfile(path, place)
        except FileNotFoundError:  # removed a moment ago, by age or quota
            return
