"""The documents keep their word: every block of code in README.md and docs/ runs here, in the order of its page.

Each page gets a folder of its own with `parts/` (a small data set in the layout of MVTec AD) and `new/` (two images,
the second one defective), one namespace, and these rules by the language of a block:

    python      is executed. `print(...)  # text` must print exactly that text.
    console     every line is a command after "$ ". `blemish ...` runs and must end with exit code 0, or with N where
                the line ends in "# exit code N". What starts as in `SHOWN_ONLY` is not run: it sets up a machine,
                or doesn't end. A `blemish fit ...` or `blemish data audit ...` that ran on another page, with the same
                words (but for --overwrite) on the same files, isn't run again: what it printed and wrote is taken
                from there. Where no page shows what it prints, it plants few defects. The processes of `blemish bench`
                are forked from one that is warm.
    output      lines that the block before it prints, in this order; " ..." at the end stands for the rest of a line.
                Whole numbers are what they are, those with a decimal point may be off by `TOLERANCE`, and seconds by
                anything.
    yaml, csv   with title="NAME": becomes that file.
    text        formulas and folder trees: shown only.

Anything else fails, and so does a block in a shape that would be passed over. Links are checked by `make docs`.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import io
import itertools
import re
import shlex
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import blemish
from exported import trace_once
from known import known
from once import common
from processes import warm

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHOWN_ONLY = ("pip install", "make", "python benchmarks/", "blemish serve")
SHARED = ("blemish fit ", "blemish data audit ")
FENCE = re.compile(r"^```(\w*)(?: +title=\"([\w.]+)\")?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"^\s*print\(.*\)  # (.+)$", re.MULTILINE)
NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?(?: s\b)?")
TOLERANCE = 0.05
"""Of a number: scores differ a little between versions of torch and kinds of processors."""


class Block(NamedTuple):
    language: str
    title: str | None
    code: str
    line: int


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2], m[3], text[: m.start()].count("\n") + 1) for m in FENCE.finditer(text)]


@pytest.fixture(scope="session")
def workshop() -> Path:
    from blemish.synthetic.products import write_dataset

    def fill(root: Path) -> None:
        parts = write_dataset(root, product="tile", good_train=10, good_test=3, per_defect=1, size=(96, 96))
        parts = parts.rename(root / "parts")
        (root / "new").mkdir()
        shutil.copy(parts / "train/good/000.png", root / "new/0001.png")
        shutil.copy(parts / "test/contamination/000.png", root / "new/0002.png")

    return common.once("docs", fill)


@pytest.fixture
def here(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(workshop, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # tables are not folded
    monkeypatch.setattr("os.cpu_count", lambda: 1)  # no loader processes for ten images
    monkeypatch.setattr("blemish.export.exporting.to_onnx", trace_once)  # the same model, for every way to write it
    monkeypatch.setattr("multiprocessing.get_context", lambda method: warm)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(page)], ids=name_of)
def test_page_runs(page: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    namespace: dict[str, object] = {"__name__": "docs"}
    printed = ""
    for block in blocks_of(page):
        where = f"{name_of(page)}:{block.line}"
        if block.language == "python":
            printed = run_python(block, where, namespace)
        elif block.language == "console":
            printed = ""
            for command in commands_of(block, where):
                shared = command.startswith(SHARED) and not re.search("# exit code|--print-config|--list", command)
                printed += (run_once if shared else run_command)(command, where, monkeypatch)
        elif block.language == "output":
            missing = first_missing(lines_of(block.code), lines_of(printed))
            assert missing is None, f"{where}: {missing!r} was not printed, but:\n{printed}"
        elif block.title is not None:
            (here / block.title).write_text(block.code, encoding="utf-8")
        else:
            assert block.language == "text", f"{where}: no rule for {block.language!r} without a title"


def run_python(block: Block, where: str, namespace: dict[str, object]) -> str:
    with captured() as stream:
        exec(compile("\n" * block.line + block.code, where, "exec"), namespace)
    printed = stream.getvalue()
    missing = first_missing(PRINTS.findall(block.code), printed.splitlines())
    assert missing is None, f"{where}: {missing!r} was not printed, but:\n{printed}"
    return printed


def commands_of(block: Block, where: str) -> Iterator[str]:
    for line in block.code.splitlines():
        assert line.startswith("$ "), f"{where}: a line of a console block starts with '$ '. Got {line!r}"
        command = line[2:]
        if not command.startswith(SHOWN_ONLY):
            assert command.startswith("blemish "), f"{where}: no rule for {command!r}"
            yield command


def run_command(command: str, where: str, monkeypatch: pytest.MonkeyPatch) -> str:
    from blemish.cli import main

    expected = re.search(r"# exit code (\d)$", command)
    few = command.startswith(SHARED) and asked(command) not in shown() and "--preset" not in command
    monkeypatch.setattr(sys, "argv", shlex.split(command, comments=True) + ["--planted", "5"] * few)
    code: object = 0
    with captured() as stream:
        try:
            main()
        except SystemExit as end:
            code = end.code or 0
    assert code == (int(expected[1]) if expected else 0), f"{where}: {command}\n{stream.getvalue()}"
    return stream.getvalue()


def run_once(command: str, where: str, monkeypatch: pytest.MonkeyPatch) -> str:
    words = shlex.split(command, comments=True)
    output = Path(words[words.index("-o") + 1])
    assert not output.exists() or "--overwrite" in words, f"{where}: {output} is there before: {command}"
    digest = hashlib.sha256(" ".join(asked(command)).encode())
    for word in asked(command):
        for path in [Path(word), *sorted(Path(word).rglob("*"))] if word != str(output) else []:
            digest.update(f"{path}\n".encode())
            digest.update(path.read_bytes() if path.is_file() else b"")

    def fill(folder: Path) -> None:
        (folder / "printed").write_text(run_command(command, where, monkeypatch), encoding="utf-8")
        shutil.copy(output, folder / "output")

    folder = common.once(f"command-{digest.hexdigest()}", fill)
    shutil.copy(folder / "output", output)
    return (folder / "printed").read_text(encoding="utf-8")


def asked(command: str) -> tuple[str, ...]:
    return tuple(word for word in shlex.split(command, comments=True) if word != "--overwrite")


@cache
def shown() -> set[tuple[str, ...]]:
    """Commands before a block of output."""
    pages = [blocks_of(page) for page in PAGES]
    told = [block for blocks in pages for block, after in itertools.pairwise(blocks) if after.language == "output"]
    return {asked(command) for block in told if block.language == "console" for command in commands_of(block, "")}


@contextlib.contextmanager
def captured() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        yield stream


def lines_of(text: str) -> list[str]:
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


def first_missing(wanted: Sequence[str], lines: Sequence[str]) -> str | None:
    """The first wanted line that doesn't follow the one before it in `lines`."""
    rest = iter(lines)
    return next((line for line in wanted if not any(agrees(line, other) for other in rest)), None)


