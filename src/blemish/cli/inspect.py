"""`blemish inspect`: what is in a model file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from blemish.cli.console import out, print_json, table

if TYPE_CHECKING:
    from blemish.post_processing.decision import CalibrationRecord, Decision


def inspect(
    model: Path = typer.Argument(..., help="Model file: .safetensors, exported as .onnx or .xml, or a .catalog."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Show a model's detector, settings, thresholds, calibration and origin; of an exported one, its parity report.

    Of a .catalog, its products.
    """
    if model.suffix.lower() == ".catalog":
        _catalog(model, as_json)
        return
    content, extra = _exported(model) if model.suffix.lower() in (".onnx", ".xml") else _artifact(model)
    if as_json:
        print_json({**content, **extra, "bytes": model.stat().st_size})
        return
    from blemish.post_processing.decision import Scale
    from blemish.post_processing.summary import calibration_summary

    weights, data = content["weights"], content["data"]
    rows = [("file", f"{model} ({model.stat().st_size / 2**20:.1f} MB)"), ("detector", content["detector"])]
    rows += [(key, _argument(value)) for key, value in content["arguments"].items()]
    rows += [("weights", f"{weights['source']}, sha256 {weights['sha256'][:16]}")]
    rows += [("license of the weights", weights.get("license") or "not known")]
    rows += [("data", "-" if data is None else f"sha256 {data['fingerprint'][:16]}")]
    good = content.get("good_images", ())  # not in exported files
    rows += [("good images", f"{len(good)} named, {sum(image['picture'] > 0 for image in good)} with pictures")]
    rows += [(f"{name} version", version) for name, version in content["versions"].items()]
    table("model", ("setting", "value"), rows)
    if extra["thresholds"]:
        table("thresholds (raw scores)", ("name", "value"), list(extra["thresholds"].items()))
    record = _record(content["calibration"])
    if record is None:
        out().print("Not calibrated.")
    else:
        numbers = extra["thresholds"]
        in_force = Scale(*(numbers[name] for name in _IMAGE)).effective_threshold
        out().print(calibration_summary(record, in_force, numbers["raw_image_threshold"]), markup=False)
    if "graph" in extra:
        from blemish.export.report import ParityReport

        graph = extra["graph"]
        table("graph", ("tensor", "type and shape"), [*graph["inputs"].items(), *graph["outputs"].items()])
        words = "all sizes" if graph["static"] is None else "N x H x W = {} x {} x {} only".format(*graph["static"])
        out().print(f"Backbone in {graph['precision']}; {words}.", markup=False)
        if "raw_map" not in graph["outputs"]:
            out().print("Regions are whole marks: no raw map to cut them by is in this file. Export again.")
        out().print(str(ParityReport.from_dict(extra["parity"])), markup=False)


def _catalog(path: Path, as_json: bool) -> None:
    """From its header: which products share how much."""
    from blemish.catalog import read_catalog, shares

    found = read_catalog(path)
    size, alone = shares(path)
    if as_json:
        products = [{"code": product.code, "signed": product.signature is not None} for product in found.products]
        print_json({"products": products, "sha256": found.seal.rpartition("-")[2], "bytes": size, "bytes_alone": alone})
        return
    rows = [(product.code, "signed" if product.signature else "-") for product in found.products]
    table("catalog", ("product", "signature"), rows)
    out().print(f"{path}: {size / 2**20:.1f} MB; as files of their own {alone / 2**20:.1f} MB.", markup=False)


_IMAGE = ("raw_image_threshold", "image_min", "image_max", "image_sensitivity")


def _argument(value: Any) -> str:
    if isinstance(value, dict):  # the region of interest
        (height, width), counts = value["size"], value["counts"]
        return f"{sum(counts[1::2]) / (height * width):.1%} of {height} x {width}"
    return "-" if value is None else str(value)


def _artifact(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """From the header and the numbers that decide: needs no torch."""
    from blemish.manifest import read_decision, read_manifest, tensor_shapes

    manifest = read_manifest(path)
    decision = read_decision(path, manifest)
    extra = {"thresholds": _thresholds(decision), "tensors": tensor_shapes(path)}
    return manifest.model_dump(mode="json"), extra


def _exported(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """From the metadata alone: needs the runtime of the file, and no torch."""
    from blemish.errors import ArtifactError
    from blemish.export.report import ParityReport
    from blemish.manifest import Manifest
    from blemish.runtime.whole import open_whole

    backend = open_whole(path)
    content = backend.content
    try:
        graph = {"static": content["static"], "precision": content["precision"], **backend.signature()}
        manifest: dict[str, Any] = content["manifest"]
        parity = content["parity"]
        str(ParityReport.from_dict(parity))
        Manifest.model_validate(manifest)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"The metadata of {path} is damaged: {error!r}. Export again.") from error
    return manifest, {"thresholds": _thresholds(backend.decision), "graph": graph, "parity": parity}


def _thresholds(decision: Decision | None) -> dict[str, float]:
    """The numbers that decide, by the names of the post-processor's properties."""
    numbers = {} if decision is None else decision.to_dict()
    return {f"raw_{name}" if name.endswith("_threshold") else name: value for name, value in numbers.items()}


def _record(content: dict[str, Any] | None) -> CalibrationRecord | None:
    from blemish.post_processing.decision import CalibrationRecord

    return None if content is None else CalibrationRecord(**content)
