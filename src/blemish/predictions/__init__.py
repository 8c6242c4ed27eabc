"""Verdicts on their way to files: rows, streams, COCO and pictures; without torch."""
