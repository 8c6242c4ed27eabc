from __future__ import annotations

import io
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from blemish.errors import NonFiniteError, UsageError
from blemish.post_processing import post_process
from blemish.post_processing import visualizer as older_address
from blemish.synthetic.products import render
from blemish.visualization import ImageResult, Visualizer, classic, superimpose_anomaly_map

RED = (255, 0, 0)
MODES = [(mode, task) for mode in ("full", "simple") for task in ("segmentation", "classification")]


def result(size: tuple[int, int] = (60, 80), **changes: Any) -> ImageResult:
    image, mask = render("tile", size=size, rng=np.random.default_rng(2), defect="stain")
    fields = {
        "image": image,
        "pred_score": 0.9,
        "pred_label": "anomalous",
        "anomaly_map": np.where(mask, 0.9, 0.1),
        "gt_mask": mask,
        "pred_mask": mask,
    }
    return ImageResult(**{**fields, **changes})


def test_the_heat_map_and_the_segmentations_are_made_from_the_fields() -> None:
    made = result()
    assert made.anomaly_map is not None
    assert made.heat_map is not None
    assert made.segmentations is not None
    np.testing.assert_array_equal(made.heat_map, superimpose_anomaly_map(made.anomaly_map, made.image))
    outlined = (made.segmentations == RED).all(axis=-1)
    assert outlined.any()
    assert not outlined[made.pred_mask == 0].any()
    np.testing.assert_array_equal(made.segmentations[~outlined], made.image[~outlined])


@pytest.mark.parametrize("scale", [True, 1, 1.0, 255])
def test_masks_of_any_kind_become_pictures(scale: float) -> None:
    truth = np.zeros((6, 8), bool)
    truth[2:4, 3:7] = True
    for mask in (truth * scale, (truth * scale)[None], (truth * scale)[..., None]):
        made = ImageResult(np.zeros((6, 8, 3), np.uint8), 0.5, "normal", gt_mask=mask, pred_mask=mask)
        for picture in (made.gt_mask, made.pred_mask):
            assert picture is not None
            assert picture.dtype == np.uint8
            np.testing.assert_array_equal(picture, truth * 255)


def test_what_is_missing_is_none() -> None:
    made = ImageResult(np.zeros((6, 8), np.uint8), 0.1, "normal")
    assert made.image.shape == (6, 8, 3)
    assert [made.anomaly_map, made.gt_mask, made.pred_mask, made.heat_map, made.segmentations] == [None] * 5


@pytest.mark.parametrize(
    ("given", "label"), [(True, "anomalous"), (0, "normal"), (np.int64(1), "anomalous"), ("Normal", "normal")]
)
def test_labels_are_translated(given: Any, label: str) -> None:
    assert result(pred_label=given).pred_label == label


