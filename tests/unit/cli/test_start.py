"""What a verb loads before its first answer. Every second here is paid by each call of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from exported import export_untried

RUN = """
import json, sys
sys.argv[0] = "blemish"
from blemish.cli import main
try:
    main()
except SystemExit as end:
    print(json.dumps([end.code or 0, *sys.modules]), file=sys.stderr)
"""

GRAPHS = {"torch", "lightning", "timm", "torchvision", "onnx", "safetensors"}
"""What belongs to making models, and to no exported one."""
OTHERS = {"cryptography", "matplotlib", "pandas", "pyarrow", "ray", "scipy", "sklearn", "yaml"}
"""What only some verbs or options need."""


class Loaded(NamedTuple):
    code: int
    modules: set[str]

    @property
    def packages(self) -> set[str]:
        return {name.partition(".")[0] for name in self.modules}


def loaded(*arguments: object) -> Loaded:
    """What `blemish ARGUMENTS...` has imported when it ends."""
    ran = subprocess.run([sys.executable, "-c", RUN, *map(str, arguments)], capture_output=True, text=True, check=True)
    code, *modules = json.loads(ran.stderr.splitlines()[-1])
    return Loaded(code, set(modules))


def verbs_in(modules: set[str]) -> set[str]:
    shared = {"console", "extras", "flags", "live", "paths", "verbs"}
    return {name.removeprefix("blemish.cli.") for name in modules if name.startswith("blemish.cli.")} - shared


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_help_and_version_import_no_verb(arguments: list[str]) -> None:
    ran = loaded(*arguments)
    assert ran.code == 0
    assert verbs_in(ran.modules) == set()
    assert not ran.packages & {"numpy", "PIL", *GRAPHS, *OTHERS}


def test_a_session_of_an_exported_model_needs_numpy_pillow_and_its_runtime_alone(
    model_file: Path, tmp_path: Path
) -> None:
    model = export_untried(model_file, tmp_path / "model.onnx")
    code = (
        f"import json, sys; from blemish.runtime import load; load({str(model)!r}); print(json.dumps([*sys.modules]))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    packages = {name.partition(".")[0] for name in json.loads(ran.stdout)}
    assert {"numpy", "PIL", "onnxruntime"} <= packages
    assert not packages & {"rich", "typer", *GRAPHS, *OTHERS}


def test_help_of_a_verb_imports_no_other() -> None:
    ran = loaded("predict", "--help")
    assert ran.code == 0
    assert verbs_in(ran.modules) == {"predict"}
    assert not ran.packages & {"onnxruntime", "openvino", *GRAPHS, *OTHERS}


@pytest.mark.parametrize(("suffix", "runtime"), [(".onnx", "onnxruntime"), (".xml", "openvino")])
def test_a_verdict_of_an_exported_model_loads_its_runtime_alone(
    suffix: str, runtime: str, model_file: Path, tiles: Path, tmp_path: Path
) -> None:
    model = export_untried(model_file, tmp_path / f"model{suffix}")
    ran = loaded("predict", model, tiles / "test/good/000.png")
    assert ran.code == 0
    assert verbs_in(ran.modules) == {"predict"}
    assert ran.packages & {"onnxruntime", "openvino"} == {runtime}
    assert not ran.packages & {*GRAPHS, *OTHERS}
    assert not ran.modules & {"rich.progress", "rich._emoji_codes", "blemish.predictions.pictures"}
    assert not {"PIL.ImageDraw", *(name for name in ran.modules if "visualization" in name)} & ran.modules


@pytest.fixture(scope="module", params=["bundled", "tf_efficientnet_lite0"])
def torch_file(
    request: pytest.FixtureRequest, model_file: Path, tiles: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A model on a backbone of our own."""
    if request.param == "bundled":
        return model_file
    from blemish import Engine, ImageDataModule, Padim

    # Random weights need no package.
    model = Padim(backbone=request.param, layers=["blocks.1"], pretrained=False, image_size=64)
    Engine("cpu", progress=False).fit(model, ImageDataModule(tiles, num_workers=0))
    path = tmp_path_factory.mktemp("lite") / "model.safetensors"
    model.save(path)
    return path


def test_a_verdict_in_torch_loads_nothing_that_fits_compiles_or_exports(torch_file: Path, tiles: Path) -> None:
    ran = loaded("predict", torch_file, tiles / "test/good/000.png")
    assert ran.code == 0
    assert "torch" in ran.packages
    assert not ran.packages & {"timm", "torchvision"}  # a second for each family of models that is never used
    assert not ran.packages & {"lightning", "onnx", "onnxruntime", "openvino", "pandas", "pyarrow", "sklearn"}
    assert not {name for name in ran.modules if name.startswith(("blemish.engine", "blemish.export"))}
    assert "torch._dynamo" not in ran.modules  # the compiler: three seconds, for an operator of one's own, say
