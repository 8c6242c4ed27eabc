"""One verdict: its picture, what was found where, what people said; and the queue of those to look at."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nicegui import events, ui

from blemish.errors import UsageError
from blemish.serve.history import Verdict
from blemish.serve.pages.frame import Visitor, badge, room_of
from blemish.serve.station import Station
from blemish.serve.tables import ANOMALOUS, FAILED


def verdict_page(station: Station, visitor: Visitor) -> None:
    """Adds the page's content."""
    verdict = station.history.get(str(visitor.parameters.get("uid", "")))
    if verdict is None:
        ui.label(visitor.words("nothing found")).classes("card")
        return
    with ui.element("div").classes("two"):
        picture(verdict, visitor)
        with ui.column().classes("w-full"):
            facts(verdict, visitor)
            _opinions(station, visitor, verdict)
    if verdict["label"] != FAILED:
        _good_parts(verdict, visitor)
    if verdict["regions"]:
        _regions(verdict, visitor)


def review_page(station: Station, visitor: Visitor) -> None:
    """Adds the page's content: one verdict at a time, one click or one key each."""
    words = visitor.words
    skipped: set[str] = set()

    @ui.refreshable
    def content() -> None:
        queue = [verdict for verdict in station.feedback.queue(200) if verdict["uid"] not in skipped]
        if not queue:
            ui.label(words("all reviewed")).classes("card big")
            return
        verdict = queue[0]

        def said() -> None:
            content.refresh()

        def skip() -> None:
            skipped.add(verdict["uid"])
            content.refresh()

        with ui.element("div").classes("two"):
            picture(verdict, visitor)
            with ui.column().classes("w-full"):
                ui.label(words("left to review", len(queue))).classes("soft")
                ui.label(words("is it right")).classes("big")
                with ui.row().classes("items-center"):
                    badge(words, verdict["label"]).style("font-size: 2rem")
                    ui.label(words(verdict["why"])).classes("soft")
                buttons(station, visitor, verdict, said, skip)
                facts(verdict, visitor)

    content()


def picture(verdict: Verdict, visitor: Visitor) -> None:
    """The picture of a part, with or without what was found."""
    words = visitor.words
    address = f"/api/v1/verdicts/{verdict['uid']}"
    with ui.column().classes("w-full"):
        image = ui.element("img").props(f'src="{address}/overlay"').classes("shot").style(room_of(verdict))
        image.props["alt"] = f"{words('part')} {verdict['part'] or verdict['uid']}: {words(verdict['label'])}"
        missing = ui.label(words("no picture")).classes("card soft")
        missing.set_visibility(False)
        image.on("error", lambda: (image.set_visibility(False), missing.set_visibility(True)))
        if verdict["label"] != FAILED:

            def show(event: events.ValueChangeEventArguments[Any]) -> None:
                image.props(f'src="{address}/{"overlay" if event.value else "picture"}"')

            ui.switch(words("show map"), value=True, on_change=show)


def facts(verdict: Verdict, visitor: Visitor) -> None:
    """What the row says."""
    words = visitor.words
    with ui.element("div").classes("facts card"):
        ui.label(words("label")).classes("soft")
        badge(words, verdict["label"])
        for name in ("part", "product", "source"):
            ui.label(words(name)).classes("soft")
            ui.label(verdict[name] or "-")
        if verdict["label"] != FAILED:
            ui.label(words("score")).classes("soft")
            ui.label(f"{verdict['raw_score']:.4g}  ({words('raw threshold')} {verdict['threshold']:.4g})")
        else:
            ui.label(words("error")).classes("soft")
            ui.label(verdict["error"])
        ui.label(words("time")).classes("soft")
        ui.label(visitor.moment(verdict["time"]))
        ui.label(words("model")).classes("soft")
        ui.label((verdict["model"] or "-")[:16])


def buttons(
    station: Station,
    visitor: Visitor,
    verdict: Verdict,
    said: Callable[[], object],
    skip: Callable[[], None] | None = None,
) -> None:
    """Right and wrong, as buttons and keys; `said` is called when it is noted."""
    words = visitor.words
    wrong = "false alarm" if verdict["label"] == ANOMALOUS else "missed"
    kind = ui.input(words("defect kind")).classes("w-full")
    note = ui.input(words("note")).classes("w-full")

    def say(judgement: str) -> None:
        person = visitor.acting("operator")
        if person is None:
            return
        try:
            station.feedback.add(verdict["uid"], person.name, judgement, kind.value or "", note.value or "")
        except UsageError as error:
            ui.notify(str(error), type="negative")
            return
        ui.notify(words("noted"), type="positive")
        said()

    actions: dict[str, tuple[str, str, str, Callable[[], None]]] = {
        "r": (words("right"), "check", "positive", lambda: say("right")),
        "f": (words(wrong), "close", "negative", lambda: say(wrong)),
    }
    if skip is not None:
        actions["s"] = (words("skip"), "schedule", "grey-8", skip)
    with ui.row().classes("w-full").style("margin-top: .8rem"):
        for key, (text, icon, color, action) in actions.items():
            ui.button(f"{text} ({key.upper()})", icon=icon, color=color, on_click=action).classes("grow").style(
                "min-height: 72px; font-size: 1.1rem"
            )

    def press(event: events.KeyEventArguments) -> None:
        name = str(event.key).lower()
        if event.action.keydown and not event.action.repeat and name in actions:
            actions[name][3]()

    ui.keyboard(press)


def _opinions(station: Station, visitor: Visitor, verdict: Verdict) -> None:
    @ui.refreshable
    def said() -> None:
        for one in station.feedback.all_of(verdict["uid"]):
            text = f"{words(one['judgement'])} - {one['who']}, {visitor.moment(one['time'])}"
            ui.label(text).style("font-weight: 600")
            if one["kind"] or one["note"]:
                ui.label(" - ".join(filter(None, (one["kind"], one["note"])))).classes("soft")

    words = visitor.words
    if verdict["label"] == FAILED:
        return
    with ui.element("div").classes("card"):
        ui.label(words("feedback")).classes("soft")
        said()
        if visitor.may("operator"):
            buttons(station, visitor, verdict, said.refresh)


def _good_parts(verdict: Verdict, visitor: Visitor) -> None:
    """What was found beside good parts, when somebody asks: it takes another inspection."""
    words = visitor.words
    image = ui.element("img").classes("shot card").style("max-height: none")
    image.props["alt"] = words("show good")
    unknown = ui.label(words("good unknown")).classes("card soft")
    image.set_visibility(False)
    unknown.set_visibility(False)
    image.on("error", lambda: (image.set_visibility(False), unknown.set_visibility(True)))

    def show() -> None:
        image.props(f'src="/api/v1/verdicts/{verdict["uid"]}/explanation"')
        image.set_visibility(True)
        button.set_visibility(False)

    button = ui.button(words("show good"), icon="compare", on_click=show).props("outline")


def _regions(verdict: Verdict, visitor: Visitor) -> None:
    words = visitor.words
    names = {"place": words("place"), "area": words("area"), "peak": words("peak")}
    rows = [
        {
            "id": number,
            "place": ", ".join(map(str, region["peak"])),
            "area": region["area"],
            "peak": f"{region['peak_score']:.3f}",
        }
        for number, region in enumerate(verdict["regions"][:50])
    ]
    columns = [{"name": name, "label": text, "field": name, "align": "left"} for name, text in names.items()]
    ui.table(columns=columns, rows=rows, title=words("regions")).classes("w-full").props("flat bordered")
