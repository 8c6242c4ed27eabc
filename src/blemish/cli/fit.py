"""`blemish fit`: a folder of good parts becomes one model file."""

from __future__ import annotations

import inspect
import time
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import typer

from blemish.cli.config import (
    DATA_KEYS,
    MODEL_KEYS,
    PROCESSOR_KEYS,
    FitConfig,
    make_config,
    parse_flag,
    pick,
    read_config,
)
from blemish.cli.console import out, print_json, remark

if TYPE_CHECKING:
    from blemish.data.datamodule import ImageDataModule
    from blemish.models.base import Detector
    from blemish.post_processing import CalibrationRecord, DecisionModule


def with_config_flags(command: Callable[..., None], left_out: Sequence[str] = ()) -> Callable[..., None]:
    """Gives `command` one option per field of `FitConfig` in place of its **flags, but for those left out."""
    signature = inspect.signature(command)
    parameters = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
    hints = typing.get_type_hints(FitConfig)
    for one in (field for field in fields(FitConfig) if field.name not in left_out):
        choices = typing.get_args(hints[one.name])
        options = [c for c in choices if isinstance(c, str)] or [
            c for inner in choices for c in typing.get_args(inner) if isinstance(c, str)
        ]
        text = one.metadata["help"] + (f" One of {', '.join(options)}." if options else "")
        text += "" if one.default is None else f" Default: {one.default}."
        option = typer.Option(None, f"--{one.name.replace('_', '-')}", help=text, show_default=False)
        if hints[one.name] is bool:
            name = one.name.replace("_", "-")
            option = typer.Option(None, f"--{name}/--no-{name}", help=text, show_default=False)
        kind = _flag_type(hints[one.name])
        parameters.append(inspect.Parameter(one.name, inspect.Parameter.KEYWORD_ONLY, default=option, annotation=kind))
    command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
    return command


def _flag_type(hint: Any) -> Any:
    """The type of a flag: numbers and switches as they are, everything else text that `parse_flag` takes apart."""
    kinds = set(typing.get_args(hint)) if isinstance(hint, types.UnionType) else {hint}
    single = next(iter(kinds - {types.NoneType})) if len(kinds - {types.NoneType}) == 1 else str
    return (single if single in (int, float, bool) else str) | None


def build_model(config: FitConfig) -> Detector:
    """The unfitted detector that a configuration describes."""
    from blemish.models import detectors
    from blemish.post_processing import DecisionModule

    arguments = pick(config, MODEL_KEYS)
    if config.bank_size == 0:
        arguments["bank_size"] = None
    return detectors()[config.detector].build(
        **arguments, post_processor=DecisionModule(**pick(config, PROCESSOR_KEYS))
    )


def build_data(config: FitConfig, root: Path) -> ImageDataModule:
    """The data module that a configuration describes."""
    from blemish.data.datamodule import ImageDataModule

    return ImageDataModule(root, **pick(config, DATA_KEYS))


def calibration_sentence(record: CalibrationRecord, threshold: float) -> str:
    """What the raw threshold rests on, in words."""
    from blemish.functional.conformal import conditional_rate

    images = f"{record.normal} good" + (f" and {record.anomalous} anomalous" if record.anomalous else "") + " images"
    text = f"Threshold {threshold:.4g}: {record.policy} on {images} ({record.source.replace('_', ' ')})."
    rate = record.certified_false_alarm_rate
    if rate is not None:
        n = record.normal
        unlucky = conditional_rate(n, n + 1 - round(rate * (n + 1)))
        text += (
            f" {n} images certify at most {rate:.2%} false alarms on average, on parts of the same kind;"
            f" one such calibration in 20 may give more than {unlucky:.2%}."
        )
    if record.decided_by is not None and record.next_score is not None:
        text += f" {record.decided_by} decided it; the next lower score is {record.next_score:.4g}."
    return text + (" ORACLE: test images chose the threshold, so test figures flatter." if record.oracle else "")


@with_config_flags
def fit(
    directory: Path = typer.Argument(..., metavar="DIR", help="Folder of good parts, data set, or manifest."),
    output: Path = typer.Option(..., "--output", "-o", help="Model file to write, ending in .safetensors."),
    config: Path | None = typer.Option(None, "--config", help="YAML file with the keys below; flags win."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Learn what good parts look like and write a model file."""
    given = {key: parse_flag(key, value) for key, value in flags.items() if value is not None}
    settings = make_config({**(read_config(config) if config else {}), **given})
    from blemish.artifact import save
    from blemish.cli.paths import check_writable
    from blemish.engine import Engine

    check_writable(output, ".safetensors")
    datamodule = build_data(settings, directory)
    split = datamodule.split  # reads the folder: bad input is reported before anything heavy happens
    model = build_model(settings)
    if model.extractor.source == "formula":
        remark(
            "Features: filter bank, no learned weights. Compare it with the bundled backbone or a timm one: --backbone."
        )
    elif model.extractor.source == "random":
        remark("Features: random weights (--no-pretrained). A pretrained backbone finds more.")
    started = time.perf_counter()
    Engine(settings.accelerator).fit(model, datamodule)
    seconds = time.perf_counter() - started
    save(model, output)
    processor = cast("DecisionModule", model.post_processor)
    record = cast("CalibrationRecord", processor.record)
    if as_json:
        print_json(
            {
                "model": str(output),
                "detector": model.name,
                "fitted_on": len(split.fit),
                "calibration": {**vars(record), "oracle": record.oracle},
                "threshold": processor.raw_image_threshold,
                "seconds": round(seconds, 3),
                "bytes": output.stat().st_size,
            }
        )
        return
    size = output.stat().st_size / 2**20
    out().print(f"Fitted {model.name} on {len(split.fit)} good images in {seconds:.1f} s: {output} ({size:.1f} MB).")
    out().print(calibration_sentence(record, processor.raw_image_threshold))
