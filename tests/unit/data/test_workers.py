"""Loader processes where they are spawned: scripts with and without a main guard, run as users run them."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blemish.data.image_io import write_png
from blemish.data.workers import possible_workers

FIT = """
import multiprocessing
multiprocessing.set_start_method("spawn", force=True)
from blemish.data.datamodule import ImageDataModule

def look(image):
    return image.permute(0, 3, 1, 2).float()

def run():
    data = ImageDataModule("parts", num_workers=1)
    data.transform = look
    print(sum(len(batch) for batch in data.train_dataloader()), "images")
"""
GUARDED = FIT + 'if __name__ == "__main__":\n    run()\n'
BARE = FIT + "run()\n"


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    for i in range(5):
        write_png(folder / f"parts/{i}.png", np.full((4, 5), i, np.uint8))
    (folder / "script.py").write_text(text)
    return subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_script_without_a_guard_reads_in_one_process_and_says_so(tmp_path: Path) -> None:
    done = run_script(tmp_path, BARE)
    assert (done.returncode, done.stdout) == (0, "4 images\n")
    assert "Images are read without worker processes, which is slower: each would run" in done.stderr
    assert 'Put what it does under if __name__ == "__main__":, or pass num_workers=0.' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_script_with_a_guard_starts_workers(tmp_path: Path) -> None:
    done = run_script(tmp_path, GUARDED)
    assert (done.returncode, done.stdout) == (0, "4 images\n")
    assert "without worker processes" not in done.stderr


@pytest.mark.parametrize(
    ("text", "workers"),
    [
        ("print(1)\n", 0),
        ("def run():\n    if __name__ == '__main__':\n        pass\nrun()\n", 0),
        ("if __name__ == '__main__':\n    print(1)\n", 3),
        ("import sys\nif '__main__' == __name__ and sys.argv:\n    print(1)\n", 3),
        ("def run(:", 3),  # what can't be read is not judged
    ],
)
def test_a_guard_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, workers: int) -> None:
    (tmp_path / "script.py").write_text(text)
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"))
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")
    if workers:
        assert possible_workers(3) == 3
    else:
        with pytest.warns(UserWarning, match=r"each would run .*script\.py again"):
            assert possible_workers(3) == 0
    assert possible_workers(0) == 0
    monkeypatch.delattr(sys.modules["__main__"], "__file__")  # a console, a notebook
    assert possible_workers(3) == 3
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "fork")
    assert possible_workers(3) == 3
