"""`blemish export`: a model file for a runtime without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import typer

from blemish.cli.console import out, print_json, remark
from blemish.cli.paths import OVERWRITE, check_model, output_file
from blemish.errors import UsageError


def export(
    context: typer.Context,
    model: Path = typer.Argument(..., help="Model file."),
    to: Literal["onnx", "openvino"] = typer.Option(..., "--to", help="What to write: .onnx, or .xml with .bin."),
    output: Path | None = typer.Option(None, "--output", "-o", help="File to write. Default: beside the model."),
    images: Path | None = typer.Option(None, "--images", help="Folder of images to compare on. Default: drawn ones."),
    static: str | None = typer.Option(None, "--static", help="N,H,W: fix the shape, for compilers that need it."),
    half: bool = typer.Option(False, "--half", help="Store the backbone's weights in half precision: half the size."),
    int8: bool = typer.Option(False, "--int8", help="Put the backbone into 8-bit integers. Needs --images."),
    calibration_images: Path | None = typer.Option(
        None, "--calibration-images", help="Folder of good images for --int8. Default: the good ones of --images."
    ),
    max_flips: int = typer.Option(0, "--max-flips", help="Verdicts on --images that --int8 may change."),
    overwrite: bool = OVERWRITE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Write a model for ONNX Runtime or OpenVINO, if it gives the same verdicts there as in torch."""
    check_model(model, exported="Export the .safetensors that it was made from.")
    shape = None if static is None else _parse(static)
    if output is not None and output.suffix and output.suffix.lower() != _SUFFIXES[to] and not output.is_dir():
        raise UsageError(f"--to {to} writes a file that ends in {_SUFFIXES[to]}. Got {str(output)!r}.")
    from blemish.artifact import load
    from blemish.export.exporting import target

    path = target(model.with_suffix(_SUFFIXES[to]) if output is None else output, to)  # not into a folder of its name
    context.with_resource(output_file(path, _SUFFIXES[to], overwrite))
    detector = load(model)
    done = detector.export(
        path,
        to,
        images=images,
        static=shape,
        half=half,
        int8=int8,
        calibration_images=calibration_images,
        max_flips=max_flips,
    )
    if as_json:
        content: dict[str, Any] = {"model": str(done.path), "parity": done.parity.to_dict()}
        content["weights_license"] = detector.extractor.license
        print_json({**content, "bytes": done.path.stat().st_size})
        return
    out().print(str(done.parity), markup=False)
    if images is None:
        remark("Compared on drawn images. Photographs of good parts say more: --images.")
    out().print(f"Exported to {done.path}.", markup=False)
    if detector.extractor.source not in ("formula", "random"):
        license = detector.extractor.license or "not known"
        remark(f"It holds the weights of {detector.extractor.source}, license: {license}.")


def _parse(text: str) -> list[int]:
    try:
        parts = [int(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) != 3 or min(parts) < 1:
        raise UsageError(f"--static must be N,H,W, each at least 1. Got {text!r}.")
    return parts


_SUFFIXES = {"onnx": ".onnx", "openvino": ".xml"}
