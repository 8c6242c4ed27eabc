"""Benchmarks aren't run here, but they must start, use what exists, and the README must say what they measured."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"
PARTS = {"common", "ours", "peer", "summarize"}
CLAIMS = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in PARTS)


class Done(NamedTuple):
    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a script as `python benchmarks/SCRIPT.py ARGUMENTS...` does, in this process."""
    monkeypatch.syspath_prepend(FOLDER)

    def started(script: str, *arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", [f"{script}.py", *arguments])
        code: object = 0
        try:
            runpy.run_path(str(FOLDER / f"{script}.py"), run_name="__main__")
        except SystemExit as end:
            code = end.code or 0
        return Done(code if isinstance(code, int) else 1, *capsys.readouterr())

    return started


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(FOLDER)
    import common

    return common


@pytest.mark.parametrize("script", CLAIMS)
def test_script_parses_its_arguments_and_states_its_claim(script: str, run: Run) -> None:
    done = run(script, "--help")
    assert done.returncode == 0, done.stderr
    assert "Claim: " in done.stdout
    assert run(script, "--no-such-option").returncode == 2


@pytest.mark.parametrize("script", CLAIMS)
def test_readme_has_a_table_for_every_script(script: str) -> None:
    assert re.search(rf"<!-- {script}(_\w+)? -->", (FOLDER / "README.md").read_text())  # or one for each of its parts


def test_readme_tables_are_made_from_the_results(run: Run) -> None:
    done = run("summarize", "--check")
    assert done.returncode == 0, done.stderr


def test_summarize_puts_rows_and_claims_between_the_markers(common: Any, tmp_path: Path) -> None:
    import summarize

    options = common.arguments("", device=False).parse_args(["--no-peer", "--output", str(tmp_path)])
    line = common.claim("speed", "3 x faster", "2 x faster", False)
    common.report("made_up", options, [{"library": "a", "seconds": 0.12345, "peak MB": None}], [line])
    markers = "<!-- summary -->\n<!-- /summary -->\nkept\n<!-- made_up -->\nold\n<!-- /made_up -->"
    text = summarize.render(markers, tmp_path)
    assert "| speed | 3 x faster | 2 x faster | **missed** | `made_up.json` |" in text
    assert "| a | 0.123 | - |" in text
    assert "kept" in text
    assert "old" not in text
    assert summarize.render(text, tmp_path) == text


def test_results_name_no_folder_of_the_machine_that_measured() -> None:
    for path in (FOLDER / "results").glob("*.json"):
        assert not re.search(r'"/|\\\\', path.read_text()), path.name


def test_meter_sees_memory_that_was_given_back() -> None:
    # in a process of its own: here, 128 MB may well fit into memory that other tests gave back
    code = "import common, numpy\nwith common.Meter() as meter:\n    numpy.ones(2**24)\nprint(meter.peak_mb)"
    ran = subprocess.run([sys.executable, "-c", code], cwd=FOLDER, capture_output=True, text=True, check=True)
    if ran.stdout.strip() == "None":
        pytest.skip("this system doesn't tell a process its peak memory")
    assert 120 < float(ran.stdout) < 200


def test_our_half_answers_every_request(common: Any, tmp_path: Path) -> None:
    """On two pictures: what the scripts ask for must exist in the library as it is now. It shows its own error."""
    parts = common.draw_parts(tmp_path, 2) / "train" / "good"
    weights = common.draw_weights(tmp_path)
    with common.Half("ours") as ours:
        channels = ours("prepare", detector="padim", folder=parts, weights=weights)["channel_index"]
        assert len(channels) == 100
        assert ours("prepare", detector="patchcore", folder=parts, weights=weights, bank_size=50) == {}
        assert ours("fit")["seconds"] > ours("backbone")["seconds"] > 0
        assert ours("save_bank", path=tmp_path / "bank.npy") == {"rows": 50}
        ours("save_features", folder=parts, path=tmp_path / "points.npy")
        points, bank = np.load(tmp_path / "points.npy"), np.load(tmp_path / "bank.npy")
        ours("patch_scores", features=tmp_path / "points.npy", output=tmp_path / "scores.npy")
        expected = np.sqrt(((points[:, None, :] - bank[None]) ** 2).sum(axis=2).min(axis=1))
        np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), expected, atol=2e-3)
        ours("coreset", points=tmp_path / "points.npy", k=40, indices=tmp_path / "chosen.npy")
        assert len(set(np.load(tmp_path / "chosen.npy").tolist())) == 40
        assert len(ours("latency", batch=1, repetitions=2)["detector"]) == 2
        ours("predict", paths=[str(path) for path in common.files(parts)], output=tmp_path / "found.npz")
        assert np.load(tmp_path / "found.npz")["maps"].shape == (2, 256, 256)
        assert ours("save", path=tmp_path / "model.safetensors")["mb"] > 1
        assert 0.5 < ours("threshold_and_auroc", maps=2, side=64)["value"] < 1
        assert 0 < ours("aupro", maps=2, side=64)["value"] < 1
        with pytest.raises(SystemExit, match=r"There is no weight file at no file(.|\n)*failed at 'prepare'"):
            ours("prepare", detector="padim", folder="no folder", weights="no file")


