"""How many bits the pictures of a camera use, where files of 16 bits don't say.

A picture of 12 bits in a file of 16 is read at a sixteenth of its brightness, and a detector misses what it would have
seen. One picture can't tell: it may be dark. All good pictures of a data set together can, nearly: if none of hundreds
has a sample above 4095, the camera has 12 bits. The number belongs to the model: every later picture is read with it,
and one that holds more is an error, never a verdict.
"""

from __future__ import annotations

from collections.abc import Iterable

from blemish.data.image_io import MAX_PIXELS, highest_sample
from blemish.data.layouts import Sample

DEPTHS = (8, 10, 12, 14)
"""Bits of cameras whose pictures are stored in 16."""


def observed_bit_depth(
    samples: Iterable[Sample], *, max_pixels: int = MAX_PIXELS, frame: int | None = None
) -> int | None:
    """The bits that 16-bit pictures use: the fewest of `DEPTHS` that hold them all.

    Reads the header of every picture, and the pixels of those of 16 bits until one has a sample above 14 bits.

    Args:
        samples: pictures of good parts.
        max_pixels: as in `blemish.data.image_io.read_image`.
        frame: as there.

    Returns:
        None where no picture has 16 bits of unknown use, or where they use them all.

    Raises:
        ImageReadError: a picture can't be read.
    """
    most = 0
    for sample in samples:
        highest = highest_sample(sample.path, max_pixels=max_pixels, frame=frame)
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
