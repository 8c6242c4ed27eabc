"""A model as one small picklable callable, for every engine that cuts data into batches.

    predictor = blemish.make_predictor("parts.safetensors")
    predictor({"path": ["a.png", "b.png"]})["label"]      # dicts of arrays in and out

    dataset.map_batches(predictor)                         # Ray Data
    pool.map(predictor, [{"path": names}, ...])            # multiprocessing
    DataLoader(batches, batch_size=None, collate_fn=predictor, num_workers=2)

What travels is the name of the file and its digest, not the weights. A process opens the file when it first needs it
and keeps it: engines unpickle a function for every task.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from blemish.data.image_io import MAX_PIXELS, Reading
from blemish.errors import ArtifactError, ImageReadError, UsageError
from blemish.escaping import as_utf8
from blemish.extras import require
from blemish.predictions.rows import COLUMNS, PredictionRow, fingerprint, row_of
from blemish.runtime import load
from blemish.runtime.backend import Backend
from blemish.runtime.session import Failure, Result, Session, check_options
from blemish.scale.versions import require_same, versions

Watch: TypeAlias = Callable[[int, Result], None]
"""Called with the place of an image among the sources, and its result."""

_BULKY = ("image", "bytes")
_TEXTS = ("path", "label", "model", "regions", "error")


@dataclass(frozen=True)
class Predictor:
    """Scores batches; made by `make_predictor`.

    Attributes:
        path: the model file, absolute.
        model: its fingerprint, see `blemish.predictions.rows.fingerprint`.
        sent_by: versions of the process that made it.
        files: names and bytes of the model's files, where it was shipped.
        device, threads, batch_size, max_pixels, min_area, frames, mm_per_pixel, maps, verdict_only: see
            `make_predictor`.
    """

    path: str
    model: str
    sent_by: Mapping[str, str]
    files: tuple[tuple[str, bytes], ...]
    device: str
    threads: int | None
    batch_size: int
    max_pixels: int
    min_area: int
    frames: Literal["refuse", "first"]
    mm_per_pixel: float | None
    maps: bool
    verdict_only: bool

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, npt.NDArray[Any]]:
        """Verdicts for one batch.

        Args:
            batch: N images under one of these names, and any other columns of length N:
                `path`: file names, or URLs that fsspec knows;
                `bytes`: encoded images;
                `image`: (N, H, W, 3), or N arrays (H, W, 3) of any sizes, RGB, uint8 or float32 in [0, 1].
                `path` beside one of the others is only a name.

        Returns:
            The other columns as they are, and the columns of `blemish.predictions.rows` as arrays of length N: regions
            as JSON text; `error` says why an image has no verdict, "" where it has one. Without a verdict the label is
            "" and scores are NaN. With `maps`, also `anomaly_map` and `mask`: (N, H, W) where all images have one
            size, N arrays where they don't, None without a verdict.

        Raises:
            UsageError: if no images are given, or versions differ from those of the process that made the predictor.
            ArtifactError: if the model's file isn't here, or is another one.
        """
        name = next((name for name in (*_BULKY, "path") if name in batch), None)
        if name is None:
            raise UsageError(
                f"A batch needs a column image, bytes or path. Got {', '.join(map(str, batch)) or 'none'}."
            )
        sources = list(batch[name])
        paths = [str(path) for path in batch["path"]] if "path" in batch else [""] * len(sources)
        kept: list[tuple[Any, Any]] = [(None, None)] * len(sources)

        def keep(place: int, result: Result) -> None:
            kept[place] = (result.anomaly_map, result.mask)

        rows = self.rows(sources, paths, keep if self.maps else None)
        columns = {key: np.asarray(values) for key, values in batch.items() if key not in _BULKY}
        columns |= {key: _column(key, [row[key] for row in rows]) for key in (*COLUMNS, "error")}
        if self.maps:
            for key, arrays in zip(("anomaly_map", "mask"), zip(*kept, strict=True), strict=True):
                columns[key] = _stacked(arrays)
        return columns

    def rows(self, sources: Sequence[Any], paths: Sequence[str], watch: Watch | None = None) -> list[PredictionRow]:
        """The rows of images, with `error`: None, or why all but `path` and `model` are None.

        Args:
            sources: names, URLs, bytes or arrays.
            paths: what rows call them.
            watch: sees every result, with its map, while it is there.

        Raises:
            As `__call__`.
        """
        session, rows, seconds = self.session(), [self.failed(path, "") for path in paths], [0.0] * len(paths)
        places: list[int] = []

        def arrays() -> Iterator[npt.NDArray[Any]]:
            for place, source in enumerate(sources):
                started = time.perf_counter()
                try:
                    array = self.read(source)
                except ImageReadError as error:
                    rows[place]["error"] = error.reason
                    continue
                seconds[place] = time.perf_counter() - started
                places.append(place)
                yield array

        for number, result in enumerate(session.stream(arrays())):
            place = places[number]
            if isinstance(result, Failure):
                rows[place]["error"] = result.reason
                continue
            spent = {**result.seconds, "read": seconds[place]}
            result = replace(result, path=paths[place], seconds=spent)
            if watch is not None:
                watch(place, result)
            cut = session.pixel_cut
            row = row_of(result, model=self.model, pixel_threshold=cut, mm_per_pixel=self.mm_per_pixel)
            rows[place] = {**row, "error": None}
        return rows

    def read(self, source: Any) -> npt.NDArray[Any]:
        """A name, a URL or bytes as the model wants it read; an array as it is, or its error raised, if it is one.

        Raises:
            ImageReadError: if it can't be read.
        """
        if isinstance(source, np.ndarray):
            return source
        if isinstance(source, ImageReadError):
            raise source
        return read_source(source, self.session().reading)

    def session(self) -> Session:
        """The model as this process keeps it, with the settings of this predictor."""
        require_same(self.sent_by)
        return Session(
            _opened(self),
            batch_size=self.batch_size,
            max_pixels=self.max_pixels,
            min_area=self.min_area,
            frames=self.frames,
        )

    def failed(self, path: str, reason: str) -> PredictionRow:
        """The row of an image without a verdict."""
        return {**dict.fromkeys(COLUMNS), "path": as_utf8(path), "model": self.model, "error": reason}


def make_predictor(
    path: str | os.PathLike[str],
    *,
    device: str = "cpu",
    threads: int | None = None,
    batch_size: int = 8,
    max_pixels: int = MAX_PIXELS,
    min_area: int = 1,
    frames: Literal["refuse", "first"] = "refuse",
    mm_per_pixel: float | None = None,
    maps: bool = False,
    verdict_only: bool = False,
    ship: bool = False,
) -> Predictor:
    """A model file as a function from batches to verdicts that other processes and machines can run.

    Args:
        path: a model that `blemish` wrote; every worker must find it under the same name, unless it is shipped.
        device: where workers run it: "cpu", "cuda", ...
        threads: threads of one worker on the CPU, at least 1. None follows what the worker was given: the CPUs of a Ray
            task or actor, one in a `DataLoader` worker, OMP_NUM_THREADS where it is set; else the runtime decides.
        batch_size: images of equal size that are stacked at most.
        max_pixels: see `blemish.runtime.session.Session`.
        min_area: as there.
        frames: as there.
        mm_per_pixel: see `blemish.predictions.rows.row_of`.
        maps: give maps and masks, too, which are as large as the images.
        verdict_only: leave out regions, and the time they take, see `blemish.runtime.load`.
        ship: carry the model's file along, for workers that can't see it.

    Raises:
        ArtifactError: if there is no such file. UsageError: for an argument out of range.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads must be at least 1. Got {threads}.")
    if maps and verdict_only:
        raise UsageError("maps and verdict_only exclude each other. Give one of them.")
    check_options(batch_size=batch_size, min_area=min_area, frames=frames)
    model, absolute = fingerprint(path), Path(path).absolute()
    files = (absolute, absolute.with_suffix(".bin")) if absolute.suffix.lower() == ".xml" else (absolute,)
    shipped = tuple((file.name, file.read_bytes()) for file in files) if ship else ()
    return Predictor(
        path=str(absolute),
        model=model,
        sent_by=versions(),
        files=shipped,
        device=device,
        threads=threads,
        batch_size=batch_size,
        max_pixels=max_pixels,
        min_area=min_area,
        frames=frames,
        mm_per_pixel=mm_per_pixel,
        maps=maps,
        verdict_only=verdict_only,
    )


