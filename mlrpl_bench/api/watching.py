"""This module defines who is told of the progress of a command or a call, and how."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol, cast

from mlrpl_bench.records.leases.presence import AtWork
from mlrpl_bench.training.launchers.events import SweepEvent
from mlrpl_bench.training.trainer import EpochDone

Progress = Callable[[str, int, int], object]
"""This type is a `Report` whose return value does not matter, such as ``print``."""


class Watcher(Protocol):
    """A watcher is told what happens while a request is worked on."""

    def report(self, what: str, done: int, total: int) -> None:
        """Show how far a preparation or an evaluation is."""

    def cells(self, done: int, total: int) -> None:
        """Show how many of the cells that are to be trained are done."""

    def event(self, title: str, epochs: int, event: SweepEvent) -> None:
        """Show what happened to the cell with this title, which is trained for so many epochs."""

    def made_elsewhere(self, cells: Mapping[str, float]) -> None:
        """Hear how many of the cells other processes have made of those that they train now, by process."""

    def workers(self, at_work: Sequence[AtWork]) -> None:
        """Show how far the processes are that train the cells elsewhere; told every few seconds."""

    def note(self, text: str) -> None:
        """Show a line that a person should read."""

    def warn(self, text: str) -> None:
        """Warn of something that is not as it should be, though all that was asked for is done."""

    def problem(self, text: str) -> None:
        """Name a record that cannot be used; what was asked for is done without it."""


class Quiet:
    """A quiet watcher serves a notebook: it hands progress to a callback and turns problems into Python warnings."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress: Progress = progress or (lambda *_: None)

    def report(self, what: str, done: int, total: int) -> None:
        """Hand the progress of a preparation on to the callback."""
        self._progress(what, done, total)

    def cells(self, done: int, total: int) -> None:
        """Hand the number of finished cells on to the callback, as ``cells``."""
        self._progress("cells", done, total)

    def event(self, title: str, epochs: int, event: SweepEvent) -> None:
        """Hand on to the callback which epoch a cell has finished."""
        if isinstance(event, EpochDone):
            self._progress(title, int(event.row["epoch"]) + 1, epochs)

    def made_elsewhere(self, cells: Mapping[str, float]) -> None:
        """Ignore it; no time that is left is told."""

    def workers(self, at_work: Sequence[AtWork]) -> None:
        """Ignore how far other processes are; `cells` counts what they finish."""

    def note(self, text: str) -> None:
        """Ignore a note, as the result holds what matters."""

    def warn(self, text: str) -> None:
        """Turn a warning into a Python warning."""
        warnings.warn(text, stacklevel=2)

    def problem(self, text: str) -> None:
        """Turn a record that cannot be used into a Python warning."""
        warnings.warn(f"not used: {text}", stacklevel=2)


def watcher(progress: Progress | Watcher | None) -> Watcher:
    """Return the `Watcher` for an argument ``progress``: the argument itself, or a watcher that calls it."""
    return cast(Watcher, progress) if hasattr(progress, "report") else Quiet(cast("Progress | None", progress))
