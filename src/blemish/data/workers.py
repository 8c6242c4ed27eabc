"""How many loader processes a data module starts, and when it must not start any.

Where processes are spawned and not forked (Windows, macOS, Python 3.14 everywhere), each one imports the program's main
script. A script that fits at its top level, without `if __name__ == "__main__":`, would fit again in every worker;
Python stops that with a page of traceback from each of them.
"""

from __future__ import annotations

import ast
import multiprocessing
import os
import sys
import warnings
from pathlib import Path

MOST = 8


def default_workers() -> int:
    """None on one or two cores, else the cores less one, at most `MOST`."""
    cores = os.cpu_count() or 1
    return 0 if cores <= 2 else min(MOST, cores - 1)


def possible_workers(wanted: int) -> int:
    """`wanted`, or 0 with a warning where the main script couldn't be imported by workers."""
    script = getattr(sys.modules.get("__main__"), "__file__", None)
    if wanted and _spawns() and not _is_guarded(script):
        warnings.warn(
            f"Images are read without worker processes, which is slower: each would run {script} again. Put what it "
            'does under if __name__ == "__main__":, or pass num_workers=0.',
            stacklevel=4,
        )
        return 0
    return wanted


def _spawns() -> bool:
    method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    return method != "fork"


def _is_guarded(script: str | None) -> bool:
    """Whether a script looks at its `__name__` before it does things. So does what can't be read: notebooks, consoles,
    compiled programs.
    """
    try:
        tree = ast.parse(Path(script or "").read_bytes())
    except (OSError, SyntaxError, ValueError):
        return True
    tests = [statement.test for statement in tree.body if isinstance(statement, ast.If)]
    return any(isinstance(node, ast.Name) and node.id == "__name__" for test in tests for node in ast.walk(test))
