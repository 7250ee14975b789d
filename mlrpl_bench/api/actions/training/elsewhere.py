"""This module sees how far other processes are with the cells that this one is to train, for the time that is left."""

from __future__ import annotations

import contextlib
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence

from mlrpl_bench.records.cell import Cell, Job
from mlrpl_bench.records.leases.claims import in_force
from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.leases.presence import at_work
from mlrpl_bench.records.store import ResultStore

LOOK_SECONDS = 10.0
"""This is the least time between two looks at the folder."""

PART_OF_THE_TIME = 0.005
"""Looking takes no larger part of the time than this: with many cells on a slow file system it is done more rarely."""


class Elsewhere:
    """This object looks now and then at the cells that this process is to train, as far as others train them, too.

    Processes that train other cells in the same folder do not count.

    Args:
        clock: seconds from any start that never go back.

    Attributes:
        finished: the cells that have a record, whoever trained them, as of the last look.
    """

    def __init__(self, jobs: Sequence[Job], store: ResultStore, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self.finished: set[Cell] = set()
        self._folders = {job.cell: store.folder(job.cell) for job in jobs}
        self._among = sorted({store.root / job.cell.setting.dataset for job in jobs})
        self._store, self._observer = store, Owner()  # only looks: it owns nothing
        self._had_company = False
        self._next = clock()

    def look(self) -> Mapping[str, float] | None:
        """Return how many cells each other process has made of those that it trains now; None between two looks."""
        if (began := self.clock()) < self._next:
            return None
        made: dict[str, float] = {}
        with contextlib.suppress(OSError):  # what cannot be looked at is no news
            self._look(made)
        ended = self.clock()
        self._next = ended + max(LOOK_SECONDS, (ended - began) / PART_OF_THE_TIME)
        return made

    def _look(self, made: dict[str, float]) -> None:
        here = (platform.node(), os.getpid())
        company = [each for among in self._among for each in at_work(among, self._observer)]
        shares = {each.owner: each.step / max(each.steps, 1) for each in company if (each.node, each.process) != here}
        had_company, self._had_company = self._had_company, bool(shares)
        if not shares and not had_company:
            return
        for cell in self._folders.keys() - self.finished:
            if self._store.has_own_record(cell):
                self.finished.add(cell)
            elif (claim := in_force(self._folders[cell])) is not None and claim.owner in shares:
                made[claim.owner] = made.get(claim.owner, 0.0) + shares[claim.owner]
