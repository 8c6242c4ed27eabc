"""The samples in examples/ run, and say what a session says. The one in C++ is compiled where a compiler and the
headers of ONNX Runtime are installed (Debian: libonnxruntime-dev; or name their folder in CPLUS_INCLUDE_PATH); the
library is that of the Python package.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image
from typer.testing import CliRunner

import notebook
from blemish import runtime
from blemish.runtime.session import Result
from blemish.synthetic.products import render
from exported import export_untried
from test_docs import first_missing, lines_of

FOLDER = Path(__file__).parents[1] / "examples"
COMPILER = shutil.which("c++")
FLAGS = ["-std=c++17", "-Wall", "-Wextra", "-Werror", "-isystem", "/usr/include/onnxruntime"]
BLOCKED = "torch", "lightning", "timm", "onnx", "openvino", "blemish", "cv2", "scipy"
"""What the sample in Python has to do without."""

RUN_WITHOUT = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.fixture(scope="module")
def graph(model_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_untried(model_file, tmp_path_factory.mktemp("graph") / "model.onnx")


@pytest.fixture(scope="module", params=[None, "hole"])
def picture(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image, _ = render("tile", size=(97, 131), rng=np.random.default_rng(8), defect=request.param)
    path = tmp_path_factory.mktemp("picture") / "part.ppm"
    Image.fromarray(image).save(path)
    return path


def expected(result: Result) -> list[str]:
    y, x = np.unravel_index(result.anomaly_map.argmax(), result.anomaly_map.shape)
    return [
        result.label,
        f"score {result.score:.4f}",
        f"raw score {result.raw_score:.4f}, calibrated threshold {result.threshold:.4f}",
        f"worst pixel x {x}, y {y}; {result.mask.sum()} of {result.mask.size} pixels marked",
    ]


def test_python(graph: Path, picture: Path) -> None:
    (result,) = runtime.load(graph)(np.asarray(Image.open(picture)))
    command = [sys.executable, "-W", "error", "-c", RUN_WITHOUT, FOLDER / "inspect_image.py", graph, picture]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (int(result.label == "anomalous"), "")
    assert ran.stdout.splitlines() == expected(result)
    ran = subprocess.run([*command, "1.0"], capture_output=True, text=True)
    assert ran.stdout.splitlines()[0] == "anomalous"
    assert ran.stdout.splitlines()[2] == expected(result)[2]  # the raw score is the same


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled sample, beside links to the library under the names that linkers and loaders look for."""
    if COMPILER is None:
        pytest.skip("no C++ compiler")
    found = subprocess.run(
        [COMPILER, *FLAGS, "-E", "-x", "c++", "-"],
        input="#include <onnxruntime_cxx_api.h>",
        capture_output=True,
        text=True,
    )
    libraries = sorted((Path(onnxruntime.__file__).parent / "capi").glob("libonnxruntime.so.*"))
    if found.returncode or not libraries:
        pytest.skip("no headers of ONNX Runtime, or no library in its Python package")
    folder = tmp_path_factory.mktemp("cpp")
    for name in ("libonnxruntime.so", "libonnxruntime.so.1"):
        (folder / name).symlink_to(libraries[-1])
    target = folder / "inspect_image"
    linked = [f"-L{folder}", "-lonnxruntime", f"-Wl,-rpath,{folder}"]
    subprocess.run([COMPILER, *FLAGS, FOLDER / "inspect_image.cpp", *linked, "-o", target], check=True)
    return target


def test_cpp(program: Path, graph: Path, picture: Path) -> None:
    (result,) = runtime.load(graph)(np.asarray(Image.open(picture)))
    ran = subprocess.run([program, graph, picture], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (int(result.label == "anomalous"), "")
    assert ran.stdout.splitlines() == expected(result)
    ran = subprocess.run([program, graph, picture, "1.0"], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout.splitlines()[0]) == (1, "anomalous")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"P6\n# a comment\n2 2\n255\n" + bytes(11), "the file is cut off"),
        (b"P6 2 2 65535\n" + bytes(24), "not a binary PPM with 8 bits"),
        (b"P5 2 2 255\n" + bytes(4), "not a binary PPM with 8 bits"),
        (b"", "not a binary PPM with 8 bits"),
        (None, "no such file"),
    ],
)
def test_cpp_on_broken_files(program: Path, graph: Path, tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "broken.ppm"
    if content is not None:
        path.write_bytes(content)
    ran = subprocess.run([program, graph, path], capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert reason in ran.stderr


def test_samples_stay_short() -> None:
    for path in set(FOLDER.iterdir()) - set(FOLDER.glob("*.ipynb")):
        assert len(path.read_text(encoding="utf-8").splitlines()) < 150, path


@pytest.mark.parametrize("name", ["blemish-station.service", "Dockerfile"])
def test_the_stations_start_with_options_that_there_are(name: str) -> None:
    from blemish.cli import app

    text = (FOLDER / name).read_text()
    [command] = re.findall(r'^(?:ExecStart=\S*/|CMD \[")blemish(.*)$', text, re.MULTILINE)
    words = re.findall(r"[\w./-]+", command)
    assert words[0] == "serve"
    answer = CliRunner().invoke(app, [*words[:2], "/nowhere/station.yaml"])
    assert "The configuration /nowhere/station.yaml can't be read" in str(answer.exception)


def test_the_notebook_says_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cells = json.loads((FOLDER / "first_look.ipynb").read_text(encoding="utf-8"))["cells"]
    for cell, outputs in zip(cells, notebook.run(cells), strict=True):
        shown = cell.get("outputs", [])
        assert [sorted(output.get("data", ())) for output in outputs] == [sorted(one.get("data", ())) for one in shown]
        for output, other in zip(outputs, shown, strict=True):
            wanted, found = ("".join(one.get("text") or one["data"]["text/plain"]) for one in (other, output))
            assert first_missing(lines_of(wanted), lines_of(found)) is None, found
