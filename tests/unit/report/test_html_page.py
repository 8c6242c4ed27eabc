"""The page: what stands on it, what doesn't, and what it does in a browser."""

from __future__ import annotations

import html.parser
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from blemish.data.batch import InferenceBatch
from blemish.data.check import CheckReport, Finding, SetSummary
from blemish.data.layouts import Sample
from blemish.errors import MissingExtraError, OutputError
from blemish.metrics.evaluation import Evaluator
from blemish.post_processing import CalibrationRecord
from blemish.post_processing.decision import Planted
from blemish.report import html_figures
from blemish.report.html import Evaluation, render, require_packages, write_html
from blemish.report.html_gallery import NO_VERDICTS, Gallery, Group, Shown, Speed, choose
from blemish.report.html_rows import ImageRow
from chromium import Browser

CUT = 0.5
PIXEL = "data:image/gif;base64,R0lGODlhAQABAAAAACH5BAEKAAEALAAAAAABAAEAAAICTAEAOw=="
HOSTILE = "<script>window.hacked=1</script>\"'><img src=x onerror=window.hacked=1>&amp;{{ 7*7 }}"
RECORD = CalibrationRecord(
    "highest normal score", "highest normal score", "held_out", 133, 0, 1 / 134, None, "a.png", 0.4
)
SET = SetSummary(3, 2, 1, 1, {"hole": 1})


def rows(good: int, anomalous: int, cut: float | None = CUT, kind: str = "hole") -> list[ImageRow]:
    draw = torch.Generator().manual_seed(0)
    made = []
    for i in range(good + anomalous):
        truth = i >= good
        score = float(torch.rand((), generator=draw) * 0.8 + 0.3 * truth)
        name = f"test/{kind if truth else 'good'}/{i}.png"
        sample = Sample(Path(name), name, truth, kind if truth else "good", None, "test")
        made.append(ImageRow(sample, score, None if cut is None else score >= cut))
    return made


def evaluation(some: list[ImageRow], **changes: Any) -> Evaluation:
    evaluator = Evaluator()
    evaluator.update(
        InferenceBatch(
            raw_score=torch.tensor([row.score for row in some]),
            pred_label=None if some[0].anomalous is None else torch.tensor([row.anomalous for row in some]),
            gt_label=torch.tensor([row.truth for row in some]),
            defect=[row.sample.defect for row in some],
        )
    )
    groups = [
        Group(key, total, [Shown(row, PIXEL, PIXEL) for row in chosen], reason)
        for key, (total, chosen, reason) in choose(some).items()
    ]
    check = CheckReport("parts", "mvtec", "held_out", {"fit": SET, "test": SET}, {}, {}, 0, {}, {}, {}, [], [])
    made = Evaluation(
        resamples=30,
        title="parts.safetensors",
        data="parts",
        result=evaluator.compute(),
        rows=some,
        threshold=None if some[0].anomalous is None else CUT,
        gallery=Gallery(groups, Speed.of([0.1, 0.2], [0.01], "one image at a time")),
        calibration=None if some[0].anomalous is None else RECORD,
        check=replace(check, findings=[Finding("warning", "2 images with a side below 32 pixels: a.png, b.png.")]),
        memory=[("model file", 3 << 20)],
        commands=["blemish fit parts -o parts.safetensors", "blemish test parts.safetensors parts --report r.html"],
        origin=[("seed", "0")],
    )
    return replace(made, **changes)


