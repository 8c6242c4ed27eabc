"""Who is fitted on, who calibrates, who tests: disjoint, and the same on every machine and in every run.

Good images are ranked by sha256(f"{seed}/{key}"), where the key is the relative path, or the group it belongs to. The
head of the ranking calibrates, the tail tests (where the owner made no test set), the middle is fitted on:

    |-- ceil(calibration_fraction * n) --|---------- fit ----------|-- ceil(test_fraction * n) --|

A shuffle would deal all cards anew when one image arrives; here only the images next to a boundary can change sides.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

from blemish.data.index import Index, Sample
from blemish.errors import DataError
from blemish.settings import DataSettings

Policy: TypeAlias = Literal["cross", "held_out", "validation", "test"]

FEW, MANY = 25, 250
"""Groups of good images below which every group is a fold of its own, and from which there are 5 folds."""


@dataclass(frozen=True)
class Split:
    """Four disjoint sets of samples, each in the order of the index.

    Attributes:
        fit: good images the detector learns from.
        calibrate: good images held out from fitting to choose the thresholds; empty under the other policies.
        validation: labeled images the owner set aside for validation.
        test: labeled images to measure on.
        policy: which set chooses the thresholds: "cross" those fitted on, each scored by a detector that didn't see it.
            "test" is an oracle: figures measured on that set flatter.
        folds: under "cross", the fold of every image to fit on; images of one fold are scored by what the others gave.
        parts: under "cross", how many groups of images were dealt to the folds; None where nobody told them apart.
    """

    fit: tuple[Sample, ...]
    calibrate: tuple[Sample, ...]
    validation: tuple[Sample, ...]
    test: tuple[Sample, ...]
    policy: Policy = "held_out"
    folds: tuple[int, ...] = ()
    parts: int | None = None

    @cached_property
    def calibration(self) -> tuple[Sample, ...]:
        """The samples on which thresholds are chosen, by the policy."""
        if self.policy == "cross":
            return tuple(self.fit[number] for number in self.by_fold)
        return {"held_out": self.calibrate, "validation": self.validation, "test": self.test}[self.policy]

    @cached_property
    def by_fold(self) -> list[int]:
        """Numbers of the images to fit on, fold by fold."""
        return sorted(range(len(self.folds)), key=self.folds.__getitem__)

    def of_new_images(self) -> Split:
        """For a detector that is finished and has seen none of these: all that would be fitted on calibrates."""
        if self.policy != "cross":
            return self
        return replace(self, fit=(), calibrate=self.fit, policy="held_out", folds=(), parts=None)


def split(
    index: Index,
    *,
    calibration_fraction: float = 0.2,
    test_fraction: float = 0.2,
    group: str | None = None,
    seed: int = 0,
    calibrate_on: str = "auto",
    alike: Callable[[Sequence[Sample]], Sequence[int]] | None = None,
) -> Split:
    """Divide an index into disjoint sets.

    Sets made by the owner (test/, validation/, the split column) stay as they are. Images without a label are in no
    set: they can only be predicted. Anomalous images that nobody assigned are tested on, with `test_fraction` of the
    good ones; where there are none, nothing is kept back for testing.

    Args:
        index: what lies in the folder.
        calibration_fraction: in (0, 1); share of the good images to fit on that is held out to calibrate.
        test_fraction: in [0, 1); share of the good images kept for testing where the owner made no test set.
        group: regular expression searched in the relative path; its first group, or the whole match, names what belongs
            together (one part photographed several times). Groups are never divided, and good images in the group of an
            anomalous one are tested on with it.
        seed: another seed gives another, equally fixed, division.
        calibrate_on: "cross": all good images fit, and each is scored by a detector that didn't see it; "held_out" good
            images, the "validation" set, the "test" set, or "auto": validation when it has good and anomalous images,
            else held_out. Only the policy "held_out" holds anything out.
        alike: under "cross" and without `group`, gives each image to fit on the number of the part it shows, as
            `blemish.data.likeness.clusters` does; images of one number are in one fold. None tells them all apart.

    Raises:
        UsageError: an argument out of range.
        DataError: fewer than two good images (or groups) to fit on, a file that `group` doesn't match, or an empty set
            to calibrate on.
    """
    given: dict[str, Any] = {
        "calibration_fraction": calibration_fraction,
        "test_fraction": test_fraction,
        "group": group,
        "seed": seed,
        "calibrate_on": calibrate_on,
    }
    DataSettings(**given)  # raises where one is out of range
    samples = index.samples
    pool = [s for s in samples if s.label is False and s.subset in ("train", None)]
    loose_bad = [s for s in samples if s.label and s.subset is None]
    if len(pool) < 2:
        raise DataError(
            f"{index.root}: {len(pool)} good image(s) to fit on; at least 2 are needed, "
            "one to fit and one to calibrate. Add images of good parts."
        )
    keys = {s: _key(s, group) for s in [*pool, *loose_bad]}
    bad_keys = {keys[s] for s in loose_bad}
    test = {s for s in samples if s.subset == "test" and s.label is not None} | set(loose_bad)
    beside_bad = {s for s in pool if s.subset is None and keys[s] in bad_keys}
    test_target = 0
    if loose_bad and not any(s.subset == "test" for s in samples):
        test_target = _ceil(test_fraction * len(pool)) - len(beside_bad)
    pool = [s for s in pool if s not in beside_bad]
    test |= beside_bad

    validation = {s for s in samples if s.subset == "validation" and s.label is not None}
    policy = _policy(index, calibrate_on, validation, test)
    ranking = _ranked(pool, keys, seed)
    if len(ranking) < 2:
        raise DataError(
            f"{index.root}: the group pattern {group!r} leaves {len(ranking)} group(s) of good images to fit on; "
            "at least 2 are needed, one to fit and one to calibrate. Use a finer pattern."
        )
    calibrate: set[Sample] = set()
    if policy == "held_out":
        calibrate = _take(ranking[:-1], max(1, _ceil(calibration_fraction * len(pool))))
    free = [members for members in ranking if not calibrate.issuperset(members)]
    free_for_test = [members for members in free if all(s.subset is None for s in members)]
    test |= _take(free_for_test[::-1][: len(free) - 1], test_target)
    fit = set(pool) - calibrate - test

    def ordered(chosen: set[Sample]) -> tuple[Sample, ...]:
        return tuple(s for s in samples if s in chosen)

    folds: tuple[int, ...] = ()
    parts: int | None = None
    if policy == "cross":
        groups = [members for members in free if fit.issuperset(members)]
        if alike is not None and group is None:
            groups = _joined(groups, dict(zip(ordered(fit), alike(ordered(fit)), strict=True)))
        parts = None if alike is None and group is None else len(groups)
        of = {s: number % fold_count(len(groups)) for number, members in enumerate(groups) for s in members}
        folds = tuple(of[s] for s in ordered(fit))
    return Split(ordered(fit), ordered(calibrate), ordered(validation), ordered(test), policy, folds, parts)


def fold_count(groups: int) -> int:
    """How many folds: each group its own where they are few, for every image counts; less work where they are many."""
    return groups if groups < FEW else 10 if groups < MANY else 5


def unseen(index: Index, sets: Split, seen: Callable[[Sample], bool]) -> Split:
    """The sets of an index, with a test set on which a finished model may be measured.

    A folder that has grown is dealt anew, and images that were fitted on could come to be tested on. Here those that
    made the model stay where they are, and all others are free: where the owner made no test set, every labeled image
    that hasn't been assigned and that the model hasn't seen is tested on. A test set of the owner's stays as it is.

    Args:
        index: what lies in the folder.
        sets: how it would be divided for a fit.
        seen: whether a model was made from an image.
    """
    labeled = [sample for sample in index.samples if sample.label is not None]
    if any(sample.subset == "test" for sample in index.samples):
        tested = (s for s in labeled if s.subset == "test" or (s.label and s.subset is None))
        return replace(sets, test=tuple(tested))
    known = {sample for sample in labeled if sample.subset is None and seen(sample)}
    test = tuple(sample for sample in labeled if sample.subset is None and sample not in known)
    free = set(test)
    fit, calibrate = (tuple(s for s in members if s not in free) for members in (sets.fit, sets.calibrate))
    return replace(sets, fit=fit, calibrate=calibrate, test=test, folds=())  # only a fit needs folds


def _policy(index: Index, calibrate_on: str, validation: set[Sample], test: set[Sample]) -> Policy:
    if calibrate_on == "auto":
        return "validation" if {s.label for s in validation} == {True, False} else "held_out"
    if calibrate_on in ("cross", "held_out"):
        return "cross" if calibrate_on == "cross" else "held_out"
    chosen: tuple[Policy, set[Sample]] = ("test", test) if calibrate_on == "test" else ("validation", validation)
    if not chosen[1]:
        raise DataError(
            f"{index.root}: calibrate_on={calibrate_on!r}, but there are no labeled {calibrate_on} images. "
            "Add them, or use calibrate_on='held_out'."
        )
    return chosen[0]


def _key(sample: Sample, group: str | None) -> str:
    if group is None:
        return sample.relative
    match = re.search(group, sample.relative)
    key = match and match.group(1 if match.re.groups else 0)
    if key is None:
        raise DataError(
            f"{sample.relative}: the group pattern {group!r} doesn't match this file. Widen it to match all files."
        )
    return key


def _ranked(pool: list[Sample], keys: dict[Sample, str], seed: int) -> list[list[Sample]]:
    """Groups in the order of their hashes."""
    groups: dict[str, list[Sample]] = defaultdict(list)
    for sample in pool:
        groups[keys[sample]].append(sample)

    def rank(key: str) -> str:
        return hashlib.sha256(f"{seed}/{key}".encode("utf-8", "surrogateescape")).hexdigest()

    return [groups[key] for key in sorted(groups, key=rank)]


def _joined(ranking: list[list[Sample]], numbers: Mapping[Sample, int]) -> list[list[Sample]]:
    """Groups of one number as one, in the order of their first ones; nothing is joined if all would be one."""
    joined: dict[int, list[Sample]] = defaultdict(list)
    for members in ranking:
        joined[numbers[members[0]]] += members
    return list(joined.values()) if len(joined) > 1 else ranking


def _ceil(count: float) -> int:
    return math.ceil(count - 1e-9)  # 0.07 * 100 is more than 7 in floating point


def _take(groups: Iterable[list[Sample]], target: int) -> set[Sample]:
    """Whole groups from the front until `target` samples are reached."""
    taken: set[Sample] = set()
    for members in groups:
        if len(taken) >= target:
            break
        taken.update(members)
    return taken
