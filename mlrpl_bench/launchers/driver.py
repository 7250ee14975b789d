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
from mlrpl_bench.utils.tables import counted

LOOK_SECONDS = 2.0
"""This is the time between two looks at the results folder."""

TRIES = 3
"""After so many workers in succession that left nothing behind, no other is started.

Workers that are lost together, with a zone of a cloud for instance, count as one: the next begins when they have ended.
"""

ASSUMED = 8
"""We assume that this many cells were side by side in a worker that was killed for lack of memory and had no limit."""


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
        name: which one; what `Pool.start` returned.
        code: its exit code: 0 and 1 where it did what there was to do, 2 where nothing could be done, 128 and more
            where it was told to stop; None where it died.
        line: what it said last, or how it died.
        out_of_memory: whether it was killed because the machine ran short of memory.
        node: the machine, where a worker may be on several; else "".
    """

    name: str
    code: int | None
    line: str = ""
    out_of_memory: bool = False
    node: str = ""

    @property
    def who(self) -> str:
        """Name the worker for people."""
        return f"{self.name} on {self.node}" if self.node else self.name


class Pool(Protocol):
    """A pool holds the workers of one launcher."""

    @property
    def running(self) -> int:
        """Return how many were started and have not ended."""

    def room(self) -> int:
        """Return how many may run at once now."""

    def start(self, most: int | None) -> str:
        """Start one, which trains at most so many cells side by side; return its name, which no other has."""

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
    tries = _Tries(most)
    while True:
        requests.raise_if_asked()
        folder.look()
        if not folder.left and not pool.running:
            return
        if folder.free and tries.in_vain >= TRIES:
            raise UserError(_given_up(folder))
        while folder.free and pool.running < min(pool.room(), len(folder.left)):
            tries.began(pool.start(tries.most), folder.progress)
        for ended in pool.wait(LOOK_SECONDS):
            folder.look()
            _tell(ended, say)
            tries.ended(ended, folder)
            if ended.out_of_memory:
                side_by_side = counted(tries.most or 1, "cell")
                say(f"its machine ran short of memory; from now on at most {side_by_side} are trained side by side")


@dataclass(frozen=True)
class _Begin:
    """This is the state when a worker was started: `_Tries.most`, `_Tries.in_vain` and the folder's progress."""

    most: int | None
    in_vain: int
    progress: object


class _Tries:
    """This object keeps what the ends of workers say about the next ones.

    Attributes:
        most: how many cells these may train side by side; None for as many as fit in memory.
        in_vain: how many workers in succession left nothing behind, each started after the one before had ended.
    """

    def __init__(self, most: int | None) -> None:
        self.most, self.in_vain = most, 0
        self._begins: dict[str, _Begin] = {}

    def began(self, name: str, progress: object) -> None:
        """Remember what is so when a worker begins."""
        self._begins[name] = _Begin(self.most, self.in_vain, progress)

    def ended(self, worker: Ended, folder: Folder) -> None:
        """Judge what a worker has left behind.

        Workers that were killed together say only once that there were too many cells, or that nothing was done.
        """
        begin = self._begins.pop(worker.name)
        if worker.out_of_memory:
            half = max(1, (begin.most or ASSUMED) // 2)
            self.most = half if self.most is None else min(self.most, half)
        if folder.progress != begin.progress:
            self.in_vain = 0
        elif folder.free or worker.code not in (0, 1):
            self.in_vain = max(self.in_vain, begin.in_vain + 1)


def _tell(ended: Ended, say: Callable[[str], None]) -> None:
    """Say of a worker that it ended too early.

    Raises:
        UserError: no worker can do what it could not.
    """
    if ended.code == 2:
        raise UserError(f"{ended.who}: {ended.line.removeprefix('error: ')}")
    if ended.code not in (0, 1):
        say(f"{ended.who} ended before its work was done ({ended.line})")


def _given_up(folder: Folder) -> str:
    titles = ", ".join(folder.left[:3]) + (f" and {len(folder.left) - 3} more" if len(folder.left) > 3 else "")
    return (
        f"gave up: {TRIES} workers in succession ended without a checkpoint or a record; left: {titles}; train one "
        "without --launcher to see why"
    )
