"""What a detector shows for a verdict: the places that deviate, and good places to compare them with. No torch.

How far that explains the verdict differs. A detector with a memory bank scores a patch by its distance to the nearest
good one, so that one is the yardstick itself. Detectors that keep statistics remember no image: for them the same place
in ordinary good images is shown, an example of what is normal there. `Explanation.statement` says which it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from blemish.functional.regions import Region

Box: TypeAlias = tuple[int, int, int, int]
"""(x0, y0, x1, y1) in pixels of an image, half-open."""

Basis: TypeAlias = Literal["nearest patches", "same place"]


@dataclass(frozen=True)
class GoodImage:
    """A good image that a model file names.

    Attributes:
        number: what the memory bank calls it; for detectors without one, its rank among those
            named, lowest calibration score first.
        name: path below the root of the data it was taken from, with "/" between folders.
        size: (H, W) after EXIF rotation.
        digest: the first twelve hexadecimal digits of the SHA-256 of its file.
        picture: bytes of its small picture in the model file; 0 without one.
    """

    number: int
    name: str
    size: tuple[int, int]
    digest: str
    picture: int = 0


@dataclass(frozen=True)
class GoodPatch:
    """A place in a good image.

    Attributes:
        image: None where the model file doesn't say which it was.
        box: the cell of the detector's grid, in pixels of the good image; None without an image. Features see more than
            their cell.
        distance: between its features and those of the place it is compared with, in the unit of raw scores; None where
            the detector doesn't compare them.
    """

    image: GoodImage | None
    box: Box | None
    distance: float | None


@dataclass(frozen=True)
class Finding:
    """A place that deviates, with good places beside it.

    Attributes:
        region: what was found; None where no pixel is over the threshold: then it is the place of the highest value.
        box: the cell of the detector's grid under the highest value of the raw map, in pixels of the image.
        value: that value; higher is more abnormal.
        good: nearest first, each of another image.
    """

    region: Region | None
    box: Box
    value: float
    good: tuple[GoodPatch, ...]


@dataclass(frozen=True)
class Explanation:
    """Why an image was judged as it was, as far as its detector can tell.

    Attributes:
        basis: "nearest patches": the good patches that the score was measured against. "same place": examples of what
            is normal at that place; the score wasn't measured against them.
        statement: what that means for this detector, for people.
        threshold: raw value of the map from which a pixel is anomalous.
        findings: one for each region, the highest peak first; a single one without a region where there is none.
    """

    basis: Basis
    statement: str
    threshold: float
    findings: tuple[Finding, ...]
