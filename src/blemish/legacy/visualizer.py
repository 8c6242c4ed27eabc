"""The classic composition of pictures: one result, a batch of results, a window, a file.

`ImageResult` gathers what is known about one image, `Visualizer` turns it into one picture: "simple" (the prediction
alone) or "full" (a titled grid). The grid is composed with Pillow: no figure state, no display.

Axes: images (H, W, 3) uint8 RGB; maps and masks (H, W), (1, H, W) or (H, W, 1).
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from blemish.errors import UsageError
from blemish.files import replacing
from blemish.functional.pixels import to_uint8
from blemish.legacy.classic import add_anomalous_label, add_normal_label, superimpose_anomaly_map
from blemish.visualization.drawing import (
    MIN_TEXT,
    Color,
    Picture,
    as_map,
    as_mask,
    as_picture,
    contour,
    line_width,
    mask_picture,
    same_size,
    text_box,
    text_tile,
)

OUTLINE: Color = (255, 0, 0)
PANEL_SIDES = 240, 800
"""Bounds in pixels of the longer side of a panel of the grid: tiny pictures are enlarged, huge ones reduced."""


@dataclass(eq=False)
class ImageResult:
    """What is known about one image, and the pictures made from it.

    Attributes:
        image: (H, W, 3) uint8 RGB; a gray (H, W) image is given three equal channels.
        pred_score: the normalized score. Percentages are only printed of scores in [0, 1].
        pred_label: "normal" or "anomalous"; a bool or 0/1 is translated.
        anomaly_map: (H, W) normalized map, or None.
        gt_mask: true mask, bool, 0/1 or 0/255; becomes (H, W) uint8 of 0 and 255. Or None.
        pred_mask: predicted mask, likewise.
        heat_map: (H, W, 3) uint8, the map superimposed on the image; None without a map.
        segmentations: (H, W, 3) uint8, the image with the predicted mask outlined in red; None without a mask.

    Raises:
        UsageError: the label is another word, or a map or mask has not the size of the image.
    """

    image: npt.NDArray[Any]
    pred_score: float
    pred_label: str
    anomaly_map: npt.NDArray[Any] | None = None
    gt_mask: npt.NDArray[Any] | None = None
    pred_mask: npt.NDArray[Any] | None = None
    heat_map: Picture | None = field(init=False, default=None)
    segmentations: Picture | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        """Generate the heat map and the segmentations; turn masks into pictures."""
        self.image = as_picture(self.image)
        self.pred_label = _label(self.pred_label)
        if self.anomaly_map is not None:
            self.anomaly_map = as_map(self.anomaly_map)
            self.heat_map = superimpose_anomaly_map(self.anomaly_map, self.image)
        if self.gt_mask is not None:
            self.gt_mask = _fitting_mask(self.gt_mask, self.image, "gt_mask")
        if self.pred_mask is not None:
            self.pred_mask = _fitting_mask(self.pred_mask, self.image, "pred_mask")
            self.segmentations = _outlined(self.image, self.pred_mask)


class Visualizer:
    """Composes pictures of results.

    Args:
        mode: "full" or "simple".
        task: "segmentation" or "classification".
    """

    def __init__(self, mode: str, task: str) -> None:
        views: dict[str, Callable[[ImageResult], Picture]] = {
            "full": self._visualize_full,
            "simple": self._visualize_simple,
        }
        if mode not in views:
            raise UsageError(f'mode must be "full" or "simple". Got {mode!r}.')
        if task not in ("segmentation", "classification"):
            raise UsageError(f'task must be "segmentation" or "classification". Got {task!r}.')
        self.mode = mode
        self.task = task
        self._view = views[mode]

    def visualize_batch(self, batch: Mapping[str, Any]) -> Iterator[Picture]:
        """Yield one picture per image of a batch.

        Args:
            batch: tensors or arrays under these keys, N along the first axis. `pred_scores` and `pred_labels`;
                `image` as uint8 or floats in [0, 1], channels first or last; `image_path`, read when the images are
                normalized for a network and can't be shown; optionally `anomaly_maps`, `pred_masks` and `mask` (the
                truth), which are brought to the size of the image where they differ.

        Raises:
            UsageError: a key is missing, or the images can't be shown and there is no path to read.
        """
        missing = [key for key in ("pred_scores", "pred_labels") if key not in batch]
        if missing:
            raise UsageError(f"A batch needs pred_scores and pred_labels. Missing: {', '.join(missing)}.")
        for index, (score, label) in enumerate(zip(batch["pred_scores"], batch["pred_labels"], strict=True)):
            image = _shown(batch, index)
            yield self.visualize_image(
                ImageResult(
                    image=image,
                    pred_score=float(_array(score)),
                    pred_label=_array(label).item(),
                    anomaly_map=_fitted(batch, "anomaly_maps", index, image),
                    gt_mask=_fitted(batch, "mask", index, image),
                    pred_mask=_fitted(batch, "pred_masks", index, image),
                )
            )

    def visualize_image(self, image_result: ImageResult) -> Picture:
        """Return the full or the simple picture of a result, as the mode says: (H', W', 3) uint8 RGB."""
        return self._view(image_result)

    def _visualize_full(self, image_result: ImageResult) -> Picture:
        """Return a grid of titled panels; what the result lacks is left out."""
        panels: list[tuple[str, npt.NDArray[Any] | None]] = [("Image", image_result.image)]
        if self.task == "segmentation":
            panels += [
                ("Ground truth", image_result.gt_mask),
                ("Predicted heat map", image_result.heat_map),
                ("Predicted mask", image_result.pred_mask),
                ("Segmentation result", image_result.segmentations),
            ]
        else:
            panels.append(("Prediction", _with_label(_panel(_base(image_result)), image_result)))
        return _grid([(title, as_picture(panel)) for title, panel in panels if panel is not None])

    def _visualize_simple(self, image_result: ImageResult) -> Picture:
        """Return the heat map with the predicted mask outlined (segmentation) or with the label (classification)."""
        if self.task == "classification":
            return _with_label(_base(image_result), image_result)
        picture = _base(image_result)
        return np.array(picture) if image_result.pred_mask is None else _outlined(picture, image_result.pred_mask)

    @staticmethod
    def show(title: str, image: npt.ArrayLike, delay: int = 0) -> None:
        """Show an image in a window until a key is pressed or `delay` milliseconds have passed (0: no limit).

        Raises:
            UsageError: there is no display, or Python was built without tkinter.
        """
        picture = as_picture(image)
        if delay < 0:
            raise UsageError(f"delay must be at least 0 milliseconds. Got {delay}.")
        try:
            import tkinter
        except ImportError as error:
            raise UsageError("A window needs tkinter, which this Python lacks. Use Visualizer.save instead.") from error
        try:
            window = tkinter.Tk()
        except tkinter.TclError as error:
            raise UsageError(f"No window can be opened ({error}). Use Visualizer.save instead.") from error
        window.title(title)
        shown = Image.fromarray(picture)
        shown.thumbnail((int(0.9 * window.winfo_screenwidth()), int(0.9 * window.winfo_screenheight())))
        encoded = io.BytesIO()
        shown.save(encoded, format="PNG")
        photo = tkinter.PhotoImage(master=window, data=encoded.getvalue())
        tkinter.Label(window, image=photo).pack()
        window.bind("<Key>", lambda _: window.destroy())
        if delay:
            window.after(delay, window.destroy)
        window.mainloop()

    @staticmethod
    def save(file_path: str | os.PathLike[str], image: npt.ArrayLike) -> None:
        """Write an image to a file, in the format its suffix names; missing folders are made.

        The file appears under its name only when it is complete.

        Raises:
            UsageError: the suffix names no format that can be written. OutputError: the file can't be written.
        """
        path, picture = Path(file_path), as_picture(image)
        Image.init()
        known = sorted(suffix for suffix, name in Image.registered_extensions().items() if name in Image.SAVE)
        if path.suffix.lower() not in known:
            raise UsageError(f"{path} needs a suffix such as .png, .jpg, .bmp, .tif or .webp. Got {path.suffix!r}.")
        with replacing(path) as temporary:
            Image.fromarray(picture).save(temporary)


# ---------------------------------------------------------------------------------------------------------- composition


def _label(label: Any) -> str:
    if isinstance(label, (bool, int, np.bool_, np.integer)) and label in (0, 1):
        return "anomalous" if label else "normal"
    word = str(label).lower()
    if word not in ("normal", "anomalous"):
        raise UsageError(f'pred_label must be "normal" or "anomalous". Got {label!r}.')
    return word


def _fitting_mask(mask: npt.ArrayLike, image: Picture, name: str) -> Picture:
    plane = as_mask(mask)
    same_size(image, plane, name)
    return mask_picture(plane)


def _outlined(picture: Picture, mask: npt.ArrayLike) -> Picture:
    drawn = np.array(picture)
    drawn[contour(as_mask(mask), line_width(picture))] = OUTLINE
    return drawn


def _base(result: ImageResult) -> Picture:
    return result.image if result.heat_map is None else result.heat_map


def _with_label(picture: Picture, result: ImageResult) -> Picture:
    """Return the picture with the verdict and how sure the score is of it."""
    score = result.pred_score if 0 <= result.pred_score <= 1 else None
    if result.pred_label == "anomalous":
        return add_anomalous_label(picture, score)
    return add_normal_label(picture, None if score is None else 1 - score)


def _panel(picture: Picture) -> Picture:
    """Bring the longer side of a picture within `PANEL_SIDES`; enlarged pixels stay pixels, reducing averages."""
    height, width = picture.shape[:2]
    longest = max(height, width)
    side = min(max(longest, PANEL_SIDES[0]), PANEL_SIDES[1])
    size = max(1, round(width * side / longest)), max(1, round(height * side / longest))
    resample = Image.Resampling.NEAREST if side > longest else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize(size, resample))


def _grid(panels: Sequence[tuple[str, Picture]]) -> Picture:
    """Lay pictures of one size out in rows of three, a title above each."""
    panels = [(title, _panel(picture)) for title, picture in panels]
    height, width = panels[0][1].shape[:2]
    size = max(MIN_TEXT, round(max(height, width) / 24))
    while size > 6 and max(text_box(title, size)[0] for title, _ in panels) > width:
        size -= 1
    head, gap = text_box("", size)[1], max(6, size // 2)
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    grid = np.full((rows * (head + height + gap) + gap, columns * (width + gap) + gap, 3), 255, dtype=np.uint8)
    for index, (title, picture) in enumerate(panels):
        top, left = gap + index // columns * (head + height + gap), gap + index % columns * (width + gap)
        words = text_tile(title, size, (20, 20, 20), (255, 255, 255))[:, :width]
        grid[top : top + head, left : left + words.shape[1]] = words
        grid[top + head : top + head + height, left : left + width] = picture
    return grid


# --------------------------------------------------------------------------------------------------------------- batch


def _array(values: Any) -> npt.NDArray[Any]:
    """Return an array from an array, a number or a tensor on any device, without importing the tensor's library."""
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def _shown(batch: Mapping[str, Any], index: int) -> Picture:
    """Return image `index` as (H, W, 3) uint8: as it is when it can be shown, else read from its file."""
    image = _array(batch["image"][index]) if batch.get("image") is not None else None
    if image is None or not (image.dtype == np.uint8 or (image.dtype.kind == "f" and _within_unit(image))):
        if "image_path" not in batch:
            raise UsageError("The images can't be shown: give uint8, floats in [0, 1], or image_path to read.")
        from blemish.data.image_io import read_image

        image = read_image(batch["image_path"][index])
    if image.ndim == 3 and image.shape[0] in (1, 3) and image.shape[-1] not in (1, 3):
        image = np.moveaxis(image, 0, -1)
    return as_picture(to_uint8(image))


def _within_unit(image: npt.NDArray[Any]) -> bool:
    return bool(0 <= image.min() <= image.max() <= 1)


def _fitted(batch: Mapping[str, Any], key: str, index: int, image: Picture) -> npt.NDArray[Any] | None:
    """Return a map (bilinear) or mask (nearest) of the batch at the size of the image; None when the batch has none."""
    if batch.get(key) is None:
        return None
    values = _array(batch[key][index])
    plane = as_map(values) if key == "anomaly_maps" else as_mask(values)
    if plane.shape == image.shape[:2]:
        return plane
    resample = Image.Resampling.BILINEAR if key == "anomaly_maps" else Image.Resampling.NEAREST
    size = image.shape[1], image.shape[0]
    return np.asarray(Image.fromarray(plane.astype(np.float32)).resize(size, resample))
