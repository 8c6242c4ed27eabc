"""How many bits the pictures of a camera use, where files of 16 bits don't say.

A picture of 12 bits in a file of 16 is read at a sixteenth of its brightness, and a detector misses what it would have
seen. One picture can't tell: it may be dark. All good pictures of a data set together can, nearly: if none of hundreds
has a sample above 4095, the camera has 12 bits. The number belongs to the model: every later picture is read with it,
and one that holds more is an error, never a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from blemish.data.image_io import MAX_PIXELS, Reading, highest_sample
from blemish.data.layouts import Sample
from blemish.data.splits import Split
from blemish.errors import ImageReadError

DEPTHS = (8, 10, 12, 14)
"""Bits of cameras whose pictures are stored in 16."""


def reading_of(
    sets: Split,
    *,
    max_pixels: int = MAX_PIXELS,
    frames: str = "refuse",
    bit_depth: int | None = None,
    lenient: bool = False,
) -> Reading:
    """How the images of a data set are read.

    Args:
        sets: the good images that fit, that are held out and that validate show the bit depth where none is given.
        max_pixels: see `Reading`.
        frames: "refuse" or "first", see `blemish.data.datamodule.ImageDataModule`.
        bit_depth: see `Reading`; None finds it out.
        lenient: pass over images that can't be read.

    Raises:
        ImageReadError: one of these images can't be read.
    """
    reading = Reading(max_pixels, 0 if frames == "first" else None, bit_depth)
    if bit_depth is not None:
        return reading
    good = (*sets.fit, *sets.calibrate, *(sample for sample in sets.validation if sample.label is False))
    return replace(reading, bit_depth=observed_bit_depth(good, reading, lenient=lenient))


def observed_bit_depth(samples: Iterable[Sample], reading: Reading, *, lenient: bool = False) -> int | None:
    """The bits that 16-bit pictures use: the fewest of `DEPTHS` that hold them all.

    Reads the header of every picture, and the pixels of those of 16 bits until one has a sample above 14 bits.

    Args:
        samples: pictures of good parts.
        reading: how they are read.
        lenient: see `reading_of`.

    Returns:
        None where no picture has 16 bits of unknown use, or where they use them all.

    Raises:
        ImageReadError: a picture can't be read.
    """
    most = 0
    for sample in samples:
        try:
            highest = highest_sample(sample.path, max_pixels=reading.max_pixels, frame=reading.frame)
        except ImageReadError:
            if not lenient:
                raise
            continue
        most = max(most, 0 if highest is None else highest)
        if most >= 2 ** DEPTHS[-1]:
            return None
    return fewest_bits(most)


def fewest_bits(most: int) -> int | None:
    """The fewest of `DEPTHS` that hold a sample; None for 0 and for one that takes all 16 bits."""
    return next((bits for bits in DEPTHS if most < 2**bits), None) if most else None


def depth_sentence(bits: int) -> str:
    """What a user is told about it."""
    return (
        f"The 16-bit images use {bits} bits: no good one has a sample above {2**bits - 1:,}, so that is read as white, "
        "here and by the model. If the camera has more bits and the images are merely dark, say --bit-depth 16."
    )
