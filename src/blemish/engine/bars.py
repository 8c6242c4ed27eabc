"""How far a trainer is: a bar for every long phase, or a function that is told."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from blemish.engine.module import AnomalyModule
from blemish.progress import Progress, silent


@contextmanager
def shown_bars(wanted: bool | Progress) -> Iterator[Progress]:
    """Bars outside of a trainer."""
    if wanted is not True:
        yield wanted or silent
        return
    shown = ProgressBars()
    with shown.bars:
        yield shown.show


def callbacks_for(wanted: bool | Progress) -> list[Callback]:
    """What a trainer is given."""
    if wanted is True:
        return [ProgressBars()]
    return [Phases(wanted)] if wanted else []


class Phases(Callback):
    """Tells a function how far each phase is: features, coreset, calibration, test, prediction. Images are counted, not
    batches.
    """

    def __init__(self, show: Progress) -> None:
        self._show = show
        self._done: dict[str, int] = {}

    def show(self, phase: str, done: int, total: int) -> None:
        """A phase has come so far."""
        self._done[phase] = done
        self._show(phase, done, total)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The detector tells of its own phases as well."""
        if isinstance(pl_module, AnomalyModule):
            pl_module.detector.progress = self.show

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The detector tells nobody any more."""
        if isinstance(pl_module, AnomalyModule):
            pl_module.detector.progress = silent

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """After an error or an interruption, too."""
        self.teardown(trainer, pl_module, "exception")

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        """Counts images whose features were taken."""
        self._advance("features", trainer.train_dataloader, batch)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        """Counts calibration images."""
        self._advance("calibration", trainer.val_dataloaders, batch)

    def on_test_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        """Counts test images."""
        self._advance("test", trainer.test_dataloaders, batch)

    def on_predict_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, *args: Any) -> None:
        """Counts predicted images."""
        self._advance("prediction", trainer.predict_dataloaders, batch)

    def _advance(self, phase: str, loader: Any, batch: Any) -> None:
        self.show(phase, self._done.get(phase, 0) + len(batch), len(loader.dataset))


class ProgressBars(Phases):
    """A bar per phase."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self.bars = Bars(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            disable=not console.is_terminal,
        )
        self._tasks: dict[str, TaskID] = {}
        super().__init__(self._move)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Opens the bars."""
        self.bars.start()
        super().setup(trainer, pl_module, stage)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the bars."""
        self.bars.stop()
        super().teardown(trainer, pl_module, stage)

    def _move(self, phase: str, done: int, total: int) -> None:
        """Moves the bar of `phase`; work that starts over gets a bar of its own."""
        task = self._tasks.get(phase)
        if task is None or done < self.bars.tasks[task].completed:
            task = self._tasks[phase] = self.bars.add_task(phase, total=total)
        self.bars.update(task, completed=done, total=total)


class _Rate(ProgressColumn):
    """Items per second."""

    def render(self, task: Task) -> Text:
        """Empty until there is a rate."""
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f}/s", style="progress.data.speed")
