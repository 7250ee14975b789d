"""What a group of cells says of each epoch once all of its cells have ended it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from mlrpl_bench.training.launchers.events import Began, SweepEvent
from mlrpl_bench.training.trainer import EpochDone, Note, StepDone, Working


@dataclass(frozen=True)
class Epoch:
    """An epoch that a group has ended.

    Attributes:
        cells: how many were trained side by side in it.
        epoch: its number, from 1; of `epochs`.
        loss: the mean over the cells of the sum of their losses.
        test_mAP: the mean over the cells, in percent.
        images_per_second: since the group began here, over all cells.
        seconds_left: until the group ends, if it goes on as fast.
    """

    cells: int
    epoch: int
    epochs: int
    loss: float
    test_mAP: float
    images_per_second: float
    seconds_left: float


class Epochs:
    """Hears the events of a sweep, and tells of an epoch at the next step or a cell's end.

    Args:
        least_seconds: between two epochs that are told of, the last one aside; no time is shorter than 0.
        clock: seconds from any start that never go back.
    """

    def __init__(self, least_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.least_seconds, self.clock = least_seconds, clock
        self._batch = 0
        self._steps: StepDone | None = None
        self._rows: list[dict[str, float]] = []  # what the cells said of the epoch that ended last
        self._began, self._ended, self._told = 0.0, 0.0, -math.inf
        self._first_step = self._cells = 0

    def hear(self, epochs: int, event: SweepEvent) -> Epoch | None:
        """The epoch that this event shows to be over, if it is time to tell of it.

        Args:
            epochs: for how many the event's cell is trained.
        """
        if isinstance(event, Began):
            self.begin(event.batch, event.cells)
            return None
        if isinstance(event, EpochDone):
            self._rows.append(event.row)
            self._ended = self.clock()
            return None
        # A note may come between the ends of two cells; one after the last of them belongs below the epoch's line.
        early = isinstance(event, Working) or (isinstance(event, Note) and len(self._rows) < self._cells)
        over = self._over(epochs) if self._rows and not early else None
        if isinstance(event, StepDone):
            if self._steps is None:
                self._first_step = event.epoch * event.steps_per_epoch + event.step - 1
            self._steps = event
        return over

    def begin(self, batch: int, cells: int) -> None:
        """Begin with a group of so many cells, whose steps have so many images each."""
        self._cells = cells
        self._steps, self._rows, self._batch, self._told = None, [], batch, -math.inf
        self._began = self.clock()

    def _over(self, epochs: int) -> Epoch | None:
        rows, self._rows = self._rows, []
        epoch, now = int(rows[-1]["epoch"]) + 1, self._ended
        if not self._batch or self._steps is None or (epoch < epochs and now - self._told < self.least_seconds):
            return None
        self._told = now
        loss = sum(value for row in rows for name, value in row.items() if name.startswith("loss.")) / len(rows)
        precision = sum(row["test.mAP"] for row in rows) / len(rows)
        made = epoch * self._steps.steps_per_epoch - self._first_step
        seconds = max(now - self._began, 1e-9)
        left = (epochs - epoch) * self._steps.steps_per_epoch * seconds / max(made, 1)
        speed = made * self._batch * len(rows) / seconds
        return Epoch(len(rows), epoch, epochs, loss, 100 * precision, speed, left)
