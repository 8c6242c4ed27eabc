"""Drift: how sure the station is that the line has changed, since when, and pictures from before and after."""

from __future__ import annotations

import math
from typing import Any

from nicegui import events, ui

from blemish.errors import UsageError
from blemish.serve.drift import ALPHA, LENGTH, Run
from blemish.serve.pages.frame import Visitor
from blemish.serve.station import Station

NEWEST = 1000
"""Parts whose brightness and sharpness are drawn."""
SHOWN = 6
"""Pictures from before an alarm, and as many from after."""


def drift_page(station: Station, visitor: Visitor) -> None:
    """Adds the page's content."""
    words = visitor.words
    products = list(station.models.products)
    if not products:
        ui.label(words("nothing found")).classes("card")
        return
    chosen = {"product": next(iter(station.drift.alarms), products[0])}

    @ui.refreshable
    def content() -> None:
        run = station.drift.run(chosen["product"])
        if run is None:
            ui.label(words("none yet")).classes("card big")
            _appearance(station, visitor, chosen["product"])
            return
        alarm = run.alarm_at is not None and run.since is not None
        text = words("drift since", visitor.moment(run.parts[(run.since or 1) - 1][1])) if alarm else words("no drift")
        ui.label(text).classes("card big").style(f"color: {'#e04848' if alarm else '#2e9e52'}").props("role=status")
        chart = ui.echart(_chart(visitor, run)).classes("w-full card").style("height: 20rem")
        chart.props["aria-label"] = text
        chart.props["role"] = "img"
        ui.label(words("drift rate", f"{1 / ALPHA:g}", f"{LENGTH:,}".replace(",", " "), visitor.share(ALPHA))).classes(
            "soft"
        )
        if alarm and run.since is not None:
            for key, parts in (
                ("before", run.parts[max(run.since - 1 - SHOWN, 0) : run.since - 1]),
                ("after", run.parts[run.since - 1 :][-SHOWN:]),
            ):
                ui.label(words(key)).classes("soft")
                with ui.element("div").classes("strip"):
                    for uid, _ in parts:
                        link = ui.link(target=f"/verdict/{uid}")
                        link.props["aria-label"] = f"{words('part')} {uid}"
                        with link:
                            ui.element("img").props(f'src="/api/v1/verdicts/{uid}/thumbnail" alt=""')
            if visitor.may("engineer"):
                ui.button(words("settle"), icon="done", on_click=settle)
        _appearance(station, visitor, chosen["product"])

    def settle() -> None:
        person = visitor.acting("engineer")
        if person is None:
            return
        try:
            station.drift.settle(chosen["product"], person.name)
        except UsageError as error:
            ui.notify(str(error), type="negative")
        content.refresh()

    def choose(event: events.ValueChangeEventArguments[Any]) -> None:
        chosen["product"] = event.value
        content.refresh()

    if len(products) > 1:
        ui.select(products, value=chosen["product"], label=words("product"), on_change=choose).style("min-width: 14rem")
    content()


def _appearance(station: Station, visitor: Visitor, product: str) -> None:
    """Brightness and sharpness of the newest pictures."""
    found = station.history.appearance(product, NEWEST)
    if not found:
        return
    with ui.element("div").classes("charts"):
        for name, column in (("brightness", 1), ("sharpness", 2)):
            with ui.element("div").classes("card"):
                text = visitor.words(f"{name} of newest", len(found))
                ui.label(text).classes("soft")
                points = [[row[0] / 1000, round(float(row[column]), 5)] for row in found]
                chart = ui.echart(_points(points)).classes("w-full").style("height: 14rem")
                chart.props["aria-label"] = text
                chart.props["role"] = "img"


def _points(points: list[list[float]]) -> dict[str, Any]:
    label = {"color": "#888", "hideOverlap": True}
    return {
        "grid": {"left": 60, "right": 20, "top": 15, "bottom": 30},
        "animation": False,
        "xAxis": {"type": "time", "axisLabel": label, "splitLine": {"show": False}},
        "yAxis": {
            "type": "value",
            "scale": True,
            "axisLabel": label,
            "splitLine": {"lineStyle": {"color": "rgba(128, 128, 128, 0.25)"}},
        },
        "series": [{"type": "scatter", "symbolSize": 4, "data": points, "itemStyle": {"color": "#0d8a8a"}}],
    }


def _chart(visitor: Visitor, run: Run) -> dict[str, Any]:
    ink = "#888"
    line = {"lineStyle": {"color": "#c62828"}, "label": {"color": ink, "formatter": visitor.words("alarm")}}
    return {
        "grid": {"left": 70, "right": 70, "top": 30, "bottom": 50},
        "animation": False,
        "xAxis": {
            "type": "value",
            "min": 0,
            "max": max(run.test.count, 10),
            "name": visitor.words("parts"),
            "nameLocation": "middle",
            "nameGap": 28,
            "axisLabel": {"color": ink},
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "min": min(-1, math.floor(min(height for _, height in run.curve))),
            "max": math.ceil(max(-math.log10(ALPHA), run.test.highest / math.log(10))) + 1,  # the alarm is in sight
            "interval": 1,
            "axisLabel": {"formatter": "10^{value}", "color": ink},
            "splitLine": {"lineStyle": {"color": "rgba(128, 128, 128, 0.25)"}},
        },
        "series": [
            {
                "type": "line",
                "showSymbol": False,
                "data": [[count, round(float(height), 3)] for count, height in run.curve],
                "lineStyle": {"color": "#0d8a8a", "width": 3},
                "markLine": {"symbol": "none", "data": [{"yAxis": -math.log10(ALPHA), **line}]},
            }
        ],
    }
