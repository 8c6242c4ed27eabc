"""Documented address of `blemish.engine.post_processor.BasePostProcessor`."""

from blemish.engine.post_processor import BasePostProcessor

__all__ = ["BasePostProcessor", "PostProcessor"]

PostProcessor = BasePostProcessor
"""The base class under the name that `post_processing.base` gave it in older libraries."""
