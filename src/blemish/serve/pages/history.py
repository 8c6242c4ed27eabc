"""History: filters, pages of verdicts, exports."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any
from urllib.parse import urlencode

from nicegui import ui

from blemish.serve.history import Search, now
from blemish.serve.pages.frame import Visitor
from blemish.serve.station import Station
from blemish.serve.tables import JUDGEMENTS, LABELS

ROWS = 25
PERIODS = {"last hour": 1, "last 24 hours": 24, "last 7 days": 168}
"""Text -> hours."""


def history_page(station: Station, visitor: Visitor) -> None:
    """Adds the page's content."""
    words = visitor.words
    wanted = Search()
    cursor: str | None = None

    def choose(name: str, value: Any) -> None:
        nonlocal wanted, cursor
        if name == "since":
            value = None if value is None else now() - PERIODS[value] * 3_600_000_000
        wanted, cursor = replace(wanted, **{name: value if value != "" else None}), None
        table.refresh()

    def turn(to: str | None) -> None:
        nonlocal cursor
        cursor = to
        table.refresh()

    with ui.element("div").classes("card"), ui.row().classes("items-end w-full"):
        every = {None: words("all")}
        choices: dict[str, tuple[str, dict[Any, str]]] = {
            "since": (words("period"), {None: words("all")} | {name: words(name) for name in PERIODS}),
            "product": (words("product"), every | {code: code for code in station.models.products}),
            "label": (words("label"), every | {label: words(label) for label in LABELS}),
            "feedback": (
                words("feedback"),
                every | {one: words(one) for one in JUDGEMENTS} | {"none": words("no feedback")},
            ),
        }
        for name, (text, options) in choices.items():
            ui.select(options, value=None, label=text, on_change=lambda e, name=name: choose(name, e.value)).style(
                "min-width: 10rem"
            )
        ui.input(words("part"), on_change=lambda e: choose("part", e.value)).props("debounce=400 clearable")
        for name, text in (("low", "lowest score"), ("high", "highest score")):
            ui.number(words(text), on_change=lambda e, name=name: choose(name, e.value)).props(
                "debounce=400 clearable"
            ).style("width: 9rem")

    @ui.refreshable
    def table() -> None:
        page = station.history.search(wanted, limit=ROWS, cursor=cursor)
        opinions = station.feedback.of([verdict["uid"] for verdict in page.verdicts])
        if not page.verdicts:
            ui.label(words("nothing found")).classes("card")
        else:
            _table(page.verdicts, opinions, visitor)
        if page.cursor is not None and len(page.verdicts) < ROWS and page.searched_to is not None:
            ui.label(words("searched to", visitor.moment(page.searched_to))).classes("soft")
        with ui.row().classes("w-full items-center"):
            if cursor is not None:
                ui.button(words("newest"), icon="first_page", on_click=lambda: turn(None)).props("outline")
            if page.cursor is not None:
                ui.button(words("older"), icon="chevron_right", on_click=lambda: turn(page.cursor)).props("outline")
            ui.space()
            given = {f.name: getattr(wanted, f.name) for f in fields(wanted)}
            query = urlencode({name: value for name, value in given.items() if value is not None})
            ui.label(words("export")).classes("soft")
            for kind, text in (("csv", "CSV"), ("parquet", "Parquet"), ("json", "COCO")):
                ui.link(text, f"/api/v1/export.{kind}?{query}").style("padding: .8rem; color: inherit")

    table()


def _table(found: list[dict[str, Any]], opinions: dict[str, dict[str, Any]], visitor: Visitor) -> None:
    words = visitor.words
    names = ("time", "product", "part", "source", "label", "score", "feedback")
    columns = [
        {"name": name, "label": words(name), "field": name, "align": "right" if name == "score" else "left"}
        for name in names
    ]
    rows = [
        {
            "uid": verdict["uid"],
            "time": visitor.moment(verdict["time"]),
            "product": verdict["product"],
            "part": verdict["part"],
            "source": verdict["source"],
            "kind": verdict["label"],
            "label": words(verdict["label"]),
            "score": "" if verdict["raw_score"] is None else f"{verdict['raw_score']:.4g}",
            "feedback": words(opinions[verdict["uid"]]["judgement"]) if verdict["uid"] in opinions else "",
        }
        for verdict in found
    ]
    table = ui.table(columns=columns, rows=rows, row_key="uid").classes("w-full").props("flat bordered")
    table.add_slot(
        "body-cell-label",
        '<q-td :props="props"><span :class="\'badge \' + props.row.kind">{{ props.row.label }}</span></q-td>',
    )
    table.add_slot(
        "body-cell-time",
        '<q-td :props="props"><a :href="\'/verdict/\' + props.row.uid" style="color: inherit; padding: .6rem 0; '
        'display: inline-block">{{ props.row.time }}</a></q-td>',
    )
