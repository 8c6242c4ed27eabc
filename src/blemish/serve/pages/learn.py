"""Learn: the model in force, what people have judged, the job that runs, the candidate, and the way back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from typing import Any

from nicegui import events, run, ui

from blemish.errors import BlemishError
from blemish.serve.pages.administration import model_name
from blemish.serve.pages.frame import Visitor
from blemish.serve.station import Station
from blemish.serve.tables import READY


def learn_page(station: Station, visitor: Visitor) -> None:
    """Adds the page's content, which follows the job."""
    words = visitor.words
    products = list(station.models.products)
    if not products:
        ui.label(words("nothing found")).classes("card")
        return
    chosen = {"product": products[0]}
    seen: dict[str, Any] = {}
    numbers: list[Callable[[], Any]] = []  # what changes while parts come; nobody loses a button under the finger

    @ui.refreshable
    def content() -> None:
        numbers.clear()
        seen["states"] = _states(station, chosen["product"])
        try:
            _product(station, visitor, chosen["product"], numbers)
        except BlemishError as error:
            ui.label(str(error)).classes("card")

    def choose(event: events.ValueChangeEventArguments[Any]) -> None:
        chosen["product"] = event.value
        content.refresh()

    if len(products) > 1:
        ui.select(products, value=products[0], label=words("product"), on_change=choose).style("min-width: 14rem")
    content()
    progress = ui.linear_progress(0.0, show_value=False, size="1.2rem").props(f'aria-label="{words("progress")}"')
    phase = ui.label().classes("soft")

    def look() -> None:
        job = station.learning.job
        progress.visible = phase.visible = job is not None
        if job is not None:
            progress.value = job["done"] / max(job["total"], 1)
            where = f"{words('candidate')} {job['candidate']}, {job['product']}"
            phase.text = f"{where}: {job['phase'] or words('starts')} {job['done']}/{job['total']}"
        if seen["states"] != _states(station, chosen["product"]):
            content.refresh()
        elif seen.get("judged") != station.shadow.judged:
            seen["judged"] = station.shadow.judged
            for update in numbers:
                update()

    look()
    ui.timer(1.0, look)


def _states(station: Station, product: str) -> Any:
    rows = station.learning.candidates(product)
    return station.promotions.candidate(product), [(row["id"], row["state"]) for row in rows]


def _product(station: Station, visitor: Visitor, product: str, numbers: list[Callable[[], Any]]) -> None:
    words = visitor.words
    fingerprint = station.models.session(product).fingerprint or ""
    rows = station.learning.candidates(product)
    promoted, engineer = station.promotions.candidate(product), visitor.may("engineer")

    def act(call: Callable[..., Any]) -> Callable[[], Any]:
        """What a button does: as the engineer who looks, not in the way of the pages."""

        async def do() -> None:
            person = visitor.acting("engineer")
            if person is not None:
                try:
                    await run.io_bound(call, who=person.name)
                except BlemishError as error:
                    ui.notify(str(error), type="negative", multi_line=True)

        return do

    with ui.element("div").classes("card"):
        ui.label(words("in force")).classes("soft")
        with ui.row().classes("items-center w-full"):
            ui.label(model_name(station, words, product)).classes("big")
            ui.label(fingerprint[:16]).classes("soft").style("font-family: monospace")
            ui.space()
            if engineer and promoted is not None:
                back = act(partial(station.go_back, product, seen=fingerprint))
                ui.button(words("go back"), icon="undo", on_click=back).props("outline")
    found = station.learning.reviewed(product)
    with ui.element("div").classes("card"):
        ui.label(words("to learn from")).classes("soft")
        ui.label(words("good pictures", len(found.good), len(found.held_out))).style("font-size: 1.2rem")
        kinds = ", ".join(f"{kind} {len(pictures)}" for kind, pictures in sorted(found.defective.items()))
        ui.label(words("defective pictures", kinds or "0"))
        if found.gone:
            ui.label(words("pictures gone", found.gone)).classes("soft")
        if engineer:
            with ui.row().style("margin-top: .8rem"):
                for how, icon in (("update", "add_photo_alternate"), ("fit", "model_training")):
                    start = act(partial(station.learning.start, product, how))
                    ui.button(words(how), icon=icon, on_click=start).tooltip(words(f"{how} means"))
        else:
            ui.label(words("needs role", words("engineer"))).classes("soft")
    for row in rows:
        if row["state"] == READY:
            promote = act(partial(station.promote, row["id"], seen=fingerprint))
            discard = act(partial(station.learning.discard, row["id"]))
            _candidate(station, visitor, row, numbers)
            if engineer:
                with ui.row():
                    ui.button(words("promote"), icon="verified", on_click=_confirmed(visitor, promote))
                    ui.button(words("discard"), icon="delete", on_click=discard).props("outline")
    older = [row for row in rows if row["state"] != READY]
    if older:
        ui.label(words("earlier candidates")).classes("big")
        with ui.element("div").classes("card facts").style("grid-template-columns: max-content max-content 1fr"):
            for row in older:
                ui.label(f"{words('candidate')} {row['id']}").style("font-weight: 600")
                ui.label(words(row["state"]))
                ui.label(f"{visitor.moment(row['time'])}, {row['who']}{': ' + row['error'] if row['error'] else ''}")


