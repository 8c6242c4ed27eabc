"""Documented address of `blemish.engine.post_processor.OneClassPostProcessor`."""

from blemish.engine.post_processor import OneClassPostProcessor

__all__ = ["OneClassPostProcessor"]
