"""What help says, whatever the width of the terminal, and the flags that every command line has."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from blemish import __version__
from blemish.cli.console import talk
from blemish.cli.flags import OPTIONS, SECTION_OF
from blemish.cli.verbs import VERBS, command_of

WITH_FLAGS = [
    "fit",
    "fit-all",
    "test",
    "report",
    "predict",
    "calibrate",
    "update",
    "export",
    "recommend",
    "bench",
    "demo",
]


@pytest.mark.parametrize("verb", VERBS)
def test_the_list_of_verbs_says_how_their_own_help_begins(verb: str) -> None:
    own = " ".join(command_of(verb).help.split())
    assert own.startswith(VERBS[verb].removesuffix("."))
    assert command_of(verb).name == verb


@pytest.mark.parametrize("verb", WITH_FLAGS)
def test_no_name_is_cut_at_80_columns(verb: str, blemish: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ran = blemish(verb, "-h")
    assert ran.code == 0
    words = ran.out.replace(",", " ").split()
    for parameter in command_of(verb).params:
        for name in (*parameter.opts, *parameter.secondary_opts):
            assert name in words or not name.startswith("-"), name


def test_settings_are_in_groups(blemish: Any) -> None:
    printed = blemish("fit", "--help").out
    places = [printed.index(f" {title} ") for title in dict.fromkeys(SECTION_OF[name] for name in OPTIONS)]
    assert len(set(places)) == len(places)
    assert printed.index("--shrinkage") > printed.index(" PaDiM ")
    assert set(SECTION_OF) == set(OPTIONS)


def test_version(blemish: Any) -> None:
    assert blemish("-V").out == blemish("--version").out == f"{__version__}\n"


def test_quiet_leaves_results_and_errors(blemish: Any, model_file: Path, tiles: Path, inside: Path) -> None:
    (inside / "notes.txt").touch()
    (inside / "a.png").write_bytes((tiles / "test/good/000.png").read_bytes())
    said, quiet = (blemish(*flags, "predict", model_file, ".") for flags in ([], ["-q"]))
    assert said.err == "Passed over: 1 of no image format (notes.txt).\n"
    assert (quiet.out, quiet.err) == (said.out, "")
    assert blemish("-q", "predict", model_file, "no.png").err.startswith("error: ")


def test_verbose_says_where_an_error_was_raised(blemish: Any, model_file: Path) -> None:
    before = list(logging.root.handlers), logging.root.level
    said = blemish("-v", "predict", model_file, "no.png").err
    assert "Traceback" in said
    assert ", in expand\n" in said
    assert "Traceback" not in blemish("predict", model_file, "no.png").err
    assert not talk.verbose
    assert (logging.root.handlers, logging.root.level) == before


def test_a_printed_configuration_is_what_fit_takes(blemish: Any, tiles: Path, inside: Path) -> None:
    words = ["fit", tiles, "-o", "m.safetensors", "--backbone", "filter_bank", "--planted", 0, "--image-size", "64,96"]
    printed = blemish(*words, "--print-config").out
    Path("c.yaml").write_text(printed, encoding="utf-8")
    again = blemish("fit", tiles, "-o", "m.safetensors", "--config", "c.yaml", "--print-config")
    assert again.out == printed
    assert "image_size:\n- 64\n- 96\n" in printed
    assert not Path("m.safetensors").exists()


def test_an_impossible_rate_is_refused_before_torch_is_loaded(
    blemish: Any, tiles: Path, inside: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "blemish.engine", None)
    ran = blemish("fit", tiles, "-o", "m.safetensors", "--max-false-alarm-rate", 0.001)
    assert ran.code == 3
    assert "needs at least 999 normal scores. Got 12" in ran.err