def agrees(wanted: str, line: str) -> bool:
    words, others = (NUMBER.sub("#", text) for text in (wanted.removesuffix(" ..."), line))
    if not (others.startswith(words) if wanted.endswith(" ...") else others == words):
        return False
    return all(map(same_number, NUMBER.findall(wanted), NUMBER.findall(line)))


def same_number(wanted: str, number: str) -> bool:
    if wanted.endswith(" s"):
        return number.endswith(" s")
    if wanted.isdigit() or number.isdigit():
        return wanted == number
    return float(number) == pytest.approx(float(wanted), rel=TOLERANCE)


# -------------------- nothing is passed over


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_code_block_is_a_fence_with_a_language(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^\s*(```|~~~)", text, re.MULTILINE)) == 2 * len(blocks_of(page))
    assert all(block.language for block in blocks_of(page))
    outside = re.sub(r"^::: \S+\n( {4}.*\n)+", "", FENCE.sub("", text), flags=re.MULTILINE)  # less mkdocstrings options
    assert not re.search(r"^( {4}|\t)", outside, re.MULTILINE), "an indented block would be code that nobody runs"
    assert "<pre" not in outside


def test_blocks_are_counted() -> None:
    count = Counter(block.language for page in PAGES for block in blocks_of(page))
    run = sum(count[language] for language in ("python", "console", "output", "yaml", "csv"))
    assert count.total() == run + count["text"]
    assert count["python"] >= 30
    assert count["console"] >= 15


def test_the_rules_notice_lies(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AssertionError, match="p:1: '3' was not printed"):
        run_python(Block("python", None, "print(1 + 1)  # 3\n", 1), "p:1", {})
    with pytest.raises(AssertionError, match="no such folder"):
        run_command("blemish data check nowhere/", "p:1", monkeypatch)
    assert "no such folder" in run_command("blemish data check nowhere/  # exit code 3", "p:1", monkeypatch)
    with pytest.raises(AssertionError, match="no rule for 'rm -r parts'"):
        list(commands_of(Block("console", None, "$ rm -r parts\n", 1), "p:1"))
    assert list(commands_of(Block("console", None, "$ make test\n$ blemish doctor\n", 1), "p:1")) == ["blemish doctor"]
    assert first_missing(lines_of("took 2.0 s\nsaved"), lines_of("fitted\ntook 13 s\n\nsaved")) is None
    assert first_missing(["note: 3 ..."], ["note: 3 images of 9"]) is None
    assert first_missing(["threshold 5.1"], ["threshold 5.3"]) is None
    for stale in ("threshold 5.1", "note: 3 ...", "31.6 MB", "2 images, 1 anomalous"):
        assert first_missing([stale], ["threshold 5.5", "note: 4 images", "3.2 MB", "2 images, 2 anomalous"]) == stale
    assert first_missing(["saved", "fitted"], ["fitted", "saved"]) == "fitted"


# -------------------- names


def resolve(path: str) -> object:
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            thing: object = importlib.import_module(".".join(parts[:length]))
            for part in parts[length:]:
                thing = getattr(thing, part)
            return thing
    raise ModuleNotFoundError(path)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_names_in_the_text_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    named = re.findall(r"`(blemish(?:\.\w+)+)[`(]", FENCE.sub("", text)) + re.findall(
        r"^::: (\S+)$", text, re.MULTILINE
    )
    for path in named:
        if not path.endswith((".safetensors", ".fit")):
            resolve(path)


def test_the_reference_holds_every_public_name() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md"))
    modules = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    index = (ROOT / "docs/api/index.md").read_text(encoding="utf-8")
    for name in blemish.__all__:
        assert f"`{name}`" in index, f"{name} is missing in docs/api/index.md"
        if name != "__version__":
            assert getattr(blemish, name).__module__ in modules, f"{name} is missing in docs/api/"


def test_the_reference_holds_every_module() -> None:
    pages = "".join(page.read_text(encoding="utf-8") for page in (ROOT / "docs/api").glob("*.md"))
    shown = set(re.findall(r"^::: (\S+)$", pages, re.MULTILINE))
    for path in (ROOT / "src/blemish").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)
        tree = ast.parse(path.read_text(encoding="utf-8"))
        defined = [node for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef)]
        public = [node.name for node in defined if not node.name.startswith("_")]
        hidden = module.startswith("blemish.cli") or module in HIDDEN or path.stem.startswith("_")
        assert hidden or not public or module in shown, f"{module} is missing in docs/api/"


def _hooks() -> Any:
    spec = known(importlib.util.spec_from_file_location("hooks", ROOT / "docs/_hooks.py"))
    assert spec.loader is not None
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    return hooks


def test_the_table_of_settings_holds_every_setting() -> None:
    from blemish.models import DETECTORS
    from blemish.options import as_text
    from blemish.settings import options

    page = _hooks().on_page_markdown((ROOT / "docs/settings.md").read_text(encoding="utf-8"))
    rows = [line for line in page.splitlines() if line.startswith("| `")]
    for option in options(DETECTORS).values():
        (row,) = [row for row in rows if row.startswith(f"| `{option.name}` |")]
        assert option.help in row
        assert option.allowed in row
        assert option.default is None or f"| `{as_text(option.default)}` |" in row
    assert len(rows) == len(options(DETECTORS))


def test_the_table_of_recipes_holds_every_papers_recipe() -> None:
    from blemish.trials.presets import PAPERS

    page = _hooks().on_page_markdown((ROOT / "docs/benchmarking.md").read_text(encoding="utf-8"))
    for name, recipe in PAPERS.items():
        (row,) = [line for line in page.splitlines() if line.startswith(f"| `{name}` |")]
        assert f"https://arxiv.org/abs/{recipe.arxiv}" in row
        assert all(f"`{key}`" in row for key in recipe.own)
        assert all(words in row for words in recipe.differs)


def test_every_name_of_the_older_library_is_on_its_page() -> None:
    from test_reference_names import TABLE

    page = (ROOT / "docs/coming-from-the-older-library.md").read_text(encoding="utf-8")
    in_code = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", FENCE.sub("", page)))))
    missing = {row.path for row in TABLE if row.path.rpartition(".")[2] not in in_code}
    assert not missing


HIDDEN = {
    "blemish.data.gather",  # several processes: called by the post-processor and the evaluator alone
    "blemish.synthetic.parts",  # the drawing behind blemish.synthetic.products
}
