"""The pages in a real browser, over a real process: they show what happened, act, and load nothing from elsewhere."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from blemish.serve.pages.words import TEXTS, Words, preferred
from chromium import Browser
from stations import Process, until

PASSWORD = "correct horse battery"
NAMELESS = """
[...document.querySelectorAll('a, button, input, [role=slider], [role=switch], [role=combobox], img')]
  .filter(one => one.offsetParent !== null)
  .filter(one => {
    const label = one.closest('label');
    const texts = [one.getAttribute('aria-label'), one.getAttribute('alt'), one.innerText, label && label.innerText,
      one.closest('[aria-label]') && one.closest('[aria-label]').getAttribute('aria-label')];
    return one.getAttribute('alt') !== '' && !texts.some(text => text && text.trim());
  })
  .map(one => one.outerHTML.slice(0, 200))
"""


def text_of(browser: Browser) -> str:
    return str(browser.run("document.body ? document.body.innerText : ''"))


def shows(browser: Browser, text: str) -> None:
    """Waits until a text is there, and the page connected: what is done before arrives in any order, or not at all."""
    try:
        until(lambda: text in text_of(browser) and browser.run("window.did_handshake !== false"), 60)
    except AssertionError:
        raise AssertionError(f"{text!r} isn't in {text_of(browser)!r}; {browser.complaints}") from None


def press(browser: Browser, key: str) -> None:
    for kind in ("keyDown", "keyUp"):
        browser.call("Input.dispatchKeyEvent", type=kind, key=key, code=f"Key{key.upper()}", text=key)


def click(browser: Browser, text: str) -> None:
    browser.run(
        "[...document.querySelectorAll('button')].filter(b => b.innerText.toLowerCase().includes("
        f"{json.dumps(text.lower())})).pop().click()"
    )


@pytest.fixture(scope="module")
def station(small_model: Path, ranked: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    folder = tmp_path_factory.mktemp("station")
    with Process(folder, products=[{"code": "tile", "model": str(small_model)}]) as process:
        for number, path in enumerate((ranked[0], ranked[-1])):
            process.client.post("/api/v1/inspect", params={"part": f"part-{number}"}, content=path.read_bytes())
        process.client.post("/api/v1/inspect", params={"part": "torn"}, content=b"no picture")
        yield process


def test_the_pages_show_the_line_and_take_feedback(station: Process, tmp_path: Path, ranked: list[Path]) -> None:
    address = str(station.client.base_url).rstrip("/")
    verdicts = station.client.get("/api/v1/verdicts").json()["verdicts"]
    anomalous = next(verdict for verdict in verdicts if verdict["label"] == "anomalous")
    with Browser(tmp_path / "profile") as browser:
        browser.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": "en"})
        wanted = {
            "/": "NOT INSPECTED",
            "/history": "part-1",
            f"/verdict/{anomalous['uid']}": "False alarm (F)",
            "/review": "Review",
            "/threshold": "Of the newest 2 parts, 1 would be called anomalous instead of 1.",
            "/drift": "Brightness of the newest 2 parts",
            "/learn": "0 good parts to learn from",
            "/products": "tile.safetensors",
            "/sources": "POST /api/v1/inspect",
            "/users": "This needs the role Admin.",
        }
        for path, text in wanted.items():
            browser.open(address + path)
            until(lambda text=text: text.lower() in text_of(browser).lower(), 60)
            assert browser.run(NAMELESS) == [], path
        browser.open(f"{address}/verdict/{anomalous['uid']}")
        shows(browser, "(F)")

        def said() -> list[dict[str, str]]:  # a key that is pressed before the page is connected is lost
            press(browser, "f")
            opinions: list[dict[str, str]] = station.client.get(
                f"/api/v1/verdicts/{anomalous['uid']}/feedback/all"
            ).json()
            return opinions

        until(lambda: bool(said()), 60)
        assert {one["judgement"] for one in said()} == {"false alarm"}
        shows(browser, "anybody")
        click(browser, "compare with good parts")
        until(
            lambda: browser.run("[...document.images].some(i => i.src.endsWith('/explanation') && i.naturalWidth > 0)")
        )
        browser.open(address)  # and follows the line
        shows(browser, "torn")
        name = "<img src=x onerror=document.title='owned'>"  # is shown as what it is
        station.client.post("/api/v1/inspect", params={"part": name}, content=ranked[0].read_bytes())
        shows(browser, name)
        browser.open(f"{address}/set/language/de?to=/history", dark=True, width=800)
        shows(browser, "Rückmeldung")
        assert browser.run("document.documentElement.scrollWidth <= 800")
        assert [one for one in browser.complaints if "404" not in one] == []  # of the part that is no picture
        assert all(one.startswith((address, "data:", "blob:")) for one in browser.requests)


def test_an_engineer_moves_the_threshold_and_a_stranger_sees_nothing(
    small_model: Path, model_file: Path, tmp_path: Path, good: bytes
) -> None:
    station_folder = tmp_path / "s" / "station"
    (tmp_path / "s").mkdir()
    with Process(tmp_path / "s", products=[{"code": "tile", "model": str(small_model)}]) as station:
        verdict = station.client.post("/api/v1/inspect", content=good).json()
        link = station.process.stdout.readline().rpartition(" ")[2].strip()
        address = str(station.client.base_url).rstrip("/")
        with Browser(tmp_path / "profile") as browser:
            browser.call("Network.setExtraHTTPHeaders", headers={"Accept-Language": "en"})
            browser.open(link)
            fill = "document.querySelector('[name={}]').value = {}"
            for _ in range(2):  # makes the admin, who then logs in
                for name, value in (("name", "root"), ("password", PASSWORD)):
                    browser.run(fill.format(name, json.dumps(value)))
                browser.run("document.querySelector('button').click()")
                until(lambda: browser.run("document.readyState") == "complete")
                until(lambda: "Make the admin" not in text_of(browser))
            browser.open(f"{address}/threshold")
            shows(browser, "SET THIS THRESHOLD")
            browser.run("document.querySelector('input[type=text], input:not([type])').focus()")
            browser.call("Input.insertText", text="customer's limit")
            now = f"{verdict['threshold']:.4g}"

            def moved() -> bool:  # a key that is pressed before the slider has noticed the focus is lost
                browser.run("document.querySelector('[role=slider] [tabindex]').focus()")
                for kind in ("keyDown", "keyUp"):
                    browser.call(
                        "Input.dispatchKeyEvent", type=kind, key="ArrowLeft", code="ArrowLeft", windowsVirtualKeyCode=37
                    )
                return text_of(browser).count(now) == 1  # in force, and no longer proposed

            until(moved)
            click(browser, "set this threshold")
            shows(browser, "decides instead of")
            click(browser, "yes")
            browser.open(f"{address}/learn")
            shows(browser, "tile.safetensors")
            click(browser, "learn anew")
            shows(browser, "at least 2 are needed")
            candidate = station_folder / "learning" / "1" / "model.safetensors"
            candidate.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(model_file, candidate)  # as a job leaves it
            report = {"good": 3, "defective": 4, "note": "too few", "differ": []}
            report |= {name: {"false_alarms": 1, "misses": 2} for name in ("current", "candidate")}
            with closing(sqlite3.connect(station_folder / "station.sqlite")) as database:
                database.execute("UPDATE candidates SET state = 'ready', report = ?", [json.dumps(report)])
                database.commit()
            shows(browser, "of 3 good parts that no model has learned from")
            assert browser.run(NAMELESS) == []
            click(browser, "put into force")
            shows(browser, "this candidate decides")
            click(browser, "yes")
            shows(browser, "BACK TO THE MODEL BEFORE")
            assert station.client.get("/readyz").status_code == 200
            click(browser, "back to the model before")
            shows(browser, "tile.safetensors")
            browser.open(f"{address}/audit")
            shows(browser, "moved the threshold")
            assert text_of(browser).count("changed the model") == 2
            assert "customer's limit" in text_of(browser)
            browser.open(f"{address}/users")
            shows(browser, "root")
            assert browser.run(NAMELESS) == []
            browser.run("[...document.querySelectorAll('input[aria-label=Name]')].pop().focus()")
            browser.call("Input.insertText", text="plc")
            until(lambda: browser.run("[...document.querySelectorAll('input')].some(i => i.value == 'plc')"))
            click(browser, "add token")
            shows(browser, "blemish_")
            browser.call("Network.clearBrowserCookies")
            browser.open(f"{address}/history")
            shows(browser, "Log in")
            assert "Verdict" not in text_of(browser)


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_text_is_there_in_both_languages(language: str) -> None:
    words = Words(language)
    for key, texts in TEXTS.items():
        assert texts[0].count("{}") == texts[1].count("{}"), key
        assert words(key, *range(texts[0].count("{}")))


@pytest.mark.parametrize(
    ("accepted", "chosen", "language"),
    [
        ("de-DE,de;q=0.9,en;q=0.8", None, "de"),
        ("fr, de", None, "de"),
        ("fr", None, "en"),
        ("de", "en", "en"),
        ("", "x", "en"),
    ],
)
def test_the_language_is_the_chosen_or_the_browsers(accepted: str, chosen: str | None, language: str) -> None:
    assert preferred(accepted, chosen) == language
