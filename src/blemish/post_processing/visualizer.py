"""Documented address of `blemish.legacy.visualizer`."""

from blemish.legacy.visualizer import ImageResult, Visualizer

__all__ = ["ImageResult", "Visualizer"]
