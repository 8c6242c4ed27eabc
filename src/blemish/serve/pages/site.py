"""The pages put onto the application."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import FastAPI, Request
from nicegui import ui
from starlette.responses import RedirectResponse, Response

from blemish.serve.pages.administration import audit_page, products_page, sources_page, users_page
from blemish.serve.pages.drift import drift_page
from blemish.serve.pages.frame import Visitor, frame
from blemish.serve.pages.history import history_page
from blemish.serve.pages.learn import learn_page
from blemish.serve.pages.live import live_page
from blemish.serve.pages.threshold import threshold_page
from blemish.serve.pages.verdict import review_page, verdict_page
from blemish.serve.pages.words import LANGUAGES
from blemish.serve.people_api import local
from blemish.serve.station import Station

PAGES: dict[str, tuple[str, str, Callable[[Station, Visitor], None]]] = {
    "/": ("live", "viewer", live_page),
    "/history": ("history", "viewer", history_page),
    "/verdict/{uid}": ("verdict", "viewer", verdict_page),
    "/review": ("review", "operator", review_page),
    "/threshold": ("threshold", "viewer", threshold_page),
    "/drift": ("drift", "viewer", drift_page),
    "/learn": ("learn", "viewer", learn_page),
    "/products": ("products", "viewer", products_page),
    "/sources": ("sources and sinks", "viewer", sources_page),
    "/users": ("users", "admin", users_page),
    "/audit": ("audit", "admin", audit_page),
}
"""Address -> name, the least role that may look, and what adds the content."""
YEAR = 365 * 86_400


def add_pages(app: FastAPI, station: Station) -> None:
    """Adds the pages to an application, once per process: NiceGUI has one set of pages."""

    @app.get("/set/{what}/{value}", include_in_schema=False)
    def choose(what: str, value: str, to: str = "/") -> Response:
        answer = RedirectResponse(local(to), 303)
        if value in {"language": LANGUAGES, "look": ("dark", "light")}.get(what, ()):
            answer.set_cookie(f"blemish_{what}", value, max_age=YEAR, httponly=True, samesite="strict")
        return answer

    for address, (name, role, fill) in PAGES.items():
        ui.page(address)(_page(station, name, role, fill))
    ui.run_with(app, title="blemish", show_welcome_message=False, reconnect_timeout=10, language="en-US")


def _page(
    station: Station, name: str, role: str, fill: Callable[[Station, Visitor], None]
) -> Callable[[Request], None]:
    def page(request: Request) -> None:
        visitor = Visitor(station, request)
        with frame(station, visitor, name):
            if visitor.may(role):
                fill(station, visitor)
            else:
                ui.label(visitor.words("needs role", visitor.words(role))).classes("card big")

    return page
