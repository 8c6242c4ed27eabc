"""Damaged and hostile bytes for all that reads what comes from outside: model files, pictures, regions, manifests.

python tests/fuzz/parsers.py [--seconds 300] [--seed 0] [--targets model picture region manifest] [--output FILE.json]

Inputs are made from good ones: bits flipped, bytes set, cut, doubled, moved and spliced, numbers replaced by those at
the ends of their types. An input that reaches a line of `blemish` that none reached before becomes a parent of others,
so that the search goes deeper. Model files get their digest anew, as who wants to harm would do.

An input may be read, or refused by an error of `blemish.errors`. Anything else is a fault: another exception, more than
10 seconds of the processor, more memory than 4 GB, the death of the process. Faults are kept beside the figures; the
exit code is 1.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import random
import resource
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
from PIL import Image

SECONDS, MEMORY = 10, 4 * 2**30
INTERESTING = (0, 1, 2, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1)
WORDS = (
    b"1e999",
    b"-1",
    b"NaN",
    b"null",
    b"true",
    b'""',
    b"[]",
    b"{}",
    b"9" * 400,
    b"\xff\xfe",
    b"\0",
    b"1e-400",
    b";",
)
KINDS = "PNG JPEG BMP TIFF WEBP GIF JPEG2000 PPM TGA PCX P:PNG LA:PNG I;16:PNG I;16:TIFF F:TIFF CMYK:JPEG"

Feed = Callable[[bytes, Path], None]


# --------------------------------------------------------------------------------------------------------- what is fed


def seeds(target: str, folder: Path) -> list[bytes]:
    """Good inputs."""
    drawn = np.random.default_rng(0).integers(0, 256, (24, 36, 3), dtype=np.uint8)
    if target == "picture":
        found = []
        deep = Image.fromarray(drawn[..., 0].astype(np.uint16) * 257)
        for word in KINDS.split():
            mode, kind = word.split(":") if ":" in word else ("RGB", word)
            content = io.BytesIO()
            unit = Image.fromarray(drawn[..., 0].astype(np.float32) / 255)
            made = {"I;16": deep, "F": unit}.get(mode) or Image.fromarray(drawn).convert(mode)
            made.save(content, kind)
            found.append(content.getvalue())
        pages = io.BytesIO()
        Image.fromarray(drawn).save(pages, "TIFF", save_all=True, append_images=[Image.fromarray(drawn[::-1])])
        return [*found, pages.getvalue()]
    if target == "region":
        shapes: list[Any] = [
            {"polygons": [[[1, 1], [20, 2], [10, 20]], [[3, 3], [5, 3], [5, 5]]], "size": [24, 36]},
            {"size": [4, 6], "counts": [3, 4, 5, 6, 6]},
        ]
        return [json.dumps(shape).encode() for shape in shapes]
    if target == "manifest":
        for name in ("a.png", "b.png", "m.png"):
            Image.fromarray(drawn).save(folder / name)
        return [
            b"path,label,split\na.png,good,train\nb.png,bad,test\n",
            "\ufeffpath;label;mask;defect\na.png;good;;\nb.png;bad;m.png;Kratzer\n".encode(),
            b'path\tlabel\n"a.png"\tgood\n',
        ]
    import blemish

    for number in range(6):
        (folder / "parts").mkdir(exist_ok=True)
        Image.fromarray(np.roll(drawn, number, axis=0)).save(folder / "parts" / f"{number}.png")
    kinds: list[Any] = [
        blemish.Patchcore(
            backbone="filter_bank", image_size=64, bank_size=20, roi={"size": [2, 2], "counts": [0, 3, 1]}
        ),
        blemish.Padim(backbone="filter_bank", image_size=64, n_features=4),
        blemish.Subspace(backbone="filter_bank", image_size=64),
        blemish.Fused(backbone="filter_bank", image_size=64, n_features=4, bank_size=20),
        blemish.Patchcore(backbone="filter_bank", image_size=64, bank_size=20, neighbor_search="faiss"),
    ]
    for number, model in enumerate(kinds):
        blemish.Engine("cpu", progress=False).fit(model, blemish.ImageDataModule(folder / "parts", num_workers=0))
        model.save(folder / f"{number}.safetensors")
    return [(folder / f"{number}.safetensors").read_bytes() for number in range(len(kinds))]


def feeding(target: str) -> Feed:
    """What reads one input; it may raise errors of `blemish.errors` only."""
    if target == "picture":
        from blemish.data.image_io import looks_like_a_mask, read_header, read_image

        def picture(data: bytes, path: Path) -> None:
            looks_like_a_mask(data)
            read_header(data)
            read_image(data, max_pixels=4_000_000, frame=0)

        return picture
    if target == "region":
        from blemish.data.roi import read_roi

        def region(data: bytes, path: Path) -> None:
            path = path.with_suffix(".json")
            path.write_bytes(data)
            read_roi(str(path))

        return region
    if target == "manifest":
        from blemish.data.manifests import read_manifest

        def manifest(data: bytes, path: Path) -> None:
            path = path.with_suffix(".csv")
            path.write_bytes(data)
            read_manifest(path)

        return manifest
    from blemish.runtime import load
    from blemish.seal import write_seal

    probe = np.random.default_rng(1).integers(0, 256, (24, 36, 3), dtype=np.uint8)

    def model(data: bytes, path: Path) -> None:
        path = path.with_suffix(".safetensors")
        path.write_bytes(data)
        with suppress(ValueError):  # the place for the digest is damaged
            write_seal(path)
        for result in load(path).stream([probe]):
            assert result is not None

    return model


def mutated(parent: bytes, other: bytes, rng: random.Random, *, text: bool) -> bytes:
    """One to four changes."""
    data = bytearray(parent)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        at = rng.randrange(len(data) + 1) if rng.random() < 0.5 else rng.randrange(min(len(data), 4096) + 1)
        length = min(rng.choice((1, 2, 4, 8, 64, 512)), len(data) - at)
        match rng.randrange(9 if text else 7):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + length] = rng.randbytes(length)
            case 2:
                del data[at : at + length]
            case 3:
                data[at:at] = data[at : at + length] * rng.choice((1, 2, 100))
            case 4:
                where = rng.randrange(len(other) + 1)
                data[at:at] = other[where : where + length]
            case 5:
                size = rng.choice("BHIQ")
                number = rng.choice(INTERESTING) % 256 ** struct.calcsize(size)
                data[at : at + struct.calcsize(size)] = struct.pack(rng.choice("<>") + size, number)
            case 6 if rng.random() < 0.2:
                del data[at:]
            case _:
                data[at : at + rng.choice((0, 1, 3))] = rng.choice(WORDS)
    return bytes(data[: 1 << 20])


# -------------------------------------------------------------------------------------------------------- one target


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


class Reach:
    """Lines of blemish that were reached, by `sys.monitoring`, which tells each once. Python 3.12; none before."""

    def __init__(self) -> None:
        self.new = 0
        monitoring = getattr(sys, "monitoring", None)
        if monitoring is not None:
            monitoring.use_tool_id(monitoring.COVERAGE_ID, "fuzz")
            monitoring.register_callback(monitoring.COVERAGE_ID, monitoring.events.LINE, self._line)
            monitoring.set_events(monitoring.COVERAGE_ID, monitoring.events.LINE)
        else:
            self._seen: set[tuple[CodeType, int]] = set()
            sys.settrace(self._call)

    def _line(self, code: CodeType, line: int) -> Any:
        self.new += _is_ours(code)
        return sys.monitoring.DISABLE  # type: ignore[attr-defined]

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._trace if _is_ours(frame.f_code) else None

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and (frame.f_code, frame.f_lineno) not in self._seen:
            self._seen.add((frame.f_code, frame.f_lineno))
            self.new += 1
        return self._trace


def _is_ours(code: CodeType) -> bool:
    return "/blemish/" in code.co_filename or "/PIL/" in code.co_filename


def hunt(target: str, seconds: float, seed: int, folder: str, share: Any) -> None:
    """Feeds inputs for a time, in a process of its own; what it found is in `share` whenever it dies."""
    from blemish.errors import BlemishError

    rng, path = random.Random(seed), Path(folder) / "input"
    corpus, feed = seeds(target, Path(folder)), feeding(target)
    for good in corpus:
        feed(good, path)  # imports everything, and shows that it can be read
    resource.setrlimit(resource.RLIMIT_AS, (_now_used() + MEMORY, resource.RLIM_INFINITY))
    reach, counts, parents = Reach(), Counter[str](), list(corpus)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        parent = rng.choice(parents if rng.random() < 0.7 else corpus)
        data = mutated(parent, rng.choice(corpus), rng, text=target != "picture")
        share["last"] = data
        before, started = reach.new, time.process_time()
        try:
            with at_most(SECONDS):
                feed(data, path)
            outcome = "read"
        except BlemishError:
            outcome = "refused"
        except Late:
            outcome = f"fault: more than {SECONDS} s"
        except Exception as error:
            outcome = f"fault: {type(error).__name__}: {error}"[:200]
        counts[outcome] += 1
        if outcome.startswith("fault") and counts[outcome] == 1:
            share["faults"] = [*share["faults"], (outcome, data)]
        if reach.new > before:
            parents.append(data)
        share["slowest"] = max(share["slowest"], time.process_time() - started)
        if sum(counts.values()) % 100 == 0:
            share["counts"] = dict(counts)
    share["counts"], share["parents"] = dict(counts), len(parents) - len(corpus)
    sys.settrace(None)


def _now_used() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=300, help="for each target")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--targets", nargs="+", default=["model", "picture", "region", "manifest"])
    parser.add_argument("--output", type=Path, help="figures as JSON; inputs that were faults lie beside it")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    manager = multiprocessing.Manager()
    for target in options.targets:
        share = manager.dict(counts={}, faults=[], last=b"", slowest=0.0, parents=0)
        with tempfile.TemporaryDirectory() as folder:
            arguments = (target, options.seconds, options.seed, folder, share)
            process = multiprocessing.get_context("spawn").Process(target=hunt, args=arguments)
            process.start()
            process.join()
        faults = list(share["faults"])
        if process.exitcode:
            faults.append((f"fault: the process died with {process.exitcode}", share["last"]))
        counts = share["counts"]
        figures[target] = {
            "seconds": options.seconds,
            "inputs": sum(counts.values()),
            "read": counts.get("read", 0),
            "refused": counts.get("refused", 0),
            "faults": {text: counts.get(text, 1) for text, _ in faults},
            "slowest_seconds": round(share["slowest"], 2),
            "led_to_new_lines": share["parents"],
        }
        print(target, json.dumps(figures[target], indent=1), flush=True)
        for number, (_, data) in enumerate(faults if options.output else []):
            options.output.with_name(f"{options.output.stem}_{target}_{number}.bin").write_bytes(data)
    if options.output:
        options.output.write_text(json.dumps(figures, indent=1) + "\n")
    return int(any(one["faults"] for one in figures.values()))


if __name__ == "__main__":
    raise SystemExit(main())
