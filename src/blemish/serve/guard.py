"""The door: who asks is found out, and what isn't theirs is refused, before any route is reached.

Whatever isn't listed as public needs at least a viewer, also pages and their sockets that don't exist yet. A request
that changes something and comes with a cookie, or from anybody at a station without accounts, must come from the
station's own pages: browsers say where a request comes from in `Sec-Fetch-Site` and `Origin`.
"""

from __future__ import annotations

from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import Any
from urllib.parse import quote, urlsplit

from fastapi import HTTPException, Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from blemish.serve.accounts import ANYBODY, Accounts, Person
from blemish.serve.rate import Rate

COOKIE = "blemish_session"
PUBLIC = {"/healthz", "/readyz", "/login", "/setup", "/favicon.ico"}
UPLOADS = "/api/v1/inspect"
MAX_BODY = 1_000_000
"""Bytes of a body that holds no picture, and of what stands around pictures in a form."""
UNCOUNTED = {"/healthz", "/readyz", "/metrics"}
"""Whoever watches over the station is never told to come back later."""
SAFE = {"GET", "HEAD", "OPTIONS"}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    # NiceGUI's pages carry scripts and compile templates in the browser; nothing is loaded from elsewhere.
    "Content-Security-Policy": "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
}


class Guard:
    """ASGI middleware; the person is in `request.state.person`, None at public addresses for strangers.

    Args:
        app: what is behind the door.
        accounts: who is let in.
        host: name under which the station listens.
        rate: how often each may ask.
        max_upload: bytes of a body that may hold pictures; others may have `MAX_BODY`.
    """

    def __init__(self, app: ASGIApp, accounts: Accounts, host: str, rate: Rate, max_upload: float) -> None:
        self._app, self._accounts, self._host, self._rate = app, accounts, host, rate
        self._max_upload = max_upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        person, by_token = self._person(headers)
        scope.setdefault("state", {})["person"] = person
        refusal = self._too_often(scope, person) or self._refusal(scope, headers, person, by_token)
        if scope["type"] == "websocket":
            if refusal is not None:
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    added.setdefault(name, value)
                if not scope["path"].startswith("/_nicegui"):  # those are the library's files, and have its caching
                    added.setdefault("Cache-Control", "no-store")
            await send(message)

        bound = self._max_upload + MAX_BODY if scope["path"].startswith(UPLOADS) else MAX_BODY
        await (self._app if refusal is None else refusal)(scope, _bounded(receive, bound), send_with_headers)

    def _too_often(self, scope: Scope, person: Person | None) -> Response | None:
        """Whoever has shown who they are has a bucket of their own; guesses share that of their address."""
        path = scope["path"]
        if scope["type"] != "http" or path in UNCOUNTED or path.startswith("/_nicegui"):
            return None
        address = scope["client"][0] if scope.get("client") else ""
        seconds = self._rate.take(f"address {address}" if person is None or person is ANYBODY else person.name)
        if seconds == 0:
            return None
        detail = f"Too many requests: at most {self._rate.per_second:g} per second. Try again in {seconds:.1f} s."
        return JSONResponse({"detail": detail}, 429, {"Retry-After": str(int(seconds) + 1)})

    def _person(self, headers: Headers) -> tuple[Person | None, bool]:
        scheme, _, secret = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._accounts.of_token(secret.strip()), True
        if not self._accounts.any:
            return (ANYBODY if self._is_direct(headers) else None), False
        cookie = session_of(headers)
        return (self._accounts.of_session(cookie) if cookie else None), False

    def _is_direct(self, headers: Headers) -> bool:
        """Whether nobody's name server or proxy stands between the station and who asks: a page of an attacker may
        give its own name this machine's address, and then share its origin.
        """
        name = urlsplit(f"//{headers.get('host', '')}").hostname or ""
        if any(name.startswith(("forwarded", "x-forwarded")) for name in headers):
            return False
        try:
            return bool(ip_address(name))
        except ValueError:
            return name in ("localhost", self._host)

    def _refusal(self, scope: Scope, headers: Headers, person: Person | None, by_token: bool) -> Response | None:
        path, method = scope["path"], scope.get("method", "GET")
        if not by_token and (scope["type"] == "websocket" or method not in SAFE) and not _same_origin(headers):
            return JSONResponse({"detail": "The request comes from another site."}, 403)
        if person is not None or path in PUBLIC:
            return None
        if scope["type"] == "http" and method == "GET" and "text/html" in headers.get("accept", ""):
            return RedirectResponse(f"/login?to={quote(path)}", 303)
        return JSONResponse({"detail": "Log in, or bring a token."}, 401, {"WWW-Authenticate": "Bearer"})


def _bounded(receive: Receive, bound: float) -> Receive:
    """A body that nobody reads further than the bound: a declared length may be missing, or a lie."""
    size = 0

    async def read() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > bound:
            raise HTTPException(413, f"A request may have {bound / 1e6:g} MB.")
        return message

    return read


def session_of(headers: Headers) -> str | None:
    """The content of the session cookie."""
    try:
        morsel = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return None
    return None if morsel is None else morsel.value


def need(role: str) -> Any:
    """A dependency of routes: the person who asks, if it has this role; else 403."""

    def person(request: Request) -> Person:
        found: Person | None = request.state.person
        if found is None or not found.may(role):
            raise HTTPException(403, f"This needs the role {role}.")
        return found

    return person


def _same_origin(headers: Headers) -> bool:
    """Whether a browser says that a page of the station asks, or no browser asks."""
    site = headers.get("sec-fetch-site")
    if site is not None and site not in ("same-origin", "none"):
        return False
    origin = headers.get("origin")
    return origin is None or urlsplit(origin).netloc == headers.get("host")
