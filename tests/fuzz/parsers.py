"""Damaged and hostile bytes for all that reads what comes from outside: model files, pictures, regions, manifests.

python tests/fuzz/parsers.py [--seconds 500] [--seed 1] [--targets model picture ...] [--output FILE.json]

Needs `pip install atheris` (Linux). libFuzzer changes good inputs, and keeps as parents of others those that reach a
branch, or come closer to a comparison, of `blemish` or of Pillow's Python, than any before. A changed model file gets
its digest anew, as who wants to harm would do; "header" and "graph" are the JSON alone of a model and of an exported
graph, which bytes of a whole file seldom get through to.

An input may be read, or refused by an error of `blemish.errors`. Anything else is a fault: another exception, more than
10 seconds of the processor, more memory than 4 GB, the death of the process. Faults are kept beside the figures; the
exit code is 1.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

SECONDS, MEMORY = 10, 4 * 2**30
WORDS = ("1e999", "-1", "NaN", "Infinity", "null", "true", "[]", "{}", "9" * 60, "1e-400", "[[[[[[[[", ";", "../")
"""What libFuzzer puts in now and then, beside what comparisons tell it."""
NUMBERS = (0, -1, 1, 0.5, 1e39, -1e308, 2**31, 2**63, 10**400, float("nan"), float("inf"))
VALUES = (*NUMBERS, None, True, "", "x", "1", "../../x", "\0\x1b[2J\ud800", [], {}, [[]], [0] * 1000, {"": {}})
"""What stands in place of a value of JSON."""
KINDS = "PNG JPEG BMP TIFF WEBP GIF JPEG2000 PPM TGA PCX P:PNG LA:PNG I;16:PNG I;16:TIFF F:TIFF CMYK:JPEG"

Feed = Callable[[bytes], object]
"""Reads one input; it may raise errors of `blemish.errors` only."""


# ------------------------------------------------------------------------- what is fed: folder -> good inputs, and Feed


def model(folder: Path) -> tuple[list[bytes], Feed]:
    from blemish.runtime import load

    path, probe = folder / "input.safetensors", noise(1)

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        seal(path)
        for result in load(path).stream([probe]):
            assert result is not None

    return [one.read_bytes() for one in models(folder)], feed


def header(folder: Path) -> tuple[list[bytes], Feed]:
    from safetensors import safe_open
    from safetensors.numpy import load_file, save

    from blemish.manifest import KEY

    (first, *_), feed_model = model(folder)
    path = folder / "input.safetensors"
    path.write_bytes(first)
    tensors = load_file(path)
    with safe_open(path, framework="np") as file:
        text = file.metadata()[KEY]

    def feed(data: bytes) -> None:
        feed_model(save(tensors, metadata={KEY: data.decode(errors="replace")}))

    return [text.encode()], feed


def graph(folder: Path) -> tuple[list[bytes], Feed]:
    from blemish.artifact import load, manifest_of
    from blemish.runtime.backend import VERDICT
    from blemish.runtime.graph_session import GraphBackend, parse_metadata
    from blemish.runtime.session import Session

    good = load(models(folder)[0])
    content = {
        "manifest": manifest_of(good).model_dump(mode="json"),
        "decision": good.decider.decision.to_dict(),
        "static": [1, 24, 36],
        "seal": "",
    }

    def feed(data: bytes) -> None:
        backend = GraphBackend(parse_metadata(data.decode(errors="replace"), "graph.onnx", "0" * 64), "0" * 64, VERDICT)
        _ = Session(backend).reading, backend.roi, backend.color

    return [json.dumps(content).encode()], feed


def catalog(folder: Path) -> tuple[list[bytes], Feed]:
    from blemish.catalog import unpack, write_catalog

    path = folder / "input.catalog"
    write_catalog({str(number): one for number, one in enumerate(models(folder)[:2])}, path)
    good = path.read_bytes()

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        seal(path)
        unpack(path, folder / "unpacked")

    return [good], feed


def picture(folder: Path) -> tuple[list[bytes], Feed]:
    from blemish.data.image_io import looks_like_a_mask, read_header, read_image

    def feed(data: bytes) -> None:
        looks_like_a_mask(data)
        read_header(data)
        read_image(data, max_pixels=4_000_000, frame=0)

    return pictures(), feed


def region(folder: Path) -> tuple[list[bytes], Feed]:
    from blemish.data.roi import read_roi

    path = folder / "input.json"

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        read_roi(str(path))

    shapes: list[Any] = [
        {"polygons": [[[1, 1], [20, 2], [10, 20]], [[3, 3], [5, 3], [5, 5]]], "size": [24, 36]},
        {"size": [4, 6], "counts": [3, 4, 5, 6, 6]},
    ]
    return [json.dumps(shape).encode() for shape in shapes], feed


def manifest(folder: Path) -> tuple[list[bytes], Feed]:
    from blemish.data.manifests import read_manifest

    path = folder / "input.csv"
    for name in ("a.png", "b.png", "m.png"):
        (folder / name).write_bytes(pictures()[0])

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        read_manifest(path)

    return [
        b"path,label,split\na.png,good,train\nb.png,bad,test\n",
        "\ufeffpath;label;mask;defect\na.png;good;;\nb.png;bad;m.png;Kratzer\n".encode(),
        b'path\tlabel\n"a.png"\tgood\n',
    ], feed


TARGETS = {made.__name__: made for made in (model, header, graph, catalog, picture, region, manifest)}


def models(folder: Path) -> list[Path]:
    """One file of each kind."""
    from PIL import Image

    import blemish

    (folder / "parts").mkdir()
    for number in range(6):
        Image.fromarray(np.roll(noise(0), number, axis=0)).save(folder / "parts" / f"{number}.png")
    small: dict[str, Any] = {"backbone": "filter_bank", "image_size": 64}
    kinds = [
        blemish.Patchcore(**small, bank_size=20, roi={"size": [2, 2], "counts": [0, 3, 1]}),
        blemish.Padim(**small, n_features=4),
        blemish.Subspace(**small),
        blemish.Fused(**small, n_features=4, bank_size=20),
        blemish.Patchcore(**small, bank_size=20, neighbor_search="faiss"),
    ]
    paths = []
    for number, made in enumerate(kinds):
        blemish.Engine("cpu", progress=False).fit(made, blemish.ImageDataModule(folder / "parts", num_workers=0))
        made.save(folder / f"{number}.safetensors")
        paths.append(folder / f"{number}.safetensors")
    return paths


def pictures() -> list[bytes]:
    """A small one in each of many formats."""
    from PIL import Image

    drawn, found = noise(0), []
    deep = Image.fromarray(drawn[..., 0].astype(np.uint16) * 257)
    unit = Image.fromarray(drawn[..., 0].astype(np.float32) / 255)
    for word in KINDS.split():
        mode, kind = word.split(":") if ":" in word else ("RGB", word)
        content = io.BytesIO()
        made = {"I;16": deep, "F": unit}.get(mode) or Image.fromarray(drawn).convert(mode)
        made.save(content, kind)
        found.append(content.getvalue())
    pages = io.BytesIO()
    Image.fromarray(drawn).save(pages, "TIFF", save_all=True, append_images=[Image.fromarray(drawn[::-1])])
    return [*found, pages.getvalue()]


def noise(seed: int) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (24, 36, 3), dtype=np.uint8)


def seal(path: Path) -> None:
    """Writes the digest anew, unless the place for it is damaged."""
    from blemish.seal import write_seal

    with suppress(ValueError):
        write_seal(path)


# -------------------------------------------------------------------------------------------------------- one target


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """libFuzzer's mutator; in JSON, mostly one value or key is replaced instead, which leaves it JSON."""
    import atheris

    rng = random.Random(seed)
    try:
        content = json.loads(data)
        places = list(places_in(content))
    except (ValueError, RecursionError):
        places = []
    if not places or rng.random() < 0.2:
        changed: bytes = atheris.Mutate(data, most)
        return changed
    (inside, key), (other, its) = rng.choice(places), rng.choice(places)
    inside[key] = rng.choice((*VALUES, copy.deepcopy(other[its])))
    if isinstance(inside, dict) and rng.random() < 0.2:
        inside[its if isinstance(its, str) else rng.choice(("", "\0", "a" * 300))] = inside.pop(key)
    return json.dumps(content).encode()[:most]


