"""HTTP about people: logging in and out, users, tokens, the audit trail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, HTTPException, Request, Response
from fastapi.responses import RedirectResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool

from blemish.errors import UsageError
from blemish.serve import audit
from blemish.serve.accounts import SESSION_HOURS, Accounts, Person, TooManyTries
from blemish.serve.forms import login_form, setup_form
from blemish.serve.guard import COOKIE, need, session_of
from blemish.serve.history import iso
from blemish.serve.pages.words import Words, preferred

T = TypeVar("T")
MAX_FORM = 10_000
"""Bytes of a form."""
Role = Literal["viewer", "operator", "engineer", "admin"]
Viewer = Annotated[Person, Depends(need("viewer"))]
Admin = Annotated[Person, Depends(need("admin"))]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid")


class NewUser(_Body):
    """A user to be made."""

    name: str = Field(max_length=64)
    password: str = Field(max_length=200)
    role: Role


class UserChange(_Body):
    """What shall change."""

    role: Role | None = None
    active: bool | None = None
    password: str | None = Field(None, max_length=200)


class NewToken(_Body):
    """A token to be made."""

    name: str = Field(max_length=64)
    role: Role
    days: float = Field(90, gt=0, le=3650, allow_inf_nan=False)


def people_routes(accounts: Accounts) -> APIRouter:
    """All of them; errors in what was sent are 400."""
    router = APIRouter(tags=["people"], responses={400: {"description": "What is wrong is in `detail`."}})

    @router.get("/me")
    def me(person: Viewer) -> dict[str, str]:
        """Who asks."""
        return {"name": person.name, "role": person.role}

    @router.get("/users")
    def users(_: Admin) -> list[dict[str, Any]]:
        """All users."""
        return [{**row, "created": iso(row["created"])} for row in accounts.users()]

    @router.post("/users", status_code=201)
    def add_user(person: Admin, new: NewUser) -> None:
        """Makes a user."""
        with_400(accounts.add_user, person, new.name, new.password, new.role)

    @router.patch("/users/{name}")
    def change_user(person: Admin, name: str, change: UserChange) -> None:
        """Changes a user, whose sessions end."""
        with_400(accounts.change_user, person, name, **change.model_dump())

    @router.get("/tokens")
    def tokens(_: Admin) -> list[dict[str, Any]]:
        """All tokens, without what would let one in."""
        return [{**row, "expires": iso(row["expires"])} for row in accounts.tokens()]

    @router.post("/tokens", status_code=201)
    def add_token(person: Admin, new: NewToken) -> dict[str, str]:
        """Makes a token; it is told here, and never again."""
        return {"token": with_400(accounts.add_token, person, new.name, new.role, new.days)}

    @router.delete("/tokens/{name}")
    def revoke(person: Admin, name: str) -> None:
        """Ends a token."""
        with_400(accounts.revoke_token, person, name)

    @router.get("/audit.jsonl", response_class=StreamingResponse)
    def export_audit(_: Admin) -> StreamingResponse:
        """The whole audit trail, oldest first, one JSON object per line."""

        def lines() -> Iterator[str]:
            for entry in audit.entries(accounts.engine):
                yield json.dumps(entry) + "\n"

        return StreamingResponse(lines(), media_type="application/x-ndjson")

    @router.get("/audit/check")
    def check_audit(_: Admin) -> dict[str, int | None]:
        """Whether the chain of digests is whole: the number of the first row that isn't, or null."""
        return {"broken_at": audit.broken_at(accounts.engine)}

    return router


def session_routes(accounts: Accounts) -> APIRouter:
    """Forms of people who aren't logged in: no scripts, nothing from elsewhere."""
    router = APIRouter(include_in_schema=False)

    @router.get("/login")
    def login_page(request: Request, to: str = "/") -> Response:
        return login_form(_words(request), to)

    @router.post("/login")
    async def log_in(request: Request) -> Response:
        form = await _form(request)
        return await run_in_threadpool(_log_in, form, request)

    def _log_in(form: dict[str, str], request: Request) -> Response:
        words, to = _words(request), form.get("to", "/")
        address = request.client.host if request.client else ""
        try:
            secret = accounts.log_in(form.get("name", ""), form.get("password", ""), address)
        except TooManyTries as error:
            wrong = words("too many tries", f"{error.seconds:.0f}")
            return login_form(words, to, wrong, 429, {"Retry-After": str(int(error.seconds) + 1)})
        except UsageError:
            return login_form(words, to, words("wrong login"), 401)
        return with_session(RedirectResponse(local(to), 303), secret, request)

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        secret = session_of(request.headers)
        if secret:
            accounts.log_out(secret)
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE)
        return answer

    @router.get("/setup")
    def setup_page(request: Request, key: str = "") -> Response:
        return setup_form(_words(request), key)

    @router.post("/setup")
    async def set_up(request: Request) -> Response:
        form = await _form(request)
        return await run_in_threadpool(_set_up, form, _words(request))

    def _set_up(form: dict[str, str], words: Words) -> Response:
        key = form.get("key", "")
        try:
            accounts.set_up(key, form.get("name", ""), form.get("password", ""))
        except UsageError as error:
            return setup_form(words, key, str(error), 400)
        return RedirectResponse("/login", 303)

    return router


def with_400(call: Callable[..., T], *arguments: Any, **named: Any) -> T:
    """Calls; a `UsageError` becomes an answer that says what was wrong."""
    try:
        return call(*arguments, **named)
    except UsageError as error:
        raise HTTPException(400, str(error)) from error


def with_session(answer: Response, secret: str, request: Request) -> Response:
    """Adds the session cookie: out of reach for scripts, sent from no other site, and over TLS alone where it is."""
    answer.set_cookie(
        COOKIE,
        secret,
        max_age=SESSION_HOURS * 3600,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return answer


def local(to: str) -> str:
    """An address on this station; "/" for any other."""
    return to if to.startswith("/") and not to.startswith(("//", "/\\")) and to.isprintable() else "/"


def _words(request: Request) -> Words:
    return Words(preferred(request.headers.get("accept-language", ""), request.cookies.get("blemish_language")))


async def _form(request: Request) -> dict[str, str]:
    content = b""
    async for piece in request.stream():
        content += piece
        if len(content) > MAX_FORM:
            raise HTTPException(413, f"A form may have {MAX_FORM} bytes.")
    return dict(parse_qsl(content.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=10))
