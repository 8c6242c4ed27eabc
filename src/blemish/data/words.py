"""What folders and labels are called: good parts, bad parts, masks, and the parts of a data set.

Every name is compared in lower case and Unicode NFC. A name that isn't listed means nothing: it is asked about, never
guessed at.
"""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Subset: TypeAlias = Literal["train", "validation", "test"]

GOOD_NAMES = (
    *("good", "ok", "normal", "nominal", "okay", "pass", "passed", "accept", "accepted", "conforming"),
    *("gut", "io", "i.o.", "bon", "bons", "bonne", "bonnes", "buono", "buoni", "bueno", "buenos", "bom", "bons"),
    *("dobry", "dobre", "goed", "iyi", "годные", "良品", "合格", "合格品", "正常", "양품", "정상"),
)
"""Folder names (and manifest labels) of good parts."""
BAD_NAMES = (
    *("bad", "ng", "nok", "ko", "abnormal", "anomalous", "anomaly", "anomalies", "defect", "defects", "defective"),
    *("fail", "failed", "fault", "faults", "faulty", "reject", "rejected", "rejects", "scrap", "damaged", "broken"),
    *("not_ok", "not_good", "no_good", "nonconforming", "notok", "notgood"),
    *("schlecht", "nio", "n.i.o.", "fehler", "defekt", "defekte", "ausschuss", "mauvais", "défaut", "défauts", "rebut"),
    *("difetto", "difetti", "difettoso", "scarto", "malo", "malos", "defecto", "defectos", "ruim", "defeito"),
    *("defeitos", "zły", "wada", "wady", "fout", "брак", "дефект", "дефекты"),
    *("不良", "不良品", "不合格", "不合格品", "异常", "缺陷", "異常", "欠陥", "불량", "불량품", "이상"),
)
"""Folder names (and manifest labels) of anomalous parts."""
MASK_NAMES = (
    *("ground_truth", "groundtruth", "ground-truth", "ground truth", "gt", "mask", "masks", "mask_images"),
    *("annotation", "annotations", "segmentation", "segmentations", "segmasks"),
)
"""Folder names that hold masks."""
SUBSET_NAMES: dict[str, Subset] = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "training": "train",
    "testing": "test",
}
"""Folder names (and manifest splits) of the parts of a data set."""

MASK_WORDS = (
    "mask",
    "masks",
    "gt",
    "ground_truth",
    "groundtruth",
    "label",
    "seg",
    "segmentation",
    "annotation",
    "anno",
)
"""What a mask's file name has before or behind that of its image, set off by one of "_-. "."""
_WORD = f"(?:{'|'.join(MASK_WORDS)})"
_BEFORE, _BEHIND = re.compile(rf"{_WORD}[_\-. ]+(.+)"), re.compile(rf"(.+?)[_\-. ]+{_WORD}")


def without_mask_word(stem: str) -> str | None:
    """The stem of the image whose mask a stem in lower case is by its name; None if it has no such word."""
    found = _BEHIND.fullmatch(stem) or _BEFORE.fullmatch(stem)
    return found and found[1]


def words_of(stem: str) -> frozenset[str]:
    """The words in a file's stem: runs of at least two letters, or of any number of others than Latin ones."""
    runs = re.findall(r"[^\W\d_]+", stem.lower())
    return frozenset(run for run in runs if len(run) > 1 or not run.isascii())
