"""`blemish fit`: a folder of good parts becomes one model file."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import typer

from blemish.cli.console import out, print_json, remark, warn
from blemish.cli.flags import OPTIONS, given, read_config, with_flags
from blemish.cli.paths import OVERWRITE, check_source, output_file
from blemish.errors import UsageError
from blemish.functional.conformal import normal_rank
from blemish.models import DETECTORS
from blemish.presets import PRESETS, with_preset
from blemish.settings import fit_settings

if TYPE_CHECKING:
    from blemish.post_processing.decision import CalibrationRecord


@with_flags(*OPTIONS)
def fit(
    context: typer.Context,
    directory: Path = typer.Argument(..., metavar="DIR", help="Folder of good parts, data set, or manifest."),
    output: Path = typer.Option(..., "--output", "-o", help="Model file to write, ending in .safetensors."),
    config: Path | None = typer.Option(None, "--config", help="YAML file with the keys below; flags win."),
    preset: str | None = typer.Option(
        None, help="default, fast, accurate, or plain: the detectors' own defaults. A configuration stands for itself."
    ),
    overwrite: bool = OVERWRITE,
    with_thumbnails: bool = typer.Option(
        False, "--with-thumbnails", help="Keep small pictures of good parts in the file, for predict --explain."
    ),
    print_config: bool = typer.Option(
        False, "--print-config", help="Print all settings that would be used, as a configuration, and exit."
    ),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    devices: int | None = typer.Option(
        None, "--devices", help="Processes, one for each GPU, that share the images. Default: one; with --ray, all."
    ),
    ray: bool = typer.Option(False, "--ray", help="Share the images among the workers of a Ray cluster."),
    address: str | None = typer.Option(None, "--address", help="HOST:PORT of a Ray cluster. Default: this machine."),
    **flags: Any,
) -> None:
    """Learn what good parts look like and write a model file."""
    values, from_preset = configuration(config, preset, flags)
    if address is not None and not ray:
        raise UsageError("--address is for --ray. Add it, or leave it out.")
    check_source(directory)
    context.with_resource(output_file(output, ".safetensors", overwrite))
    if "max_false_alarm_rate" not in from_preset:
        _check_rate(values, directory)
    from blemish.artifact import save
    from blemish.cli.tradeoff import show_tradeoff
    from blemish.data.check import folders_sentence
    from blemish.data.depth import depth_sentence
    from blemish.data.walk import describe
    from blemish.engine import Engine
    from blemish.post_processing.summary import calibration_summary, warnings
    from blemish.trials.work import build_model, planned

    strategy: Literal["auto", "ray"] = "ray" if ray else "auto"
    settings, datamodule, remarks = planned(values, from_preset, directory)
    for text in remarks:
        remark(text)
    split = datamodule.split  # reads the folder: bad input is reported before anything heavy happens
    remark(f"Good parts: {folders_sentence(datamodule.index.good_folders)}.")
    if datamodule.index.passed_over:
        remark(f"Passed over: {describe(datamodule.index.passed_over)}.")
    if settings.folder.bit_depth is None and datamodule.reading.bit_depth is not None:
        remark(depth_sentence(datamodule.reading.bit_depth))
    rate = settings.decision.max_false_alarm_rate
    if print_config:
        import yaml

        groups = (settings.folder, settings.data, settings.decision, settings.probe, settings.loading, settings.run)
        found = {"detector": settings.model.name, **settings.model.model_dump(mode="json")}
        for group in groups:
            found |= group.model_dump(mode="json")
        out().print(yaml.safe_dump(found, sort_keys=False, allow_unicode=True).rstrip(), markup=False)
        return
    if rate is not None:
        normal_rank(sum(sample.label is False for sample in split.calibration), rate)  # before hours of work
    model = build_model(settings)
    if model.extractor.source == "formula":
        remark(
            "Features: filter bank, no learned weights. Compare it with the bundled backbone or a timm one: --backbone."
        )
    elif model.extractor.source == "random":
        remark("Features: random weights (--no-pretrained). A pretrained backbone finds more.")
    started = time.perf_counter()
    engine = Engine(settings.run.accelerator, strategy=strategy, devices=devices, address=address)
    engine.fit(model, datamodule, thumbnails=with_thumbnails)
    seconds = time.perf_counter() - started
    save(model, output)
    decider = model.decider
    record, threshold = cast("CalibrationRecord", decider.record), decider.effective_image_threshold
    if as_json:
        print_json(
            {
                "model": str(output),
                "detector": model.name,
                "fitted_on": len(split.fit),
                "calibration": {**vars(record), "oracle": record.oracle},
                "threshold": threshold,
                "planted_found": record.found(threshold),
                "warnings": warnings(record, threshold),
                "seconds": round(seconds, 3),
                "bytes": output.stat().st_size,
            }
        )
        return
    size = output.stat().st_size / 2**20
    out().print(
        f"Fitted {model.name} on {len(split.fit)} good images in {seconds:.1f} s: {output} ({size:.1f} MB).",
        markup=False,
    )
    out().print(calibration_summary(record, threshold, decider.raw_image_threshold), markup=False)
    show_tradeoff(record, threshold)
    for text in warnings(record, threshold):
        warn(text)


def _check_rate(values: Mapping[str, Any], directory: Path) -> None:
    """Refuses, before torch is loaded, a rate that not even all good images together could certify."""
    rate = values.get("max_false_alarm_rate")
    if rate is None or values.get("calibrate_on") == "test":
        return
    from blemish.data.index import index_folder

    said = {name: values[name] for name in ("good", "bad", "all_good") if values.get(name) is not None}
    samples = index_folder(directory, **said).samples
    normal_rank(sum(s.label is False and s.subset != "test" for s in samples), rate)


def configuration(
    config: Path | None, preset: str | None, flags: Mapping[str, Any]
) -> tuple[dict[str, Any], frozenset[str]]:
    """What a configuration file, a preset and flags make together, checked, and the keys that came from the preset."""
    chosen = {**(read_config(config) if config else {}), **given(flags)}
    if preset is None and (config is not None or any(_foreign(key) for key in chosen)):
        preset = "plain"
    values, from_preset = with_preset(chosen, preset)
    fit_settings(values, DETECTORS)
    return values, from_preset


def _foreign(key: str) -> bool:
    """Whether a setting is of detectors other than that of the usual preset."""
    owners = OPTIONS[key].detectors if key in OPTIONS else ()
    return bool(owners) and PRESETS["default"]["detector"] not in owners
