"""Settings as flags and as files: every setting is a flag with its name, and a key of a YAML file.

The settings themselves, with defaults and help, are `blemish.settings` and those of the detectors.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import typer

from blemish.errors import UsageError
from blemish.functional.pixels import height_width
from blemish.models import DETECTORS
from blemish.options import Names, Option, Settings, Size, as_text
from blemish.presets import PRESETS
from blemish.settings import options, sections

OPTIONS = options(DETECTORS)
SECTION_OF = {name: title for title, names in sections(DETECTORS).items() for name in names}

THRESHOLD = typer.Option(None, "--threshold", help="Raw score from which an image is anomalous; marks follow.")
SENSITIVITY = typer.Option(None, "--sensitivity", help="0 to 1; higher calls more images anomalous; marks follow.")
RATE = typer.Option(None, "--rate", help="Wanted share of good images called anomalous, by the calibration's scores.")

_Given = TypeVar("_Given", bound=Settings)


def with_flags(*names: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Gives a command one flag for each of these settings, in place of its **flags. Absent flags are None."""

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command)
        parameters = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        for option in (OPTIONS[name] for name in names):
            flag = option.name.replace("_", "-")
            names_of = [f"--{flag}/--no-{flag}" if option.kind is bool else f"--{flag}"]
            names_of += ["--device"] if option.name == "accelerator" else []  # as predict calls it
            default = typer.Option(
                None, *names_of, help=help_of(option), show_default=False, rich_help_panel=SECTION_OF[option.name]
            )
            kind = (option.kind if option.kind in (int, float, bool) else str) | None
            parameters.append(
                inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
            )
        command.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {p.name: p.annotation for p in parameters} | {"return": None}
        return command

    return decorate


def help_of(option: Option) -> str:
    """What `--help` says of a flag: whose it is, what it does, choices and default."""
    owners = " and ".join(DETECTORS[name].title for name in option.detectors)
    text = f"{owners}: {option.help[0].lower()}{option.help[1:]}" if owners else option.help
    text += f" One of {', '.join(option.choices)}." if option.choices else ""
    text += "" if option.default is None else f" Default: {as_text(option.default)}."
    preset = PRESETS["default"].get(option.name)
    return text if preset in (None, option.default) else f"{text} The default preset takes {as_text(preset)}."


def given(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that were given, as values of a configuration.

    Raises:
        UsageError: for a size that isn't one.
    """
    return {name: parse_flag(name, value) for name, value in flags.items() if value is not None}


def settings_of(kind: type[_Given], flags: Mapping[str, Any]) -> _Given:
    """One group of settings from the flags that were given."""
    return kind(**{name: value for name, value in given(flags).items() if name in kind.model_fields})


def parse_flag(name: str, value: Any) -> Any:
    """A flag's text as a configuration value: lists and sizes are comma-separated."""
    if OPTIONS[name].kind is Names:
        return [part.strip() for part in value.split(",")]
    if OPTIONS[name].kind is Size:
        size = height_width(name, value)
        return list(size) if "," in value else size[0]
    return value


def read_config(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file.

    Raises:
        UsageError: if the file can't be read or isn't a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"The configuration {path} can't be read: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"The configuration {path} must be a mapping of keys to values. Got {type(content).__name__}.")
    return content
