"""The verbs by name; one is imported when it is asked for.

A run of `predict` would otherwise import what every other verb needs to describe its flags, and `--help` all of it.
"""

from __future__ import annotations

import importlib
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

VERBS: dict[str, str] = {
    "fit": "Learn what good parts look like and write a model file.",
    "fit-all": "Fit every product of a folder, each in a process of its own.",
    "test": "Measure a model on labeled images, on raw scores and in original pixels.",
    "report": "Write an evaluation report.",
    "predict": "Inspect images.",
    "calibrate": "Write the model with another threshold: a number, a wanted rate, or what good images of DIR say.",
    "update": "Add good images to a model and calibrate on some of them that it doesn't learn from.",
    "export": "Write a model for ONNX Runtime or OpenVINO, if it gives the same verdicts there as in torch.",
    "catalog": "Pack the models of several products into one file, with the weights that they share once.",
    "inspect": "Show a model's detector, settings, thresholds, calibration and origin.",
    "sign": "Sign models, so that machines with the public key accept no others.",
    "recommend": "Try settings on your good images, with defects planted into some of them.",
    "bench": "Fit and test detectors on every data set of a folder, with several seeds.",
    "doctor": "Show versions, devices, the weight store and what is missing.",
    "demo": "Draw parts, fit on good ones as `fit --preset fast` does, test, and leave pictures to look at.",
    "serve": "Inspect a line, with a memory of every verdict; back a station up.",
    "data": "Look into data folders.",
}
"""Name -> what `blemish --help` says of it: how its own help begins."""

_MODULES = {"update": "calibrate", "fit-all": "fit_all"}


def command_of(verb: str) -> Any:
    """A verb as typer runs it, a group for one with verbs below it; imports its module."""
    module = importlib.import_module(f"blemish.cli.{_MODULES.get(verb, verb)}")
    made = getattr(module, verb.replace("-", "_"))
    if isinstance(made, typer.Typer):
        group = typer.main.get_group(made)
        group.name = verb
        return group
    alone = typer.Typer(add_completion=False)
    alone.command(verb)(made)
    return typer.main.get_command(alone)


class Verbs(TyperGroup):
    """Lists the verbs from `VERBS` alone."""

    def __init__(self, **attrs: Any) -> None:
        super().__init__(**attrs)
        self.commands = {verb: TyperCommand(verb, help=words) for verb, words in VERBS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """See `TyperGroup`: the verb itself in place of what stands for it in lists."""
        verb, _, rest = super().resolve_command(ctx, args)
        return verb, command_of(str(verb)), rest
