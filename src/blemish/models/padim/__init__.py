"""PaDiM: one Gaussian of good features per patch position (arXiv 2011.08785)."""

from blemish.models.padim.detector import Padim

__all__ = ["Padim"]
