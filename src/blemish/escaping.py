r"""What names of files may do to each output, and the one rule by which it keeps them from doing it.

A file may be called `a\nnormal  0.001  b.png`, clear a screen, turn the order of letters around, be no Unicode or begin
as a spreadsheet's formula; whoever delivers pictures chooses their names. Rules by output:

- a line on a terminal, in a log or a message: `one_line`. Words of ours may hold line breaks: `lines`.
- the page of a report: `lines`, and the template engine's own escaping for HTML.
- a table in Markdown: `markdown_cell`.
- JSON, COCO, Parquet: `as_utf8`, so that it is Unicode; JSON's own escaping does the rest.
- JSON lines: `json_line`, which is a line to whoever splits text by Unicode's rules, too.
- CSV: `csv_cell` for words, `csv_path` for paths, which remain paths.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

# Control characters, what turns the direction of writing, breaks of lines and paragraphs, and half characters, which
# stand for bytes that no encoding knows.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_FORMULA = "=+-@\t\r\n\uff0b\uff0d\uff1d\uff20"


def one_line(text: str) -> str:
    r"""Text that stays where it is printed: control characters become \n, \x1b, \u202e.

    >>> one_line("a\nnormal  b.png")
    'a\\nnormal  b.png'
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def lines(text: str, indent: str = "") -> str:
    """As `one_line`, but for line breaks, after which `indent` is put in: an error's second line is no line of ours."""
    return f"\n{indent}".join(map(one_line, text.split("\n")))


def as_utf8(value: Any) -> Any:
    """Text, or plain values with text somewhere in them, as Unicode: bytes that no encoding knows get backslashes."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {as_utf8(key): as_utf8(one) for key, one in value.items()}
    return [as_utf8(one) for one in value] if isinstance(value, (list, tuple)) else value


def json_line(content: Any, *, ascii_only: bool = False) -> str:
    """JSON of plain values that are Unicode, in one line without its end. Raises ValueError for NaN and infinity."""
    text = json.dumps(content, ensure_ascii=ascii_only, allow_nan=False)
    return re.sub("[\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)


def markdown_cell(text: str) -> str:
    """Text that stays in its cell of a Markdown table."""
    return one_line(text).replace("|", "\\|")


def csv_cell(text: str) -> str:
    """Text that no spreadsheet takes for a formula: what starts like one gets an apostrophe in front."""
    return f"'{text}" if text.startswith(tuple(_FORMULA)) else text


def csv_path(path: str) -> str:
    """A path that no spreadsheet takes for a formula: what starts like one gets "./" in front, and is the same file."""
    return os.path.join(".", path) if path.startswith(tuple(_FORMULA)) else path
