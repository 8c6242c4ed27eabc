"""A fit by many workers whose result has the bytes of a fit by one.

    shards    consecutive images, cut at whole batches: each worker observes some, for the detector and for the folds
              of cross calibration
    waves     as many shards as there are workers; their states merge to one, and that into what was there before
    folds     what all but one fold have observed makes the detector that scores this fold, piece by piece
    finish    here, from one merged state, whose size doesn't depend on the number of images

Equality is by construction: the same batches go through the backbone, states of consecutive images merge to the bytes
of one pass wherever they are cut (`models.components.image_order`), and evidence is put together in the order of
images. Images of one fold are scattered over the set; shards are short enough that nothing is made of them before they
are merged, from the left to the right (`Detector.scattered`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blemish.data.batch import ImageBatch, RawPrediction
from blemish.data.dataset import ImageDataset, make_loader
from blemish.data.layouts import Sample
from blemish.engine.probe import Draws, Probe, draws_of
from blemish.errors import UsageError
from blemish.functional.exact_products import exact_products
from blemish.models.base import Detector
from blemish.models.cross_fit import CrossFit, images_at_once
from blemish.post_processing.calibration import Evidence
from blemish.post_processing.decision import Planted
from blemish.post_processing.post_processor import DecisionModule
from blemish.progress import Progress, silent
from blemish.scale.pools import Pool

if TYPE_CHECKING:
    from blemish.data.datamodule import ImageDataModule

SHARD = 2048
"""Most images of a shard: what a worker that is lost has to do again."""

PIECE = 128
"""Images of a fold, or of a calibration set, that one task scores."""

State = Mapping[str, Tensor]


@dataclass(frozen=True)
class _Shard:
    """Images number `first` and following of those to fit on, and their folds."""

    dataset: ImageDataset
    first: int
    folds: tuple[int, ...]
    batch_size: int


def fit(model: Detector, data: ImageDataModule, pool: Pool, progress: Progress = silent, *, shard: int = SHARD) -> None:
    """Fits and calibrates a detector whose `start` or `resume` was called, as `Engine.fit` does in one process.

    Args:
        model: to be fitted, on the CPU.
        data: with its `transform`.
        pool: who works.
        progress: told about the phases "features" and "calibration".
        shard: images that one task observes, at most.

    Raises:
        UsageError: if the detector's post-processor is of a class of the user's own. Others as `Engine.fit`.
    """
    if model.post_processor is not None and not isinstance(model.post_processor, DecisionModule):
        raise UsageError(
            f"Several processes can't calibrate a post-processor of class {type(model.post_processor).__name__}. Fit "
            f"in one, or with blemish.PostProcessor."
        )
    model.begin()
    split, count = data.split, max(data.split.folds, default=-1) + 1
    blank = pool.put(model.twin())
    dataset = _dataset_of(data.train_dataloader())
    most = min(shard, model.scattered) if split.folds else shard
    shards = _shards(dataset, split.folds, data.batch_size, pool.workers, most)
    main: Any = None
    folds: list[Any] = [None] * count
    waves: list[Any] = []  # the state up to each
    done = 0
    for start in range(0, len(shards), pool.workers):
        wave = shards[start : start + pool.workers]
        states = [pool.submit(_observe, blank, shard, count, returns=1 + count) for shard in wave]
        main = _merged(pool, blank, [*([] if main is None else [main]), *(state[0] for state in states)])
        for fold in range(count):
            before = [] if folds[fold] is None else [folds[fold]]
            folds[fold] = pool.submit(_merge_in_order, blank, *before, *(state[1 + fold] for state in states))[0]
        waves.append(main)
        pool.wait(waves[max(0, len(waves) - 2)])  # one wave is prepared while another is worked on, not all
        done += sum(len(shard.dataset) for shard in wave)
        progress("features", done, len(dataset))
    scored: list[Any] = []
    chosen = data.calibration
    decides = isinstance(model.post_processor, DecisionModule) and bool(chosen)
    among = _dataset_of(data.val_dataloader()) if decides else dataset
    draws = {_placed(sample): planted for sample, planted in draws_of(data).items()} if decides and data.planted else {}
    order = [split.folds[number] for number in split.by_fold]
    for fold in range(count if decides else 0):
        inside = range(order.index(fold), order.index(fold) + order.count(fold))
        finished = pool.submit(_finish_without, blank, len(inside), *(folds[:fold] + folds[fold + 1 :]))[0]
        scored += _scored(pool, finished, among, inside, data.batch_size, draws, each=True)
    model.merge(pool.get(main))
    del main
    with exact_products(model.device):
        model.finish()
    if not decides:
        return
    rest = range(len(split.folds), len(chosen))  # all, without folds; else the images of defects
    scored += _scored(pool, pool.put(model.twin()), among, rest, data.batch_size, draws, each=count > 0)
    evidence, planted = Evidence(), []
    for piece in scored:
        state, found = pool.get(piece)
        evidence.merge(state)
        planted += found
        progress("calibration", evidence.images, len(chosen))
    model.calibrate(evidence, source=split.policy)
    learned: dict[str, Any] = {"planted": tuple(planted)} if data.planted else {}
    if count:
        learned["parts"] = split.parts
    if learned:
        model.decider.note(**learned)


def _dataset_of(loader: Any) -> ImageDataset:
    """What a loader reads, by paths that hold in other working folders, too: those of workers."""
    found: ImageDataset = loader.dataset.dataset
    placed = found.part(range(len(found)))
    placed.samples = tuple(map(_placed, placed.samples))
    return placed


def _placed(sample: Sample) -> Sample:
    return replace(sample, path=sample.path.absolute(), mask=None if sample.mask is None else sample.mask.absolute())


def _shards(dataset: ImageDataset, folds: Sequence[int], batch_size: int, workers: int, most: int) -> list[_Shard]:
    """Whole batches each, one for each worker, unless they are too many."""
    total = len(dataset)
    size = min(-(-total // workers), most)
    size = max(batch_size, (size if size == most else size + batch_size - 1) // batch_size * batch_size)
    return [
        _Shard(
            dataset.part(range(first, min(first + size, total))), first, tuple(folds[first : first + size]), batch_size
        )
        for first in range(0, total, size)
    ]


def _merged(pool: Pool, blank: Any, states: Sequence[Any]) -> Any:
    """Neighbors merge two by two, until one is left."""
    while len(states) > 1:
        pairs = [states[i : i + 2] for i in range(0, len(states), 2)]
        states = [pair[0] if len(pair) == 1 else pool.submit(_merge, blank, *pair)[0] for pair in pairs]
    return states[0]


def _scored(
    pool: Pool,
    finished: Any,
    dataset: ImageDataset,
    places: Sequence[int],
    batch_size: int,
    draws: Draws,
    *,
    each: bool,
) -> list[Any]:
    """Evidence on the images in these places, by pieces of whole batches."""
    size = max(batch_size, PIECE // batch_size * batch_size)
    found = []
    for start in range(0, len(places), size):
        part = dataset.part(places[start : start + size])
        own = {sample: draws[sample] for sample in part.samples if sample in draws}
        found += pool.submit(_inspect, finished, part, batch_size, own, each)
    return found


# -------------------- what workers do


@torch.no_grad()
def _observe(device: str, blank: Detector, shard: _Shard, folds: int) -> Any:
    """The state of a shard; with `folds`, a list of it and of the states of each fold."""
    observer = _on(blank, device)
    observer.start()
    cross = CrossFit(observer, shard.folds, shard.first, folds) if folds else None
    number = shard.first
    for batch in _batches(shard.dataset, shard.batch_size, device):
        with exact_products(observer.device):
            features = observer.features(batch.image)
            numbers = list(range(number, number + len(features)))
            observer.observe(features, numbers)
            if cross is not None:
                cross.observe(features, number)
        number += len(features)
    state = _on_cpu(observer.observed_state())
    return state if cross is None else [state, *map(_on_cpu, cross.observed_states())]


def _merge(device: str, blank: Detector, *states: State) -> State:
    """The state of consecutive shards."""
    observer = _on(blank, device)
    observer.start()
    for state in states:
        observer.merge(_to(state, device))
    return _on_cpu(observer.observed_state())


def _merge_in_order(device: str, blank: Detector, *states: State) -> State:
    """The state of a fold in shards from the first one on: reduced as soon as one pass would."""
    observer = _on(blank, device)
    observer.start()
    for state in states:
        observer.merge(_to(state, device))
        _, channels, seen, _ = state["extent"].tolist()
        if seen:  # no more images, but the buffers are looked at
            observer.observe(torch.empty(0, channels, *observer.grid, device=device), [])
    return _on_cpu(observer.observed_state())


def _finish_without(device: str, blank: Detector, images: int, *states: State) -> Detector:
    """The detector that those folds make whose states are given, to score so many images."""
    merged = _on(blank, device)
    for state in states:
        merged.merge(_to(state, device))
    with exact_products(merged.device):
        merged.finish_for(images)
    return merged.cpu()


@torch.no_grad()
def _inspect(
    device: str, finished: Detector, dataset: ImageDataset, batch_size: int, draws: Draws, each: bool
) -> tuple[State, list[Planted]]:
    """Evidence on images by a detector that is finished, batch by batch or as those of a fold, and what was planted."""
    detector, evidence, probe = _on(finished, device), Evidence(), Probe(dataset, draws)
    for batch in _batches(dataset, batch_size, device):
        probe(dataset.samples[evidence.images :][: len(batch)], lambda place: detector)
        if each:
            step = images_at_once(detector.device, len(batch))
            places = [slice(first, first + step) for first in range(0, len(batch), step)]
            raw = RawPrediction.joined([detector.inspect(batch.image[i], batch.size[i]) for i in places])
        else:
            raw = detector.inspect(batch.image, batch.size)
        evidence.add(raw.batch(batch), None)
    return _on_cpu(evidence.state()), probe.found


def _on(detector: Detector, device: str) -> Detector:
    """A detector of this task's own."""
    return detector.twin().eval().to(device)


def _to(state: State, device: str) -> dict[str, Tensor]:
    """A state on a device. What counts images stays on the CPU, as everywhere."""
    return {name: tensor.to(device) if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _on_cpu(state: State) -> dict[str, Tensor]:
    """Copies to send: of a tensor that is part of a buffer, the whole buffer would travel."""
    return {name: tensor.cpu().clone() for name, tensor in state.items()}


def _batches(dataset: ImageDataset, batch_size: int, device: str) -> Iterator[ImageBatch]:
    for batch in make_loader(dataset, batch_size=batch_size, num_workers=0):
        masks, label = batch.gt_mask, batch.gt_label
        yield replace(
            batch,
            image=batch.image.to(device),
            gt_label=None if label is None else label.to(device),
            gt_mask=[mask.to(device) for mask in masks] if isinstance(masks, list) else masks,
        )
