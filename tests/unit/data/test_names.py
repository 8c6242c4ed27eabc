"""Folders of any language: understood, or asked about; never learned as good in silence."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from blemish.data.index import Index, index_folder
from blemish.data.layouts import kinds_of_names
from blemish.data.words import BAD_NAMES, GOOD_NAMES, without_mask_word
from blemish.errors import DataError, UsageError


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def labels(index: Index) -> dict[str, tuple[bool | None, str, str | None]]:
    return {sample.relative: (sample.label, sample.defect, sample.subset) for sample in index.samples}


def problems(index: Index) -> dict[str, str]:
    return {problem.path: problem.reason for problem in index.problems}


PAIRS = [
    ("accept", "reject"),
    ("PASS", "Fail"),
    ("gut", "schlecht"),
    ("i.O.", "n.i.O."),
    ("bons", "défauts"),
    ("buoni", "difetti"),
    ("良品", "不良品"),
    ("정상", "불량"),
    ("годные", "брак"),
]


@pytest.mark.parametrize(("good", "bad"), PAIRS)
def test_usual_words_are_understood(tmp_path: Path, good: str, bad: str) -> None:
    index = index_folder(tree(tmp_path, f"{good}/1.png", f"{bad}/2.png"))
    assert index.layout == "good_bad"
    assert labels(index) == {f"{good}/1.png": (False, "good", None), f"{bad}/2.png": (True, bad, None)}
    assert index.good_folders == {good: 1}


@pytest.mark.parametrize(("good", "bad"), PAIRS)
def test_a_folder_of_bad_parts_is_never_flat(tmp_path: Path, good: str, bad: str) -> None:
    with pytest.raises(DataError, match="the layout is not clear"):
        index_folder(tree(tmp_path, f"{bad}/1.png", f"{bad}/2.png"))


def test_no_word_means_both() -> None:
    assert not set(GOOD_NAMES) & set(BAD_NAMES)
    assert all(name == name.lower() for name in (*GOOD_NAMES, *BAD_NAMES))


@pytest.mark.parametrize(
    "names",
    [
        ("hyvät/1.png", "vialliset/2.png"),  # a language that isn't known
        ("class0/1.png", "class1/2.png"),
        ("0/1.png", "1/2.png"),
        ("1.png", "vialliset/2.png"),
        ("parts/hyvät/1.png", "parts/vialliset/2.png"),
        ("monday/1.png", "tuesday/2.png"),
        ("good/1.png", "vialliset/2.png"),
    ],
)
def test_siblings_that_are_not_understood_are_asked_about(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = tree(tmp_path, *names)
    with pytest.raises(DataError) as caught:
        index_folder(root)
    message = str(caught.value)
    for name in names:
        assert f"{Path(name).parent.as_posix()}/ (1)" in message
    for part in ("--good NAME", "--bad NAME", "--all-good", "good=[...]", "manifest"):
        assert part in message
    folders = [Path(name).parent.as_posix() for name in names]
    if "." not in folders:
        index = index_folder(root, good=[folders[0]], bad=[folders[1]])
        assert [sample.label for sample in index.samples] == [name == sorted(names)[1] for name in sorted(names)] or (
            {s.relative: s.label for s in index.samples} == {names[0]: False, names[1]: True}
        )
        assert index.layout == "named"
    everything = index_folder(root, all_good=True)
    assert {sample.label for sample in everything.samples} == {False}
    assert len(everything.samples) == 2


@pytest.mark.parametrize(
    "names",
    [
        ("good_1.png", "good_2.png", "bad_1.png"),
        ("001_ok.png", "002_ok.png", "003_ng.png"),
        ("良品01.png", "良品02.png", "不良品01.png"),
        ("hyvä_1.png", "hyvä_2.png", "hyvä_3.png", "viallinen_1.png", "viallinen_2.png", "viallinen_3.png"),
    ],
)
def test_file_names_that_tell_good_from_bad_are_asked_about(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = tree(tmp_path, *names)
    with pytest.raises(DataError, match=r"Found \*.*\* \(\d\), \*.*\* \(\d\).*a pattern such as '\*ok\*'"):
        index_folder(root)
    word = re.sub(r"[\d_]|\.png", "", names[0])
    index = index_folder(root, good=[f"*{word}*"], bad=["*不良品*"] if word == "良品" else ["*"])
    assert sum(sample.label is False for sample in index.samples) == sum(
        name.strip("0123456789_").startswith(word) for name in names
    )
    assert len(index.samples) == len(names)


@pytest.mark.parametrize(
    "names",
    [
        [f"{i:03d}.png" for i in range(9)],
        [f"IMG_{i:04d}.jpg" for i in range(9)],
        [f"part{i // 2}_view{i % 2}.png" for i in range(9)],
        [f"2024-05-0{i}T12-00-00Z.png" for i in range(9)],
        ["bolt.png", "nut.png", "screw.png", "washer.png"],  # nearly every name has its own word
        ["a.png", "b.png", "c.png"],
        ["3fa9c2b1.png", "9b1d22ac.png", "77e0fd34.png", "c0ffee00.png"],
        ["best_ok_1.png", "best_ok_2.png"],  # in all of them
    ],
)
def test_other_file_names_tell_nothing(names: list[str]) -> None:
    assert kinds_of_names(names) == {}


# --- what the owner says ---


def test_named_folders_patterns_and_paths(tmp_path: Path) -> None:
    root = tree(
        tmp_path,
        *("Line1/Accept/1.png", "Line1/Accept/odd/2.png", "Line1/Reject/dent/3.png", "Line1/Reject/4.png"),
        *("Line2/Accept/5.png", "spare/6.png"),
    )
    index = index_folder(root, good=["accept"], bad=["line1/reject"])
    assert labels(index) == {
        "Line1/Accept/1.png": (False, "good", None),
        "Line1/Accept/odd/2.png": (False, "good", None),
        "Line1/Reject/4.png": (True, "Reject", None),
        "Line1/Reject/dent/3.png": (True, "dent", None),
        "Line2/Accept/5.png": (False, "good", None),
    }
    assert problems(index) == {"spare/6.png": "ignored: neither --good nor --bad names it"}
    assert index.good_folders == {"Line1/Accept": 1, "Line1/Accept/odd": 1, "Line2/Accept": 1}
    one_line = index_folder(root, good=["Line2/Accept/"], bad=["*"])
    assert [s.relative for s in one_line.samples if s.label is False] == ["Line2/Accept/5.png"]
    assert len(one_line.samples) == 6


def test_the_inner_folder_decides(tmp_path: Path) -> None:
    root = tree(tmp_path, "accept/1.png", "accept/reject/2.png", "reject/accept/3.png")
    index = index_folder(root, good=["accept"], bad=["reject"])
    assert {name: label for name, (label, *_) in labels(index).items()} == {
        "accept/1.png": False,
        "accept/reject/2.png": True,
        "reject/accept/3.png": False,
    }


def test_named_folders_in_train_and_test(tmp_path: Path) -> None:
    """Also images lying directly in train/."""
    root = tree(tmp_path, "train/1.png", "train/2.png", "test/hyvä/3.png", "test/lommo/4.png", "masks/lommo/4.png")
    with pytest.raises(DataError, match=r"Found train/ \(2\), test/hyvä/ \(1\), test/lommo/ \(1\), and 1 masks"):
        index_folder(root)
    index = index_folder(root, good=["train", "hyvä"], bad=["lommo"])
    assert labels(index) == {
        "test/hyvä/3.png": (False, "good", "test"),
        "test/lommo/4.png": (True, "lommo", "test"),
        "train/1.png": (False, "good", "train"),
        "train/2.png": (False, "good", "train"),
    }
    assert [s.mask and s.mask.name for s in index.samples] == [None, "4.png", None, None]
    nothing_bad_to_fit = index_folder(tree(tmp_path, "train/lommo/5.png"), good=["train"], bad=["lommo"])
    assert problems(nothing_bad_to_fit)["train/lommo/5.png"].startswith("ignored: anomalous, and only good images")


def test_what_is_said_is_checked(tmp_path: Path) -> None:
    root = tree(tmp_path, "hyvät/1.png", "vialliset/2.png")
    with pytest.raises(DataError, match=r"nothing is called 'hyvat'\. Found hyvät/ \(1\), vialliset/ \(1\)\. Give the"):
        index_folder(root, good=["hyvat"])
    with pytest.raises(UsageError, match="--bad names folders of bad parts, and without --good nothing says which"):
        index_folder(root, bad=["vialliset"])
    with pytest.raises(UsageError, match=r"--all-good takes every image for one of a good part. Drop --good and --bad"):
        index_folder(root, good=["hyvät"], all_good=True)
    with pytest.raises(DataError, match=r"--all-good was said, but reject/3\.png lies in a folder of bad parts"):
        index_folder(tree(root, "reject/3.png"), all_good=True)
    (tmp_path / "m.csv").write_text("path,label\nhyvät/1.png,good\n", encoding="utf-8")
    with pytest.raises(UsageError, match="a manifest labels its images itself"):
        index_folder(tmp_path / "m.csv", good=["hyvät"])


def test_bad_parts_below_good_ones_are_left_out(tmp_path: Path) -> None:
    root = tree(tmp_path / "a", "train/good/1.png", "train/good/reject/2.png", "test/good/3.png", "test/good/ng/4.png")
    assert list(labels(index_folder(root))) == ["test/good/3.png", "train/good/1.png"]
    assert "one of bad parts" in problems(index_folder(root))["train/good/reject/2.png"]
    root = tree(tmp_path / "b", "good/1.png", "good/ng/2.png", "bad/3.png")
    assert list(labels(index_folder(root))) == ["bad/3.png", "good/1.png"]
    with pytest.raises(DataError, match="the layout is not clear"):
        index_folder(tree(tmp_path / "c", "good/1.png", "good/ng/2.png"))


def test_system_folders_and_own_outputs_are_never_learned(tmp_path: Path) -> None:
    root = tree(tmp_path, "1.png", "2.png", "$RECYCLE.BIN/3.png", "thumbs/1.png", "predictions/1.png.overlay.png")
    index = index_folder(root)
    assert [sample.relative for sample in index.samples] == ["1.png", "2.png"]
    assert sum(map(len, index.passed_over.values())) == 3
    with pytest.raises(DataError, match=r"no images\. .* Passed over: 1 written by predict \(1\.png\.overlay\.png\)"):
        index_folder(root / "predictions")


@pytest.mark.parametrize(
    ("stem", "image"),
    [
        ("012_mask", "012"),
        ("012-GT", None),
        ("mask_012", "012"),
        ("012.mask", "012"),
        ("012mask", None),
        ("mask", None),
    ],
)
def test_words_of_masks_in_file_names(stem: str, image: str | None) -> None:
    assert without_mask_word(stem) == image
    assert without_mask_word("012-gt") == "012"
