"""Every error `blemish` raises on purpose.

Exceptions form one tree, so that a caller can react to a kind of trouble instead of parsing a message::

    BlemishError
     +- UsageError (ValueError)            an argument, flag or configuration key is wrong
     +- DataError (ValueError)             the images, masks or folders are wrong
     |   +- ImageReadError                 one file can't be decoded; `.path` names it
     +- NotFittedError (RuntimeError)      a detector was asked for a score before `fit`
     +- NotCalibratedError (RuntimeError)  a verdict was asked for before thresholds exist
     +- NonFiniteError (ArithmeticError)   NaN or infinity where a score or feature should be
     +- CalibrationError (ValueError)      the calibration data can't support what was asked of it
     +- ArtifactError (ValueError)         a model file is damaged, foreign, too new or too large
     +- OutputError (OSError)              a file can't be written; `.path` names it
     +- ExportError (RuntimeError)         an exported file would not give the verdicts of its model
     +- WeightsError (RuntimeError)        backbone weights are absent, damaged or don't fit
     +- MissingExtraError (ImportError)    an optional dependency isn't installed

A message says what was given, what is allowed and what to do. Where a built-in exception fits, the class inherits from
it as well, so that `except ValueError` keeps working.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from blemish.escaping import one_line


class BlemishError(Exception):
    """Base class of every deliberate error."""


class UsageError(BlemishError, ValueError):
    """An argument, command-line flag or configuration key is wrong."""


class DataError(BlemishError, ValueError):
    """The images, masks or folders can't be used as given."""


class ImageReadError(DataError):
    """One image file can't be decoded. `path` names it, `reason` says why."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{one_line(os.fspath(path))}: {reason}")
        self.path = os.fspath(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[ImageReadError], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # crosses processes: exceptions rebuild themselves from args


class NotFittedError(BlemishError, RuntimeError):
    """A detector was asked for a score before it was fitted."""


class NotCalibratedError(BlemishError, RuntimeError):
    """A verdict was asked for before the post-processor had thresholds."""


class NonFiniteError(BlemishError, ArithmeticError):
    """NaN or infinity appeared where a feature or a score should be."""


class CalibrationError(BlemishError, ValueError):
    """The calibration data can't support the threshold that was asked for."""


class ArtifactError(BlemishError, ValueError):
    """A model file is damaged, foreign, of a newer schema, or holds tensors of an absurd size."""


class OutputError(BlemishError, OSError):
    """A file or folder can't be written. `path` names it, `reason` says why, `advice` what to do."""

    def __init__(self, path: str | os.PathLike[str], reason: str, advice: str = "Choose another place.") -> None:
        super().__init__(f"{one_line(os.fspath(path))} can't be written: {reason}. {advice}")
        self.path, self.reason, self.advice = os.fspath(path), reason, advice

    def __reduce__(self) -> tuple[type[OutputError], tuple[str, str, str]]:
        return type(self), (self.path, self.reason, self.advice)


class ExportError(BlemishError, RuntimeError):
    """A model can't be exported, or the exported graph doesn't give its verdicts; the message holds the comparison."""


class WeightsError(BlemishError, RuntimeError):
    """Backbone weights are absent, damaged, or don't fit the network."""


class MissingExtraError(BlemishError, ImportError):
    """An optional dependency isn't installed. The message holds the pip command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f'This needs {package}, which is not installed. Run: pip install "blemish[{extra}]"')
        self.package, self.extra = package, extra

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), (self.package, self.extra)


def one_of(choices: Sequence[str]) -> str:
    """Choices in words: "'a' or 'b'", "one of a, b, c"."""
    return " or ".join(map(repr, choices)) if len(choices) < 3 else f"one of {', '.join(choices)}"
