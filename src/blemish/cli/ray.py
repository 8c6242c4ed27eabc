"""What verbs do with --ray."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from blemish.cli.console import progress, remark
from blemish.errors import UsageError


@contextmanager
def jobs_on_ray(address: str | None, accelerator: str) -> Iterator[Any]:
    """A `blemish.trials.jobs.Together` on a cluster, each job on a CPU, or on a GPU where there are any."""
    from blemish.scale.cluster import cluster
    from blemish.scale.jobs import on_ray

    with cluster(address) as ray:
        gpus = int(accelerator != "cpu" and ray.cluster_resources().get("GPU", 0) >= 1)
        yield lambda work, jobs, sizes: on_ray(ray, work, jobs, sizes, gpus=gpus)


def predict_on_ray(
    model: Path,
    inputs: Sequence[str],
    options: Mapping[str, Any],
    address: str | None,
    output: Path | None,
    resume: bool,
    kinds: Sequence[str] | None,
    save_dir: Path,
) -> dict[str, int]:
    """Scores into a folder, and returns how many images were "inspected", are "anomalous", and "failed".

    Args:
        model: its file.
        inputs: see `blemish.scale.images`.
        options: of `make_predictor`.
        address: see `blemish.scale.cluster.cluster`.
        output: the folder.
        resume: go on with it.
        kinds: of pictures, out of `blemish.runtime.result.PICTURES`; None writes none.
        save_dir: where they go.
    """
    from blemish.files import locked
    from blemish.scale.cluster import cluster
    from blemish.scale.images import Images
    from blemish.scale.parts import Results
    from blemish.scale.predictor import make_predictor
    from blemish.scale.scoring import Pictures, score

    if output is None:
        raise UsageError("--ray writes Parquet parts to a folder. Name it with --out.")
    if kinds is not None and len(inputs) > 1:
        raise UsageError("--save with --ray takes one folder, pattern or list, below which pictures have their names.")
    pictures = None if kinds is None else Pictures(save_dir.absolute(), tuple(kinds))
    predictor, images = make_predictor(model, **options), Images([_absolute(text) for text in inputs])
    settings = {"model": predictor.model, **{key: value for key, value in options.items() if key != "ship"}}
    settings |= {"save": kinds and ",".join(kinds), "save_dir": pictures and str(pictures.folder)}
    next(iter(images))  # inputs that name nothing leave no folder behind
    with cluster(address) as ray, locked(output):
        results = Results(output, settings, resume)
        if results.continued:
            remark(f"{results.images} images are done.")
        with progress(transient=False) as bars:
            task = bars.add_task("images", total=None, completed=results.images)
            threading.Thread(target=lambda: bars.update(task, total=sum(1 for _ in images)), daemon=True).start()
            score(
                *(ray, predictor, images, results),
                pictures=pictures,
                gpus=1 if options["device"].startswith("cuda") else 0,
                watch=lambda done: bars.update(task, completed=done),
            )
    return {
        "inspected": results.images - results.failed,
        "anomalous": results.anomalous,
        "failed": results.failed,
    }


def _absolute(text: str) -> str:
    """A name that workers in other folders understand."""
    return text if "://" in text else str(Path(text).absolute())
