"""Rewrites the tables of README.md from results/*.json, so that no figure is typed by hand.

python benchmarks/summarize.py [--check]

A table stands between `<!-- NAME -->` and `<!-- /NAME -->`, NAME being that of its JSON file, or `summary` for the
claims of all files. With `--check` nothing is written; the exit code says whether anything would have changed.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import HERE, show

README = HERE / "README.md"
RESULTS = HERE / "results"


def render(text: str, results: Path = RESULTS) -> str:
    """The README with every table made anew from the files in a folder."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        content = summary(text, results) if name == "summary" else details(name, results)
        return f"<!-- {name} -->\n{content}\n<!-- /{name} -->"

    return re.sub(r"<!-- (\w+) -->.*?<!-- /\1 -->", block, text, flags=re.DOTALL)


def summary(text: str, results: Path) -> str:
    """All claims, in the order of the tables below."""
    names = [name for name in re.findall(r"<!-- (\w+) -->", text) if name != "summary"]
    rows = [
        [line["claim"], line["goal"], line["measured"], "reached" if line["met"] else "**missed**", f"`{name}.json`"]
        for name in names
        for line in (load(name, results) or {"claims": []})["claims"]
    ]
    return table(["claim", "goal", "measured", "", "from"], rows) if rows else "Not measured yet."


def details(name: str, results: Path) -> str:
    """The rows of one file, and where they were measured."""
    record = load(name, results)
    if record is None:
        return "Not measured yet."
    columns = list(record["rows"][0])
    rows = [[show(row[column]) for column in columns] for row in record["rows"]]
    machine = record["machine"]
    facts = [f"{machine['cpu']}, {machine['cores']} cores", f"Python {machine['python']}"]
    if "card" in record["arguments"]:
        facts.insert(1, record["arguments"]["card"])
    for half in record["versions"].values():
        facts.append(", ".join(f"{package} {version}" for package, version in half.items()))
    return f"{table(columns, rows)}\n\nMeasured on: {'; '.join(facts)}."


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def load(name: str, results: Path) -> Any:
    path = results / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing, only compare")
    options = parser.parse_args()
    before = README.read_text()
    after = render(before)
    if options.check:
        raise SystemExit(0 if before == after else f"{README.name} differs from results/: run summarize.py.")
    README.write_text(after)


if __name__ == "__main__":
    main()
