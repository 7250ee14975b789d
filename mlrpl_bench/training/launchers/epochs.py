"""This module reports each epoch of a group of cells once all of its cells have ended it."""

from __future__ import annotations

import dataclasses
import math
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mlrpl_bench.records.leases.presence import AtWork
from mlrpl_bench.training.launchers.events import Began, SweepEvent, Waiting, ends_a_cell
from mlrpl_bench.training.trainer import EpochDone, Note, StepDone, Working
from mlrpl_bench.utils.progress import duration
from mlrpl_bench.utils.tables import counted

FIRST_SILENCE, SILENCE = 60.0, 300.0
"""A group is without a line for at most so many seconds within an epoch: at its begin, and later."""


@dataclass(frozen=True)
class Epoch:
    """An epoch that a group has ended.

    Attributes:
        cells: how many were trained side by side in it.
        epoch: its number, from 1; of `epochs`.
        loss: the mean over the cells of the sum of their losses.
        test_mAP: the mean over the cells, in percent; None if they were not evaluated after it.
        images_per_second: in this epoch and the one before it, over all cells.
        seconds_left: until the group ends, if it goes on as fast.
    """

    cells: int
    epoch: int
    epochs: int
    loss: float
    test_mAP: float | None
    images_per_second: float
    seconds_left: float


def epoch_line(of: Epoch | AtWork) -> str:
    """Write how the cells of a group stood after an epoch; its test mAP is left out where none was taken.

    >>> epoch_line(Epoch(2, 1, 4, 0.75, 45.67, 80.0, 130.0))
    '2 cells, epoch 1/4: loss 0.7500, mAP 45.7, 80 images/s, 2 min left'
    """
    loss = math.nan if of.loss is None else of.loss
    mean = "" if of.test_mAP is None else f", mAP {of.test_mAP:.1f}"
    return (
        f"{counted(of.cells, 'cell')}, epoch {of.epoch}/{of.epochs}: loss {loss:.4f}{mean}, "
        f"{of.images_per_second:.0f} images/s, {duration(of.seconds_left)} left"
    )


def step_line(standing: Mapping[str, Any], step: StepDone) -> str:
    """Write how far a group is within an epoch.

    Args:
        standing: what `Epochs` says of the group.
        step: the step that was made last.

    >>> standing = {"cells": 17, "epochs": 10, "images_per_second": 150.0, "seconds_left": 4920.0}
    >>> step_line(standing, StepDone(0, 71, 156))
    '17 cells, epoch 1/10, step 71 of 156: 150 images/s, 1 h 22 min left'
    """
    return (
        f"{counted(standing['cells'], 'cell')}, epoch {step.epoch + 1}/{standing['epochs']}, step {step.step:,} of "
        f"{step.steps_per_epoch:,}: {standing['images_per_second']:.0f} images/s, "
        f"{duration(standing['seconds_left'])} left"
    )