def places_in(content: Any) -> Iterator[tuple[Any, Any]]:
    """Each container in JSON with each key."""
    pairs = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in list(pairs):
        yield content, key
        yield from places_in(value)


class Late(BaseException):
    """The time is over."""


@contextmanager
def at_most(seconds: float) -> Iterator[None]:
    def late(number: int, frame: FrameType | None) -> None:
        raise Late

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of the processor: others may be at work
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


class Tally:
    """Feeds inputs, and counts what became of them in `folder`, which outlives the process."""

    def __init__(self, feed: Feed, seconds: float, folder: Path) -> None:
        self.feed, self.folder, self.until = feed, folder, time.monotonic() + seconds
        self.counts, self.slowest = Counter[str](), 0.0

    def __call__(self, data: bytes) -> None:
        from blemish.errors import BlemishError

        if time.monotonic() > self.until:
            self.write()
            os._exit(0)  # libFuzzer has no way of being told
        (self.folder / "last").write_bytes(data)
        started = time.process_time()
        try:
            with at_most(SECONDS):
                self.feed(data)
            outcome = "read"
        except BlemishError:
            outcome = "refused"
        except Late:
            outcome = f"fault: more than {SECONDS} s"
        except Exception as error:
            outcome = f"fault: {type(error).__name__}: {error}"[:200]
        self.slowest = max(self.slowest, time.process_time() - started)
        self.counts[outcome] += 1
        if outcome.startswith("fault") and self.counts[outcome] == 1:
            (self.folder / f"fault-{len(self.counts)}").write_bytes(data)
        if sum(self.counts.values()) % 100 == 0:
            self.write()

    def write(self) -> None:
        content = {"counts": self.counts, "slowest": self.slowest}
        (self.folder / "tally.json").write_text(json.dumps(content), encoding="utf-8")


