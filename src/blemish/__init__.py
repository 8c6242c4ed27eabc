"""blemish: finds what is wrong in pictures after seeing only pictures that are right.

    import blemish

    data = blemish.ImageDataModule("parts/")
    model = blemish.Patchcore()
    blemish.Engine().fit(model, data)
    model.save("parts.safetensors")

    session = blemish.load("parts.safetensors")
    print(session("new/0001.png"))

Names are resolved on first use (PEP 562), so `import blemish` loads neither torch nor lightning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blemish._lazy import lazy
from blemish._version import __version__

if TYPE_CHECKING:
    from blemish.artifact import load as load_detector  # noqa: F401
    from blemish.data.batch import ImageBatch as ImageBatch
    from blemish.data.batch import InferenceBatch as InferenceBatch
    from blemish.data.datamodule import ImageDataModule as ImageDataModule
    from blemish.engine.engine import Engine as Engine
    from blemish.engine.module import Fused as Fused
    from blemish.engine.module import Padim as Padim
    from blemish.engine.module import Patchcore as Patchcore
    from blemish.engine.module import Subspace as Subspace
    from blemish.engine.post_processor import PostProcessor as PostProcessor
    from blemish.errors import BlemishError as BlemishError
    from blemish.pre_processing import PreProcessor as PreProcessor
    from blemish.runtime import load as load
    from blemish.runtime.result import to_dataframe as to_dataframe
    from blemish.scale.predictor import make_predictor as make_predictor

_HOME = {
    "BlemishError": "blemish.errors",
    "Engine": "blemish.engine.engine",
    "Fused": "blemish.engine.module",
    "ImageBatch": "blemish.data.batch",
    "ImageDataModule": "blemish.data.datamodule",
    "InferenceBatch": "blemish.data.batch",
    "Padim": "blemish.engine.module",
    "Patchcore": "blemish.engine.module",
    "PostProcessor": "blemish.engine.post_processor",
    "PreProcessor": "blemish.pre_processing",
    "Subspace": "blemish.engine.module",
    "load": "blemish.runtime",
    "load_detector": "blemish.artifact:load",
    "make_predictor": "blemish.scale.predictor",
    "to_dataframe": "blemish.runtime.result",
}

__all__ = ["__version__", *_HOME]


__getattr__ = lazy(__name__, _HOME)


def __dir__() -> list[str]:
    return sorted(__all__)
