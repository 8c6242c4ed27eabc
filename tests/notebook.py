"""Runs the cells of a notebook, without Jupyter: `python tests/notebook.py examples/first_look.ipynb` writes what they
give into the file, and a test compares it with what they give now.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

Output = dict[str, Any]


def run(cells: list[dict[str, Any]]) -> list[list[Output]]:
    """The outputs of every cell, in Jupyter's format: what is printed, and the value of a last expression."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    return [_run_cell("".join(cell["source"]), namespace) if cell["cell_type"] == "code" else [] for cell in cells]


def _run_cell(source: str, namespace: dict[str, Any]) -> list[Output]:
    tree = ast.parse(source)
    *_, last = tree.body
    if isinstance(last, ast.Expr):
        tree.body.pop()
    outputs: list[Output] = []
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, "cell", "exec"), namespace)
        shown = compile(ast.Expression(last.value), "cell", "eval") if isinstance(last, ast.Expr) else None
        value = None if shown is None else eval(shown, namespace)
    if printed.getvalue():
        text = printed.getvalue().splitlines(keepends=True)
        outputs.append({"output_type": "stream", "name": "stdout", "text": text})
    if value is not None:
        data = {"text/plain": [repr(value)]}
        if hasattr(value, "_repr_html_"):
            data["text/html"] = [value._repr_html_()]
        outputs.append({"output_type": "execute_result", "execution_count": None, "metadata": {}, "data": data})
    return outputs


def main(path: Path) -> None:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    path = path.resolve()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number, (cell, outputs) in enumerate(zip(notebook["cells"], run(notebook["cells"]), strict=True), 1):
            if cell["cell_type"] == "code":
                for output in outputs:
                    output.update({"execution_count": number} if output["output_type"] == "execute_result" else {})
                cell |= {"outputs": outputs, "execution_count": number}
    path.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
