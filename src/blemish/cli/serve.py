"""`blemish serve`: the inspection station."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from blemish.cli.console import out, print_json
from blemish.errors import UsageError


class _Verbs(TyperGroup):
    """A first word that is no verb is meant for `run`: `blemish serve parts.onnx`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if args and args[0] in self.commands else ["run", *args])


serve = typer.Typer(cls=_Verbs, help="Inspect a line, with a memory of every verdict; back a station up.")


@serve.command()
def run(
    model: Path | None = typer.Argument(None, help="Model file, where there is one product; or a .catalog."),
    watch: list[Path] | None = typer.Option(None, "--watch", help="Folder into which something puts pictures."),
    config: Path | None = typer.Option(None, "--config", help="YAML file with all that a station can be told."),
    data: Path | None = typer.Option(None, help="Folder for database and pictures. Default: station."),
    database: str | None = typer.Option(None, help="postgresql+psycopg://... Default: SQLite in the data folder."),
    host: str | None = typer.Option(None, help="Address to listen on. Default: 127.0.0.1."),
    port: int | None = typer.Option(None, help="Port to listen on; 0: a free one. Default: 8420."),
    cert: Path | None = typer.Option(None, help="Certificate chain, PEM, for HTTPS."),
    key: Path | None = typer.Option(None, help="Its private key, PEM."),
    insecure: bool = typer.Option(False, "--insecure", help="Be reached from other machines without a login."),
    demo: bool = typer.Option(False, "--demo", help="Draw parts, good ones and bad ones, into a watched folder."),
) -> None:
    """Inspect a line: pictures from folders and over HTTP, verdicts to whoever asks, every one of them remembered.

    Prints the address of its pages, and runs until it is stopped. `blemish serve backup` copies it while it runs.
    """
    if sum((model is not None, config is not None, demo)) != 1:
        raise UsageError("Give a model file, or --config, or --demo.")
    if watch and model is None:
        raise UsageError("--watch goes with a model file. A configuration lists its sources.")
    from blemish.catalog import code_of
    from blemish.serve import configuration, server

    flags: dict[str, Any] = {
        "data": data and data.absolute(),
        "database": database,
        "host": host,
        "port": port,
        "cert": cert and cert.absolute(),
        "key": key and key.absolute(),
        "insecure": insecure or None,
    }
    with server.logging_to_stderr():
        if config is not None:
            server.serve(configuration.read_station(config, **flags))
            return
        given = {name: value for name, value in flags.items() if value is not None}
        if demo:
            from blemish.serve.demo import Demo

            story = Demo(data or configuration.StationSettings().data)
            with story:
                server.serve(configuration.station_settings({**given, **story.configuration()}))
            return
        assert model is not None
        if model.suffix.lower() == ".catalog":
            given["catalog"] = model
        else:
            given["products"] = [{"code": code_of(model), "model": model}]
        given["sources"] = [{"folder": folder} for folder in watch or ()]
        server.serve(configuration.station_settings(given))


@serve.command()
def backup(
    target: Path = typer.Argument(..., help="Folder of the copy; one that exists is brought up to date."),
    data: Path = typer.Option(Path("station"), help="The station's folder."),
    as_json: bool = typer.Option(False, "--json", help="Print one JSON object."),
) -> None:
    """Copy a station, its database and its pictures, while it runs. A station can be started on the copy."""
    from blemish.serve.backup import back_up

    copied = back_up(data, target)
    if as_json:
        print_json({"target": str(target), **asdict(copied)})
        return
    out().print(f"{target}: {copied.verdicts:,} verdicts, {copied.pictures:,} new pictures")
