"""`blemish catalog`: a line's models in one file."""

from __future__ import annotations

from pathlib import Path

import typer

from blemish.cli.console import out, print_json
from blemish.cli.paths import OVERWRITE, check_model, output_file
from blemish.errors import UsageError


def catalog(
    context: typer.Context,
    models: list[str] = typer.Argument(
        ..., metavar="MODEL...", help="Model files, .safetensors; CODE=FILE where the product isn't called as the file."
    ),
    output: Path = typer.Option(..., "--output", "-o", help="Catalog to write, ending in .catalog."),
    overwrite: bool = OVERWRITE,
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Pack the models of several products into one file, with the weights that they share once: blemish serve FILE."""
    from blemish.catalog import code_of, shares, write_catalog

    parts: dict[str, Path] = {}
    for text in models:
        code, _, name = text.rpartition("=")
        path = Path(name)
        code = code or code_of(path)
        if code in parts:
            raise UsageError(f"Two models are of product {code!r}: {parts[code]} and {path}. Name one: CODE={path}.")
        check_model(path, exported="A catalog holds .safetensors models; an exported one is served as it is.")
        parts[code] = path
    context.with_resource(output_file(output, ".catalog", overwrite))
    written = write_catalog(parts, output)
    size, alone = shares(output)
    if as_json:
        print_json({"catalog": str(output), "products": written.codes, "bytes": size, "bytes_alone": alone})
        return
    out().print(
        f"{output}: {len(parts)} product(s) in {size / 2**20:.1f} MB; as files of their own {alone / 2**20:.1f} MB.",
        markup=False,
    )
