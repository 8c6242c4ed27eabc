"""What MkDocs can't do by itself: the tables of settings, and one colon where a docstring has two."""

from __future__ import annotations

from typing import Any

from blemish.models import DETECTORS
from blemish.options import Option, as_text
from blemish.settings import options, sections
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
    lines: list[str] = []
    for title, keys in sections(DETECTORS).items():
        lines += [f"### {title}", "", "| key | default | allowed | |", "|---|---|---|---|"]
        lines += [_row(known[key]) for key in keys]
        lines += [""]
    return "\n".join(lines)


def _row(option: Option) -> str:
    default = "" if option.default is None else f"`{as_text(option.default)}`"
    return f"| `{option.name}` | {default} | {option.allowed} | {option.help} |"
