"""Progress of what is being done: who is told of it, and how."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol, cast

from mlrpl_bench.training.launchers import sweep

Progress = Callable[[str, int, int], object]
"""A `Report` whose answer does not matter, such as ``print``."""


class Watcher(Protocol):
    """Is told what happens while something is worked on."""

    def report(self, what: str, done: int, total: int) -> None:
        """A preparation or an evaluation goes on."""

    def cells(self, done: int, total: int) -> None:
        """So many of the cells that are to be trained are done."""

    def event(self, title: str, epochs: int, event: sweep.SweepEvent) -> None:
        """Something happened to the cell with this title, which is trained for so many epochs."""

    def note(self, text: str) -> None:
        """A line that a person should read."""

    def warn(self, text: str) -> None:
        """Something is not as it should be, and all that was asked for is done nevertheless."""

    def problem(self, text: str) -> None:
        """A record cannot be used, and what was asked for is done without it."""


class Quiet:
    """The `Watcher` of a notebook: progress goes to a callback, problems become Python warnings."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress: Progress = progress or (lambda *_: None)

    def report(self, what: str, done: int, total: int) -> None:
        """Hand it on."""
        self._progress(what, done, total)

    def cells(self, done: int, total: int) -> None:
        """Hand it on as ``cells``."""
        self._progress("cells", done, total)

    def event(self, title: str, epochs: int, event: sweep.SweepEvent) -> None:
        """Hand on which epoch a cell has finished."""
        if isinstance(event, sweep.EpochDone):
            self._progress(title, int(event.row["epoch"]) + 1, epochs)

    def note(self, text: str) -> None:
        """Nothing: what matters is in the result."""

    def warn(self, text: str) -> None:
        """Give a Python warning."""
        warnings.warn(text, stacklevel=2)

    def problem(self, text: str) -> None:
        """Give a Python warning."""
        warnings.warn(f"not used: {text}", stacklevel=2)


def watcher(progress: Progress | Watcher | None) -> Watcher:
    """The `Watcher` for an argument ``progress``: itself, or one that calls it."""
    return cast(Watcher, progress) if hasattr(progress, "report") else Quiet(cast("Progress | None", progress))
