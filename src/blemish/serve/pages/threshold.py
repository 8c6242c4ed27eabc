"""Threshold: scores of the newest parts and of the calibration, and what another threshold would mean."""

from __future__ import annotations

from typing import Any

import numpy as np
from nicegui import events, run, ui

from blemish.errors import BlemishError
from blemish.serve.pages.frame import Visitor
from blemish.serve.station import Station
from blemish.serve.thresholds import Preview

BARS = 40
LEFT, RIGHT = 60, 20
"""Pixels beside the chart's area: the slider below keeps to them, so that both have one scale."""


def threshold_page(station: Station, visitor: Visitor) -> None:
    """Adds the page's content."""
    words = visitor.words
    products = list(station.models.products)
    if not products:
        ui.label(words("nothing found")).classes("card")
        return
    chosen = {"product": products[0]}

    @ui.refreshable
    def content() -> None:
        try:
            session = station.models.session(chosen["product"])
        except BlemishError as error:
            ui.label(str(error)).classes("card")
            return
        _product(
            station,
            visitor,
            chosen["product"],
            station.thresholds.preview(session, chosen["product"], session.threshold),
            content.refresh,
        )

    def choose(event: events.ValueChangeEventArguments[Any]) -> None:
        chosen["product"] = event.value
        content.refresh()

    if len(products) > 1:
        ui.select(products, value=products[0], label=words("product"), on_change=choose).style("min-width: 14rem")
    content()


def _product(station: Station, visitor: Visitor, product: str, preview: Preview, changed: Any) -> None:
    words = visitor.words
    everything = [*preview.scores, *preview.calibration, preview.current]
    low, high = min(everything), max(everything)
    margin = (high - low) * 0.1 or abs(high) * 0.1 or 1.0
    low, high = low - margin, high + margin
    chart = (
        ui.echart(_chart(visitor, preview, low, high, preview.current)).classes("w-full card").style("height: 22rem")
    )
    chart.props["aria-label"] = words("score")
    chart.props["role"] = "img"
    value = {"proposed": preview.current}

    @ui.refreshable
    def consequences(shown: Preview) -> None:
        with ui.element("div").classes("card"):
            with ui.row().classes("w-full").style("gap: 2.5rem"):
                for name, number in (("now", shown.current), ("proposed", shown.proposed)):
                    with ui.column().style("gap: 0"):
                        ui.label(words(name)).classes("soft")
                        ui.label(f"{number:.4g}").classes("big")
            ui.label(words("then more", shown.parts, shown.anomalous_then, shown.anomalous)).style("font-size: 1.2rem")
            if shown.judged_good + shown.judged_defective:
                good = (shown.false_alarms_then, shown.judged_good, shown.false_alarms)
                bad = (shown.misses_then, shown.judged_defective, shown.misses)
                ui.label(words("of judged", *good, *bad))
            else:
                ui.label(words("nobody judged")).classes("soft")

    async def move(proposed: float) -> None:
        value["proposed"] = proposed
        session = station.models.session(product)
        shown = await run.io_bound(station.thresholds.preview, session, product, proposed)
        if shown is not None:
            consequences.refresh(shown)
            chart.options["series"][0]["markLine"]["data"][1]["xAxis"] = proposed
            chart.update()

    slider = ui.slider(min=low, max=high, step=(high - low) / 500, value=preview.current)
    slider.on("update:model-value", lambda event: move(float(event.args)), throttle=0.2)
    slider.props(f'aria-label="{words("raw threshold")}" label color=primary')
    slider.style(f"margin: 0 {RIGHT + 17}px 0 {LEFT + 17}px; width: auto; align-self: stretch")  # 17: the card's edge
    consequences(preview)
    if not visitor.may("engineer"):
        ui.label(words("needs role", words("engineer"))).classes("soft")
        return
    reason = ui.input(words("reason")).classes("w-full")

    async def ask() -> None:
        if not (reason.value or "").strip():
            ui.notify(words("needs reason"), type="warning")
            return
        with ui.dialog() as dialog, ui.card():
            ui.label(words("confirm threshold", f"{value['proposed']:.4g}", f"{preview.current:.4g}"))
            with ui.row():
                ui.button(words("yes"), on_click=lambda: dialog.submit(True))
                ui.button(words("cancel"), on_click=lambda: dialog.submit(False)).props("outline")
        person = visitor.acting("engineer") if await dialog else None
        if person is None:
            return
        try:
            station.thresholds.confirm(
                station.models, product, value["proposed"], seen=preview.current, who=person.name, reason=reason.value
            )
        except BlemishError as error:
            ui.notify(str(error), type="negative")
        changed()

    ui.button(words("set threshold"), icon="tune", on_click=ask)


def _chart(visitor: Visitor, preview: Preview, low: float, high: float, proposed: float) -> dict[str, Any]:
    words = visitor.words
    edges = np.linspace(low, high, BARS + 1)
    centers = (edges[:-1] + edges[1:]) / 2

    def bars(scores: list[float]) -> list[list[float]]:
        shares = np.histogram(scores, edges)[0] / max(len(scores), 1) * 100
        return [[round(float(x), 6), round(float(y), 2)] for x, y in zip(centers, shares, strict=True)]

    ink = "#888"
    return {
        "legend": {"top": 0, "bottom": "auto", "textStyle": {"color": ink}},
        "grid": {"left": LEFT, "right": RIGHT, "top": 40, "bottom": 40},
        "xAxis": {
            "type": "value",
            "min": low,
            "max": high,
            "name": words("score"),
            "nameLocation": "middle",
            "nameGap": 26,
            "axisLabel": {"color": ink, "showMinLabel": False, "showMaxLabel": False},
            "splitLine": {"show": False},
        },
        "yAxis": {
            "type": "value",
            "axisLabel": {"formatter": "{value} %", "color": ink},
            "splitLine": {"lineStyle": {"color": "rgba(128, 128, 128, 0.25)"}},
        },
        "animation": False,
        "series": [
            {
                "name": f"{words('recent parts')} ({len(preview.scores)})",
                "type": "bar",
                "barGap": "-100%",
                "data": bars(preview.scores),
                "itemStyle": {"color": "#0d8a8a", "opacity": 0.75},
                "markLine": {
                    "symbol": "none",
                    "data": [
                        {
                            "xAxis": preview.current,
                            "lineStyle": {"color": ink, "type": "dashed"},
                            "label": {"show": False},
                        },
                        {"xAxis": proposed, "lineStyle": {"color": "#c62828", "width": 3}, "label": {"show": False}},
                    ],
                },
            },
            {
                "name": f"{words('calibration')} ({len(preview.calibration)})",
                "type": "bar",
                "data": bars(preview.calibration),
                "itemStyle": {"color": "#e0902a", "opacity": 0.6},
            },
        ],
    }
