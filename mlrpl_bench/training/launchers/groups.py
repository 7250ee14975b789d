"""Which cells are trained side by side, and in which groups."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from mlrpl_bench.records.cell import Cell, Job
from mlrpl_bench.training.checkpoint import State

Position = tuple[int, int]
"""Epoch and step at which a cell goes on."""


def halved(size: int) -> int:
    """The size of the groups that come after one that was too large."""
    return max(1, size // 2)


def position_of(state: State | None) -> Position | None:
    return None if state is None else (state["epoch"], state["step"])


def alike(jobs: Sequence[Job], positions: Mapping[Cell, Position | None] | None = None) -> list[list[Job]]:
    """Jobs by what they must have in common to be trained together, in the order of their first members.

    Args:
        positions: epoch and step at which cells go on, where they do not begin.
    """
    found: dict[tuple, list[Job]] = {}
    for job in jobs:
        recipe, position = job.cell.recipe, (positions or {}).get(job.cell)
        found.setdefault((job.cell.setting, job.cell.seed, recipe.epochs, recipe.batch, position), []).append(job)
    return list(found.values())


def portions(jobs: Sequence[Job], size: int) -> list[list[Job]]:
    """As few groups as there must be of at most `size` jobs, and these as even as can be.

    The shared part costs the same as with one small group left over, but results come sooner.
    """
    number = -(-len(jobs) // size)
    ends = [len(jobs) * place // number for place in range(number + 1)]
    return [list(jobs[start:end]) for start, end in itertools.pairwise(ends)]
