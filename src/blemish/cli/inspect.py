"""`blemish inspect`: what is in a model file."""

from __future__ import annotations

from pathlib import Path

import typer

from blemish.cli.console import out, print_json, table


def inspect(
    model: Path = typer.Argument(..., help="Model file."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Show a model's detector, settings, thresholds, calibration and origin."""
    from blemish.artifact import load, read_manifest
    from blemish.cli.fit import calibration_sentence
    from blemish.post_processing import PostProcessor

    manifest = read_manifest(model)
    detector = load(model)
    processor = detector.post_processor
    thresholds = {}
    if isinstance(processor, PostProcessor) and processor.is_calibrated:
        names = ("raw_image_threshold", "image_min", "image_max", "image_sensitivity")
        thresholds = {
            name: getattr(processor, name) for name in (*names, *(n.replace("image", "pixel") for n in names))
        }
    tensors = {name: list(tensor.shape) for name, tensor in detector.state_dict().items()}
    if as_json:
        content = manifest.model_dump(mode="json")
        print_json({**content, "thresholds": thresholds, "tensors": tensors, "bytes": model.stat().st_size})
        return
    rows = [("file", f"{model} ({model.stat().st_size / 2**20:.1f} MB)"), ("detector", manifest.detector)]
    rows += [(key, "-" if value is None else str(value)) for key, value in manifest.arguments.items()]
    rows += [("weights", f"{manifest.weights.source}, sha256 {manifest.weights.sha256[:16]}")]
    rows += [("data", "-" if manifest.data is None else f"sha256 {manifest.data.fingerprint[:16]}")]
    rows += [(f"{name} version", version) for name, version in manifest.versions.items()]
    table("model", ("setting", "value"), rows)
    if thresholds:
        table("thresholds (raw scores)", ("name", "value"), list(thresholds.items()))
    record = manifest.calibration
    sentence = "Not calibrated." if record is None else calibration_sentence(record, thresholds["raw_image_threshold"])
    out().print(sentence, markup=False)
