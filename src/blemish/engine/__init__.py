"""`Engine`: fit, update, validate, test, predict and export over `lightning.Trainer`."""

from blemish.engine.engine import Engine

__all__ = ["Engine"]