def read_source(source: Any, reading: Reading) -> npt.NDArray[Any]:
    """The image of a file name, a URL or bytes. Raises `ImageReadError`."""
    return reading(read_url(source) if isinstance(source, str) and "://" in source else source)


def read_url(url: str) -> bytes:
    """The content behind a URL.

    Raises:
        ImageReadError: if it can't be had. MissingExtraError: without fsspec.
    """
    try:
        with require("fsspec").open(url, "rb") as stream:
            content: bytes = stream.read()
    except (
        OSError,
        ValueError,
        ImportError,
    ) as error:  # an unknown scheme; no driver for it
        raise ImageReadError(url, getattr(error, "strerror", None) or str(error) or type(error).__name__) from error
    return content


def given_threads() -> int | None:
    """How many threads a worker may use by what it was given; None where nobody said."""
    ray = sys.modules.get("ray")
    if ray is not None and ray.is_initialized():
        context = ray.get_runtime_context()
        if context.worker.mode == ray.WORKER_MODE:
            return max(1, int(context.get_assigned_resources().get("CPU", 1)))
    torch = sys.modules.get("torch.utils.data")
    if torch is not None and torch.get_worker_info() is not None:
        return 1
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdigit() and int(told) else None


_LOADED: dict[tuple[Any, ...], Backend] = {}
_KEPT = 2
"""Models that a process keeps open."""


