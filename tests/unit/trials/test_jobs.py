"""Jobs: one process each, one file each, nothing lost, nothing done twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from blemish.errors import DataError
from blemish.trials import jobs as jobs_module
from blemish.trials.jobs import Job, in_own_process, run_jobs


def job(root: Path, recipe: str = "good", seed: int = 0, **settings: Any) -> Job:
    return Job("tile", root, recipe, {**settings, "seed": seed}, seed)


def work(one: Job) -> dict[str, Any]:
    """Does what its recipe says, and leaves a trace."""
    with (one.root.parent / "done.txt").open("a") as file:
        file.write(f"{one.recipe}{one.seed}\n")
    if one.recipe == "bad data":
        raise DataError("the folder is empty.")
    if one.recipe == "defect":
        raise KeyError("oops")
    if one.recipe == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if one.recipe == "silent":
        os._exit(7)
    return {"figures": {"image_auroc": 0.5 + one.seed / 10}, "process": os.getpid()}


@pytest.fixture
def root(tmp_path: Path, tiles: Path) -> Path:
    return Path(shutil.copytree(tiles, tmp_path / "tile"))


def done(root: Path) -> list[str]:
    return (root.parent / "done.txt").read_text().split("\n")[:-1]


FAILURES = {
    "bad data": "the folder is empty.",
    "defect": "KeyError: 'oops'",
    "killed": "its process was ended by SIGKILL. The system does that when memory runs out.",
    "silent": "its process ended with exit code 7 and without a result.",
}


@pytest.mark.parametrize(("recipe", "error"), FAILURES.items())
def test_however_a_process_ends_the_others_go_on(recipe: str, error: str, root: Path) -> None:
    found = in_own_process(work, job(root, recipe))
    assert found["error"] == error
    assert ("traceback" in found) == (recipe == "defect")


def sleep(one: Job) -> dict[str, Any]:
    (one.root.parent / "pid.txt").write_text(f"{os.getpid()}\n")
    time.sleep(60)
    return {}


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes there")
def test_a_killed_benchmark_leaves_no_job_running(root: Path) -> None:
    lines = f"import test_jobs as t, pathlib; t.in_own_process(t.sleep, t.job(pathlib.Path({str(root)!r})))"
    code = f"if __name__ == '__main__': {lines}\n"
    (root.parent / "main.py").write_text(code)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    pid = root.parent / "pid.txt"
    with subprocess.Popen([sys.executable, root.parent / "main.py"], env=environment) as process:
        wait_until(lambda: pid.exists() and pid.read_text().endswith("\n"))
        process.kill()
    wait_until(lambda: not running(int(pid.read_text())))


def running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(true: Callable[[], bool]) -> None:
    for _ in range(550):
        if true():
            return
        time.sleep(0.1)
    pytest.fail("waited for 55 s")


def test_a_job_has_a_process_of_its_own(root: Path) -> None:
    ((_, result, before),) = run_jobs([job(root)], work, root.parent / "jobs")
    assert result["process"] != os.getpid()
    assert (result["error"], before) == (None, False)


def test_results_are_kept_and_failures_recorded(root: Path) -> None:
    folder = root.parent / "jobs"
    some = [job(root, "good"), job(root, "bad data"), job(root, "good", 1)]
    found = list(run_jobs(some, work, folder, alone=False))
    assert [(one, result["error"], before) for one, result, before in found] == [
        (some[0], None, False),
        (some[1], "the folder is empty.", False),
        (some[2], None, False),
    ]
    kept = [json.loads(path.read_text()) for path in sorted(folder.iterdir())]
    assert sorted(kept, key=str) == sorted((result for _, result, _ in found), key=str)
    assert kept[0]["settings"] == {"seed": 0}


def test_a_second_start_does_only_what_is_missing(root: Path) -> None:
    folder = root.parent / "jobs"
    some = [job(root, "good"), job(root, "bad data"), job(root, "good", 1)]
    steps = run_jobs(some, work, folder, alone=False)
    next(steps)  # the start is killed after the first
    steps.close()
    found = list(run_jobs(some, work, folder, alone=False))
    assert [before for *_, before in found] == [True, False, False]
    assert done(root) == ["good0", "bad data0", "good1"]
    assert [before for *_, before in run_jobs(some, work, folder, alone=False)] == [True, False, True]


def test_a_result_that_was_cut_off_is_done_again(root: Path) -> None:
    folder = root.parent / "jobs"
    list(run_jobs([job(root)], work, folder, alone=False))
    (path,) = folder.iterdir()
    path.write_text(path.read_text()[:20])
    ((_, result, before),) = run_jobs([job(root)], work, folder, alone=False)
    assert (result["error"], before) == (None, False)


def test_other_settings_images_or_versions_are_other_jobs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = root.parent / "jobs"

    def is_new(one: Job) -> bool:
        return not next(iter(run_jobs([one], work, folder, alone=False)))[2]

    assert is_new(job(root))
    assert not is_new(job(root))
    assert is_new(job(root, sigma=2.0))
    assert is_new(job(root, seed=1))
    (root / "train" / "good" / "000.png").unlink()
    assert is_new(job(root))
    monkeypatch.setattr(jobs_module, "__version__", "99")
    assert is_new(job(root))


def test_names_of_files_are_harmless(root: Path) -> None:
    name = Job("a/b c", root, "../x", {}, 0).file([])
    assert "/" not in name
    assert name.startswith("a_b_c-.._x-seed0-")
