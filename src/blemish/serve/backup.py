"""A copy of a station, taken while it runs; a station can be started on the copy.

The database is copied as it is at one moment. Models that the station has learned follow, and pictures; those that an
earlier copy has aren't copied again, and those that the station has removed meanwhile stay in the copy.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from blemish.errors import UsageError
from blemish.files import replacing, writing

DATABASE = "station.sqlite"
PICTURES, LEARNED = "pictures", "learning"


@dataclass(frozen=True)
class Copied:
    """What a copy holds.

    Attributes:
        verdicts: how many. pictures: files that were copied this time.
    """

    verdicts: int
    pictures: int


def back_up(data: Path, target: Path) -> Copied:
    """Copies a station's folder.

    Args:
        data: of the station, with a database in SQLite.
        target: folder of the copy; it is made. An earlier copy of the same station is brought up to date.

    Raises:
        UsageError: if there is no such station, its database is damaged, or the target can't hold the copy.
        OutputError: if it can't be written.
    """
    if not (data / DATABASE).is_file():
        raise UsageError(
            f"There is no {DATABASE} in {data}. Name the station's data folder; a history in PostgreSQL is backed up "
            f"with pg_dump."
        )
    if target.resolve().is_relative_to(data.resolve()):
        raise UsageError(f"The copy would be inside the station's own folder. Choose another place than {target}.")
    try:
        with replacing(target / DATABASE) as file:
            verdicts = _copy_database(data / DATABASE, file)
    except sqlite3.DatabaseError as error:
        raise UsageError(f"The database {data / DATABASE} can't be copied: {error}.") from error
    pictures = 0
    for path in (*(data / LEARNED).glob("*/model.safetensors"), *(data / PICTURES).rglob("*")):
        relative = path.relative_to(data)
        copy = target / relative
        half_written = any(part.startswith(".") for part in relative.parts)
        if path.is_file() and not half_written and not copy.exists():
            pictures += _copy(path, copy) and path.name != "model.safetensors"
    return Copied(verdicts, pictures)


def _copy_database(source: Path, target: Path) -> int:
    with closing(sqlite3.connect(source)) as database, closing(sqlite3.connect(target)) as copy:
        database.backup(copy)
        [answer] = copy.execute("PRAGMA integrity_check(1)").fetchone()
        if answer != "ok":
            raise sqlite3.DatabaseError(answer)
        return int(copy.execute("SELECT count(*) FROM verdicts").fetchone()[0])


def _copy(path: Path, copy: Path) -> bool:
    """Whether it was still there. Under its name it is whole."""
    with writing(copy):
        copy.parent.mkdir(parents=True, exist_ok=True)
        hidden = copy.with_name(f".{copy.name}")
        try:
            shutil.copyfile(path, hidden)
        except FileNotFoundError:
            hidden.unlink(missing_ok=True)
            return False
        os.replace(hidden, copy)
    return True