@pytest.mark.parametrize(("mode", "task"), MODES)
@pytest.mark.parametrize("size", [(37, 53), (120, 90), (500, 900)])
@pytest.mark.parametrize(
    "absent", [(), ("gt_mask",), ("pred_mask",), ("anomaly_map",), ("anomaly_map", "gt_mask", "pred_mask")]
)
def test_every_mode_draws_what_there_is(mode: str, task: str, size: tuple[int, int], absent: tuple[str, ...]) -> None:
    given = result(size, **dict.fromkeys(absent))
    picture = Visualizer(mode, task).visualize_image(given)
    assert picture.dtype == np.uint8
    if mode == "simple":
        assert picture.shape == (*size, 3)
    else:
        panels = 5 - ("gt_mask" in absent) - ("anomaly_map" in absent) - 2 * ("pred_mask" in absent)
        columns = min(3, panels) if task == "segmentation" else 2
        shown = min(max(size[1], 240 * size[1] // max(size)), 800)
        assert shown * columns < picture.shape[1] < (shown + 60) * columns


def test_the_full_picture_shows_its_panels_in_order() -> None:
    given = result((240, 240))
    picture = Visualizer("full", "segmentation").visualize_image(given)
    assert given.gt_mask is not None
    expected = [given.image, given.gt_mask, given.heat_map, given.pred_mask, given.segmentations]
    rows = np.lib.stride_tricks.sliding_window_view(picture[..., 0], (240, 240))
    found = []
    for panel in expected:
        plane = panel if panel.ndim == 2 else panel[..., 0]  # type: ignore[union-attr]
        corner = np.argwhere((rows[..., 0, :8] == plane[0, :8]).all(-1) & (rows[..., 120, 120] == plane[120, 120]))
        matches = [(y, x) for y, x in corner if (rows[y, x] == plane).all()]
        assert matches
        found.append(matches)
    (image,), truths, (heat,), masks, (segmentation,) = found
    assert image[0] == heat[0] < segmentation[0], "two rows"
    assert image[1] < segmentation[1] < heat[1], "three columns"
    assert {(image[0], segmentation[1]), (segmentation[0], image[1])} == set(truths) == set(masks)


def test_the_simple_segmentation_is_the_outlined_heat_map() -> None:
    given = result()
    assert given.heat_map is not None
    picture = Visualizer("simple", "segmentation").visualize_image(given)
    outlined = (picture == RED).all(axis=-1)
    assert outlined.any()
    np.testing.assert_array_equal(picture[~outlined], given.heat_map[~outlined])


def test_the_simple_classification_is_the_labeled_heat_map() -> None:
    given = result(pred_label="anomalous", pred_score=0.75)
    expected = classic.add_anomalous_label(given.heat_map, 0.75)  # type: ignore[arg-type]
    np.testing.assert_array_equal(Visualizer("simple", "classification").visualize_image(given), expected)
    given = result(pred_label="normal", pred_score=0.25, anomaly_map=None)
    expected = classic.add_normal_label(given.image, 0.75)
    np.testing.assert_array_equal(Visualizer("simple", "classification").visualize_image(given), expected)


def test_a_raw_score_is_not_printed_as_a_percentage() -> None:
    given = result(pred_score=37.2)
    expected = classic.add_anomalous_label(given.heat_map)  # type: ignore[arg-type]
    np.testing.assert_array_equal(Visualizer("simple", "classification").visualize_image(given), expected)


@pytest.mark.parametrize(("mode", "task"), MODES)
def test_inputs_are_not_modified(mode: str, task: str) -> None:
    image, mask = render("tile", size=(40, 50), rng=np.random.default_rng(2), defect="stain")
    arrays = [image, mask * 0.8, mask.astype(np.uint8), mask.copy()]
    for array in arrays:
        array.flags.writeable = False
    given = ImageResult(image, 0.9, "anomalous", *arrays[1:])
    picture = Visualizer(mode, task).visualize_image(given)
    picture[:] = 0
    assert given.image.any()
    assert given.heat_map is not None
    assert given.heat_map.any()


@pytest.mark.parametrize("layout", ["uint8 HWC", "uint8 CHW", "float CHW", "float HWC", "torch", "torch path"])
def test_a_batch_gives_the_picture_of_each_item(tmp_path: Path, layout: str) -> None:
    images, masks = zip(
        *(render("tile", size=(40, 50), rng=np.random.default_rng(i), defect="stain") for i in range(3)), strict=True
    )
    pixels, masks = np.stack(images), np.stack(masks)
    maps = (masks * np.float32(0.75))[:, None]
    batch: dict[str, Any] = {
        "image": {
            "uint8 HWC": pixels,
            "uint8 CHW": pixels.transpose(0, 3, 1, 2),
            "float HWC": pixels / 255,
        }.get(layout, pixels.transpose(0, 3, 1, 2).astype(np.float32) / 255),
        "pred_scores": np.array([0.9, 0.2, 0.7]),
        "pred_labels": np.array([True, False, True]),
        "anomaly_maps": maps,
        "pred_masks": masks[:, None],
        "mask": masks.astype(np.int64),
    }
    if layout == "torch path":
        batch["image"] = batch["image"] * 4 - 2
        batch["image_path"] = [str(tmp_path / f"{i}.png") for i in range(3)]
        for path, image in zip(batch["image_path"], images, strict=True):
            Image.fromarray(image).save(path)
    if "torch" in layout:
        batch = {key: torch.tensor(value) if isinstance(value, np.ndarray) else value for key, value in batch.items()}
    for mode, task in MODES:
        visualizer = Visualizer(mode, task)
        pictures = list(visualizer.visualize_batch(batch))
        assert len(pictures) == 3
        for index, (picture, label) in enumerate(zip(pictures, ("anomalous", "normal", "anomalous"), strict=True)):
            one = ImageResult(
                images[index], float([0.9, 0.2, 0.7][index]), label, maps[index], masks[index], masks[index]
            )
            np.testing.assert_array_equal(picture, visualizer.visualize_image(one))


def test_maps_and_masks_of_a_batch_are_brought_to_the_size_of_the_file(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "a.png")
    mask = np.zeros((1, 4, 6), bool)
    mask[0, 1:3, 2:4] = True
    batch = {
        "image_path": [tmp_path / "a.png"],
        "pred_scores": [0.9],
        "pred_labels": [1],
        "anomaly_maps": mask * 0.5,
        "pred_masks": mask,
    }
    (picture,) = Visualizer("simple", "segmentation").visualize_batch(batch)
    assert picture.shape == (40, 60, 3)
    rows, columns = np.nonzero((picture == RED).all(axis=-1))
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (10, 29, 20, 39)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pred_scores": None}, r"needs pred_scores and pred_labels\. Missing: pred_scores\."),
        ({"image": np.full((1, 3, 8, 8), -1.0)}, r"can't be shown: give uint8, floats in \[0, 1\], or image_path"),
        ({"image": None}, r"can't be shown"),
    ],
)
def test_an_incomplete_batch_is_named(changes: dict[str, Any], message: str) -> None:
    batch = {"image": np.zeros((1, 8, 8, 3), np.uint8), "pred_scores": [0.1], "pred_labels": [0], **changes}
    batch = {key: value for key, value in batch.items() if value is not None}
    with pytest.raises(UsageError, match=message):
        list(Visualizer("full", "classification").visualize_batch(batch))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"pred_label": "odd"}, UsageError, r'pred_label must be "normal" or "anomalous"\. Got \'odd\'\.'),
        ({"pred_mask": np.zeros((5, 5))}, UsageError, r"pred_mask must have .* 60 x 80\. Got 5 x 5\."),
        ({"gt_mask": np.zeros((60, 5))}, UsageError, r"gt_mask must have .* 60 x 80\. Got 60 x 5\."),
        ({"gt_mask": np.zeros((2, 60, 80))}, UsageError, r"A mask must have shape .* Got \(2, 60, 80\)\."),
        ({"anomaly_map": np.zeros((5, 5))}, UsageError, r"anomaly_map must have .* Got 5 x 5\."),
        ({"anomaly_map": np.full((60, 80), np.inf)}, NonFiniteError, r"4800 of 4800"),
        ({"image": np.zeros((60, 80, 4), np.uint8)}, UsageError, r"Got uint8 of shape \(60, 80, 4\)\."),
    ],
)
def test_a_wrong_field_is_named(changes: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        result(**changes)


def test_a_wrong_mode_or_task_is_named() -> None:
    with pytest.raises(UsageError, match=r'mode must be "full" or "simple"\. Got \'half\'\.'):
        Visualizer("half", "segmentation")
    with pytest.raises(UsageError, match=r'task must be "segmentation" or "classification"\. Got \'detection\'\.'):
        Visualizer("full", "detection")


@pytest.mark.parametrize("name", ["a.png", "deep/er/ü.PNG", "b.bmp", "c.tif"])
def test_a_saved_image_is_read_back(tmp_path: Path, name: str) -> None:
    image, _ = render("tile", size=(32, 40), rng=np.random.default_rng(0))
    Visualizer.save(tmp_path / name, image)
    Visualizer.save(tmp_path / name, image)
    with Image.open(tmp_path / name) as saved:
        np.testing.assert_array_equal(np.asarray(saved), image)
    assert [path.name for path in (tmp_path / name).parent.iterdir() if path.is_file()] == [Path(name).name]


def test_an_unknown_suffix_or_array_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.xyz needs a suffix such as \.png.* Got '\.xyz'\."):
        Visualizer.save(tmp_path / "new" / "a.xyz", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(UsageError, match=r"An image must be uint8"):
        Visualizer.save(tmp_path / "new" / "a.png", np.zeros((4, 4, 3)))
    assert not list(tmp_path.iterdir())


def test_an_interrupted_save_keeps_the_older_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Visualizer.save(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    before = (tmp_path / "a.png").read_bytes()

    def stop_half_way(self: Image.Image, path: Path) -> None:
        path.write_bytes(b"\x89PNG half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        Visualizer.save(tmp_path / "a.png", np.ones((4, 4, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


class _TclError(Exception):
    pass


def fake_tkinter(log: list[tuple[Any, ...]], display: bool = True) -> types.ModuleType:
    """tkinter without a display server: it notes what a window is asked to do."""

    class Window:
        def __init__(self) -> None:
            if not display:
                raise _TclError("no display name")

        def winfo_screenwidth(self) -> int:
            return 100

        winfo_screenheight = winfo_screenwidth

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: log.append((name, *arguments[:1]))

    def photo(master: Any, data: bytes) -> str:
        log.append(("photo", data))
        return "photo"

    label = types.SimpleNamespace(pack=lambda: log.append(("pack",)))
    module = types.ModuleType("tkinter")
    vars(module).update(Tk=Window, TclError=_TclError, PhotoImage=photo, Label=lambda *_, **__: label)
    return module


@pytest.mark.parametrize("delay", [0, 250])
def test_show_opens_a_window_until_a_key_or_the_delay(monkeypatch: pytest.MonkeyPatch, delay: int) -> None:
    log: list[tuple[Any, ...]] = []
    monkeypatch.setitem(sys.modules, "tkinter", fake_tkinter(log))
    image = np.full((300, 600, 3), 9, np.uint8)
    Visualizer.show("a title", image, delay)
    assert ("title", "a title") in log
    assert ("bind", "<Key>") in log
    assert (("after", 250) in log) == (delay == 250)
    assert log[-1] == ("mainloop",)
    with Image.open(io.BytesIO(next(entry[1] for entry in log if entry[0] == "photo"))) as shown:
        assert shown.size == (90, 45), "fits the screen of 100 x 100 pixels"
    assert image.shape == (300, 600, 3)


def test_show_without_a_window_says_to_save(monkeypatch: pytest.MonkeyPatch) -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    monkeypatch.setitem(sys.modules, "tkinter", fake_tkinter([], display=False))
    with pytest.raises(UsageError, match=r"can be opened \(no display name\)\. Use Visualizer\.save instead\."):
        Visualizer.show("title", image)
    monkeypatch.setitem(sys.modules, "tkinter", None)
    with pytest.raises(UsageError, match=r"needs tkinter, which this Python lacks\. Use Visualizer\.save instead\."):
        Visualizer.show("title", image)
    with pytest.raises(UsageError, match=r"delay must be at least 0 milliseconds\. Got -1\."):
        Visualizer.show("title", image, -1)


def test_the_older_addresses_hold_the_same_objects() -> None:
    for name in post_process.__all__:
        assert getattr(post_process, name) is getattr(classic, name)
    assert older_address.Visualizer is Visualizer
    assert older_address.ImageResult is ImageResult
