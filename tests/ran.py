"""What a run of the command line says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def run(self) -> Any:
        """What `predict --json` says of the run, with the rows of its images under "predictions"."""
        *rows, run = map(json.loads, self.out.strip("\n").split("\n"))
        return {**run, "predictions": [row for row in rows if "reason" not in row]}


Blemish = Callable[..., Ran]
