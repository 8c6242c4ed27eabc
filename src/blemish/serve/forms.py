"""The two pages for people who aren't logged in: plain HTML without scripts, in their language."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

from starlette.responses import HTMLResponse

from blemish.serve.pages.words import Words

_STYLE = """
:root { color-scheme: light dark; font: 18px/1.5 system-ui, sans-serif }
body { min-height: 90vh; display: grid; place-items: center; margin: 0 }
form { display: grid; gap: .8rem; width: min(22rem, 90vw) }
h1 { font-size: 1.6rem; margin: 0 } p { margin: 0 }
label { display: grid; gap: .2rem }
input, button { font: inherit; padding: .7rem; min-height: 3rem; border: 1px solid #888; border-radius: .4rem }
button { background: #0d6e6e; color: white; border: 0; font-weight: 600; cursor: pointer }
.wrong { color: #c62828; font-weight: 600 } @media (prefers-color-scheme: dark) { .wrong { color: #ff8a80 } }
:focus-visible { outline: 3px solid #ff9800; outline-offset: 2px }
"""


def login_form(
    words: Words, to: str, wrong: str = "", status: int = 200, headers: Mapping[str, str] | None = None
) -> HTMLResponse:
    """Asks for name and password.

    Args:
        words: the language.
        to: local address to go to afterwards.
        wrong: what was wrong with the last try.
        status: of the answer.
        headers: of the answer.
    """
    return _page(words, "log in", "current-password", {"to": to}, wrong, status, headers)


def setup_form(words: Words, key: str, wrong: str = "", status: int = 200) -> HTMLResponse:
    """Asks for name and password of the first admin; `key` is that of the one-time link."""
    return _page(words, "make admin", "new-password", {"key": key}, wrong, status, note=words("become admin"))


def _page(
    words: Words,
    title: str,
    autocomplete: str,
    hidden: Mapping[str, str],
    wrong: str,
    status: int,
    headers: Mapping[str, str] | None = None,
    note: str = "",
) -> HTMLResponse:
    user, secret = words("name"), words("password")
    fields = "".join(f'<input type="hidden" name="{name}" value="{escape(value)}">' for name, value in hidden.items())
    alert = f'<p class="wrong" role="alert">{escape(wrong)}</p>' if wrong else ""
    return HTMLResponse(
        f"""<!doctype html>
<html lang="{words.language}"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{words(title)} - blemish station</title><style>{_STYLE}</style></head>
<body><form method="post"><h1>{words(title)}</h1>{f"<p>{escape(note)}</p>" if note else ""}{alert}{fields}
<label>{user}<input name="name" autocomplete="username" required autofocus maxlength="64"></label>
<label>{secret}<input name="password" type="password" autocomplete="{autocomplete}" required maxlength="200"></label>
<button>{words(title)}</button></form></body></html>""",
        status,
        headers,
    )
