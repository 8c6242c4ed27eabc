"""Images scored on Ray, as many as there are, in the memory of a few.

The driver lists images and hands out pieces of `PIECE` of them, no more at a time than twice what the cluster can work
on; rows come back and are written part by part (see `parts`). Ray repeats pieces whose worker or machine was lost. A
piece that brings down every worker is cut in halves until it is one image, and that becomes a row with an error.

On GPUs, CPUs decode: each piece is two tasks, so that a GPU doesn't wait for files.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from blemish.data.image_io import Reading
from blemish.errors import ArtifactError, DataError, ImageReadError, UsageError
from blemish.extras import require
from blemish.files import writing
from blemish.predictions.pictures import PictureFolder
from blemish.runtime.session import Result
from blemish.scale.cluster import RETRIES, ask_nodes, own_error
from blemish.scale.images import Images, Named
from blemish.scale.parts import PART, Results, table_of
from blemish.scale.predictor import Predictor, read_source

PIECE = 32
"""Images per task."""

_ASK_AGAIN = 5.0  # seconds, after which a cluster may have grown or shrunk

Watch: TypeAlias = Callable[[int], None]
"""Called with how many images are done."""


@dataclass(frozen=True)
class Pictures:
    """Pictures that workers write: the folder, which all must see, and kinds out of `runtime.result.PICTURES`."""

    folder: Path
    kinds: tuple[str, ...]


@dataclass
class _Piece:
    """Images of one part, on their way."""

    part: int
    order: int
    images: list[Named]


def score(
    ray: Any,
    predictor: Predictor,
    images: Images,
    results: Results,
    *,
    pictures: Pictures | None = None,
    cpus: float = 1,
    gpus: float = 0,
    watch: Watch = lambda done: None,
) -> None:
    """Scores all images that have no row in `results` yet, and finishes it.

    Args:
        ray: connected, see `cluster`.
        predictor: what scores.
        images: what to score.
        results: where rows go.
        pictures: what else is written.
        cpus: CPUs that a scoring task takes, which are its threads unless the predictor says otherwise.
        gpus: GPUs that it takes, and no CPUs, which then decode; 0 scores on CPUs.
        watch: told about progress.

    Raises:
        ArtifactError: if the model can't give verdicts, or a machine doesn't see its file. DataError: if a machine
            doesn't see the images. UsageError: if versions differ.
    """
    reading = replace(predictor, device="cpu").session().reading  # a model that can't be used is refused here
    first = next(iter(images))
    if pictures is not None:
        _prepare(pictures, again=results.continued)
    _require_seen(ray, predictor, first, pictures)
    shared = ray.put(predictor)
    options = {"max_retries": RETRIES, "max_calls": 0}  # 0: else a worker would load the model for every task on a GPU
    work = ray.remote(num_cpus=0 if gpus else cpus, num_gpus=gpus, **options)(_score)
    decode = ray.remote(num_cpus=1, **options)(_decode)
    crashes = (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError)
    pending: dict[Any, _Piece] = {}
    parts: dict[int, dict[int, Any]] = {}  # part -> order of piece -> its table
    missing: dict[int, int] = {}  # part -> images without a row

    def submit(piece: _Piece) -> None:
        decoded = decode.remote(reading, piece.images) if gpus else None
        pending[work.remote(shared, piece.images, pictures, decoded)] = piece

    def take(reference: Any) -> None:
        piece = pending.pop(reference)
        try:
            table = ray.get(reference)
        except crashes as error:
            if len(piece.images) > 1:
                half = len(piece.images) // 2
                submit(replace(piece, images=piece.images[:half]))
                submit(replace(piece, images=piece.images[half:], order=piece.order + half))
                return
            table = table_of([predictor.failed(piece.images[0].source, f"its worker died of it ({_kind(error)})")])
        except ray.exceptions.RayTaskError as error:
            own = own_error(error)
            raise (error if own is None else own) from error
        parts[piece.part][piece.order] = table
        missing[piece.part] -= len(piece.images)
        if not missing[piece.part]:
            done = parts.pop(piece.part)
            results.write(piece.part, [done[order] for order in sorted(done)])
            del missing[piece.part]
            watch(results.images)

    most, asked = 0, -_ASK_AGAIN
    for number, chunk in enumerate(_chunks(images, PART)):
        left = list(itertools.compress(chunk, results.left([image.source for image in chunk])))
        missing[number], parts[number] = len(left), {}
        for start in range(0, len(left), PIECE):
            if time.monotonic() > asked + _ASK_AGAIN:
                resources, asked = ray.cluster_resources(), time.monotonic()
                slots = resources.get("GPU", 0) / gpus if gpus else resources.get("CPU", 0) / cpus
                most = 2 * max(1, int(slots))
            while len(pending) >= most:
                for reference in ray.wait(list(pending))[0]:
                    take(reference)
            submit(_Piece(number, start, left[start : start + PIECE]))
        if not left:
            del missing[number], parts[number]
    while pending:
        for reference in ray.wait(list(pending))[0]:
            take(reference)
    results.finish()


def _score(predictor: Predictor, images: Sequence[Named], pictures: Pictures | None, decoded: Any) -> Any:
    """What a worker does with a piece: a `pyarrow.Table` of rows."""
    folder = None
    if pictures is not None:
        folder = PictureFolder(pictures.folder, pictures.kinds)
        # Of a worker that was lost there may be some already.
        folder.prepare([Path(image.relative) for image in images], again=len(images))

    def draw(place: int, result: Result) -> None:
        if folder is not None:
            folder.write(result, Path(images[place].relative))

    names = [image.source for image in images]
    return table_of(predictor.rows(names if decoded is None else decoded, names, draw))


def _decode(reading: Reading, images: Sequence[Named]) -> list[Any]:
    """Arrays, and errors in the places of what can't be read."""
    return [_array(reading, image.source) for image in images]


