"""Published data sets by their folder structure, as miniature trees; and the sets that a folder of categories holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blemish.data.datamodule import ImageDataModule
from blemish.data.image_io import write_png
from blemish.data.index import Index, find_products, find_sets, index_folder
from blemish.data.splits import split
from blemish.engine import Engine
from blemish.errors import DataError, ImageReadError
from blemish.models import Padim
from blemish.synthetic.products import render

EMPTY = np.zeros((6, 4), np.uint8)
MARKED = EMPTY.copy()
MARKED[2, 1] = 255
HEADER = "object,split,label,image,mask\n"


def tree(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def labels(index: Index) -> dict[str, tuple[bool | None, str, str | None, str | None]]:
    """relative path -> (label, defect, name of the mask, subset)."""
    return {s.relative: (s.label, s.defect, s.mask and s.mask.name, s.subset) for s in index.samples}


def problems(index: Index) -> dict[str, str]:
    return {problem.path: problem.reason for problem in index.problems}


def test_btad(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "01",
        "train/ok/0000.bmp",
        "train/ok/0001.bmp",
        "test/ok/0005.bmp",
        "test/ko/0000.bmp",
        "ground_truth/ko/0000.png",
    )
    index = index_folder(root)
    assert index.layout == "mvtec"
    assert labels(index) == {
        "test/ko/0000.bmp": (True, "ko", "0000.png", "test"),
        "test/ok/0005.bmp": (False, "good", None, "test"),
        "train/ok/0000.bmp": (False, "good", None, "train"),
        "train/ok/0001.bmp": (False, "good", None, "train"),
    }
    assert index.problems == ()


@pytest.mark.parametrize("category", ["bottle", "bracket_black"])
def test_mvtec_ad_and_mpdd(tmp_path: Path, category: str) -> None:
    names = ("train/good/000.png", "train/good/001.png", "test/good/000.png", "test/hole/000.png", "license.txt")
    root = tree(tmp_path / category, *names, "ground_truth/hole/000_mask.png")
    assert labels(index_folder(root))["test/hole/000.png"] == (True, "hole", "000_mask.png", "test")


def visa(root: Path) -> Path:
    images = [f"Data/Images/Normal/{number:04d}.JPG" for number in range(4)] + ["Data/Images/Anomaly/000.JPG"]
    return tree(root / "candle", *images, "Data/Masks/Anomaly/000.png", "image_anno.csv")


def test_visa_with_its_split(tmp_path: Path) -> None:
    root = visa(tmp_path)
    tree(root, "Data/Images/Normal/0004.JPG", "Data/Images/Other/0.JPG")
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text(
        HEADER
        + "".join(f"candle,train,normal,candle/Data/Images/Normal/000{i}.JPG,\n" for i in range(3))
        # another category has images of the same names
        + "capsules,test,normal,capsules/Data/Images/Normal/0000.JPG,\n"
        + "candle,test,normal,candle/Data/Images/Normal/0003.JPG,\n"
        + "candle,test,anomaly,candle/Data/Images/Anomaly/000.JPG,candle/Data/Masks/Anomaly/000.png\n"
    )
    index = index_folder(root)
    assert index.layout == "visa"
    assert labels(index) == {
        "Data/Images/Anomaly/000.JPG": (True, "anomaly", "000.png", "test"),
        "Data/Images/Normal/0000.JPG": (False, "good", None, "train"),
        "Data/Images/Normal/0001.JPG": (False, "good", None, "train"),
        "Data/Images/Normal/0002.JPG": (False, "good", None, "train"),
        "Data/Images/Normal/0003.JPG": (False, "good", None, "test"),
    }
    assert problems(index) == {
        "Data/Images/Normal/0004.JPG": "ignored: 1cls.csv doesn't list it",
        "Data/Images/Other/0.JPG": "ignored: it lies in neither Normal/ nor Anomaly/ of Data/Images/",
    }
    sets = split(index)
    assert {s.path.name for s in (*sets.fit, *sets.calibrate)} == {"0000.JPG", "0001.JPG", "0002.JPG"}
    assert len(sets.test) == 2


def test_visa_without_a_split_is_dealt_like_any_folder(tmp_path: Path) -> None:
    index = index_folder(visa(tmp_path))
    assert {subset for *_, subset in labels(index).values()} == {None}
    assert labels(index)["Data/Images/Anomaly/000.JPG"] == (True, "anomaly", "000.png", None)


def test_visa_does_not_fit_on_an_anomalous_image(tmp_path: Path) -> None:
    root = visa(tmp_path)
    (tmp_path / "split_csv").mkdir()
    rows = [f"candle,train,x,candle/{path.relative_to(root).as_posix()},\n" for path in root.rglob("*.JPG")]
    (tmp_path / "split_csv" / "1cls.csv").write_text(HEADER + "".join(rows))
    index = index_folder(root)
    assert problems(index)["Data/Images/Anomaly/000.JPG"] == "ignored: anomalous, but listed for training"
    assert all(sample.label is False for sample in index.samples)


@pytest.mark.parametrize("text", ["name,split\ncandle,train\n", HEADER + "candle,night,normal,candle/x.JPG,\n"])
def test_visa_refuses_another_table(tmp_path: Path, text: str) -> None:
    root = visa(tmp_path)
    (tmp_path / "split_csv").mkdir()
    (tmp_path / "split_csv" / "1cls.csv").write_text(text)
    with pytest.raises(DataError, match=r"1cls\.csv: not the split of VisA, which has the columns object,split,label"):
        index_folder(root)


def test_kolektor_sdd(tmp_path: Path) -> None:
    for item, part, mask in (("kos01", 0, EMPTY), ("kos01", 1, MARKED), ("kos02", 0, EMPTY), ("kos50", 7, EMPTY)):
        tree(tmp_path, f"{item}/Part{part}.jpg")
        write_png(tmp_path / item / "mask.png", mask)
        (tmp_path / item / "mask.png").rename(tmp_path / item / f"Part{part}_label.bmp")  # by content, not by suffix
    tree(tmp_path, "kos02/Part1.jpg")
    index = index_folder(tmp_path)
    assert index.layout == "kolektor"
    assert labels(index) == {
        "kos01/Part0.jpg": (False, "good", None, None),
        "kos01/Part1.jpg": (True, "defect", "Part1_label.bmp", None),
        "kos02/Part0.jpg": (False, "good", None, None),
        "kos02/Part1.jpg": (None, "", None, None),
        "kos50/Part7.jpg": (False, "good", None, None),
    }
    assert problems(index) == {"kos02/Part1.jpg": "it has no mask, so nobody says whether it is good"}
    sets = split(index, group=r"(kos\d+)")
    assert {s.relative for s in sets.test} == {"kos01/Part0.jpg", "kos01/Part1.jpg"}


def test_kolektor_sdd2(tmp_path: Path) -> None:
    content = {"train/10000": EMPTY, "train/10001": MARKED, "train/10002": EMPTY, "test/20000": EMPTY}
    for name, mask in {**content, "test/20001": MARKED}.items():
        write_png(tmp_path / f"{name}_GT.png", mask)
        tree(tmp_path, f"{name}.png")
    write_png(tmp_path / "test" / "20009_GT.png", MARKED)
    index = index_folder(tmp_path)
    assert index.layout == "kolektor"
    assert labels(index) == {
        "test/20000.png": (False, "good", None, "test"),
        "test/20001.png": (True, "defect", "20001_GT.png", "test"),
        "train/10000.png": (False, "good", None, "train"),
        "train/10002.png": (False, "good", None, "train"),
    }
    assert problems(index) == {
        "train/10001.png": "ignored: anomalous, and only good images of train/ are used to fit",
        "test/20009_GT.png": "no image has the name of this mask",
    }


def test_kolektor_names_a_mask_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageReadError, match=r"Part0_label\.bmp"):
        index_folder(tree(tmp_path, "kos01/Part0.jpg", "kos01/Part0_label.bmp"))


def test_a_folder_without_masks_is_not_kolektor(tmp_path: Path) -> None:
    assert index_folder(tree(tmp_path / "a", "kos01/Part0.jpg")).layout == "flat"
    with pytest.raises(DataError, match="the layout is not clear"):
        index_folder(tree(tmp_path / "b", "train/1.png", "test/2.png"))


# ----------------------------------------------------------------------------------------------- folders of categories


def test_find_sets(tmp_path: Path) -> None:
    root = tree(
        tmp_path / "root",
        "bottle/train/good/0.png",
        "cable/test/good/0.png",  # can't be used, and must not vanish
        "split_csv/1cls.csv",
        ".trash/train/good/0.png",
        "readme.txt",
    )
    assert find_sets(root) == {"bottle": root / "bottle", "cable": root / "cable"}
    assert find_sets(root / "bottle") == {"bottle": root / "bottle"}


def test_find_sets_of_visa(tmp_path: Path) -> None:
    visa(tmp_path)
    assert list(find_sets(tmp_path)) == ["candle"]


def test_find_sets_names_a_folder_by_its_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tree(tmp_path / "bottle", "good/0.png", "bad/0.png"))
    assert find_sets(".") == {"bottle": Path()}


def test_find_sets_takes_a_set_without_images_to_fit_on_whole(tmp_path: Path) -> None:
    root = tree(tmp_path / "cable", "test/good/0.png", "test/hole/0.png", "ground_truth/hole/0.png")
    assert find_sets(root) == {"cable": root}


def test_products_are_the_folders_below_be_there_one_or_many(tmp_path: Path) -> None:
    root = tree(tmp_path / "products", "screw/0.png", "screw/1.png")
    assert find_products(root) == {"screw": root / "screw"}
    tree(root, "nut/good/0.png", ".trash/0.png", "models/nut.safetensors")
    assert find_products(root) == {"nut": root / "nut", "screw": root / "screw"}
    for wrong in (root / "screw", tree(tmp_path / "set", "train/good/0.png", "test/hole/0.png")):
        with pytest.raises(DataError, match=r"no folders of products.*`blemish fit`"):
            find_products(wrong)
    with pytest.raises(DataError, match=r"gone: no such folder"):
        find_products(tmp_path / "gone")


def test_find_sets_says_why_there_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no images"):
        find_sets(tree(tmp_path, "a.txt"))
    with pytest.raises(DataError, match="no such folder"):
        find_sets(tmp_path / "absent")


# ------------------------------------------------------------------------------------ from the folder to the figures


def drawn(root: Path, names: dict[str, str | None], mask_of: dict[str, str], value: int = 255) -> None:
    """Pictures of tiles: name -> defect or None; masks by the name of their picture, marked with `value`."""
    for seed, (name, defect) in enumerate(names.items()):
        image, mask = render("tile", size=(72, 80), rng=np.random.default_rng(seed), defect=defect)
        Image.fromarray(image).save(made(root / name))
        if name in mask_of:
            Image.fromarray(mask.astype(np.uint8) * value).save(made(root / mask_of[name]))


def made(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def mvtec_tree(root: Path) -> None:
    good: dict[str, str | None] = dict.fromkeys([f"train/good/{n:03d}.png" for n in range(8)])
    drawn(
        root,
        {**good, "test/good/0.png": None, "test/hole/0.png": "hole"},
        {"test/hole/0.png": "ground_truth/hole/0_mask.png"},
    )


def btad_tree(root: Path) -> None:
    good: dict[str, str | None] = dict.fromkeys([f"train/ok/{n:04d}.bmp" for n in range(8)])
    drawn(root, {**good, "test/ok/0.bmp": None, "test/ko/0.bmp": "hole"}, {"test/ko/0.bmp": "ground_truth/ko/0.png"})


def visa_tree(root: Path) -> None:
    """Masks of VisA hold numbers of defects, not 255."""
    good: dict[str, str | None] = dict.fromkeys([f"Data/Images/Normal/{n:04d}.JPG" for n in range(9)])
    bad = "Data/Images/Anomaly/000.JPG"
    drawn(root, {**good, bad: "hole"}, {bad: "Data/Masks/Anomaly/000.png"}, value=3)
    rows = [(name, "normal") for name in good] + [(bad, "anomaly")]
    parts = ["train"] * 8 + ["test"] * 2
    lines = [
        f"{root.name},{part},{label},{root.name}/{name},\n" for part, (name, label) in zip(parts, rows, strict=True)
    ]
    made(root.parent / "split_csv" / "1cls.csv").write_text(HEADER + "".join(lines))


def kolektor_tree(root: Path) -> None:
    names: dict[str, str | None] = {f"kos{n // 4 + 1:02d}/Part{n % 4}.jpg": None for n in range(11)}
    names["kos03/Part3.jpg"] = "hole"
    drawn(root, names, {name: name.replace(".jpg", "_label.bmp") for name in names})


def kolektor2_tree(root: Path) -> None:
    names: dict[str, str | None] = {f"train/{10000 + n}.png": None for n in range(8)}
    names |= {"train/10009.png": "hole", "test/20000.png": None, "test/20001.png": "hole"}
    drawn(root, names, {name: name.replace(".png", "_GT.png") for name in names})


@pytest.mark.parametrize("plant_tree", [mvtec_tree, btad_tree, visa_tree, kolektor_tree, kolektor2_tree])
def test_fit_and_test_understand_the_folder(plant_tree: Callable[[Path], None], tmp_path: Path) -> None:
    root = tmp_path / "set"
    plant_tree(root)
    data = ImageDataModule(root, num_workers=0)
    engine, model = Engine("cpu", progress=False), Padim(backbone="filter_bank", image_size=64)
    engine.fit(model, data)
    result = engine.test(model, data)
    assert result.counts["anomalous"] == result.counts["with_masks"] == 1
    assert result.counts["good"] >= 1
    assert result.image_auroc.value is not None
    assert result.pixel_auroc.value is not None
    assert result.pixel_auroc.value > 0.5
