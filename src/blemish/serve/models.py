"""The models of a station by product, opened when a part needs them and held within a bound."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path

from blemish.errors import ArtifactError, UsageError
from blemish.post_processing.decision import Decision
from blemish.runtime import load
from blemish.runtime.session import Session
from blemish.serve.configuration import ProductSettings


class Models:
    """Product code -> session.

    Args:
        products: with their model files.
        threshold_of: the threshold that people set for a product and a model's fingerprint; None for the model's own.
        memory_mb: bound for the files of open sessions together; one is open in any case.
        batch_size, max_pixels: see `blemish.runtime.session.Session`.
    """

    def __init__(
        self,
        products: Sequence[ProductSettings],
        threshold_of: Callable[[str, str], float | None],
        *,
        memory_mb: float,
        batch_size: int,
        max_pixels: int,
    ) -> None:
        self._threshold_of = threshold_of
        self.products = {product.code: product.model for product in products}
        self._bound = memory_mb * 1e6
        self._batch_size, self._max_pixels = batch_size, max_pixels
        self._open: OrderedDict[str, tuple[Session, int]] = OrderedDict()
        self._lock = threading.Lock()

    def session(self, product: str) -> Session:
        """The session of a product.

        Raises:
            UsageError: for a product without a model.
            BlemishError: if its model can't be opened.
        """
        with self._lock:
            if product not in self._open:
                self._open[product] = self._load(product)
            self._open.move_to_end(product)
            while len(self._open) > 1 and sum(size for _, size in self._open.values()) > self._bound:
                self._open.popitem(last=False)
            return self._open[product][0]

    def check(self) -> None:
        """Opens every model once.

        Raises:
            BlemishError: for the first that can't be opened; it says whose it is.
        """
        for product, path in self.products.items():
            try:
                self.session(product)
            except ArtifactError as error:
                raise ArtifactError(f"Product {product!r}, model {path}: {error}") from error

    def opened(self, product: str, path: Path) -> tuple[Session, int]:
        """A session of another model file for a product, ready to be `put`; nobody waits while it opens.

        Raises:
            BlemishError: if it can't be opened.
        """
        backend = load(path).backend
        session = Session(backend, batch_size=self._batch_size, max_pixels=self._max_pixels)
        threshold = self._threshold_of(product, session.fingerprint or "")
        if threshold is not None:
            session.decision = at_threshold(session.decision, threshold)
        return session, sum(file.stat().st_size for file in _files(path))

    def put(self, product: str, path: Path, opened: tuple[Session, int]) -> None:
        """Lets another model judge a product, from the next parts on: parts that are inspected together have one."""
        with self._lock:
            self.products[product] = path
            self._open[product] = opened

    @property
    def open(self) -> list[str]:
        """Products whose sessions are open."""
        with self._lock:
            return list(self._open)

    def _load(self, product: str) -> tuple[Session, int]:
        if product not in self.products:
            known = ", ".join(self.products) or "none"
            raise UsageError(f"There is no model for product {product!r}. Products with one: {known}.")
        return self.opened(product, self.products[product])


def at_threshold(decision: Decision, threshold: float) -> Decision:
    """A decision at which exactly `threshold`, a raw score, decides about images.

    Raises:
        UsageError: for a number that float32 can't hold.
    """
    return decision.replace(image_threshold=threshold, image_sensitivity=0.5)


def calibration_scores(session: Session) -> list[float]:
    """Raw scores of the good images that the model's threshold rests on; empty where the model doesn't hold them."""
    record = session.backend.decision.record
    return [] if record is None else list(record.scores)


def _files(path: Path) -> list[Path]:
    return [path, path.with_suffix(".bin")] if path.suffix.lower() == ".xml" else [path]