def hunt(target: str, seconds: float, seed: int, folder: Path) -> None:
    """Feeds inputs for a time; a process of its own that never returns."""
    import atheris

    (folder / "seeds").mkdir()
    (folder / "found").mkdir()
    (folder / "work").mkdir()
    with atheris.instrument_imports(include=["blemish", "PIL"]):
        seeds, feed = TARGETS[target](folder / "work")
        for number, good in enumerate(seeds):
            feed(good)  # imports what is needed, and shows that it can be read
            (folder / "seeds" / str(number)).write_bytes(good)
    (folder / "words").write_text("".join(f'"{word}"\n' for word in WORDS), encoding="ascii")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))
    options = ("-rss_limit_mb=0", "-detect_leaks=0", "-timeout=100", "-verbosity=0", f"-seed={seed}")
    atheris.Setup(
        [
            "parsers",
            *options,
            f"-dict={folder}/words",
            f"-artifact_prefix={folder}/",
            f"{folder}/found",
            f"{folder}/seeds",
        ],
        Tally(feed, seconds, folder),
        custom_mutator=mutated,
    )
    atheris.Fuzz()


def hunted(target: str, seconds: float, seed: int, output: Path | None) -> dict[str, Any]:
    """The figures of one target."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        process = multiprocessing.get_context("spawn").Process(target=hunt, args=(target, seconds, seed, folder))
        process.start()
        process.join()
        tally = folder / "tally.json"
        content = json.loads(tally.read_text()) if tally.exists() else {"counts": {}, "slowest": 0.0}
        faults = {text: count for text, count in content["counts"].items() if text.startswith("fault")}
        kept = sorted(folder.glob("fault-*"))
        if process.exitcode:
            faults[f"fault: the process died with {process.exitcode}"] = 1
            kept += folder.glob("last")
        for one in kept if output else ():
            shutil.move(one, output.with_name(f"{output.stem}-{target}-{one.name}"))
        return {
            "seconds": seconds,
            "inputs": sum(content["counts"].values()),
            "read": content["counts"].get("read", 0),
            "refused": content["counts"].get("refused", 0),
            "faults": faults,
            "slowest_seconds": round(content["slowest"], 2),
            "kept_as_parents": sum(1 for _ in (folder / "found").iterdir()),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=500, help="for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS), choices=list(TARGETS))
    parser.add_argument("--output", type=Path, help="figures as JSON; inputs that were faults lie beside it")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    for target in options.targets:
        figures[target] = hunted(target, options.seconds, options.seed, options.output)
        print(target, json.dumps(figures[target], indent=1), flush=True)
        if options.output:
            options.output.write_text(json.dumps(figures, indent=1) + "\n")
    return int(any(found["faults"] for found in figures.values()))


if __name__ == "__main__":
    raise SystemExit(main())
