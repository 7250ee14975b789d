"""This module writes the lines about epochs that processes elsewhere have ended, of which their folder tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from mlrpl_bench.cli.terminal.time_left import duration
from mlrpl_bench.records.leases.presence import AtWork
from mlrpl_bench.utils.tables import counted


class EndedEpochs:
    """This object remembers of which epochs was told.

    Args:
        least_seconds: between two epochs of a process that are told of, the last of a group aside.
        clock: seconds from any start that never go back.
    """

    def __init__(self, least_seconds: float, clock: Callable[[], float]) -> None:
        self.least_seconds, self.clock = least_seconds, clock
        self._told: dict[str, tuple[int, float]] = {}  # by process: the epoch, and when it was told

    def news(self, at_work: Sequence[AtWork]) -> Iterator[AtWork]:
        """Yield the processes that have ended an epoch since they were told of, if it is time to tell of it."""
        for each in at_work:
            epoch, when = self._told.get(each.owner, (0, -math.inf))
            epoch = min(epoch, each.epoch)  # less than before: another group has begun
            is_due = each.epoch == each.epochs or self.clock() - when >= self.least_seconds
            if each.epoch > epoch and is_due:
                epoch, when = each.epoch, self.clock()
                yield each
            self._told[each.owner] = epoch, when


def worker_line(of: AtWork) -> str:
    """Write what a process said when it had ended an epoch."""
    loss = math.nan if of.loss is None else of.loss
    return (
        f"{of.name} ({of.device}): {counted(of.cells, 'cell')}, epoch {of.epoch}/{of.epochs}: loss {loss:.4f}"
        f"{mean_precision(of.test_mAP)}, {of.images_per_second:.0f} images/s, {duration(of.seconds_left)} left"
    )


def mean_precision(percent: float | None) -> str:
    """Write what follows an epoch's loss.

    >>> mean_precision(45.67), mean_precision(None)
    (', mAP 45.7', '')
    """
    return "" if percent is None else f", mAP {percent:.1f}"
