"""A station put together: what stands around the models, started and stopped in order."""

from __future__ import annotations

import logging

from blemish.catalog import unpack
from blemish.errors import BlemishError, OutputError, UsageError
from blemish.serve.accounts import Accounts
from blemish.serve.configuration import AnySource, CameraSettings, StationSettings, VideoSettings
from blemish.serve.database import Writer, migrate, open_database, sole_user
from blemish.serve.drift import Drift
from blemish.serve.feedback import Feedback
from blemish.serve.folder import WatchedFolder
from blemish.serve.frames import CameraSource, FrameSource, VideoSource
from blemish.serve.history import History
from blemish.serve.learning import Learning
from blemish.serve.metrics import Metrics
from blemish.serve.models import Models
from blemish.serve.pictures import Pictures
from blemish.serve.pipeline import Pipeline
from blemish.serve.promotions import Promotions
from blemish.serve.retention import Retention
from blemish.serve.shadow import Shadow
from blemish.serve.sinks.kinds import make_sink
from blemish.serve.sinks.worker import Worker
from blemish.serve.thresholds import Thresholds

log = logging.getLogger(__name__)


class Station:
    """Everything checked, nothing running: `start` makes it run.

    Args:
        settings: see `blemish.serve.configuration`.

    Raises:
        BlemishError: for the first thing that would not work.
    """

    def __init__(self, settings: StationSettings) -> None:
        self.settings = settings
        try:
            settings.data.mkdir(parents=True, exist_ok=True)
            self.pictures = Pictures((settings.data / "pictures").resolve(), settings.pictures, settings.review_near)
        except OSError as error:
            raise OutputError(settings.data, error.strerror or str(error)) from error
        self.engine = open_database(settings.database_url)
        self._locks = sole_user(settings.data, self.engine)
        migrate(self.engine)
        self.writer = Writer(self.engine)
        self.history = History(self.engine, self.writer)
        self.drift = Drift(self.writer)
        self.feedback = Feedback(self.history, settings.review_per_hour, settings.review_near)
        self.feedback.judged = self.pictures.hold
        self.thresholds = Thresholds(self.history, self.feedback)
        self.models = Models(
            settings.products,
            self.thresholds.of,
            memory_mb=settings.model_memory_mb,
            batch_size=settings.batch_size,
            max_pixels=settings.max_pixels,
        )
        self.retention = Retention(self.pictures)
        self.accounts = Accounts(self.engine, self.writer)
        self.pipeline = Pipeline(
            self.history, self.models, self.pictures, places=settings.queue, batch_size=settings.batch_size
        )
        self.metrics = Metrics(lambda: self.pipeline.waiting, lambda: len(self.models.open))
        self.pipeline.listeners += [self.metrics.count, self.feedback.listen, self.drift.listen]
        folder = settings.data / "learning"
        self.learning = Learning(
            folder,
            self.history,
            self.feedback,
            self.pictures,
            self.models,
            {product.code: product.dataset for product in settings.products},
        )
        if settings.catalog is not None:
            unpack(settings.catalog, settings.data / "catalog")
        self.promotions = Promotions(self.history, self.models.products, self.learning.file_of)
        self.models.products.update({code: self.promotions.file(code) for code in self.models.products})
        self.models.check()
        self.shadow = Shadow(self.learning, self.history, self.feedback, self.pictures, folder)
        self.pipeline.listeners.append(self.shadow.listen)
        self.sources: list[WatchedFolder | FrameSource] = []
        self.sinks: list[Worker] = []
        try:
            self.sources.extend(self._source(source) for source in settings.sources)
            self.sinks.extend(Worker(sink, make_sink(sink, self.pictures), self.history) for sink in settings.sinks)
        except BlemishError:
            for opened in (*self.sources, *self.sinks):
                opened.close()
            raise
        self.metrics.watch(self.sinks)
        self.pipeline.listeners += [worker.wake for worker in self.sinks]
        self.running = False

    def _source(self, settings: AnySource) -> WatchedFolder | FrameSource:
        product = self.only_product or ""
        if isinstance(settings, CameraSettings):
            return CameraSource(settings, product, self.pictures, self.pipeline)
        if isinstance(settings, VideoSettings):
            return VideoSource(settings, product, self.history, self.pictures, self.pipeline)
        return WatchedFolder(settings, product, self.history, self.pictures, self.pipeline)

    @property
    def only_product(self) -> str | None:
        """The product, where there is one alone."""
        codes = [product.code for product in self.settings.products]
        return codes[0] if len(codes) == 1 else None

    @property
    def troubles(self) -> list[str]:
        """What doesn't work at the moment, in words; empty if all is well."""
        found = [] if self.pipeline.trouble is None else [self.pipeline.trouble]
        found += [f"source {one.name}: {one.trouble}" for one in self.sources if one.trouble is not None]
        found += [f"sink {one.name}: {one.trouble}" for one in self.sinks if one.trouble is not None]
        found += [
            f"drift: scores of product {one} have changed since {moment}" for one, moment in self.drift.alarms.items()
        ]
        if not self.pictures.has_room:
            found.append("the disk is nearly full: pictures aren't stored, inspection goes on")
        return found

    def promote(self, candidate: int, *, seen: str, who: str) -> None:
        """Lets a candidate judge, see `Promotions.promote`, and no longer in the shadow."""
        self.promotions.promote(self.models, candidate, seen=seen, who=who)
        self.shadow.look()

    def go_back(self, product: str, *, seen: str, who: str) -> None:
        """Lets the model before judge again, see `Promotions.go_back`."""
        self.promotions.go_back(self.models, product, seen=seen, who=who)

    def start(self) -> None:
        """Judges what the last run left, then lets sources bring more."""
        self.pictures.tidy(self.history)
        self.retention.start()
        for worker in self.sinks:
            worker.start()
        self.shadow.start()
        self.pipeline.start()
        for source in self.sources:
            source.start()
        self.running = True
        log.info("the station runs")

    def stop(self) -> None:
        """Takes nothing more, judges what was accepted, and closes."""
        self.running = False
        for source in self.sources:
            source.stop()
        self.pipeline.stop()
        for worker in self.sinks:
            worker.stop()
        self.shadow.stop()
        self.learning.stop()
        self.retention.stop()
        self.writer.close()
        self.close()
        log.info("the station has stopped")

    def close(self) -> None:
        """Gives back folder and database."""
        for lock in self._locks:
            lock.close()
        self.engine.dispose()


def product_of(station: Station, given: str | None) -> str:
    """The product code of a part for which somebody named `given`.

    Raises:
        UsageError: if nobody named one, and there isn't one alone.
    """
    product = given or station.only_product
    if product is None:
        raise UsageError(f"product must be named: one of {', '.join(station.models.products)}.")
    return product