def _opened(predictor: Predictor) -> Backend:
    threads = predictor.threads or given_threads()
    key = (predictor.path, predictor.model, predictor.device, threads, predictor.verdict_only)
    if key not in _LOADED:
        for oldest in list(_LOADED)[: len(_LOADED) + 1 - _KEPT]:
            del _LOADED[oldest]
        with tempfile.TemporaryDirectory(prefix="blemish-", ignore_cleanup_errors=True) as folder:
            for name, content in predictor.files:
                (Path(folder) / name).write_bytes(content)
            path = Path(predictor.path)
            _LOADED[key] = _load(Path(folder) / path.name if predictor.files else path, predictor, threads)
    return _LOADED[key]


def _load(path: Path, predictor: Predictor, threads: int | None) -> Backend:
    advice = "or send it along: make_predictor(..., ship=True), blemish predict --ship-model"
    try:
        found = fingerprint(path)
    except ArtifactError as error:
        raise ArtifactError(
            f"This worker doesn't see the model file {path}. Put it where all workers find it under this name, "
            f"{advice}."
        ) from error
    if found != predictor.model:
        raise ArtifactError(
            f"The model file {path} that this worker sees is another one: its fingerprint is {found}, not "
            f"{predictor.model}. Copy it again, {advice}."
        )
    if path.suffix.lower() != ".safetensors":
        return load(path, device=predictor.device, threads=threads, verdict_only=predictor.verdict_only).backend
    if threads is not None:  # in torch they belong to the process
        require("torch").set_num_threads(threads)
    return load(path, device=predictor.device, verdict_only=predictor.verdict_only).backend


def _column(name: str, values: Sequence[Any]) -> npt.NDArray[Any]:
    if name == "regions":
        values = ["" if value is None else json.dumps(value) for value in values]
    if name in _TEXTS:
        column = np.empty(len(values), dtype=object)
        column[:] = ["" if value is None else value for value in values]
        return column
    if name in ("height", "width"):
        return np.array([value or 0 for value in values], dtype=np.int64)
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _stacked(arrays: Sequence[Any]) -> npt.NDArray[Any]:
    if arrays and all(array is not None and array.shape == arrays[0].shape for array in arrays):
        return np.stack(arrays)
    column = np.empty(len(arrays), dtype=object)
    column[:] = arrays
    return column
