"""Live: the newest part, readable from five metres, counters, and the last 24."""

from __future__ import annotations

from datetime import datetime

from nicegui import ui

from blemish.serve.history import Search, Verdict
from blemish.serve.pages.frame import COLORS, Visitor, room_of
from blemish.serve.pictures import RECENT
from blemish.serve.station import Station


def live_page(station: Station, visitor: Visitor) -> None:
    """Adds the page's content, which follows the line."""
    words = visitor.words
    shown = {"id": -1}

    @ui.refreshable
    def content() -> None:
        newest = station.history.search(Search(), limit=RECENT).verdicts
        if not newest:
            with ui.element("div").classes("card"):
                ui.label(words("none yet")).classes("big")
                ui.label(words("waiting for parts")).classes("soft")
            return
        with ui.element("div").classes("two verdict-first"):
            _picture(newest[0], visitor)
            with ui.column().classes("w-full"):
                _banner(newest[0], visitor)
                _counters(station, visitor)
        with ui.element("div").classes("strip"):
            for verdict in newest:
                _small(verdict, visitor)

    def look() -> None:
        last = station.history.last_id()
        if last != shown["id"]:
            shown["id"] = last
            content.refresh()

    shown["id"] = station.history.last_id()
    content()
    ui.timer(0.5, look)


def _picture(verdict: Verdict, visitor: Visitor) -> None:
    text = f"{visitor.words('part')} {verdict['part'] or verdict['uid']}: {visitor.words(verdict['label'])}"
    if verdict["label"] == "failed":
        with ui.element("div").classes("card"):
            ui.label(visitor.words("error")).classes("soft")
            ui.label(verdict["error"]).classes("big").style("overflow-wrap: anywhere; font-size: 1.4rem")
        return
    with ui.link(target=f"/verdict/{verdict['uid']}").style("width: 100%"):
        ui.element("img").props(f'src="/api/v1/verdicts/{verdict["uid"]}/overlay"').classes("shot").style(
            room_of(verdict)
        ).props["alt"] = text


def _banner(verdict: Verdict, visitor: Visitor) -> None:
    words, label = visitor.words, verdict["label"]
    text = words(label)
    banner = ui.label(text).classes("banner" if len(text) < 4 else "banner long")
    banner.style(f"background: {COLORS[label]}").props("role=status aria-live=polite")
    with ui.element("div").classes("facts card"):
        for name in ("part", "product", "source"):
            ui.label(words(name)).classes("soft")
            ui.label(verdict[name] or "-")
        if label != "failed":
            ui.label(words("score")).classes("soft")
            ui.label(f"{verdict['raw_score']:.4g}  ({words('raw threshold')} {verdict['threshold']:.4g})")
        ui.label(words("time")).classes("soft")
        ui.label(visitor.moment(verdict["time"]))


def _counters(station: Station, visitor: Visitor) -> None:
    midnight = datetime.now().astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
    counts = station.history.counts(int(midnight.timestamp() * 1e6))
    with ui.element("div").classes("card"):
        ui.label(visitor.words("today")).classes("soft")
        with ui.row().classes("w-full justify-between"):
            for label in ("normal", "anomalous", "failed"):
                with ui.column().style("gap: .2rem"):
                    ui.label(f"{counts.get(label, 0):,}".replace(",", " ")).classes("big")
                    ui.html(f'<span class="badge {label}">{visitor.words(label)}</span>', sanitize=False)


def _small(verdict: Verdict, visitor: Visitor) -> None:
    name = visitor.words(verdict["label"])
    link = ui.link(target=f"/verdict/{verdict['uid']}").style(f"background: {COLORS[verdict['label']]}")
    link.props["aria-label"] = f"{verdict['part'] or verdict['uid']}: {name}"
    with link:
        if verdict["label"] != "failed":
            ui.element("img").props(f'src="/api/v1/verdicts/{verdict["uid"]}/thumbnail" alt="" loading=lazy')
        else:
            ui.html('<div style="height: 76px; font-size: 2.6rem">?</div>', sanitize=False)
        ui.html(f"<div>{name}</div>", sanitize=False)
