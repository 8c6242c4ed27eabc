"""Look into every file before a night of fitting: what would be used for what, why, and what is wrong.

One pass reads each image once, holds one image at a time and keeps only digests of the others.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from blemish.data.depth import depth_sentence
from blemish.data.image_io import (
    AS_DECLARED,
    HALF,
    MaskReading,
    Reading,
    file_sha256,
    inverted_sentence,
    read_header,
    read_mask_closely,
)
from blemish.data.index import Index, Sample
from blemish.data.masks import stem_of
from blemish.data.splits import Split
from blemish.data.walk import describe
from blemish.data.words import BAD_NAMES, words_of
from blemish.errors import DataError, ImageReadError
from blemish.progress import Progress, silent, watched

_FOLDERS = 8  # named in one finding
_SHOWN = 5  # file names quoted in one finding; the report's fields hold them all


@dataclass(frozen=True)
class Finding:
    """One remark. "error": fitting or testing would fail or mislead; "warning": worth a look; "note": the plan."""

    severity: Literal["error", "warning", "note"]
    message: str


@dataclass(frozen=True)
class SetSummary:
    """Counts of one set: images, good and anomalous ones, masks, and images per kind of defect."""

    images: int
    good: int
    anomalous: int
    masks: int
    defects: dict[str, int]


@dataclass(frozen=True)
class CheckReport:
    """The state of a data folder.

    Attributes:
        root: folder or manifest.
        layout: see `Index.layout`.
        policy: which set chooses the thresholds, see `Split.policy`.
        sets: summaries under "fit", "calibrate", "validation", "test" and "unused" (images in no set).
        sizes: "H x W" -> number of images, most frequent first.
        modes: such as "gray 16 bit" -> number of images.
        good_folders: folders whose images are taken for good parts -> number of images.
        passed_over: reason -> files that are no images or shall not be looked at.
        unreadable: relative path -> reason.
        broken_masks: relative path of the image -> why its mask can't be used.
        mask_problems: relative path -> reason; also files left out by the layout.
        duplicates: groups of (set, relative path) with identical bytes, where a group reaches over more than one set.
        findings: everything above in words, errors first.
    """

    root: str
    layout: str
    policy: str
    sets: dict[str, SetSummary]
    sizes: dict[str, int]
    modes: dict[str, int]
    good_folders: dict[str, int]
    passed_over: dict[str, tuple[str, ...]]
    unreadable: dict[str, str]
    broken_masks: dict[str, str]
    mask_problems: dict[str, str]
    duplicates: list[list[tuple[str, str]]]
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """True when no finding is an error."""
        return all(finding.severity != "error" for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """Plain dicts, lists, strings and numbers, ready for JSON."""
        return asdict(self) | {"ok": self.ok}


def check(
    index: Index,
    split: Split,
    *,
    min_size: int = 32,
    reading: Reading = AS_DECLARED,
    progress: Progress = silent,
) -> CheckReport:
    """Read every image and mask once and report.

    Args:
        index: what lies in the folder.
        split: how it would be divided.
        min_size: images with a side shorter than this are reported.
        reading: how images are read.
        progress: called for each image, in the phase "data check".
    """
    members = {"fit": split.fit, "calibrate": split.calibrate, "validation": split.validation, "test": split.test}
    home = {sample.relative: name for name, chosen in members.items() for sample in chosen}
    unused = tuple(sample for sample in index.samples if sample.relative not in home)

    sizes: Counter[str] = Counter()
    modes: Counter[str] = Counter()
    unreadable: dict[str, str] = {}
    mask_problems = {problem.path: problem.reason for problem in index.problems}
    broken_masks: dict[str, str] = {}
    odd = _Odd()
    same_bytes: dict[str, list[tuple[str, str]]] = defaultdict(list)
    looks: dict[str, set[bytes]] = defaultdict(set)
    for sample in watched(index.samples, "data check", progress):
        where = home.get(sample.relative, "unused")
        try:
            header = read_header(sample.path)
            pixels = reading(sample.path)
            digest = file_sha256(sample.path)
        except ImageReadError as error:
            unreadable[sample.relative] = error.reason
            continue
        height, width = pixels.shape[:2]
        sizes[f"{height} x {width}"] += 1
        modes[f"{header.mode} {header.bits} bit"] += 1
        if min(height, width) < min_size:
            odd.small.append(f"{sample.relative} ({height} x {width})")
        if ((pixels == pixels.min()) | (pixels == pixels.max())).all():
            odd.two_valued.append(sample.relative)
        if sample.label is False and not words_of(stem_of(sample.relative)).isdisjoint(BAD_NAMES):
            odd.called_bad.append(sample.relative)
        same_bytes[digest].append((where, sample.relative))
        looks[where].add(hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest())
        if sample.mask is not None:
            try:
                mask = read_mask_closely(sample.mask, (height, width))
            except DataError as error:
                broken_masks[sample.relative] = str(error)
            else:
                mask_problems |= _look_at(sample, mask)
                if sample.label is False and mask.mask.any():
                    odd.spotted_good.append(sample.relative)

    report = CheckReport(
        root=str(index.root),
        layout=index.layout,
        policy=split.policy,
        sets={name: _summary(chosen) for name, chosen in (members | {"unused": unused}).items()},
        sizes=dict(sizes.most_common()),
        modes=dict(modes.most_common()),
        good_folders=index.good_folders,
        passed_over=dict(index.passed_over),
        unreadable=unreadable,
        broken_masks=broken_masks,
        mask_problems=mask_problems,
        duplicates=[group for group in same_bytes.values() if len({where for where, _ in group}) > 1],
    )
    readable = sum(sample.relative not in unreadable for sample in split.fit)
    identical = readable > 1 and len(looks["fit"]) == 1
    odd.two_valued = odd.two_valued if len(odd.two_valued) < sum(sizes.values()) else []
    findings = [*_trouble(report, odd, identical, min_size), *_plan(report, split, reading.bit_depth)]
    rank = {"error": 0, "warning": 1, "note": 2}
    return replace(report, findings=sorted(findings, key=lambda finding: rank[finding.severity]))


def folders_sentence(folders: Mapping[str, int]) -> str:
    """Folders with their numbers of images, the largest first."""
    ordered = sorted(folders.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name}/ ({count})" for name, count in ordered[:_FOLDERS])
    rest = len(ordered) - _FOLDERS
    return shown + (f" and {rest} more folders" if rest > 0 else "")


def masks_complete(samples: Iterable[Sample]) -> bool:
    """Whether pixels can be judged: some image is anomalous and every anomalous image has a mask."""
    anomalous = [sample for sample in samples if sample.label]
    return bool(anomalous) and all(sample.mask is not None for sample in anomalous)


@dataclass
class _Odd:
    """Images that deserve a look, by relative path."""

    small: list[str] = field(default_factory=list)
    two_valued: list[str] = field(default_factory=list)
    called_bad: list[str] = field(default_factory=list)
    spotted_good: list[str] = field(default_factory=list)


def _look_at(sample: Sample, reading: MaskReading) -> dict[str, str]:
    """What is odd about a mask that can be read."""
    remarks = []
    if sample.label and not reading.mask.any():
        remarks.append("anomalous, but its mask is empty")
    if reading.mask.mean() > HALF:
        remarks.append(inverted_sentence(reading.mask))
    if reading.soft:
        remarks.append(
            "its mask has more than two values, as JPEG or resizing leave them; half of the highest and above counts"
        )
    return {sample.relative: "; ".join(remarks)} if remarks else {}


def _trouble(report: CheckReport, odd: _Odd, identical: bool, min_size: int) -> Iterable[Finding]:
    if report.unreadable:
        yield Finding("error", f"{_count(report.unreadable, 'file')} can't be read: {_names(report.unreadable)}.")
    if identical:
        yield Finding("error", "All images to fit on are identical; a detector needs to see how good parts differ.")
    if report.broken_masks:
        text = "; ".join(list(report.broken_masks.values())[:_SHOWN])
        more = ", ..." if len(report.broken_masks) > _SHOWN else ""
        yield Finding(
            "error",
            f"{_count(report.broken_masks, 'mask')} can't be used, so the pixels of the images wouldn't be measured: "
            f"{text}{more}",
        )
    if odd.spotted_good:
        text = f"{_count(odd.spotted_good, 'good image')} with defects marked in the mask: {_names(odd.spotted_good)}."
        yield Finding("error", text)
    if odd.two_valued:
        yield Finding(
            "warning",
            f"{_count(odd.two_valued, 'image')} of two values at most, others have more: {_names(odd.two_valued)}. If "
            "these are masks, put them into ground_truth/.",
        )
    if odd.called_bad:
        text = f"{_count(odd.called_bad, 'good image')} whose name says otherwise: {_names(odd.called_bad)}."
        yield Finding("warning", text)
    for group in report.duplicates:
        names = [f"{name} ({where})" for where, name in group]
        learnt = {where for where, _ in group} & {"fit", "calibrate"}
        yield Finding("error" if learnt else "warning", f"The same file lies in several sets: {_names(names)}.")
    if report.mask_problems:
        text = "; ".join(f"{name}: {reason}" for name, reason in list(report.mask_problems.items())[:_SHOWN])
        more = ", ..." if len(report.mask_problems) > _SHOWN else ""
        yield Finding("warning", f"{_count(report.mask_problems, 'problem')} with masks or placing: {text}{more}.")
    if odd.small:
        text = f"{_count(odd.small, 'image')} with a side below {min_size} pixels: {_names(odd.small)}."
        yield Finding("warning", text)


def _plan(report: CheckReport, split: Split, bit_depth: int | None) -> Iterable[Finding]:
    sets = report.sets
    yield Finding("note", f"Layout {report.layout}: {sets['fit'].images} good images would be fitted on.")
    yield Finding("note", f"Taken as good: {folders_sentence(report.good_folders)}.")
    if bit_depth is not None and any(mode.endswith(" 16 bit") for mode in report.modes):
        yield Finding("note", depth_sentence(bit_depth))
    n = len(split.calibration)
    if split.policy == "held_out":
        kinds = {sample.label for sample in split.validation}
        lacking = "the validation set lacks good or anomalous images" if kinds else "there is no validation set"
        reason = "was asked for" if len(kinds) == 2 else lacking
        yield Finding(
            "note",
            f"Thresholds would come from {n} good images held out from fitting, as {reason}. "
            f"They can certify a false-alarm rate of 1/{n + 1} = {1 / (n + 1):.2%} on average.",
        )
    elif split.policy == "cross":
        yield Finding(
            "note",
            f"Thresholds would come from all {len(split.fit)} of them, each scored by a model that hasn't seen it.",
        )
    elif split.policy == "validation":
        yield Finding("note", f"Thresholds would come from the {n} images of the validation set; nothing is held out.")
    else:
        yield Finding("warning", "Thresholds would come from the test set (oracle): its figures will flatter.")
    if not split.test:
        yield Finding("note", "Nothing to test on: there are no labeled images besides those for fitting.")
    elif len({sample.label for sample in split.test}) == 1:
        kind = "anomalous" if split.test[0].label else "good"
        yield Finding("warning", f"All test images are {kind}: AUROC and F1 can't be given.")
    bare = [sample.relative for sample in split.test if sample.label and sample.mask is None]
    if bare:
        few = f"{_count(bare, 'anomalous test image')} without a mask: {_names(bare)}."
        some = len(bare) < sets["test"].anomalous
        yield Finding("note", f"Pixel metrics would leave out {few}" if some else f"No pixel metrics: {few}")
    if sets["unused"].images:
        yield Finding("note", f"Images without a label, which can only be predicted: {sets['unused'].images}.")
    if report.passed_over:
        yield Finding("note", f"Passed over: {describe(report.passed_over)}.")


def _summary(samples: Sequence[Sample]) -> SetSummary:
    defects = Counter(sample.defect for sample in samples if sample.label)
    return SetSummary(
        images=len(samples),
        good=sum(sample.label is False for sample in samples),
        anomalous=sum(sample.label is True for sample in samples),
        masks=sum(sample.mask is not None for sample in samples),
        defects=dict(sorted(defects.items())),
    )


def _count(items: Sequence[str] | dict[str, str], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"


def _names(items: Iterable[str]) -> str:
    names = list(items)
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