class Silences:
    """This object hears what happens to a group, and tells when it was long without a line.

    The first line within an epoch is soon due, as it tells the time that is left; later ones are rare.

    Args:
        clock: seconds from any start that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._told, self._most = clock(), math.inf  # no group has begun

    def due(self, event: SweepEvent, is_told: bool) -> bool:
        """Tell whether a line is due for this event, a step, and take it for written then.

        Args:
            is_told: whether the group gets a line for it anyway.
        """
        if isinstance(event, Began):
            self._told, self._most = self.clock(), FIRST_SILENCE
            return False
        is_due = isinstance(event, StepDone) and self.clock() - self._told >= self._most
        if is_due or is_told:
            self._told, self._most = self.clock(), SILENCE
        return is_due and not is_told


class Epochs:
    """This object hears the events of a sweep, and tells of an epoch at the next step or a cell's end.

    Args:
        least_seconds: between two epochs that are told of, the last one aside; no time is shorter than 0.
        clock: seconds from any start that never go back.

    Attributes:
        standing: how far the group is, as plain data with the fields of `Epoch` (its ``epoch`` counts those that have
            ended, from 0) and ``step`` of ``steps`` over all epochs; empty while nothing is trained. Another thread may
            read it.
    """

    def __init__(self, least_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.least_seconds, self.clock = least_seconds, clock
        self.standing: Mapping[str, Any] = {}
        self._batch = self._cells = 0
        self._steps: StepDone | None = None
        self._rows: list[dict[str, float]] = []  # what the cells said of the epoch that ended last
        self._began, self._ended, self._told = 0.0, 0.0, -math.inf
        # When the last two epochs began, and the steps made before. The first epochs say little of the later ones:
        # many methods begin to blend, mix or fill in after some, and take longer from there on. Where few epochs are
        # scored (--evaluate-every), the time left holds the scoring that fell into these two, not that still to come.
        self._marks: deque[tuple[float, int]] = deque(maxlen=2)
        self._last: Epoch | None = None

    def hear(self, epochs: int, event: SweepEvent) -> Epoch | None:
        """Return the epoch that this event shows to be over, if it is time to tell of it.

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
        if isinstance(event, StepDone) and event is not self._steps:
            if self._steps is None:
                self._marks.append((self._began, _made(event) - 1))
            self._steps = event
            self.standing = self._stands(epochs, event)
        elif isinstance(event, Waiting) or ends_a_cell(event):
            self._cells -= ends_a_cell(event)
            self.standing = {**self.standing, "cells": self._cells} if self._cells > 0 else {}
        return over

    def begin(self, batch: int, cells: int) -> None:
        """Begin with a group of so many cells, whose steps have so many images each."""
        self._steps, self._rows, self._batch, self._told = None, [], batch, -math.inf
        self._cells, self._last, self.standing = cells, None, {}
        self._began = self.clock()
        self._marks.clear()

    def _over(self, epochs: int) -> Epoch | None:
        rows, self._rows = self._rows, []
        epoch, now = int(rows[-1]["epoch"]) + 1, self._ended
        if not self._batch or self._steps is None:
            return None
        loss = sum(value for row in rows for name, value in row.items() if name.startswith("loss.")) / len(rows)
        precision = 100 * sum(row["test.mAP"] for row in rows) / len(rows)
        made = epoch * self._steps.steps_per_epoch
        step_seconds = self._step_seconds(now, made)
        self._marks.append((now, made))
        left = (epochs - epoch) * self._steps.steps_per_epoch * step_seconds
        speed = self._batch * len(rows) / step_seconds
        self._last = Epoch(len(rows), epoch, epochs, loss, None if math.isnan(precision) else precision, speed, left)
        self.standing = {**self._stands(epochs, self._steps), **_plain(self._last)}
        if epoch < epochs and now - self._told < self.least_seconds:
            return None
        self._told = now
        return self._last

    def _stands(self, epochs: int, step: StepDone) -> Mapping[str, Any]:
        """Return how far the group is after a step; loss and test mAP are those of the epoch that ended last."""
        made, steps = _made(step), epochs * step.steps_per_epoch
        step_seconds = self._step_seconds(self.clock(), made)
        last = {"epoch": 0} if self._last is None else _plain(self._last)
        return {
            **last,
            "cells": self._cells,
            "epochs": epochs,
            "step": made,
            "steps": steps,
            "images_per_second": self._batch * self._cells / step_seconds,
            "seconds_left": (steps - made) * step_seconds,
        }

    def _step_seconds(self, now: float, made: int) -> float:
        """Return how long a step took in this epoch and the one before it, where so many steps are made by now."""
        began, before = self._marks[0]
        return max(now - began, 1e-9) / max(made - before, 1)


def _made(step: StepDone) -> int:
    return step.epoch * step.steps_per_epoch + step.step


def _plain(epoch: Epoch) -> dict[str, Any]:
    return dataclasses.asdict(epoch)