class Text(html.parser.HTMLParser):
    """Visible text and the elements of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._inside = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attributes)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside not in ("script", "style"):
            self.text += data + " "


def read(page: str) -> Text:
    parsed = Text()
    parsed.feed(page)
    parsed.text = " ".join(parsed.text.split())
    assert not re.search(r"\b(NaN|nan|None|inf|Infinity|undefined|Undefined)\b", parsed.text), parsed.text
    return parsed


# ------------------------------------------------------------------------------------------------------------- content


def test_everything_is_on_the_page() -> None:
    some = rows(30, 20)
    text = read(render(evaluation(some))).text
    alarms = sum(row.score >= CUT for row in some[:30])
    misses = sum(row.score < CUT for row in some[30:])
    for part in (
        "50 images, 30 good, 20 anomalous",
        f"False alarms {alarms} of 30 good images",
        f"Misses {misses} of 20 anomalous images",
        "AUROC, images 0.",
        "30 resamples",
        f"good {30 - alarms} {alarms} anomalous {misses} {20 - misses}",
        "the model's threshold 0.5",
        "no false alarm here",
        "hole 20",
        "Worst false alarms",
        "highest normal score; for pixels: highest normal score",
        "133 good and 0 anomalous images: held out",
        "at most 0.75% false alarms",
        "a.png ; the next lower score is 0.4",
        "warning 2 images with a side below 32 pixels",
        "latency, median 150.0 ms",
        "model file 3.0 MB",
        "blemish test parts.safetensors parts --report r.html",
        "AUROC, pixels can't be given: no anomaly maps",
    ):
        assert part in text, f"{part!r} is not in {text}"
    assert "Oracle" not in text


def test_what_the_calibration_would_find() -> None:
    planted = (Planted("hole", 0.5, 1.0, 0.2), Planted("stain", 0.5, 1.0, 0.9), Planted("crack", 0.5, 1.0, 1.1))
    record = replace(RECORD, scores=(0.1, 0.2, 0.4), names=("a.png", "b.png", "c.png"), planted=planted)
    estimated = replace(record, certified_false_alarm_rate=None, expected_false_alarm_rate=0.25)
    text = render(evaluation(rows(5, 5), calibration=estimated))
    assert f"{record.found(CUT)} of 3 drawn into good images are found" in text
    assert "about 25.0% false alarms on good parts like those that calibrated" in text
    assert "of 100 planted defects 67 are found" in text
    assert "Scores of good images and" not in render(evaluation(rows(5, 5))), "without scores there is nothing to draw"


def test_oracle_is_shouted() -> None:
    page = read(render(evaluation(rows(5, 5), calibration=replace(RECORD, source="test")))).text
    assert "Oracle. Test images chose the threshold" in page
    assert "images: test (oracle)" in page


BARE = {
    "no good images": (rows(0, 9), ["False alarms - can't be given: no normal images", "no good test images"]),
    "no defects": (rows(9, 0), ["Misses - can't be given: no anomalous images", "The table can't be given: no anom"]),
    "not calibrated": (
        rows(9, 9, cut=None),
        [
            "F1 at the threshold - can't be given: no verdicts: the model is not calibrated",
            "The model's threshold can't be given: the model is not calibrated",
            f"Nothing to show: {NO_VERDICTS}",
            "The record can't be given: the model is not calibrated",
            "called normal called anomalous good - - anomalous - -",
        ],
    ),
    "one image": (rows(1, 0), ["1 image, 1 good, 0 anomalous"]),
}


@pytest.mark.parametrize("case", BARE)
def test_what_cannot_be_given_says_why(case: str) -> None:
    some, parts = BARE[case]
    bare = evaluation(some, check=None, commands=(), memory=(), gallery=Gallery(evaluation(some).gallery.groups))
    text = read(render(bare)).text
    for part in (*parts, "latency can't be given", "The files were not looked into"):
        assert part in text, f"{part!r} is not in {text}"


def test_nothing_from_disk_is_markup() -> None:
    some = [replace(row, sample=replace(row.sample, relative=HOSTILE)) for row in rows(6, 6, kind=HOSTILE)]
    hostile = evaluation(
        some,
        title=HOSTILE,
        data=HOSTILE,
        calibration=replace(RECORD, decided_by=HOSTILE),
        commands=[HOSTILE],
        origin=[(HOSTILE, HOSTILE)],
        remarks=[HOSTILE],
    )
    hostile = replace(hostile, check=replace(hostile.check, findings=[Finding("note", HOSTILE)]))
    hostile.gallery.groups[2] = Group("finds", 1, [Shown(some[-1], problem=HOSTILE)], "")
    page = read(render(hostile))
    safe = read(render(evaluation(rows(6, 6))))
    assert [tag for tag, _ in page.elements].count("script") == [tag for tag, _ in safe.elements].count("script") == 3
    assert all(not name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert {attributes["src"] for tag, attributes in page.elements if tag == "img"} == {PIXEL}
    assert page.text.count("<script>window.hacked=1</script>") >= 10
    assert "{{ 7*7 }}" in page.text


def test_the_policy_allows_these_scripts_and_nothing_else() -> None:
    page = read(render(evaluation(rows(3, 3))))
    (policy,) = (a["content"] for tag, a in page.elements if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert re.fullmatch(
        r"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src( 'sha256-[\w+/]{43}='){2}", policy
    )
    assert all("src" not in attributes for tag, attributes in page.elements if tag == "script")
    assert all(tag != "link" for tag, _ in page.elements)


def test_names_that_are_not_unicode_are_written(tmp_path: Path) -> None:
    some = [replace(row, sample=replace(row.sample, relative="a\udcff.png")) for row in rows(2, 2)]
    write_html(tmp_path / "new/r.html", evaluation(some))
    assert "a\\udcff.png" in (tmp_path / "new/r.html").read_text(encoding="utf-8")


def test_a_report_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "r.html").mkdir()
    with pytest.raises(OutputError, match=r"r\.html can't be written"):
        write_html(tmp_path / "r.html", evaluation(rows(2, 2)))


@pytest.mark.parametrize("package", ["plotly", "jinja2"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtraError, match=rf'This needs {package}, .* pip install "blemish\[report\]"'):
        require_packages()


# ----------------------------------------------------------------------------------------------------------- a browser


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture
def opened(browser: Browser, tmp_path: Path) -> Any:
    """Opens the report of an evaluation; whatever it complains about or asks for fails the test."""

    def show(what: Evaluation, **settings: Any) -> Browser:
        browser.complaints.clear()
        browser.requests.clear()
        write_html(tmp_path / "report.html", what)
        browser.open(tmp_path / "report.html", **settings)
        browser.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 50)))")
        assert browser.complaints == []
        assert [one for one in browser.requests if not one.startswith("data:")] == [
            (tmp_path / "report.html").resolve().as_uri()
        ]
        return browser

    return show


COUNTS = """
Object.fromEntries(
  [...document.querySelectorAll("[data-count]")].map((cell) => [cell.dataset.count, +cell.textContent])
)
"""


def counted(some: list[ImageRow], threshold: float) -> dict[str, int]:
    alarms = sum(row.score >= threshold for row in some if not row.truth)
    found = sum(row.score >= threshold for row in some if row.truth)
    bad = sum(row.truth for row in some)
    return {"passed": len(some) - bad - alarms, "false_alarms": alarms, "misses": bad - found, "found": found}


def move(browser: Browser, position: int) -> None:
    browser.run(f"slider.value = {position}; slider.dispatchEvent(new Event('input'))")


def test_charts_are_drawn_and_the_slider_counts(opened: Any) -> None:
    some = rows(30, 20)
    page = opened(evaluation(some))
    assert page.run("document.querySelectorAll('#chart-scores .bars .point path').length") > 10
    assert page.run("document.querySelectorAll('#chart-roc .scatterlayer path.js-line').length") == 1
    assert page.run("document.querySelectorAll('#chart-pr .scatterlayer path.js-line').length") == 1
    assert page.run("document.querySelector('#chart-roc').getBoundingClientRect().width") > 300
    assert page.run(COUNTS) == counted(some, CUT)

    cuts = sorted({row.score for row in some} | {CUT})
    assert page.run("+slider.max") == len(cuts)
    for position in (0, 7, len(cuts) - 1):
        move(page, position)
        expected = counted(some, cuts[position])
        assert page.run(COUNTS) == expected
        rate = page.run("document.querySelector('[data-rate=misses]').textContent")
        assert float(rate) == pytest.approx(1000 * expected["misses"] / 20)
        alarms, hits = page.run(
            "[+document.querySelector('#chart-roc').data[1].x, +document.querySelector('#chart-roc').data[1].y]"
        )
        assert (alarms, hits) == pytest.approx((expected["false_alarms"] / 30, expected["found"] / 20))
        assert page.run("document.querySelector('#chart-scores').layout.shapes[0].x0") == cuts[position]
    move(page, len(cuts))
    assert page.run(COUNTS) == counted(some, 2.0)
    assert page.run("document.querySelector('#slider-value').textContent") == "above all scores"
    assert page.run("document.querySelector('[data-rate=precision]').textContent") == "nothing is called anomalous"

    page.run("document.querySelector('#slider-reset').click()")
    assert page.run(COUNTS) == counted(some, CUT)
    for point in html_figures.operating_points(some, CUT):
        page.run(f"document.querySelector('[data-threshold=\"{point.threshold}\"]').click()")
        now = page.run(COUNTS)
        assert (now["false_alarms"], now["misses"]) == (point.false_alarms, point.misses)

    width = "document.querySelector('figure').getBoundingClientRect().width"
    small = page.run(width)
    page.run("document.querySelector('.pair').click()")
    assert page.run(width) > 1.5 * small
    page.run("document.querySelector('.pair').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}))")
    assert page.run(width) == small

    page.run("document.querySelector('#slider-reset').click()")
    page.run("prevalence.value = 100; prevalence.dispatchEvent(new Event('input'))")
    expected = counted(some, CUT)
    numbers = [float(part) for part in re.findall(r"[\d.]+(?= )", page.run("mix.textContent").replace(",", ""))]
    assert numbers == pytest.approx([900 * expected["false_alarms"] / 30, 100 * expected["misses"] / 20], abs=0.51)
    assert page.complaints == []


@pytest.mark.parametrize("case", BARE)
def test_bare_pages_open(case: str, opened: Any) -> None:
    some, _ = BARE[case]
    page = opened(evaluation(some))
    text = page.run("document.body.innerText")
    assert not re.search(r"\b(NaN|null|undefined|Infinity|None)\b", text)
    assert page.run("document.querySelectorAll('#chart-scores .bars').length") > 0
    both = {row.truth for row in some} == {True, False}
    assert page.run("document.querySelectorAll('#chart-roc svg').length > 0") is both


def test_hostile_names_do_nothing(opened: Any) -> None:
    some = [replace(row, sample=replace(row.sample, relative=HOSTILE)) for row in rows(6, 6, kind=HOSTILE)]
    page = opened(evaluation(some, title=HOSTILE, data=HOSTILE, commands=[HOSTILE], remarks=[HOSTILE]))
    assert page.run("window.hacked === undefined")
    assert page.run("document.querySelector('h1').textContent") == HOSTILE
    assert json.loads(page.run("document.querySelector('#data').textContent"))["threshold"] == CUT


@pytest.mark.parametrize(("width", "dark"), [(390, False), (1280, True)])
def test_it_fits_the_screen(width: int, dark: bool, opened: Any, tmp_path: Path) -> None:
    long = [replace(row, sample=replace(row.sample, relative="x" * 200)) for row in rows(8, 8)]
    page = opened(evaluation(long, title="y" * 120), width=width, dark=dark)
    assert page.run("document.documentElement.scrollWidth") == width
    charts = page.run(
        "[...document.querySelectorAll('.chart svg.main-svg')].map((one) => one.getBoundingClientRect().right)"
    )
    assert charts
    assert max(charts) <= width
    paper = page.run("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") is not dark


def test_it_prints(opened: Any, tmp_path: Path) -> None:
    page = opened(evaluation(rows(8, 8)), dark=True)
    page.pdf(tmp_path / "r.pdf")
    assert (tmp_path / "r.pdf").read_bytes().startswith(b"%PDF")
    page.call("Emulation.setEmulatedMedia", media="print")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert page.complaints == []


def test_the_slider_moves_kinds_pictures_and_pixels(opened: Any) -> None:
    some = rows(30, 20)
    shown = [Shown(row, PIXEL, PIXEL) for row in some if row.truth][:4]
    gallery = Gallery([Group("finds", 4, shown, "")])
    page = opened(replace(evaluation(some), gallery=gallery, pixel_threshold=2 * CUT))
    cuts = sorted({row.score for row in some} | {CUT})
    for position in (0, len(cuts) // 2, len(cuts) - 1):
        move(page, position)
        cut = cuts[position]
        kinds = {row.sample.defect for row in some if row.truth}
        missed = {
            kind: sum(row.truth and row.sample.defect == kind and row.score < cut for row in some) for kind in kinds
        }
        told = page.run(
            "Object.fromEntries([...document.querySelectorAll('[data-missed]')].map("
            "(cell) => [cell.dataset.missed, parseInt(cell.textContent)]))"
        )
        assert told == missed
        words = page.run("[...document.querySelectorAll('figure .verdict')].map((word) => word.textContent)")
        assert words == [": found" if one.row.score >= cut else ": missed" for one in shown]
        changed = page.run("[...document.querySelectorAll('figure')].map((one) => one.classList.contains('changed'))")
        assert changed == [(one.row.score >= cut) != (one.row.score >= CUT) for one in shown]
        assert float(page.run("document.querySelector('#pixel-threshold').textContent")) == pytest.approx(
            2 * cut, rel=1e-3
        )
    assert page.run("document.querySelector('#kinds-at').textContent").startswith("the threshold ")
    page.run("document.querySelector('#slider-reset').click()")
    assert page.run("document.querySelector('#kinds-at').textContent") == "the model's threshold"


def test_the_conclusion_stands_on_top_and_the_deciding_image_is_shown() -> None:
    some = rows(30, 20)
    decisive = Shown(ImageRow(some[0].sample, CUT, None), PIXEL)
    page = render(replace(evaluation(some), deciding=decisive, calibration=RECORD))
    assert page.index("In short.") < page.index('<section id="figures">')
    (figure,) = re.findall(r"<figure.*?</figure>", page[page.index("whose score is the threshold") :], re.DOTALL)
    assert figure.count("<img") == 1
    assert f"score {CUT:.4g}" in figure


def test_a_certificate_says_what_bad_luck_does_and_a_surprise_is_remarked_on() -> None:
    some = rows(30, 20, cut=0.2)
    record = replace(RECORD, normal=19, certified_false_alarm_rate=1 / 20, expected_false_alarm_rate=1 / 20)
    page = read(render(evaluation(some, calibration=record))).text
    assert "at most 5.00% false alarms on good parts of the same kind, on average;" in page
    assert "one such calibration in 20 may give more than 14.6%" in page
    assert "good images are called anomalous; about 5% were expected." in page
    calm = read(render(evaluation(rows(30, 20, cut=0.79), calibration=record))).text
    assert "were expected" not in calm
