"""Verbs that are killed at random moments: what they leave is whole, old or absent, and the next start succeeds.

python tests/fuzz/kills.py [--kills 20] [--seed 0] [--verbs fit export ...] [--output FILE.json]

Each verb runs once to its end, to know how long it takes and what it writes. Then it is started over an older file and
ended by SIGKILL at a moment drawn anew each time; after that it runs once more, with `--resume` where it has that. A
fault is: a file under its own name that is neither the older one nor whole; something else beside it than temporary
folders, locks and what `--resume` goes on with; a second start that fails or gives other rows. Exit code 1.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

UPDATE = """
import sys, blemish
model = blemish.load_detector(sys.argv[1])
blemish.Engine("cpu", progress=False).update(model, blemish.ImageDataModule(sys.argv[2], num_workers=0))
model.save(sys.argv[3])
"""
BLEMISH = ("-m", "blemish")
FIT = ("--detector", "patchcore", "--backbone", "filter_bank", "--image-size", "64", "--bank-size", "100")
COMMANDS: dict[str, tuple[tuple[str, ...], str]] = {
    "fit": ((*BLEMISH, "fit", "tile", "-o", "out.safetensors", "--overwrite", *FIT), "out.safetensors"),
    "update": (("-c", UPDATE, "m.safetensors", "tile", "out.safetensors"), "out.safetensors"),
    "export": ((*BLEMISH, "export", "m.safetensors", "--to", "onnx", "-o", "out.onnx", "--overwrite"), "out.onnx"),
    "report": ((*BLEMISH, "report", "m.safetensors", "tile", "-o", "out.html", "--overwrite"), "out.html"),
    "bench": ((*BLEMISH, "bench", "tile", "-o", "out", "--recipes", "patchcore", *FIT[2:]), "out/results.json"),
    **{
        f"predict {suffix}": ((*BLEMISH, "predict", "m.safetensors", "tile", "--batch-size", "2", "--out", name), name)
        for suffix in ("csv", "jsonl", "parquet", "json")
        for name in (f"out.{suffix}",)
    },
}


def content(path: Path) -> Any:
    """What a whole file says, but for times; an error for one that isn't whole."""
    if path.suffix in (".safetensors", ".onnx"):
        from blemish.runtime import load

        return load(path).threshold
    if path.suffix == ".html":
        text = path.read_text(encoding="utf-8")
        assert text.rstrip().endswith("</html>")
        return True
    if path.name == "results.json":
        return len(json.loads(path.read_text(encoding="utf-8"))["jobs"])
    if path.suffix == ".json":
        return json.loads(path.read_text(encoding="utf-8"))
    if path.suffix == ".jsonl":
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    elif path.suffix == ".csv":
        with path.open(encoding="utf-8", newline="") as stream:
            rows = list(csv.DictReader(stream, strict=True))
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(path).to_pylist()
    return [{key: value for key, value in row.items() if key != "seconds"} for row in rows]


def run(words: tuple[str, ...], folder: Path, *, kill_after: float | None = None) -> tuple[int, str]:
    """Starts Python with `words`; exit code and stderr."""
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
    )
    try:
        _, errors = process.communicate(timeout=kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        _, errors = process.communicate()
    return process.returncode, errors.decode(errors="replace")


def allowed(name: str, target: str) -> bool:
    known = (".unfinished", ".unfinished.csv", ".unfinished.jsonl")
    return name.startswith(".blemish-") or name == Path(target).parts[0] or name in {f"{target}{end}" for end in known}


def tried(verb: str, kills: int, rng: random.Random, base: Path) -> dict[str, Any]:
    """One verb, killed so many times."""
    words, target = COMMANDS[verb]
    folder = base / "work"
    shutil.copytree(base / "start", folder)
    before = {path.name for path in folder.iterdir()}
    started = time.monotonic()
    code, errors = run(words, folder)
    seconds = time.monotonic() - started
    assert code in (0, 4), errors
    whole, old = content(folder / target), (folder / target).read_bytes()
    faults: list[str] = []
    cut = 0
    for _ in range(kills):
        predicting, benching = verb.startswith("predict"), verb == "bench"
        if benching:
            shutil.rmtree(folder / "out")
        moment = rng.uniform(0.0, 1.1 * seconds)
        code, _ = run((*words, *(("--overwrite",) if predicting else ())), folder, kill_after=moment)
        cut += code == -signal.SIGKILL
        if (folder / target).exists() and (folder / target).read_bytes() != old:
            check(lambda: content(folder / target), f"{moment:.2f} s: the file is neither old nor whole", faults)
        left = {path.name for path in folder.iterdir()} - before
        faults += [f"{moment:.2f} s: left {name}" for name in left if not allowed(name, target)]
        resumable = predicting and (folder / f"{target}.unfinished").exists()
        again = ("--resume",) if resumable else ("--overwrite",) if predicting else ()
        code, errors = run((*words, *again), folder)
        if code not in (0, 4):
            faults.append(f"{moment:.2f} s: the next start ended with {code}: {errors[-300:]}")
        elif content(folder / target) != whole:
            faults.append(f"{moment:.2f} s: the next start gave something else")
        old = (folder / target).read_bytes()
    shutil.rmtree(folder)
    return {"seconds": round(seconds, 1), "kills": cut, "faults": faults}


def check(what: Callable[[], Any], text: str, faults: list[str]) -> None:
    try:
        what()
    except Exception as error:
        faults.append(f"{text} ({type(error).__name__}: {error})")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--verbs", nargs="+", default=list(COMMANDS), choices=list(COMMANDS))
    parser.add_argument("--output", type=Path, help="figures as JSON")
    options = parser.parse_args()
    from blemish.synthetic.products import write_dataset

    rng, figures = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as name:
        start = Path(name) / "start"
        write_dataset(start, product="tile", good_train=8, good_test=4, per_defect=1, size=(64, 96))
        code, errors = run((*BLEMISH, "fit", "tile", "-o", "m.safetensors", *FIT), start)
        assert code == 0, errors
        for verb in options.verbs:
            figures[verb] = tried(verb, options.kills, rng, Path(name))
            print(verb, json.dumps(figures[verb]), flush=True)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    return int(any(one["faults"] for one in figures.values()))


if __name__ == "__main__":
    raise SystemExit(main())
