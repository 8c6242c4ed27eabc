"""Raw scores to verdicts: thresholds, normalisation, labels and masks; and the classic picture functions under their
old address.
"""

from blemish.post_processing.base import BasePostProcessor
from blemish.post_processing.post_processor import CalibrationRecord, OneClassPostProcessor, PostProcessor

__all__ = ["BasePostProcessor", "CalibrationRecord", "OneClassPostProcessor", "PostProcessor"]
