"""What all pages have in common: who looks, in which language, the menu, the look."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from fastapi import Request
from nicegui import ui

from blemish.serve.accounts import ANYBODY, Person
from blemish.serve.guard import session_of
from blemish.serve.history import Verdict
from blemish.serve.pages.words import Words, preferred
from blemish.serve.station import Station

MENU = {
    "live": ("/", "viewer", "play_circle"),
    "history": ("/history", "viewer", "history"),
    "review": ("/review", "operator", "fact_check"),
    "threshold": ("/threshold", "viewer", "tune"),
    "drift": ("/drift", "viewer", "trending_up"),
    "learn": ("/learn", "viewer", "school"),
    "products": ("/products", "viewer", "inventory_2"),
    "sources and sinks": ("/sources", "viewer", "swap_horiz"),
    "users": ("/users", "admin", "group"),
    "audit": ("/audit", "admin", "receipt_long"),
}
"""Page -> address, role that sees it, icon."""

COLORS = {"normal": "#1b7f3b", "anomalous": "#c62828", "failed": "#8a5a00"}
"""Verdict -> background under white text."""

STYLE = """
:root { --page: #f4f6f7; --card: #ffffff; --ink: #16212b; --soft: #55636f; --line: #d5dce1;
  --alarm: #c62828 }
.body--dark { --page: #11171c; --card: #1b242b; --ink: #e8eef2; --soft: #a5b3be; --line: #33414b;
  --alarm: #ff8a80 }
body { background: var(--page); color: var(--ink); font-size: 17px }
.nicegui-content { padding: 1rem; gap: 1rem; max-width: 1500px; margin: 0 auto; width: 100% }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem; width: 100% }
.soft { color: var(--soft) }
.q-btn { min-height: 48px }
.menu a { color: white; text-decoration: none; padding: .35rem .55rem; border-radius: .4rem; display: flex;
  flex-direction: column; align-items: center; justify-content: center; min-height: 54px; min-width: 64px;
  white-space: nowrap; font-size: .82rem; line-height: 1.2 }
.menu a[aria-current=page] { background: rgba(255,255,255,.22); font-weight: 700 }
.menu { overflow-x: auto; flex-wrap: nowrap }
.badge { color: white; font-weight: 700; border-radius: .3rem; padding: .1rem .6rem; white-space: nowrap }
.badge.normal { background: #1b7f3b } .badge.anomalous { background: #c62828 } .badge.failed { background: #8a5a00 }
.banner { color: white; font-weight: 800; line-height: 1; text-align: center; border-radius: .6rem; width: 100%;
  padding: 1.2rem .5rem; font-size: clamp(4rem, 13vw, 12rem) }
.banner.long { font-size: clamp(2.2rem, 5vw, 4.5rem) }
.big { font-size: 2rem; font-weight: 700; line-height: 1.1 }
.shot { width: 100%; max-height: 62vh; object-fit: contain; background: var(--line); border-radius: .6rem;
  display: block }
.strip { display: grid; grid-template-columns: repeat(auto-fill, minmax(92px, 1fr)); gap: .5rem; width: 100% }
.strip a { display: block; border-radius: .4rem; overflow: hidden; color: white; text-decoration: none;
  text-align: center; font-weight: 700; font-size: .85rem }
.strip img { width: 100%; height: 76px; object-fit: cover; display: block; background: #333 }
.two { display: grid; grid-template-columns: minmax(0, 3fr) minmax(0, 2fr); gap: 1rem; width: 100% }
@media (max-width: 900px) { .two { grid-template-columns: minmax(0, 1fr) }
  .menu a { padding: .35rem .2rem; min-width: 58px; font-size: .75rem }
  .q-table th, .q-table td { padding: 4px 7px } .shot { max-height: 46vh }
  .two.verdict-first > :last-child { order: -1 } }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(22rem, 1fr)); gap: 1rem; width: 100% }
.facts { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1rem; overflow-wrap: anywhere }
.compare { border-collapse: collapse; margin: .6rem 0; font-size: 1.1rem }
.compare td, .compare th { padding: .35rem 1.4rem .35rem 0; text-align: left; border-bottom: 1px solid var(--line) }
.compare td + td { font-weight: 700; font-variant-numeric: tabular-nums }
.q-table th, .q-table td { font-size: 1rem }
.body--dark .q-table__card { background: var(--card); border-color: var(--line) }
.body--dark .q-btn--outline, .body--dark .q-toggle, .body--dark .q-field { --q-primary: #4fc3c3; --q-negative: #ff8a80 }
:focus-visible { outline: 3px solid #ff9800 !important; outline-offset: 2px }
"""


class Visitor:
    """Who looks at a page. Whoever acts is looked up again: a page may be open longer than its session.

    Args:
        station: the one that is looked at.
        request: of the page.
    """

    def __init__(self, station: Station, request: Request) -> None:
        self._station = station
        self._secret = session_of(request.headers)
        language = preferred(request.headers.get("accept-language", ""), request.cookies.get("blemish_language"))
        self.words = Words(language)
        self.dark = {"dark": True, "light": False}.get(request.cookies.get("blemish_look", ""))
        self.path = request.url.path
        self.query: Mapping[str, str] = request.query_params
        self.parameters: Mapping[str, Any] = request.path_params

    @property
    def person(self) -> Person | None:
        """The person, as of now; None when the session has ended."""
        accounts = self._station.accounts
        if not accounts.any:
            return ANYBODY
        return accounts.of_session(self._secret) if self._secret else None

    def may(self, role: str) -> bool:
        """Whether the person has a role, as of now."""
        person = self.person
        return person is not None and person.may(role)

    def acting(self, role: str) -> Person | None:
        """The person, if it may act in this role; else None, and the page says why."""
        person = self.person
        if person is None:
            ui.notify(self.words("session ended"), type="negative")
        elif not person.may(role):
            ui.notify(self.words("needs role", self.words(role)), type="negative")
        else:
            return person
        return None

    def moment(self, microseconds: int) -> str:
        """A time as people read it, in the zone of the station."""
        moment = datetime.fromtimestamp(microseconds / 1e6).astimezone()
        return moment.strftime("%d.%m.%Y %H:%M:%S" if self.words.language == "de" else "%Y-%m-%d %H:%M:%S")

    def share(self, value: float) -> str:
        """A share as people write it, with one decimal."""
        return f"{value * 100:.1f} %".replace(".", ",") if self.words.language == "de" else f"{value:.1%}"


@contextmanager
def frame(station: Station, visitor: Visitor, page: str) -> Iterator[None]:
    """A page with its menu; the block adds the content."""
    words = visitor.words
    ui.add_css(STYLE)
    ui.dark_mode(visitor.dark)
    ui.colors(primary="#0d6e6e", positive=COLORS["normal"], negative=COLORS["anomalous"])
    ui.page_title(f"{words(page)} - blemish")
    ui.query("html").props(f"lang={words.language}")
    with ui.header().classes("items-center no-wrap").style("background: #0b4f50; padding: .3rem 1rem; gap: .5rem"):
        with ui.element("nav").classes("menu flex no-wrap grow").props(f'aria-label="{words("menu")}"'):
            for name, (address, role, icon) in MENU.items():
                if visitor.may(role):
                    link = ui.link(target=address).props(f'aria-label="{words(name)}"')
                    if name == page:
                        link.props("aria-current=page")
                    with link:
                        ui.icon(icon, size="1.5rem")
                        ui.html(f"<span>{words(f'menu {name}')}</span>", sanitize=False)
        look = "light" if visitor.dark else "dark"
        _tool(f"/set/look/{look}?to={visitor.path}", "dark_mode", words("dark"))
        other = "en" if words.language == "de" else "de"
        _tool(f"/set/language/{other}?to={visitor.path}", "translate", words("language"))
        if station.accounts.any:
            with ui.element("form").props('method="post" action="/logout"'):
                ui.button(icon="logout").props(f'flat color=white type=submit aria-label="{words("log out")}"').tooltip(
                    f"{visitor.person.name if visitor.person else ''}: {words('log out')}"
                )
    if not station.accounts.any:
        ui.label(words("no accounts")).classes("card soft")
    for trouble in station.troubles:
        ui.label(trouble).classes("card").style("border-color: var(--alarm); color: var(--alarm); font-weight: 600")
    yield


def room_of(verdict: Verdict) -> str:
    """The style of a picture that leaves it its room before it has come: nothing on the page jumps."""
    return f"aspect-ratio: {verdict['width']} / {verdict['height']}" if verdict["width"] else ""


def badge(words: Words, label: str) -> ui.html:
    """A verdict as a small colored word."""
    return ui.html(f'<span class="badge {label}">{words(label)}</span>', sanitize=False)


def _tool(address: str, icon: str, text: str) -> None:
    with (
        ui.link(target=address)
        .props(f'aria-label="{text}"')
        .style(
            "color: white; text-decoration: none; min-width: 48px; min-height: 48px; display: grid; place-items: center"
        )
    ):
        ui.icon(icon, size="1.5rem")
        ui.tooltip(text)
