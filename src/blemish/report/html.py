"""The evaluation report: one HTML file that opens anywhere, needs no network and gives a reason for what it can't give.

The page is a template filled in with everything escaped: file names come from disks, and a disk may hold a file called
`<script>`. A content security policy in the page allows exactly the scripts that this module put there, by their
SHA-256, and no request to anywhere. Tables and pictures are plain HTML; charts are drawn by Plotly, whose script is
inside the file (5 MB), from the scores of all images, which are inside as well: so a reader can move the threshold.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from importlib import resources
from typing import Any

from blemish._version import __version__
from blemish.data.check import CheckReport
from blemish.escaping import lines
from blemish.extras import require
from blemish.files import write_text
from blemish.functional.proportion import LEVEL
from blemish.metrics.conclusion import conclusion, surprise
from blemish.metrics.evaluation import EvaluationResult
from blemish.post_processing import CalibrationRecord
from blemish.report.html_figures import RESAMPLES, SEED, chart_data, confusion, figure_lines, operating_points
from blemish.report.html_gallery import Gallery, Shown
from blemish.report.html_rows import ImageRow
from blemish.visualization.tradeoff import tradeoff_svg

GROUPS = {
    "false_alarms": ("Worst false alarms", "Good images that were called anomalous, highest score first."),
    "misses": ("Worst misses", "Anomalous images that were called normal, lowest score first."),
    "finds": ("Strongest finds", "Anomalous images that were called anomalous, highest score first."),
    "near_misses": ("Nearly missed", "Anomalous images that were called anomalous, lowest score first."),
}
"""Key of a gallery's group -> title and caption."""


@dataclass(frozen=True)
class Evaluation:
    """Everything a report tells.

    Attributes:
        title: what was evaluated, such as the name of a model file.
        data: the folder or manifest.
        result: figures.
        rows: one for each image.
        threshold: raw; None if there is none. pixel_threshold: the same of pixels.
        gallery: pictures and latency.
        deciding: the good image whose score is the threshold, where it is known and lies in this folder.
        calibration: what the threshold rests on.
        no_calibration: why `calibration` is None.
        check: the state of the data; None if it was not looked into.
        memory: (what, bytes or a reason) pairs.
        commands: with which the report can be made again, with a comment above each where it needs one.
        calibrate: the command that writes a threshold down, without the number at its end; "" where there is no model.
        origin: (what, value) pairs: versions, fingerprints, seeds.
        remarks: what a reader must know before any figure.
        resamples: of the bootstrap.
    """

    title: str
    data: str
    result: EvaluationResult
    rows: Sequence[ImageRow]
    threshold: float | None
    gallery: Gallery
    pixel_threshold: float | None = None
    deciding: Shown | None = None
    calibration: CalibrationRecord | None = None
    no_calibration: str = "the model is not calibrated"
    check: CheckReport | None = None
    memory: Sequence[tuple[str, int | str]] = ()
    commands: Sequence[str] = ()
    calibrate: str = ""
    origin: Sequence[tuple[str, str]] = ()
    remarks: Sequence[str] = field(default_factory=list)
    resamples: int = RESAMPLES


def require_packages() -> None:
    """Fails before hours of work if their report could not be written. Raises `MissingExtraError`."""
    require("plotly.offline")
    require("jinja2")


def write_html(path: str | os.PathLike[str], evaluation: Evaluation) -> None:
    """Writes the report; parents are created, an existing file is replaced in one step.

    Raises:
        MissingExtraError: without plotly or jinja2. OutputError: if the file can't be written.
    """
    write_text(path, render(evaluation))


def render(evaluation: Evaluation) -> str:
    """The page as text."""
    jinja = require("jinja2")
    environment = jinja.Environment(
        autoescape=True, undefined=jinja.StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_finalize
    )
    environment.filters |= {"figure": _figure, "score": _score, "share": _share, "size": _size, "per_1000": _per_1000}
    environment.filters["milliseconds"] = _milliseconds
    scripts = [_plotly(), template("report.js")]
    data = json.dumps(chart_data(evaluation.rows, evaluation.threshold, evaluation.pixel_threshold), allow_nan=False)
    page = environment.from_string(template("report.html.jinja"))
    shown = figure_lines(evaluation.result, evaluation.rows, evaluation.threshold, resamples=evaluation.resamples)
    found, record = evaluation.result.to_dict(), evaluation.calibration
    text: str = page.render(
        evaluation=evaluation,
        figures={line.key: line for line in shown},
        conclusion=conclusion({**found, "threshold": evaluation.threshold}),
        unlike=surprise(found, None if record is None else record.expected_false_alarm_rate),
        unlucky=None if record is None else record.unlucky_false_alarm_rate,
        confusion=confusion(evaluation.rows),
        tradeoff=_tradeoff(evaluation.calibration, evaluation.threshold),
        points=operating_points(evaluation.rows, evaluation.threshold),
        groups=GROUPS,
        level=LEVEL,
        resamples=evaluation.resamples,
        seed=SEED,
        version=__version__,
        made=datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        style=template("report.css"),
        scripts=scripts,
        hashes=[_sha256(script) for script in scripts],
        data=data.replace("<", "\\u003c"),  # no value can close the element it stands in
    )
    return text


def _finalize(value: Any) -> Any:
    """Names are shown as they are, what is `safe` (a `Markup`, no plain text) is left alone."""
    return lines(value) if type(value) is str else value


def _tradeoff(record: CalibrationRecord | None, threshold: float | None) -> str:
    """Scores of the calibration with the threshold in force; nothing where they aren't known."""
    if record is None or threshold is None or not record.scores:
        return ""
    return tradeoff_svg(record.scores, [defect.score for defect in record.planted], threshold)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _share(value: float) -> str:
    return f"{value:.0%}" if value in (0, 1) else f"{value:.2%}" if value < 0.1 else f"{value:.1%}"


def _per_1000(events: int, base: int) -> str:
    return f"{1000 * events / base:,.0f}" if events == 0 or events == base else f"{1000 * events / base:,.1f}"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:,.1f} ms"


def _size(value: int | str) -> str:
    if isinstance(value, str):
        return value
    return f"{value / 2**20:,.1f} MB" if value >= 2**20 else f"{value / 2**10:,.0f} kB"


def template(name: str) -> str:
    """A file of the folder `templates`."""
    return (resources.files("blemish.report") / "templates" / name).read_text(encoding="utf-8")


def _sha256(script: str) -> str:
    """As a content security policy spells it."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _plotly() -> str:
    script: str = require("plotly.offline").get_plotlyjs()
    return script.replace("</script", "<\\/script")
