"""Where the pictures of samples are: in files, or in memory (`blemish.data.arrays`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from blemish.data.image_io import Reading, file_sha256, read_mask, read_size
from blemish.data.index import Sample


class Pictures(Protocol):
    """Pictures by their samples."""

    def pixels(self, sample: Sample, reading: Reading) -> npt.NDArray[Any]:
        """(H, W, 3) RGB, uint8, or float32 in [0, 1]. Raises `ImageReadError`."""
        ...

    def mask(self, sample: Sample, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """(H, W) bool, True on defect pixels, of a sample that has one. Raises `DataError`."""
        ...

    def size(self, sample: Sample) -> tuple[int, int]:
        """(H, W) after EXIF rotation. Raises `ImageReadError`."""
        ...

    def digest(self, sample: Sample) -> str:
        """SHA-256, hexadecimal: equal ones are the same picture."""
        ...

    def part(self, samples: Sequence[Sample]) -> Pictures:
        """Of these samples alone, for a process that needs no others."""
        ...


class Files:
    """Pictures on disk."""

    def pixels(self, sample: Sample, reading: Reading) -> npt.NDArray[Any]:
        """See `Pictures`."""
        return reading(sample.path)

    def mask(self, sample: Sample, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """See `Pictures`."""
        assert sample.mask is not None
        return read_mask(sample.mask, size)

    def size(self, sample: Sample) -> tuple[int, int]:
        """See `Pictures`."""
        return read_size(sample.path)

    def digest(self, sample: Sample) -> str:
        """See `Pictures`: of the file's bytes."""
        return file_sha256(sample.path)

    def part(self, samples: Sequence[Sample]) -> Files:
        """See `Pictures`."""
        return self


FILES = Files()
