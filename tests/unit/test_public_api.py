"""The public surface: few names, found lazily, and an answer when a dependency is missing."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

import blemish

PUBLIC = [
    *("BlemishError", "Engine", "Fused", "ImageBatch", "ImageDataModule", "InferenceBatch", "Padim"),
    *(
        "Patchcore",
        "PostProcessor",
        "PreProcessor",
        "Subspace",
        "__version__",
        "load",
        "load_detector",
        "make_predictor",
        "to_dataframe",
    ),
]


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


WITHOUT_TORCH = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "lightning", "timm", "torchvision"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Block())
"""


def test_public_names() -> None:
    assert sorted(blemish.__all__) == PUBLIC
    assert dir(blemish) == PUBLIC
    for name in PUBLIC:
        assert getattr(blemish, name) is not None


def test_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match=r"module 'blemish' has no attribute 'Foo'. Names: BlemishError, "):
        _ = blemish.Foo  # type: ignore[attr-defined]


def test_import_is_light() -> None:
    heavy = "{'torch', 'lightning', 'timm', 'PIL', 'numpy', 'typer'}"
    assert run(f"import sys, blemish; print({heavy} & set(sys.modules))") == "set()"


def test_import_has_no_effects() -> None:
    run(
        """
        import logging, os, warnings
        before = (dict(os.environ), logging.root.handlers[:], warnings.filters[:])
        import blemish
        assert before == (dict(os.environ), logging.root.handlers[:], warnings.filters[:])
        """
    )


@pytest.mark.parametrize("name", ["Engine", "Patchcore", "load_detector"])
def test_missing_extra(name: str) -> None:
    code = f"""
import blemish
try:
    blemish.{name}
except blemish.BlemishError as error:
    print(type(error).__name__, error)
"""
    answer = run(WITHOUT_TORCH + code)
    assert answer.startswith("MissingExtraError This needs ")
    assert answer.endswith('which is not installed. Run: pip install "blemish[train]"')


def test_errors_and_index_need_no_torch() -> None:
    """The base install reads images and folders."""
    assert (
        run(WITHOUT_TORCH + "import blemish.data.index, blemish.data.image_io, blemish.runtime; print('fine')")
        == "fine"
    )
