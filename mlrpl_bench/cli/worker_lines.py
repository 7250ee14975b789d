"""This module writes the lines about epochs that processes elsewhere have ended, of which their folder tells."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from mlrpl_bench.records.leases.presence import AtWork
from mlrpl_bench.training.launchers.epochs import epoch_line


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
    return f"{of.name} ({of.device}): {epoch_line(of)}"
