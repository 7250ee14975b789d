"""This module estimates when a command has trained all its cells, from how far it is and how long that took."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


class TimeLeft:
    """This estimate takes every cell for equally long, and goes on as fast as the command was so far.

    Cells that were begun before, or that other processes train, count with what is made of them meanwhile.

    Args:
        clock: seconds from any start that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.done, self.total = 0, 0
        self._here: dict[str, float] = {}
        self._elsewhere: dict[str, float] = {}
        self._before = 0.0  # cells that were made when they were first heard of
        self._began: float | None = None

    def cells(self, done: int, total: int) -> None:
        """Hear how many of the command's cells are done."""
        if not self.total:
            self._before += done
        self.done, self.total = done, total

    def here(self, title: str, share: float) -> None:
        """Hear which share of a cell's training is made in this process, between 0 and 1."""
        self._begin()
        if title not in self._here:
            self._before += share
        self._here[title] = share

    def ended(self, title: str) -> None:
        """Hear that a cell has ended, however it did and wherever."""
        self._begin()
        self._here.pop(title, None)
        self.done += 1

    def elsewhere(self, cells: Mapping[str, float]) -> None:
        """Hear how many cells other processes have made of those that they train now, by process."""
        self._begin()
        self._before += sum(number for process, number in cells.items() if process not in self._elsewhere)
        self._elsewhere = dict(cells)

    def seconds(self) -> float | None:
        """Estimate the seconds until all cells are trained; None while nothing is known."""
        if self._began is None:
            return None
        made = self.done + sum(self._here.values()) + sum(self._elsewhere.values())
        left = max(self.total, self.done + len(self._here)) - made
        since, seconds = made - self._before, self.clock() - self._began
        return max(left, 0.0) * seconds / since if since > 0 and seconds > 0 else None

    def _begin(self) -> None:
        if self._began is None:
            self._began = self.clock()
