"""Products, sources, users and the audit trail."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any
from urllib.parse import quote

from nicegui import ui

from blemish.errors import UsageError
from blemish.serve import audit
from blemish.serve.accounts import ROLES
from blemish.serve.folder import WatchedFolder
from blemish.serve.frames import FrameSource
from blemish.serve.history import now
from blemish.serve.pages.frame import Visitor
from blemish.serve.pages.words import Words
from blemish.serve.sinks.worker import Worker
from blemish.serve.station import Station


def products_page(station: Station, visitor: Visitor) -> None:
    """Products and their models."""
    words, opened = visitor.words, station.models.open
    rows = [
        {
            "product": code,
            "model": model_name(station, words, code),
            "state": words("open" if code in opened else "closed"),
        }
        for code in station.models.products
    ]
    _table(visitor, ("product", "model", "state"), rows, "product")


def model_name(station: Station, words: Words, product: str) -> str:
    """What people call the model in force: its file, or the candidate that was promoted."""
    promoted = station.promotions.candidate(product)
    return station.models.products[product].name if promoted is None else f"{words('candidate')} {promoted}"


def sources_page(station: Station, visitor: Visitor) -> None:
    """Where pictures come from, where verdicts go, and whether that works."""
    words = visitor.words
    with ui.dialog() as dialog, ui.card().style("max-width: 95vw; width: 60rem"):
        shot = ui.element("img").classes("shot").props(f'alt="{words("newest picture")}"')
        ui.button(words("close"), on_click=dialog.close)

    def show(name: str) -> None:
        shot.props(f'src="/api/v1/sources/{quote(name, safe="")}/picture?at={now()}"')
        dialog.open()

    updates: list[Callable[[], None]] = []  # texts change in place: nobody loses the button that has the focus
    ui.label(words("sources")).classes("big")
    for source in station.sources:
        with ui.element("div").classes("card"), ui.row().classes("items-center w-full"):
            updates.append(_state(words, source))
            ui.label(source.place).classes("soft").style("overflow-wrap: anywhere")
            ui.space()
            if isinstance(source, FrameSource):
                ui.button(words("show picture"), icon="photo_camera", on_click=partial(show, source.name))
    with ui.element("div").classes("card"), ui.row().classes("items-center w-full"):
        ui.icon("check_circle", size="1.6rem", color="positive")
        ui.label("http").style("font-weight: 600")
        ui.label("POST /api/v1/inspect").classes("soft")
    ui.label(words("sinks")).classes("big")
    for sink in station.sinks:
        with ui.element("div").classes("card"):
            with ui.row().classes("items-center w-full"):
                updates.append(_state(words, sink))
            updates.append(_sink(visitor, sink))
    if not station.sinks:
        ui.label(words("no sinks")).classes("card soft")

    def look() -> None:
        for update in updates:
            update()

    look()
    ui.timer(1.0, look)


def _state(words: Words, what: WatchedFolder | FrameSource | Worker) -> Callable[[], None]:
    icon = ui.icon("check_circle", size="1.6rem")
    ui.label(what.name).style("font-weight: 600; overflow-wrap: anywhere")
    text = ui.label().style("overflow-wrap: anywhere")

    def update() -> None:
        icon.set_name("check_circle" if what.trouble is None else "error")
        icon.props(f"color={'positive' if what.trouble is None else 'negative'}")
        text.text = what.trouble or words("finished" if getattr(what, "finished", False) else "fine")

    return update


def _sink(visitor: Visitor, sink: Worker) -> Callable[[], None]:
    words = visitor.words
    texts = []
    with ui.element("div").classes("facts").style("margin-top: .6rem"):
        for key in ("address", "waiting", "last delivered", "last error"):
            ui.label(words(key)).classes("soft")
            texts.append(ui.label())

    def update() -> None:
        state = sink.state
        values = (
            sink.settings.place,
            f"{state.waiting:,}".replace(",", " "),
            "-" if state.last is None else visitor.moment(state.last),
            state.error or "-",
        )
        for text, value in zip(texts, values, strict=True):
            text.text = value

    return update


def audit_page(station: Station, visitor: Visitor) -> None:
    """Who did what."""
    words = visitor.words
    place = audit.broken_at(station.engine)
    with ui.row().classes("items-center w-full"):
        text = words("chain whole") if place is None else words("chain broken", place)
        ui.icon(
            "verified" if place is None else "error", size="1.6rem", color="positive" if place is None else "negative"
        )
        ui.label(text).style("font-weight: 600")
        ui.space()
        ui.link(words("export"), "/api/v1/audit.jsonl").style("padding: .8rem; color: inherit")
    rows = [
        {
            **entry,
            "time": visitor.moment(entry["time"]),
            "action": words(f"did {entry['action']}"),
            "detail": _detail(visitor, entry["detail"]),
        }
        for entry in audit.entries(station.engine, newest_first=True, limit=500)
    ]
    _table(visitor, ("time", "who", "action", "detail"), rows, "id")


def _detail(visitor: Visitor, detail: dict[str, Any]) -> str:
    """What an event says, for people: fingerprints short, times as times."""

    def text(name: str, value: Any) -> str:
        if name == "expires":
            return visitor.moment(value)
        return f"{value:.4g}" if isinstance(value, float) else str(value)[:16] if name == "model" else str(value)

    return ", ".join(f"{name}: {text(name, value)}" for name, value in detail.items())


def users_page(station: Station, visitor: Visitor) -> None:
    """Users, and tokens of programs."""
    words, accounts = visitor.words, station.accounts
    roles = {role: words(role) for role in ROLES}

    def do(action: Any, *arguments: Any, **named: Any) -> Any:
        """Acts as the admin who looks; says what was wrong."""
        person = visitor.acting("admin")
        if person is None:
            return None
        try:
            result = action(person, *arguments, **named)
        except UsageError as error:
            ui.notify(str(error), type="negative")
            return None
        content.refresh()
        return result if result is not None else True

    def add_token(name: str, role: str, days: float | None) -> None:
        token = do(accounts.add_token, name, role, days or 0)
        if token:
            told.text = token
            dialog.open()

    with ui.dialog() as dialog, ui.card():
        ui.label(words("token told once")).style("font-weight: 600")
        told = ui.label().style("font-family: monospace; overflow-wrap: anywhere; user-select: all")
        ui.button(words("close"), on_click=dialog.close)

    @ui.refreshable
    def content() -> None:
        for user in accounts.users():
            with ui.element("div").classes("card"), ui.row().classes("items-center w-full"):
                ui.label(user["name"]).classes("big").style("min-width: 10rem; font-size: 1.4rem")
                role = ui.select(roles, value=user["role"], label=words("role")).style("min-width: 9rem")
                active = ui.switch(words("active"), value=user["active"])
                password = ui.input(words("password"), password=True).props("autocomplete=new-password")
                ui.button(
                    words("save"),
                    on_click=lambda user=user, role=role, active=active, password=password: do(
                        accounts.change_user,
                        user["name"],
                        role=role.value,
                        active=active.value,
                        password=password.value or None,
                    ),
                ).props("outline")
        with ui.element("div").classes("card"), ui.row().classes("items-center w-full"):
            name = ui.input(words("name"))
            role = ui.select(roles, value="operator", label=words("role")).style("min-width: 9rem")
            password = ui.input(words("password"), password=True).props("autocomplete=new-password")
            ui.button(
                words("add user"),
                icon="person_add",
                on_click=lambda: do(accounts.add_user, name.value or "", password.value or "", role.value),
            )
        ui.label(words("tokens")).classes("big")
        for token in accounts.tokens():
            with ui.element("div").classes("card"), ui.row().classes("items-center w-full"):
                ui.label(token["name"]).style("min-width: 10rem; font-weight: 600")
                ui.label(words(token["role"]))
                ui.label(f"{words('expires')} {visitor.moment(token['expires'])}").classes("soft")
                ui.space()
                if token["revoked"]:
                    ui.label(words("revoked")).classes("soft")
                else:
                    ui.button(
                        words("revoke"), on_click=lambda token=token: do(accounts.revoke_token, token["name"])
                    ).props("outline color=negative")
        with ui.element("div").classes("card"), ui.row().classes("items-center w-full"):
            token_name = ui.input(words("name"))
            token_role = ui.select(roles, value="operator", label=words("role")).style("min-width: 9rem")
            days = ui.number(words("days"), value=365, min=1, max=3650)
            ui.button(
                words("add token"),
                icon="key",
                on_click=lambda: add_token(token_name.value or "", token_role.value, days.value),
            )

    content()


def _table(visitor: Visitor, names: tuple[str, ...], rows: list[dict[str, Any]], key: str) -> None:
    columns = [{"name": name, "label": visitor.words(name), "field": name, "align": "left"} for name in names]
    table = ui.table(columns=columns, rows=rows, row_key=key).classes("w-full").props("flat bordered wrap-cells")
    table.props("hide-pagination" if len(rows) <= 100 else "")
