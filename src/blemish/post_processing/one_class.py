"""Older address of `blemish.post_processing.OneClassPostProcessor`, kept for code that imports it from here."""

from blemish.post_processing.post_processor import OneClassPostProcessor

__all__ = ["OneClassPostProcessor"]
