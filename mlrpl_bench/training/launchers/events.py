"""This module defines what a sweep tells of its cells, besides what the trainer tells of each."""

from __future__ import annotations

from dataclasses import dataclass, fields

from mlrpl_bench.records.cell import Cell, Finished
from mlrpl_bench.records.record import Record
from mlrpl_bench.training.trainer import Event, Failed


@dataclass(frozen=True, eq=False, kw_only=True)
class Stored(Finished):
    """A cell is trained and its record is written.

    Attributes:
        record: as it was read back and checked.
    """

    record: Record

    @classmethod
    def from_finished(cls, finished: Finished, record: Record) -> Stored:
        """Make the event from what training left behind and the record of it."""
        return cls(**{each.name: getattr(finished, each.name) for each in fields(finished)}, record=record)


@dataclass(frozen=True)
class FoundFinished:
    """Another process finished a cell that was asked for here too.

    Attributes:
        cell: the cell.
        record: what that process left behind; None where it cannot be read.
    """

    cell: Cell
    record: Record | None = None


@dataclass(frozen=True)
class Waiting:
    """All cells that are left are other processes'.

    Attributes:
        cells: how many cells are left.
        hosts: the machines on which these processes run.
    """

    cells: int
    hosts: tuple[str, ...]


@dataclass(frozen=True)
class Began:
    """A group of cells begins to train side by side, or goes on.

    Attributes:
        cells: the number of cells in the group.
        steps_per_epoch: the steps in an epoch.
        batch: the images in a step of a cell.
        rates: the highest learning rate of each cell.
    """

    cells: int
    steps_per_epoch: int
    batch: int
    rates: tuple[float, ...]


SweepEvent = Event | Stored | FoundFinished | Waiting | Began


def ends_a_cell(event: SweepEvent) -> bool:
    """Tell whether the cell of this event is through, one way or the other."""
    return isinstance(event, (Finished, FoundFinished, Failed))
