"""What MkDocs can't do by itself: the tables of settings, and one colon where a docstring has two."""

from __future__ import annotations

from typing import Any

from blemish.models import DETECTORS
from blemish.options import Option, as_text
from blemish.settings import (
    DataSettings,
    DecisionSettings,
    DetectorSettings,
    FolderSettings,
    LoadingSettings,
    ProbeSettings,
    RunSettings,
    options,
)
from blemish.trials.presets import papers_table

PLACE = "<!-- settings -->"
RECIPES = "<!-- recipes -->"


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """Called by MkDocs with the text of every page: tables stand where `PLACE` and `RECIPES` are."""
    return markdown.replace(PLACE, settings_tables()).replace(RECIPES, papers_table())


def on_page_content(html: str, **kwargs: Any) -> str:
    """Called by MkDocs with the HTML of every page.

    A docstring introduces an indented block with two colons (reStructuredText); on the site one is enough.
    """
    return html.replace("::</p>", ":</p>")


def settings_tables() -> str:
    """All keys of a configuration, with default and range, in sections."""
    known = options(DETECTORS)
    shared = DetectorSettings.model_fields
    sections = {
        "Every detector": ["detector", *shared],
        **{
            own.title: [key for key in own.model_fields if own.name in known[key].detectors[:1]]
            for own in DETECTORS.values()
        },
        "Verdicts": DecisionSettings.model_fields,
        "Images": [key for key in DataSettings.model_fields if key not in shared],
        "Probes": ProbeSettings.model_fields,
        "Folders": FolderSettings.model_fields,
        "Reading": LoadingSettings.model_fields,
        "Running": RunSettings.model_fields,
    }
    lines: list[str] = []
    for title, keys in sections.items():
        lines += [f"### {title}", "", "| key | default | allowed | |", "|---|---|---|---|"]
        lines += [_row(known[key]) for key in keys]
        lines += [""]
    return "\n".join(lines)


def _row(option: Option) -> str:
    default = "" if option.default is None else f"`{as_text(option.default)}`"
    return f"| `{option.name}` | {default} | {option.allowed} | {option.help} |"
