"""How a verb ends that was stopped or ran out of memory: its own exit code, whole files, nothing half-written."""

from __future__ import annotations

import importlib
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from processes import Script

SCARCE = """
import resource, torch
import blemish.runtime.torch_session
from blemish.cli import main
from pathlib import Path
from typing import Any
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 5 * 2**28, used + 5 * 2**28))
main()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_that_runs_out(model_file: Path, inside: Path) -> None:
    Image.new("L", (12_000, 12_000)).save("large.png", compress_level=1)
    words = ["predict", str(model_file), "large.png", "--out", "rows.csv"]
    with Script(SCARCE, *words) as process:
        code, errors = process.wait(120)
    assert code == 5, errors
    assert "error: memory ran out (" in errors
    assert "Take a smaller --batch-size" in errors
    assert "Traceback" not in errors


HANGING = """
import sys, time
from blemish.cli import main
from blemish.data import image_io

read, reads = image_io.read_image, []
def hanging(source, **how):
    reads.append(source)
    if len(reads) == 3:
        print("hangs", flush=True)
        time.sleep(600)
    return read(source, **how)
image_io.read_image = hanging
main()
"""

VERBS = {
    "fit": "fit {tiles} -o m.safetensors --backbone filter_bank --image-size 64 --num-workers 0",
    "predict": "predict {model} {tiles}/test/good --out rows.csv --save mask",
    "test": "test {model} {tiles} --num-workers 0",
    "report": "report {model} {tiles} -o r.html",
}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to handle")
@pytest.mark.parametrize(("verb", "number"), [*((verb, signal.SIGTERM) for verb in VERBS), ("predict", signal.SIGINT)])
def test_signals(verb: str, number: signal.Signals, tiles: Path, model_file: Path, inside: Path) -> None:
    """In the middle of a trainer, too, after a few images were read."""
    words = VERBS[verb].format(tiles=tiles, model=model_file).split()
    with Script(HANGING, *words) as process:
        assert "hangs\n" in iter(process.stdout.readline, "")
        started = time.monotonic()
        process.signal(number)
        code, errors = process.wait(60)
    assert code == 128 + number, errors
    assert "Traceback" not in errors
    assert time.monotonic() - started < 10
    if verb == "predict":
        assert errors.startswith("Stopped after 0 of ")
        assert errors.endswith(" images. Their rows are kept: go on with --resume.\n")
    left = {path.name for path in inside.iterdir()}
    assert left <= {"rows.csv.unfinished", "rows.csv.unfinished.csv", "predictions"}


def test_what_the_system_has_against_a_name(blemish: Any, model_file: Path, inside: Path) -> None:
    ran = blemish("predict", model_file, "9" * 400)
    assert ran.code == 3
    assert ran.err.startswith("error: ")
    assert "9" * 400 in ran.err


def test_a_fault_of_ours_is_no_anomaly(blemish: Any, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*_: object) -> None:
        raise LookupError("nobody foresaw this")

    monkeypatch.setattr(importlib.import_module("blemish.cli.predict"), "expand", fault)
    ran = blemish("predict", model_file, "x.png")
    assert ran.code == 70
    assert "LookupError: nobody foresaw this" in ran.err
    assert ran.err.endswith("error: this is a fault of blemish. Please report it with the lines above.\n")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
def test_a_reader_that_goes_away_is_no_anomaly(model_file: Path, tiles: Path, inside: Path) -> None:
    words = [sys.executable, "-m", "blemish", "predict", str(model_file), str(tiles / "test" / "good"), "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert (process.stderr.read(), process.wait(60)) == ("", 141)
