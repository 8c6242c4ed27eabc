"""Clusters of several machines, of which one is lost at work, or whose memory for objects is too small. Each has a
process of its own, as this one is connected already.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from blemish.scale.predictor import make_predictor

pytestmark = pytest.mark.slow
HERE = Path(__file__).parent


def machines(*arguments: object) -> dict[str, Any]:
    """What machines.py prints as its last line."""
    done = subprocess.run(
        [sys.executable, HERE / "machines.py", *map(str, arguments)], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_a_fit_that_loses_a_machine_changes_no_bit(tiles: Path, tmp_path: Path) -> None:
    found = machines("fit", tiles, tmp_path)
    assert found["lost"] == 1
    assert (tmp_path / "many.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()


def test_a_run_that_loses_a_machine_loses_no_row_and_doubles_none(
    model_file: Path, pictures: Path, tmp_path: Path
) -> None:
    names = [str(path) for path in sorted(pictures.rglob("*.png"))]
    listed = tmp_path / "list.txt"
    listed.write_text("\n".join(names * 40))
    found = machines("score", model_file, listed, tmp_path)
    assert found["lost"] == 1
    expected = make_predictor(model_file).rows(names, names)
    assert len(found["rows"]) == 40 * len(names)
    assert sorted(found["rows"])[::40] == sorted([row["path"], row["label"]] for row in expected)


def test_states_for_which_there_is_no_memory_go_to_disk(tmp_path: Path) -> None:
    found = machines("full", tmp_path)
    assert found == {"spilled": True, "kept": [35 * 2**20] * 4}
    assert (tmp_path / "many.safetensors").read_bytes() == (tmp_path / "one.safetensors").read_bytes()


def test_ray_that_can_not_be_started_is_said(tmp_path: Path) -> None:
    assert "Ray can't be started on this machine" in machines("start", tmp_path)["error"]
