"""`blemish calibrate` and `blemish update`: another threshold, or more good images, without fitting again."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from blemish.cli.console import out, print_json, remark
from blemish.cli.flags import RATE, SENSITIVITY, THRESHOLD, given, settings_of, with_flags
from blemish.cli.paths import EXPORTED, OVERWRITE, check_model, check_source, output_file
from blemish.errors import UsageError
from blemish.settings import FolderSettings, LoadingSettings, RunSettings

if TYPE_CHECKING:
    from blemish.post_processing.decision import Decision

_SHARED = (*FolderSettings.model_fields, "group", *LoadingSettings.model_fields, *RunSettings.model_fields)


@with_flags(*_SHARED)
def calibrate(
    context: typer.Context,
    model: Path = typer.Argument(..., help="Model file: .safetensors, or exported as .onnx or .xml."),
    directory: Path | None = typer.Argument(None, metavar="[DIR]", help="Images that the model hasn't seen."),
    output: Path = typer.Option(..., "--output", "-o", help="Model file to write, of the same kind."),
    threshold: float | None = THRESHOLD,
    sensitivity: float | None = SENSITIVITY,
    rate: float | None = RATE,
    from_labels: bool = typer.Option(
        False, "--from-labels", help="Good and anomalous images of DIR choose the threshold: the best F1."
    ),
    overwrite: bool = OVERWRITE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Write the model with another threshold: a number, a wanted rate, or what good images of DIR say.

    Without DIR the scores of the calibration that the file holds are used, with --exclude without those of some images.
    With DIR all its good images calibrate again, or with --from-labels its labeled ones. Marks on pixels follow.
    """
    move = {"threshold": threshold, "sensitivity": sensitivity, "rate": rate}
    leave_out = flags["exclude"] if directory is None else None
    named = [f"--{name}" for name, value in move.items() if value is not None]
    if len(named) > 1 or (from_labels and named):
        raise UsageError(f"Give one of --threshold, --sensitivity, --rate and --from-labels. Got {', '.join(named)}.")
    if directory is None and (from_labels or not (named or leave_out)):
        raise UsageError(
            "--from-labels needs DIR, a folder of labeled images."
            if from_labels
            else "Give --threshold, --sensitivity, --rate or --exclude, or DIR: a folder of good images that calibrate."
        )
    if (directory is not None or leave_out) and (threshold is not None or sensitivity is not None):
        what = "DIR" if leave_out is None else "--exclude"
        raise UsageError(f"{named[0]} needs no images. Drop {what}, or drop {named[0]}.")
    idle = sorted(given(flags).keys() - {"exclude"}) if directory is None else []
    if idle:
        flag = f"--{idle[0].replace('_', '-')}"
        raise UsageError(f"{flag} is about the images of DIR. Name that folder, or drop {flag}.")
    check_model(model)
    if directory is not None:
        check_source(directory)
    from blemish.data.index import read_exclusions
    from blemish.post_processing.moving import moved, without

    def changed(decision: Decision) -> Decision:
        return without(decision, read_exclusions(leave_out), rate) if leave_out else moved(decision, **move)

    exported = model.suffix.lower() in EXPORTED
    context.with_resource(output_file(output, model.suffix.lower() if exported else ".safetensors", overwrite))
    if exported:
        if directory is not None:
            raise UsageError(
                "An exported file can't be calibrated on images. Calibrate the .safetensors, and export it."
            )
        from blemish.export.rewriting import read_exported, write_exported

        before, content = read_exported(model)
        decision = changed(before)
        write_exported(model, output, decision, content)
    else:
        from blemish.artifact import load, save

        detector = load(model)
        before = detector.decider.decision
        if directory is None:
            detector.decider.decision = changed(before)
        else:
            from blemish.engine.recalibrating import recalibrate

            settings = {**given({name: flags[name] for name in (*FolderSettings.model_fields, "group")})}
            recalibrate(
                detector,
                directory,
                settings_of(LoadingSettings, flags),
                settings_of(RunSettings, flags).accelerator,
                said=settings,
                rate=rate,
                from_labels=from_labels,
            )
        decision = detector.decider.decision
        save(detector, output)
    if leave_out:
        remark("The model learned from these images all the same. `fit` with the same list makes one that didn't.")
    _show(model, output, before, decision, as_json)


@with_flags(*_SHARED, "max_false_alarm_rate")
def update(
    context: typer.Context,
    model: Path = typer.Argument(..., help="Model file."),
    directory: Path = typer.Argument(..., metavar="DIR", help="More good images of the same parts."),
    output: Path = typer.Option(..., "--output", "-o", help="Model file to write, ending in .safetensors."),
    overwrite: bool = OVERWRITE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
    **flags: Any,
) -> None:
    """Add good images to a model and calibrate on some of them that it doesn't learn from."""
    check_model(model, exported="Update the .safetensors that it was made from, and export that.")
    check_source(directory)
    from blemish.artifact import load, save
    from blemish.data.datamodule import ImageDataModule
    from blemish.engine import Engine

    context.with_resource(output_file(output, ".safetensors", overwrite))
    values = given(flags)
    data = ImageDataModule(
        directory,
        **dict(settings_of(LoadingSettings, flags)),
        **{name: values[name] for name in (*FolderSettings.model_fields, "group") if name in values},
    )
    _ = data.split
    detector = load(model)
    before = detector.decider.decision
    if detector.decider.miss_cost is not None:
        detector.decider.miss_cost = None
        remark("The defects that moved the threshold are not among these images: good ones alone choose it now.")
    detector.decider.max_false_alarm_rate = values.get("max_false_alarm_rate", detector.decider.max_false_alarm_rate)
    Engine(settings_of(RunSettings, flags).accelerator).update(detector, data)
    save(detector, output)
    remark(f"{len(data.split.fit)} good images added.")
    _show(model, output, before, detector.decider.decision, as_json)


def _show(model: Path, output: Path, before: Decision, decision: Decision, as_json: bool) -> None:
    from blemish.post_processing.summary import calibration_summary

    record, image = decision.record, decision.image
    if as_json:
        print_json(
            {
                "model": str(output),
                "threshold": image.effective_threshold,
                "pixel_threshold": decision.pixel.effective_threshold,
                "threshold_before": before.image.effective_threshold,
                "calibration": None if record is None else {**vars(record), "oracle": record.oracle},
            }
        )
        return
    if record is not None:
        out().print(calibration_summary(record, image.effective_threshold, image.threshold), markup=False)
    out().print(
        f"{output}: images from {image.effective_threshold:.4g} on (before: {before.image.effective_threshold:.4g}), "
        f"pixels from {decision.pixel.effective_threshold:.4g} on ({before.pixel.effective_threshold:.4g}). {model} is "
        f"as it was.",
        markup=False,
    )
