"""This module keeps as many workers going as there is work and room, and replaces those that died."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.launchers.placement import Placement
from mlrpl_bench.utils import signals
from mlrpl_bench.utils.errors import UserError

LOOK_SECONDS = 2.0
"""Between two looks at the results folder."""

TRIES = 3
"""After so many workers in succession that left nothing behind, no other is started."""

ASSUMED = 8
"""So many cells are taken to have been side by side in a worker that was killed for lack of memory and had no limit."""


class Folder(Protocol):
    """A folder says what there is of the cells that are asked for."""

    def look(self) -> None:
        """Look again; the answers below are of this moment."""

    @property
    def left(self) -> Sequence[str]:
        """Return the titles of the cells that have neither a record nor failed."""

    @property
    def free(self) -> int:
        """Return how many of these nobody trains."""

    @property
    def progress(self) -> object:
        """Return something that changes with every checkpoint and every record."""


Work = Callable[[Mapping[str, Any], int | None], Mapping[str, Any]]
"""Does a work order, as plain data, in groups of at most so many cells; returns ``code`` and ``line``: see `Ended`."""


@dataclass(frozen=True)
class Launch:
    """A launch holds what a launcher is given.

    Attributes:
        path: where the order is written; in the results folder.
        work: does the order in this process; can be pickled by its name.
        say: takes a line for a person.
    """

    order: WorkOrder
    path: Path
    placement: Placement
    folder: Folder
    work: Work
    say: Callable[[str], None]


@dataclass(frozen=True)
class Ended:
    """This says how a worker ended.

    Attributes:
        name: which one, for people.
        code: its exit code: 0 and 1 where it did what there was to do, 2 where nothing could be done, 128 and more
            where it was told to stop; None where it died.
        line: what it said last, or how it died.
        out_of_memory: whether it was killed because the machine ran short of memory.
    """

    name: str
    code: int | None
    line: str = ""
    out_of_memory: bool = False


class Pool(Protocol):
    """A pool holds the workers of one launcher."""

    @property
    def running(self) -> int:
        """Return how many were started and have not ended."""

    def room(self) -> int:
        """Return how many may run at once now."""

    def start(self, most: int | None) -> None:
        """Start one, which trains at most so many cells side by side."""

    def wait(self, seconds: float) -> Sequence[Ended]:
        """Return the workers that end within so many seconds."""

    def stop(self) -> None:
        """Let all workers write checkpoints and end."""


def drive(pool: Pool, folder: Folder, say: Callable[[str], None], most: int | None = None) -> None:
    """Keep workers going until every cell has a record or has failed.

    Whatever ends this function ends the workers, too; the same command goes on later.

    Args:
        most: how many cells are trained side by side at most; None for as many as fit in memory. It is halved when a
            worker was killed because its machine ran short of memory.

    Raises:
        UserError: no worker can do anything, or `TRIES` in succession left nothing behind.
        Interrupted: on Ctrl-C or SIGTERM, after the workers wrote checkpoints and ended.
    """
    with signals.graceful_stop() as requests:
        try:
            _drive(pool, folder, say, most, requests)
        finally:
            pool.stop()


def _drive(
    pool: Pool, folder: Folder, say: Callable[[str], None], most: int | None, requests: signals.Requests
) -> None:
    fruitless, before = 0, folder.progress
    while True:
        requests.raise_if_asked()
        folder.look()
        if not folder.left and not pool.running:
            return
        if folder.free and fruitless >= TRIES:
            raise UserError(_given_up(folder))
        while folder.free and pool.running < min(pool.room(), len(folder.left)):
            pool.start(most)
        for ended in pool.wait(LOOK_SECONDS):
            folder.look()
            _tell(ended, say)
            if ended.out_of_memory:
                most = max(1, (most or ASSUMED) // 2)
                say(f"its machine ran short of memory; from now on at most {most} cells are trained side by side")
            if folder.progress != before:
                fruitless, before = 0, folder.progress
            elif folder.free or ended.code not in (0, 1):
                fruitless += 1


def _tell(ended: Ended, say: Callable[[str], None]) -> None:
    """Say of a worker that it ended too early.

    Raises:
        UserError: no worker can do what it could not.
    """
    if ended.code == 2:
        raise UserError(f"{ended.name}: {ended.line.removeprefix('error: ')}")
    if ended.code not in (0, 1):
        say(f"{ended.name} ended before its work was done ({ended.line})")


def _given_up(folder: Folder) -> str:
    titles = ", ".join(folder.left[:3]) + (f" and {len(folder.left) - 3} more" if len(folder.left) > 3 else "")
    return (
        f"gave up: {TRIES} workers in succession ended without a checkpoint or a record; left: {titles}; train one "
        "without --launcher to see why"
    )
