"""This module runs work in several processes and counts the cores that this process may use."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from mlrpl_bench.utils.errors import UserError

Result = TypeVar("Result")


Piece = TypeVar("Piece")


def usable_cores() -> set[int]:
    """Return the cores that this process may use."""
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def in_parallel(
    function: Callable[[Piece], Result], pieces: Sequence[Piece], workers: int
) -> Iterator[tuple[Piece, Result]]:
    """Apply a function to each piece and yield pieces with results as they get ready.

    Args:
        workers: the number of processes; 0 for this one, which keeps the order.

    Raises:
        UserError: a worker process was ended from outside.
        Exception: whatever the function raises; pieces that have not been begun are then left alone.
    """
    if workers == 0:
        yield from ((piece, function(piece)) for piece in pieces)
        return
    pool = ProcessPoolExecutor(min(workers, max(len(pieces), 1)))
    try:
        waiting = {pool.submit(function, piece): piece for piece in pieces}
        for future in as_completed(waiting):
            yield waiting[future], future.result()
    except BrokenProcessPool:
        raise UserError("a worker process was ended, perhaps for want of memory; try fewer workers") from None
    finally:
        pool.shutdown(cancel_futures=True)
