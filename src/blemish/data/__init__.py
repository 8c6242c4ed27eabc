"""Files on disk become batches for a detector.

    image_io    one file <-> one array, at full depth, or an error that names the file
    layouts     which folder shapes are understood, and how masks are paired (by name)
    index       a folder or manifest -> a tuple of samples and a list of problems
    splits      samples -> fit, calibrate, validation, test (by hash of the name; disjoint)
    check       what would be fitted, calibrated and tested, and what is wrong with it
    dataset     samples -> `ImageBatch` through the model's own pre-processing
    datamodule  all of the above behind Lightning's loader hooks
    gather      what several processes saw of it, together

Everything down to `check` needs neither torch nor lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy

if TYPE_CHECKING:
    from blemish.data.batch import ImageBatch as ImageBatch
    from blemish.data.batch import InferenceBatch as InferenceBatch
    from blemish.data.datamodule import ImageDataModule as ImageDataModule

__getattr__ = lazy(
    __name__,
    {
        "ImageBatch": "blemish.data.batch",
        "ImageDataModule": "blemish.data.datamodule",
        "InferenceBatch": "blemish.data.batch",
    },
)
