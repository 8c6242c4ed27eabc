"""Many fits, one after the other, each in a process of its own, each kept as one JSON file.

A job that fails, runs out of memory or is killed takes no other with it, and a second start does only what is missing:
a file counts if its job was done with the same settings, data and version, which its name says by a hash.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import re
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias

from blemish._version import __version__
from blemish.data.index import index_folder
from blemish.data.walk import walk
from blemish.errors import BlemishError, DataError
from blemish.files import locked, write_json, writing
from blemish.models import DETECTORS
from blemish.settings import Configuration, fit_settings

SCHEMA = 1


@dataclass(frozen=True)
class Job:
    """One detector on one data set with one seed.

    Attributes:
        name: of the data set.
        root: its folder.
        recipe: name of the settings.
        settings: the configuration, the seed in it.
        seed: the same, to be shown.
    """

    name: str
    root: Path
    recipe: str
    settings: Configuration
    seed: int

    def file(self, images: Sequence[tuple[str, int]]) -> str:
        """Name of its result: readable, and another for other settings, versions or names and sizes of images."""
        known = [SCHEMA, __version__, self.settings, images]
        digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode("utf-8", "surrogateescape")).hexdigest()[:12]
        words = "-".join((self.name, self.recipe, f"seed{self.seed}"))
        return f"{re.sub(r'[^A-Za-z0-9_.-]+', '_', words)}-{digest}.json"


def all_jobs(recipes: Mapping[str, Configuration], sets: Mapping[str, Path], seeds: Sequence[int]) -> list[Job]:
    """Every recipe on every data set with every seed, checked: nothing is wrong with the keys of any.

    Raises:
        UsageError: as `blemish.settings.fit_settings`.
    """
    jobs = [
        Job(name, root, recipe, {**configuration, "seed": seed}, seed)
        for recipe, configuration in recipes.items()
        for name, root in sets.items()
        for seed in seeds
    ]
    for job in jobs:
        fit_settings(job.settings, DETECTORS)
    return jobs


JobResult: TypeAlias = dict[str, Any]
"""A job's JSON: "name", "recipe", "seed", "settings", "error" (None, or why it failed), and what the work returned."""

Work: TypeAlias = Callable[[Job], dict[str, Any]]
"""Does a job and returns plain values. A module-level function, so that another process can import it."""

Together: TypeAlias = Callable[[Work, Sequence[Job], Sequence[int]], Iterator[tuple[Job, dict[str, Any]]]]
"""Does jobs, of so many bytes of images each, and yields them with what `attempt` would return, in any order."""


def run_jobs(
    jobs: Sequence[Job],
    work: Work,
    folder: Path,
    *,
    alone: bool = True,
    together: Together | None = None,
    kept: Callable[[Job], bool] = lambda job: True,
) -> Iterator[tuple[Job, JobResult, bool]]:
    """Does what has not been done and yields every job with its result and whether it was done before: in order, or as
    they come from `together`.

    Args:
        jobs: what to do.
        work: see `Work`.
        folder: where results are kept. Failures are kept, too, and tried again by the next start.
        alone: give each job a process of its own.
        together: does several at once; None does one after the other.
        kept: whether what a job left elsewhere, when it was done, is still there.

    Raises:
        OutputError: before the first job, if `folder` can't be written, or another process works for it.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        yield from _run(jobs, work, folder, alone, together, kept)


def _run(
    jobs: Sequence[Job],
    work: Work,
    folder: Path,
    alone: bool,
    together: Together | None,
    kept: Callable[[Job], bool],
) -> Iterator[tuple[Job, JobResult, bool]]:
    images = {root: _images(root) for root in {job.root for job in jobs}}

    def keep(job: Job, outcome: Mapping[str, Any]) -> JobResult:
        head = {"schema": SCHEMA, "name": job.name, "root": str(job.root), "recipe": job.recipe, "seed": job.seed}
        result = {**head, "settings": job.settings, "error": None, **outcome}
        write_json(folder / job.file(images[job.root]), result)
        return result

    left: list[Job] = []
    for job in jobs:
        before = _read(folder / job.file(images[job.root]))
        if before is not None and before["error"] is None and kept(job):
            yield job, before, True
        elif together is not None:
            left.append(job)
        else:
            yield job, keep(job, in_own_process(work, job) if alone else attempt(work, job)), False
    if together is not None:
        sizes = [sum(size for _, size in images[job.root]) for job in left]
        for job, outcome in together(work, left, sizes):
            yield job, keep(job, outcome), False


def in_own_process(work: Work, job: Job) -> dict[str, Any]:
    """What `work(job)` returns from a fresh process; {"error": reason} if it fails, however it fails."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(sender, work, job))
    process.start()
    sender.close()
    try:
        outcome: dict[str, Any] = receiver.recv()
    except EOFError:
        process.join()
        return {"error": _how_it_ended(process.exitcode or 0)}
    finally:
        if process.is_alive() and not receiver.closed:
            process.join(timeout=10)
        process.kill()
        process.join()
        receiver.close()
    return outcome


def _send(sender: Connection, work: Work, job: Job) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    sender.send(attempt(work, job))
    sender.close()


def _end_with_parent() -> None:
    """A killed benchmark leaves no job behind that would slow down the next one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def attempt(work: Work, job: Job) -> dict[str, Any]:
    """What `work(job)` returns; {"error": reason} if it raises."""
    try:
        return work(job)
    except BlemishError as error:
        return {"error": str(error)}
    except Exception as error:  # a defect of this library or of one below it must not end the other jobs
        return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"its process ended with exit code {code} and without a result."
    name = signal.Signals(-code).name
    hint = " The system does that when memory runs out." if name == "SIGKILL" else ""
    return f"its process was ended by {name}.{hint}"


def _read(path: Path) -> JobResult | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and "error" in content else None


def _images(root: Path) -> list[tuple[str, int]]:
    """Names and sizes of the images; nothing where they can't be listed, which the job will report."""
    try:
        files = walk(root).images if root.is_dir() else {s.relative: s.path for s in index_folder(root).samples}
        return [(name, file.stat().st_size) for name, file in files.items()]
    except (DataError, OSError):
        return []
