"""Every image of a list inspected, its row and its pictures written, batch by batch; a run that was cut off goes on.

Rows and pictures of a batch are on the disk before the next batch is inspected. An image that can't be inspected is a
failure, which is written down like a row, and the others go on. A source that goes on, such as a camera, takes the
place of the list: each of its pictures is inspected as it comes, and its run can't be continued.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from blemish.data.live import Shot
from blemish.errors import UsageError
from blemish.escaping import as_utf8
from blemish.predictions.rows import PredictionRow, row_of
from blemish.predictions.streaming import FailedRow, PredictionFile, is_interrupted
from blemish.runtime.inputs import Frame, frames_of
from blemish.runtime.session import Failure, Session

if TYPE_CHECKING:
    from blemish.predictions.pictures import PictureFolder


@dataclass
class PredictionRun:
    """Iterating inspects the images that are left and gives their rows and failures, in order, a batch at a time.

    Attributes:
        session, images, model, mm_per_pixel, pictures, explain: see `prediction_run`. file: of `output`.
        done: how many images have a row or a failure. anomalous: how many of them are anomalous.
        failures: those that could not be inspected.
    """

    session: Session
    images: Sequence[tuple[Path | Frame, Path]] | Iterable[Shot]
    model: str
    mm_per_pixel: float | None = None
    pictures: PictureFolder | None = None
    explain: bool = False
    file: PredictionFile | None = None
    done: int = 0
    anomalous: int = 0
    failures: list[FailedRow] = field(default_factory=list)

    @property
    def inspected(self) -> int:
        """How many images have a row."""
        return self.done - len(self.failures)

    def __iter__(self) -> Iterator[list[PredictionRow | FailedRow]]:
        waiting: deque[Path] = deque()
        sources = self._sources(waiting)
        if isinstance(self.images, Sequence):
            inspected = self.session.batches(sources)
        else:
            inspected = ([result] for result in self.session.stream(sources))
        for results in inspected:
            batch: list[PredictionRow | FailedRow] = []
            for result in results:
                relative = waiting.popleft()
                if isinstance(result, Failure):
                    self.failures.append({"path": as_utf8(result.path), "reason": as_utf8(result.reason)})
                    batch.append(self.failures[-1])
                    continue
                cut = self.session.pixel_cut
                wanted = self.explain and (result.is_anomalous or result.regions)
                explanation = self.session.explain(result) if wanted else None
                scale = self.mm_per_pixel
                row = row_of(result, model=self.model, pixel_threshold=cut, mm_per_pixel=scale, explanation=explanation)
                batch.append(row)
                self.anomalous += result.is_anomalous
                if self.pictures is not None:
                    self.pictures.write(result, relative, explanation)
            self.done += len(results)
            if self.file is not None:
                self.file.write(batch)
            yield batch

    def _sources(self, waiting: deque[Path]) -> Iterator[Path | Frame | Shot]:
        """The images that are left; where the pictures of each go, is added to `waiting`."""
        images: Iterable[Any] = self.images
        for image in islice(images, self.done, None):
            source, place = (image, image.place) if isinstance(image, Shot) else image
            waiting.append(place)
            yield source


@contextmanager
def prediction_run(
    session: Session,
    images: Sequence[tuple[Path, Path]] | Iterable[Shot],
    *,
    model: str,
    mm_per_pixel: float | None = None,
    pictures: PictureFolder | None = None,
    explain: bool = False,
    output: Path | None = None,
    resume: bool = False,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[PredictionRun]:
    """A run, as a context manager: `output` is complete when the block ends without an error.

        with prediction_run(session, images, model=fingerprint(path), output=Path("rows.csv")) as run:
            for batch in run:
                print(run.done, "of", len(run.images))

    Args:
        session: the model.
        model: its fingerprint, see `rows.fingerprint`.
        images: files, each with its path relative to what was named, under which its pictures are kept; or a source
            that goes on.
        mm_per_pixel: see `rows.row_of`.
        pictures: where pictures go; None writes none.
        explain: look for good patches beside what is found, see `Session.explain`: for rows, and for pictures that know
            where good images are.
        output: file of predictions, see `PredictionFile`; None keeps no rows.
        resume: go on with an unfinished `output`, for the same images: files only.
        settings: what else, beside what is known here, a run that goes on must share with the one that was cut off.

    Raises:
        UsageError: as `PredictionFile` and `PictureFolder.prepare`; for pictures, explanations or a COCO file where the
            session gives verdicts alone. MissingExtraError: for Parquet without pyarrow.
    """
    coco = output is not None and output.suffix.lower() == ".json"
    if session.verdict_only and (pictures is not None or explain or coco):
        raise UsageError(
            "Verdicts alone have no maps, so there are no pictures, explanations or COCO files of them. Ask for .csv, "
            ".jsonl or .parquet, or drop --verdict-only."
        )
    each: Sequence[tuple[Path | Frame, Path]] | Iterable[Shot] = images
    names: list[str] = []
    relatives: list[Path] = []
    if isinstance(images, Sequence):
        each = [one for image in images for one in (_frames(*image) if session.frames == "all" else [image])]
        names, relatives = [str(path) for path, _ in each], [relative for _, relative in each]
    elif resume:
        raise UsageError("A run over a source that goes on can't be resumed. Name another file.")
    run = PredictionRun(session, each, model, mm_per_pixel, pictures, explain)
    interrupted = output is not None and is_interrupted(output, resume=resume)
    if pictures is not None and not interrupted:
        pictures.prepare(relatives)
    with ExitStack() as stack:
        if output is not None:
            same = {"model": model, "mm_per_pixel": mm_per_pixel, "explain": explain, **settings}
            same |= {name: getattr(session, name) for name in ("batch_size", "max_pixels", "min_area", "frames")}
            same |= {"save": pictures and ",".join(pictures.kinds), "save_dir": pictures and str(pictures.folder)}
            run.file = file = stack.enter_context(PredictionFile(output, same, resume=resume))
            file.skip(names)
            run.done, run.anomalous, run.failures = file.images, file.anomalous, list(file.failures)
            if pictures is not None and interrupted:
                pictures.prepare(relatives[run.done :], again=session.batch_size)
        yield run


def _frames(path: Path, relative: Path) -> list[tuple[Path | Frame, Path]]:
    """Every picture of a file that holds several, under a name of its own."""
    several = [(frame, relative.with_name(f"{relative.name}#{frame.number}")) for frame in frames_of(path)]
    return [*several] or [(path, relative)]
