"""`--json` on every verb: stdout is one JSON object, whatever else is said goes to stderr, and no bar where nobody
watches.
"""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from blemish.cli import verbs
from blemish.trials import demo as story

# Not here: export, recommend and bench, whose own tests read the whole of stdout as JSON; they take longer.
VERBS = {
    "fit": "fit {tiles} -o m.safetensors --image-size 64,96",
    "test": "test {model} {tiles}",
    "report": "report {model} {tiles}",
    "predict": "predict {model} {tiles}/test/good",
    "inspect": "inspect {model}",
    "data check": "data check {tiles}",
    "doctor": "doctor",
}


def commands() -> dict[str, Any]:
    """Every verb of the program, sub-verbs as "data check"."""
    found: dict[str, Any] = {}
    for verb in verbs.VERBS:
        command = verbs.command_of(verb)
        below = getattr(command, "commands", None)
        found |= {verb: command} if below is None else {f"{verb} {name}": one for name, one in below.items()}
    return found


def test_every_verb_has_the_flag() -> None:
    for path, command in commands().items():
        if path != "serve run":  # which runs until it is stopped, and writes logs as JSON
            assert "--json" in {option for parameter in command.params for option in parameter.opts}, path


@pytest.mark.parametrize("verb", VERBS)
def test_stdout_is_json(verb: str, blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    ran = blemish(*VERBS[verb].format(model=model_file, tiles=tiles).split(), "--json")
    assert ran.code == 0, ran.err
    for content in ran.out.splitlines() if verb == "predict" else [ran.out]:
        assert isinstance(json.loads(content), dict)
    assert not set("\r\x1b━█") & set(ran.err), ran.err


def test_demo(blemish: Any, inside: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = {"good": 5, "good_test": 1, "per_defect": 1, "size": (96, 96)}
    monkeypatch.setattr(story, "demonstrate", partial(story.demonstrate, products=("tile",), **small))
    ran = blemish("demo", "--detector", "padim", "--json")
    assert ran.code == 0, ran.err
    assert set(json.loads(ran.out)["products"]) == {"tile"}
    assert not set("\r\x1b━█") & set(ran.err), ran.err


@pytest.mark.parametrize(
    ("verb", "bars"), [("data check", ["data check"]), ("report", ["data check", "pictures"]), ("predict", ["images"])]
)
def test_bars_are_for_terminals(
    verb: str,
    bars: list[str],
    blemish: Any,
    model_file: Path,
    tiles: Path,
    inside: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Console, "is_terminal", property(lambda self: self.file is sys.stderr))
    ran = blemish(*VERBS[verb].format(model=model_file, tiles=tiles).split(), "--json")
    assert ran.code == 0, ran.err
    assert all(bar in ran.err for bar in bars)
    assert isinstance(json.loads(ran.out.splitlines()[-1] if verb == "predict" else ran.out), dict)
