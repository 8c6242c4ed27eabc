"""Images as they are to the tensor a backbone sees, and maps back to the pixels of the image."""

from blemish.pre_processing.pre_processor import PreProcessor

__all__ = ["PreProcessor"]
