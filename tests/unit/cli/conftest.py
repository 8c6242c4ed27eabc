"""The command line in this process, as the console script runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from blemish.cli import main
from ran import Blemish, Ran


@pytest.fixture
def blemish(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Blemish:
    """Runs `blemish ARGUMENTS...` and returns exit code, stdout and stderr."""
    monkeypatch.setattr("blemish.data.datamodule.default_workers", lambda: 0)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Ran:
        monkeypatch.setattr(sys, "argv", ["blemish", *map(str, arguments)])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(bool(error.code))
        return Ran(code, *capsys.readouterr())

    return run


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in; what is in it afterwards, the command wrote."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))
