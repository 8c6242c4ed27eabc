"""Packages that aren't installed are named with the command that installs them."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from blemish.errors import MissingExtraError
from blemish.extras import DISTRIBUTIONS, EXTRAS, needing_extras, require

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_the_table_is_that_of_the_package() -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    extras = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    for package, extra in EXTRAS.items():
        name = DISTRIBUTIONS.get(package, package)
        assert any(re.match(rf"{name}\b(?!-)", one) for one in extras[extra]), f"{extra} doesn't install {package}"


def test_what_is_installed_is_imported() -> None:
    assert require("json") is json


@pytest.mark.parametrize("module", ["plotly", "plotly.offline"])
def test_what_is_missing_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "plotly"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "plotly", None)
    with pytest.raises(MissingExtraError, match=r'needs plotly, .* pip install "blemish\[report\]"') as caught:
        require(module)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_what_no_extra_installs_stays_what_it_is() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), needing_extras():
        import no_such_package  # type: ignore[import-not-found]  # noqa: F401
