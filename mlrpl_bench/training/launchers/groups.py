"""This module decides which cells are trained side by side, and in which groups."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from typing import TypeVar

from mlrpl_bench.records.cell import Cell, Job
from mlrpl_bench.training.checkpoint import State

Item = TypeVar("Item")

Position = tuple[int, int]
"""Epoch and step at which a cell goes on."""


SHARED = 2.0
"""This is what a group costs once, where each of its cells costs 1 by itself.

The shared part of a lone cell's step is half to three quarters of it on a CPU.
"""


def halved(size: int) -> int:
    """Return the size of the groups that come after one that was too large."""
    return max(1, size // 2)


def position_of(state: State | None) -> Position | None:
    return None if state is None else (state["epoch"], state["step"])


def alike(jobs: Sequence[Job], positions: Mapping[Cell, Position | None] | None = None) -> list[list[Job]]:
    """Sort jobs by what they must have in common to be trained together, in the order of their first members.

    Args:
        positions: epoch and step at which cells go on, where they do not begin.
    """
    found: dict[tuple, list[Job]] = {}
    for job in jobs:
        recipe, position = job.cell.recipe, (positions or {}).get(job.cell)
        found.setdefault((job.cell.setting, job.cell.seed, recipe.epochs, recipe.batch, position), []).append(job)
    return list(found.values())


def portions(jobs: Sequence[Item], size: int) -> list[list[Item]]:
    """Divide jobs into as few groups as there must be of at most `size` jobs, and these as even as can be.

    The shared part costs the same as with one small group left over, but results come sooner.
    """
    number = -(-len(jobs) // size)
    ends = [len(jobs) * place // number for place in range(number + 1)]
    return [list(jobs[start:end]) for start, end in itertools.pairwise(ends)]


def seconds_until_all_ended(sizes: Sequence[int], workers: int, shared: float = SHARED, own: float = 1.0) -> float:
    """Return when the last group ends if each worker takes the largest that is left as soon as it has ended one.

    Args:
        sizes: of the groups, in cells.
        shared: what a group costs once.
        own: what each cell costs by itself, in the unit of `shared`.

    Raises:
        ValueError: there is no worker.
    """
    if workers < 1:
        raise ValueError(f"{workers} workers train nothing")
    ends = [0.0] * min(workers, max(1, len(sizes)))
    for size in sorted(sizes, reverse=True):
        heapq.heapreplace(ends, ends[0] + shared + own * size)
    return max(ends)


def size_for(kinds: Sequence[int], most: int, workers: int) -> int:
    """Return how many cells to train side by side so that several workers end soonest; the largest such number.

    Groups as large as can be cost least in all, but leave workers idle where there are too few of them.

    Args:
        kinds: how many cells there are of each kind, as `alike` has them; cells of two are never trained together.
        most: how many fit in memory.
    """
    if workers == 1:
        return most

    divisions = [
        [len(portion) for kind in kinds for portion in portions(range(kind), size)] for size in range(most, 0, -1)
    ]
    soonest = min(divisions, key=lambda sizes: seconds_until_all_ended(sizes, workers))
    return max(soonest, default=most)


def planned(jobs: Sequence[Job], most: int, workers: int) -> list[list[Job]]:
    """Return the groups in which so many workers would train these jobs from the start.

    Args:
        most: how many cells fit in memory side by side.
    """
    kinds = alike(jobs)
    size = size_for([len(kind) for kind in kinds], most, workers)
    return [portion for kind in kinds for portion in portions(kind, size)]
