"""`blemish doctor`: is this machine ready?"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
from importlib import metadata
from pathlib import Path
from typing import Any

import typer

from blemish._version import __version__
from blemish.cli.console import print_json, table
from blemish.extras import DISTRIBUTIONS, EXTRAS
from blemish.runtime.threads import sensible_threads, usable_cores

PACKAGES = {DISTRIBUTIONS.get(package, package): extra for package, extra in EXTRAS.items()}


def doctor(as_json: bool = typer.Option(False, "--json", help="Print one JSON object.")) -> None:
    """Show versions, devices, the weight store and what is missing."""
    report = examine()
    if as_json:
        print_json(report)
        return
    rows = [(key, str(value)) for key, value in report.items() if not isinstance(value, dict)]
    table("machine", ("what", "value"), rows)
    hint = {name: f'pip install "blemish[{extra}]"' for name, extra in PACKAGES.items()}
    found = [(n, v or "not installed", "" if v else hint[n]) for n, v in report["packages"].items()]
    table("packages", ("package", "version", "to install"), found)


def examine() -> dict[str, Any]:
    """What `doctor` prints, as plain values."""
    packages = {name: _version(name) for name in PACKAGES}
    store = Path(os.environ.get("BLEMISH_WEIGHTS") or Path.home() / ".cache" / "blemish" / "weights")
    weights = sorted(file.relative_to(store).as_posix() for file in store.rglob("*") if file.is_file())
    report: dict[str, Any] = {
        "blemish": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": _cores(),
        "free_disk_gb": round(shutil.disk_usage(Path.cwd()).free / 1e9, 1),
        "weight_store": str(store),
        "stored_weights": ", ".join(weights) or "none",
        "devices": "none: torch is not installed",
        "packages": packages,
    }
    if packages["torch"]:
        try:
            torch = importlib.import_module("torch")
        except (ImportError, OSError) as error:  # OSError: a shared library that doesn't fit the machine
            return {**report, "devices": f"none: torch is installed but can't be imported ({error})"}
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        gpus = [torch.cuda.get_device_name(i) for i in range(count)]
        report["devices"] = ", ".join([f"cpu ({torch.get_num_threads()} threads)", *gpus])
    return report


def _cores() -> str:
    """How many, how busy they are, and what that means for threads."""
    cores, threads = usable_cores(), sensible_threads()
    text = f"{cores} usable; predict takes {threads} thread" + ("" if threads == 1 else "s")
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if threads > 1 and cores - busy < threads:
        text += f", but {busy:.1f} are busy: a session may be faster with --threads 1 or OMP_NUM_THREADS=1"
    return text


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
