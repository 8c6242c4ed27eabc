"""What goes to which stream, and with which exit code."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING, Any, cast

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from blemish.escaping import as_utf8, json_line, lines, one_line

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

ANOMALIES = 1
USAGE = 2
BAD_INPUT = 3
UNMET = 4
OUT_OF_MEMORY = 5
UNFORESEEN = 70
CLOSED_PIPE = 141


class _Talk:
    """How much is said on stderr, as `blemish -q` and `-v` ask."""

    quiet = verbose = False


talk = _Talk()


class SafeConsole(Console):
    """A console on which no text, in whatever table or sentence it stands, moves the cursor or reorders letters, and
    ":cat:" in a file's name stays what it is.
    """

    def __init__(self, *, stderr: bool = False) -> None:
        super().__init__(stderr=stderr, highlight=False, soft_wrap=True, emoji=False)

    def render_str(self, text: str, **how: Any) -> Text:
        """See `Console`: every text passes here on its way out."""
        return super().render_str(lines(text), **how)


def out() -> Console:
    """The console for results. Made on use, so that redirection of stdout is honored."""
    return SafeConsole()


def complain(message: str) -> None:
    """One error on stderr; a line break in it, as names of files may hold, starts no line of its own."""
    text = escape(lines(message, "  "))
    SafeConsole(stderr=True).print(f"[bold red]error:[/] {text}")


def remark(message: str) -> None:
    """Something worth knowing, in one line on stderr, so that stdout stays machine-readable; not with `blemish -q`."""
    if talk.quiet:
        return
    SafeConsole(stderr=True).print(escape(one_line(message)), style="dim")


def warn(message: str) -> None:
    """What must not be overlooked, in one line on stderr."""
    text = escape(one_line(message))
    SafeConsole(stderr=True).print(f"[bold yellow]warning:[/] {text}")


@contextmanager
def logging_on_stderr() -> Iterator[None]:
    """Says what is logged while the block runs, for `blemish -v`."""
    handler, root = logging.StreamHandler(), logging.getLogger()
    handler.setFormatter(logging.Formatter("%(name)s: %(message)s"))
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)


class NoBars:
    """What `progress` gives where no bar would be seen: importing rich's takes longer than a verdict."""

    def __enter__(self) -> NoBars:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def add_task(self, *_: object, **__: object) -> TaskID:
        """No bar, and so any number."""
        return cast("TaskID", 0)

    def update(self, *_: object, **__: object) -> None:
        """Nothing moves."""


def progress(*, transient: bool = True, console: Console | None = None) -> AbstractContextManager[Progress | NoBars]:
    """A bar with elapsed and remaining time; nothing where there is no terminal, or with `blemish -q`.

    Args:
        transient: whether it goes when it is done.
        console: where lines are printed meanwhile: the bar stays below them. None for stderr, where no others go.
    """
    console = console or SafeConsole(stderr=True)
    if talk.quiet or not console.is_terminal:
        return NoBars()
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=transient,
        speed_estimate_period=3600,  # a step may take minutes
    )


@contextmanager
def phases() -> Iterator[Callable[[str, int, int], None]]:
    """A `blemish.progress.Progress` with a bar of `progress` for each phase."""
    tasks: dict[str, TaskID] = {}
    with progress(transient=False) as bars:

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase)
            bars.update(tasks[phase], completed=done, total=total)

        yield show


def print_line(content: Mapping[str, Any]) -> None:
    """One JSON object in one line of stdout, which is there at once; otherwise as `print_json`."""
    sys.stdout.write(json_line(as_utf8(content), ascii_only=_ascii_only()) + "\n")
    sys.stdout.flush()


def print_json(content: Mapping[str, Any]) -> None:
    """One JSON object on stdout, Unicode whatever files are called. NaN is never written."""
    json.dump(as_utf8(content), sys.stdout, indent=2, ensure_ascii=_ascii_only(), allow_nan=False)
    sys.stdout.write("\n")


def _ascii_only() -> bool:
    return (sys.stdout.encoding or "").lower() not in ("utf-8", "utf8")  # é in another encoding would be no JSON


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """A table on stdout; numbers to the right."""
    from rich.table import Table

    drawn = Table(title=title, title_justify="left")
    for i, column in enumerate(columns):
        numeric = all(isinstance(row[i], (int, float)) or row[i] == "-" for row in rows) and bool(rows)
        drawn.add_column(column, justify="right" if numeric else "left")
    for row in rows:
        drawn.add_row(*(escape(number(cell)) for cell in row))
    out().print(drawn)


def number(value: Any) -> str:
    """A figure as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else one_line(str(value))
