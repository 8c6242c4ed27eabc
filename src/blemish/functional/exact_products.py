"""Full float32 on GPUs: by default torch lets their convolutions round every factor to 11 bits (TensorFloat-32), and on
request all products. Scores then differ from those of any other device in the third digit, and verdicts near the
threshold with them.
"""

from __future__ import annotations

import threading
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType

import torch


class _ExactProducts:
    """Torch has one flag for all threads: the first who comes sets it, the last who goes puts it back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._before = (False, False)

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
                torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
            self._inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = self._before


_exact = _ExactProducts()


def exact_products(device: torch.device) -> AbstractContextManager[None]:
    """While it is entered, products and convolutions on this device are those of float32; may be nested, by threads
    too. Nothing has to be done for devices other than CUDA's.
    """
    return _exact if device.type == "cuda" else nullcontext()