def _candidate(station: Station, visitor: Visitor, row: dict[str, Any], numbers: list[Callable[[], Any]]) -> None:
    words, report = visitor.words, row["report"]

    @ui.refreshable
    def comparison() -> None:
        shadow = asdict(station.shadow.summary(row["id"]))
        with ui.element("table").classes("compare"):
            _line("th", "", words("in force"), words("candidate"))
            for text, name in (
                (words("false alarms of", report["good"]), "false_alarms"),
                (words("misses of", report["defective"]), "misses"),
            ):
                _line("td", text, report["current"][name], report["candidate"][name])
            for text, name, of in (
                ("shadow anomalous", "anomalous", shadow["parts"] - shadow["failed"]),
                ("shadow false alarms", "false_alarms", shadow["judged_good"]),
                ("shadow misses", "misses", shadow["judged_defective"]),
            ):
                if of:
                    _line("td", words(text, of), shadow[name], shadow[f"{name}_then"])
        if shadow["failed"]:
            ui.label(words("shadow failed", shadow["failed"])).style("color: var(--alarm); font-weight: 600")
        if shadow["differ"]:
            ui.label(words("differ")).classes("soft")
            with ui.element("div").classes("strip"):
                for uid in shadow["differ"]:
                    link = ui.link(target=f"/verdict/{uid}")
                    link.props["aria-label"] = f"{words('part')} {uid}"
                    with link:
                        ui.element("img").props(f'src="/api/v1/verdicts/{uid}/thumbnail" alt=""')

    with ui.element("div").classes("card"):
        with ui.row().classes("items-center w-full"):
            ui.label(f"{words('candidate')} {row['id']}").classes("big")
            ui.label(f"{words(row['how'])}, {visitor.moment(row['time'])}, {row['who']}").classes("soft")
        comparison()
        if report["note"]:
            ui.label(report["note"]).classes("soft")
    numbers.append(comparison.refresh)


def _confirmed(visitor: Visitor, act: Callable[[], Any]) -> Callable[[], Any]:
    async def ask() -> None:
        with ui.dialog() as dialog, ui.card():
            ui.label(visitor.words("confirm promotion"))
            with ui.row():
                ui.button(visitor.words("yes"), on_click=lambda: dialog.submit(True))
                ui.button(visitor.words("cancel"), on_click=lambda: dialog.submit(False)).props("outline")
        if await dialog:
            await act()

    return ask


def _line(cell: str, *values: object) -> None:
    with ui.element("tr"):
        for value in values:
            with ui.element(cell):
                ui.label(str(value))