def test_textbook_loop_takes_the_farthest_point_every_time(common: Any) -> None:
    import coreset
    import torch

    points = torch.from_numpy(np.random.default_rng(0).standard_normal((60, 5)))
    chosen = coreset.textbook_loop(points, 12).tolist()
    for count in range(1, 12):
        gaps = torch.cdist(points, points[chosen[:count]]).min(dim=1).values
        assert int(gaps.argmax()) == chosen[count]


def test_evidence_measures_a_cell(run: Run, tiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own").symlink_to(tiles, target_is_directory=True)
    monkeypatch.setenv("BLEMISH_DATA", str(tmp_path))
    small = ("--backbones", "filter_bank", "--sizes", "64", "--seeds", "0", "--detectors", "padim-50", "--most", "6")
    run("evidence", "--sets", "own", *small, "--output", str(tmp_path))
    (row,) = [json.loads(line) for line in (tmp_path / "evidence.jsonl").read_text().splitlines()]
    assert row["cell"] == ["own", "filter_bank", 64, "padim-50", 0]
    assert row["labels"] == [False] * 4 + [True] * 6
    assert {len(scores) for scores in row["scores"].values()} == {10}
    assert 0.5 < row["pixel AUROC"] <= 1


def test_evidence_goes_on_where_it_was_and_compares_in_pairs(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small cells of a drawn set; a candidate is held against the default where both have all cells."""
    monkeypatch.syspath_prepend(FOLDER)
    import evidence

    labels = np.arange(40) % 2 == 1
    rng = np.random.default_rng(0)
    good, bad = labels + rng.normal(0, 0.3, 40), labels + rng.normal(0, 3, 40)
    expected = np.mean([x > y for x in bad[labels] for y in bad[~labels]])
    assert evidence.auroc(bad[None], labels)[0] == pytest.approx(expected)
    low, high = evidence.interval([(bad, good, labels)])
    assert low < expected - evidence.auroc(good[None], labels)[0] < high < 0
    assert evidence.interval([(good, good, labels)]) == (0, 0)
    backbone, size, detector, way = evidence.DEFAULT
    row = {"most": 100, "labels": labels.tolist(), "pixel AUROC": None}
    lines = [
        {"cell": ["tile", backbone, size, detector, 0], "scores": {way: good.tolist()}, **row},
        {"cell": ["tile", backbone, size, "subspace", 0], "scores": {"own": bad.tolist()}, **row},
        {"cell": ["b", backbone, size, "patchcore", 0], "scores": {"own": bad.tolist()}, **row},
        {"cell": ["tile", backbone, size, "fused", 0], "scores": {"own": bad.tolist()}, **row, "most": 60},
    ]
    (tmp_path / "evidence.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    done = run("evidence", "--table", "--output", str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "subspace" in done.stdout
    assert "patchcore" not in done.stdout  # it lacks the default's cell
    assert "fused" not in done.stdout  # it was asked about other images
    known = ("--sets", "tile", "--backbones", backbone, "--sizes", str(size), "--seeds", "0", "--detectors", detector)
    assert run("evidence", *known, "--output", str(tmp_path)).returncode == 0
    assert len((tmp_path / "evidence.jsonl").read_text().splitlines()) == 4  # nothing was measured again
