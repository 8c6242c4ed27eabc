"""Which settings suit these parts, within a time per image? Everything between a folder and a configuration for it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from blemish.data.image_io import read_size
from blemish.data.splits import Split
from blemish.errors import BlemishError
from blemish.features.backbones import local
from blemish.models import DETECTORS
from blemish.settings import Configuration, LoadingSettings, fit_settings, options
from blemish.trials.choice import RULE, Trial, choose, pareto
from blemish.trials.grid import describe, grid
from blemish.trials.trying import FEW, Outcome, arrange, run
from blemish.trials.work import build_data, build_model

CAVEAT = (
    "Planted defects are not your defects: these figures rank settings on drawn scratches, cracks, stains, holes, "
    "fibres and displaced pieces. Test the model on real ones before you trust it."
)
HARDLY = 0.7
"""Image AUROC below which no setting can be called useful."""


@dataclass(frozen=True)
class Recommendation:
    """What was tried, and what is taken.

    Attributes:
        chosen: by `RULE`. within_latency: whether it keeps the limit; if not, nothing that was tried does.
        latency: the limit in milliseconds per image, or None.
        outcome: everything that was tried.
        images: how many there are "fit", "calibrate", "held_out" and "planted".
        layers: backbone -> its layers, for `words`.
        common: the keys that all trials shared.
    """

    chosen: Trial
    within_latency: bool
    latency: float | None
    outcome: Outcome
    images: dict[str, int]
    layers: dict[str, list[str]]
    common: Configuration

    @property
    def front(self) -> list[Trial]:
        """The trials that no other beats."""
        return pareto(self.outcome.trials)

    @property
    def warnings(self) -> list[str]:
        """What the figures can't carry."""
        return [*limits(self.images, max(trial.image_auroc for trial in self.outcome.trials)), CAVEAT]

    def words(self, configuration: Mapping[str, Any]) -> str:
        """A configuration in a few words."""
        return describe(configuration, self.layers)

    def to_yaml(self) -> str:
        """The chosen configuration for `blemish fit`, with what it is worth above it."""
        import yaml

        chosen, known = self.chosen, options(DETECTORS)
        content = chosen.settings | {
            key: value
            for key, value in self.common.items()
            if key not in LoadingSettings.model_fields and value != known[key].default
        }
        head = (
            f"# Chosen by blemish recommend: image AUROC {chosen.image_auroc:.3f}, pixel AUROC "
            f"{chosen.pixel_auroc:.3f}\n"
            f"# on planted defects (not yours), {chosen.milliseconds:.1f} ms per image on {chosen.device}, "
            f"{chosen.megabytes:.1f} MB.\n"
        )
        return head + yaml.safe_dump(content, sort_keys=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        front, outcome = self.front, self.outcome
        return {
            "chosen": self.chosen.settings,
            "within_latency": self.within_latency,
            "latency_limit_ms": self.latency,
            "rule": RULE,
            "images": self.images,
            "trials": [{**trial.to_dict(), "pareto": trial in front} for trial in outcome.trials],
            "failed": [{"settings": configuration, "error": error} for configuration, error in outcome.failed],
            "not_tried": outcome.not_tried,
            "seconds": round(outcome.seconds, 1),
            "warnings": self.warnings,
        }


def recommend(
    root: Path,
    common: Configuration,
    *,
    budget: float,
    latency: float | None = None,
    backbones: Sequence[str] | None = None,
    on_progress: Callable[[str, float, float | None], None] = lambda words, done, total: None,
) -> Recommendation:
    """Tries configurations on the good images of a folder, with defects planted into some of them.

    Args:
        root: a folder, data set or manifest; its test set isn't touched.
        common: keys that all trials share, such as `roi`, `group`, `seed` or `accelerator`.
        budget: seconds after which no trial is started.
        latency: most milliseconds per image; None for no limit.
        backbones: to be tried; None for `local_backbones`.
        on_progress: called with words, the work done, and all of it (None while that isn't known).

    Raises:
        DataError: for a folder with too few good images. BlemishError: if nothing could be tried: the first reason.
    """
    started = time.perf_counter()
    shared = fit_settings(common, DETECTORS)
    on_progress("planting defects", 0.0, None)
    data = build_data(shared, root)
    reading = data.reading
    with tempfile.TemporaryDirectory() as folder:
        sets = arrange(
            data.index,
            Path(folder),
            group=shared.data.group,
            seed=shared.data.seed,
            roi=shared.model.roi,
            reading=reading,
        )
        layers = {name: _layers(name) for name in (local_backbones() if backbones is None else backbones)}
        outcome = run(
            grid(layers, max(read_size(sets.fit[0].path))),
            sets,
            root=root,
            budget=budget - (time.perf_counter() - started),
            common=common,
            reading=reading,
            on_progress=lambda tried, done, total: on_progress(
                "done" if tried is None else describe(tried, layers), done, total
            ),
        )
    chosen, met = choose(outcome.trials, latency)
    return Recommendation(chosen, met, latency, outcome, _counts(sets), layers, common)


def local_backbones() -> list[str]:
    """The usual backbone, and those that need no download."""
    return list(dict.fromkeys([options(DETECTORS)["backbone"].default, *local()]))


def limits(images: Mapping[str, int], best: float) -> list[str]:
    """What figures can't carry, in sentences.

    Args:
        images: see `Recommendation`.
        best: the highest image AUROC.
    """
    good = images["fit"] + images["calibrate"] + images["held_out"]
    found = []
    if good < FEW:
        steps = 1 / images["held_out"]
        found.append(
            f"{good} good images are few: false alarms come in steps of {steps:.0%} on {images['held_out']} held-out "
            f"images, and a few hundredths of AUROC between two settings mean nothing. {FEW} or more give the choice a "
            "better footing."
        )
    if best < HARDLY:
        found.append(
            f"Even the best image AUROC, {best:.2f}, is close to chance (0.5): among the differences of good images "
            "planted defects don't stand out. Larger ones may. More good images, a steadier scene or another backbone "
            "(--backbones) can help."
        )
    return found


def _layers(backbone: str) -> list[str]:
    """What the usual detector uses of a backbone; none where it can't be had, and the trial will say why."""
    try:
        return build_model(fit_settings({"backbone": backbone}, DETECTORS)).extractor.layers
    except BlemishError:
        return []


def _counts(sets: Split) -> dict[str, int]:
    good = sum(sample.label is False for sample in sets.test)
    return {
        "fit": len(sets.fit),
        "calibrate": len(sets.calibrate),
        "held_out": good,
        "planted": len(sets.test) - good,
    }
