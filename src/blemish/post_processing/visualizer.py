"""Older address of `blemish.visualization.visualizer`, kept for code that imports these names from here."""

from blemish.visualization.visualizer import ImageResult, Visualizer

__all__ = ["ImageResult", "Visualizer"]
