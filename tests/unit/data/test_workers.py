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

ASK = """
import multiprocessing
multiprocessing.set_start_method("spawn", force=True)
from blemish.data.workers import possible_workers

def run():
    print(possible_workers(2), "workers")
"""


def run_script(folder: Path, text: str) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(text)
    return subprocess.run([sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_script_without_a_guard_reads_in_one_process_and_says_so(tmp_path: Path) -> None:
    done = run_script(tmp_path, ASK + "run()\n")
    assert (done.returncode, done.stdout) == (0, "0 workers\n")
    assert "Images are read without worker processes, which is slower: each would run" in done.stderr
    assert 'Put what it does under if __name__ == "__main__":, or pass num_workers=0.' in done.stderr


def test_a_script_with_a_guard_starts_workers(tmp_path: Path) -> None:
    done = run_script(tmp_path, ASK + 'if __name__ == "__main__":\n    run()\n')
    assert (done.returncode, done.stdout, done.stderr) == (0, "2 workers\n", "")


def test_a_data_module_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from blemish.data.datamodule import ImageDataModule

    for i in range(5):
        write_png(tmp_path / f"{i}.png", np.full((4, 5), i, np.uint8))
    data = ImageDataModule(tmp_path, num_workers=2)
    data.transform = lambda image: image
    assert data.train_dataloader().num_workers == 2
    (tmp_path / "script.py").write_text("print(1)\n")
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")
    with pytest.warns(UserWarning, match="without worker processes"):
        assert data.train_dataloader().num_workers == 0


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
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "script.py"), raising=False)
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "spawn")
    if workers:
        assert possible_workers(3) == 3
    else:
        with pytest.warns(UserWarning, match=r"each would run .*script\.py again"):
            assert possible_workers(3) == 0
    assert possible_workers(0) == 0
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)  # a console, a notebook
    assert possible_workers(3) == 3
    monkeypatch.setattr(multiprocessing, "get_start_method", lambda allow_none: "fork")
    assert possible_workers(3) == 3