def _array(reading: Reading, source: str) -> Any:
    try:
        return read_source(source, reading)
    except ImageReadError as error:
        return error


def _prepare(pictures: Pictures, *, again: bool) -> None:
    """Makes the folder. Workers replace what a lost worker left in it, so nothing else may be there."""
    with writing(pictures.folder):
        pictures.folder.mkdir(parents=True, exist_ok=True)
        if not again and any(pictures.folder.iterdir()):
            raise UsageError(f"{pictures.folder} isn't empty. Choose an empty folder with --save-dir.")


def _require_seen(ray: Any, predictor: Predictor, first: Named, pictures: Pictures | None) -> None:
    """Asks every machine whether it sees what the work needs, before there are a million rows that say no."""
    wanted = {
        "model": None if predictor.files else predictor.path,
        "image": first.source if "://" not in first.source and Path(first.source).exists() else None,
        "pictures": None if pictures is None else str(pictures.folder),
    }
    for node, seen in ask_nodes(ray, _sees, wanted).items():
        if not seen["model"]:
            raise ArtifactError(
                f"The worker at {node} doesn't see the model file {predictor.path}. Put it where all workers find it "
                f"under this name, or send it along with --ship-model."
            )
        if not seen["image"]:
            raise DataError(
                f"The worker at {node} doesn't see {first.source}. Put images where all workers find them under the "
                f"same names, or name them by URL."
            )
        if not seen["pictures"]:
            raise UsageError(f"The worker at {node} doesn't see --save-dir {wanted['pictures']}: name a shared folder.")


def _sees(wanted: dict[str, str | None]) -> dict[str, bool]:
    return {name: path is None or Path(path).exists() for name, path in wanted.items()}


def _chunks(images: Images, size: int) -> Iterator[list[Named]]:
    waiting = iter(images)
    while chunk := list(itertools.islice(waiting, size)):
        yield chunk


def _kind(error: Exception) -> str:
    return "out of memory" if isinstance(error, require("ray").exceptions.OutOfMemoryError) else "it crashed"
