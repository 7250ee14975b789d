"""This module has others start workers for a request: it writes their order and reads what they leave in the folder."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mlrpl_bench.api.actions.training.working import work
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import Resolved
from mlrpl_bench.api.watching import Watcher
from mlrpl_bench.launchers import same_code, starting
from mlrpl_bench.launchers.driver import Launch
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.launchers.placement import Placement
from mlrpl_bench.records.cell import Job
from mlrpl_bench.records.elsewhere.remote import address_of
from mlrpl_bench.records.leases.lease import Owner
from mlrpl_bench.records.leases.presence import at_work
from mlrpl_bench.records.provenance import versions
from mlrpl_bench.records.record import Record
from mlrpl_bench.records.store import ResultStore
from mlrpl_bench.training.checkpoint import FILE
from mlrpl_bench.training.launchers.events import FoundFinished
from mlrpl_bench.training.trainer import Failed
from mlrpl_bench.utils.errors import UserError


def launch(todo: Sequence[Job], resolved: Resolved, watcher: Watcher, placement: Placement) -> list[Failed]:
    """Let workers train cells, and wait for them where the launcher does; return those that failed meanwhile.

    Raises:
        UserError: the launcher can start nothing, or gives up.
    """
    folder = CellsInFolder(todo, resolved.store, watcher)
    order = order_of(resolved, placement, todo)
    if company := at_work(resolved.store.root / resolved.dataset.name, Owner()):
        names = ", ".join(each.name for each in company)
        watcher.note(f"others train in this folder already ({names}); workers are started beside them")
    path = order.write(resolved.store.root / resolved.dataset.name)
    starting.start(Launch(order, path, placement, folder, work, watcher.note))
    folder.look()
    return folder.failures()


def order_of(resolved: Resolved, placement: Placement, todo: Sequence[Job]) -> WorkOrder:
    """Return what a worker is to do, for a request and the cells of it that have no record.

    Raises:
        UserError: more workers are asked for than there can be.
    """
    request, store = resolved.request, resolved.store
    assert placement.launcher is not None
    tries = {job.cell.key: store.failed_try(job.cell) for job in todo}
    return WorkOrder(
        request=anywhere(request).to_json(),
        launcher=placement.launcher,
        planned=starting.planned_workers(placement, request.options.device),
        code=same_code.digest(request.plugins),
        versions=versions(),
        failed={key: name for key, name in tries.items() if name is not None},
    )


def anywhere(request: Request) -> Request:
    """Return the same request with absolute paths, to be read in another folder or on another machine."""
    options = request.options
    paths = {name: getattr(options, name) for name in ("data_root", "mask_file")}
    chosen = {name: path.absolute() for name, path in paths.items() if path is not None}
    weights = options.weights
    if weights is not None and Path(weights).is_file():
        weights = str(Path(weights).absolute())
    return dataclasses.replace(
        request,
        options=dataclasses.replace(options, **chosen, weights=weights),
        plugins=tuple(path.absolute() for path in request.plugins),
        results=tuple(path if address_of(path) else path.absolute() for path in request.results),
        out=None,
    )


class CellsInFolder:
    """This class reads from the results folder how some cells stand, and tells a watcher.

    Attributes:
        left: the titles of those that have neither a record nor failed.
        free: how many of these nobody trains, as far as is seen from here.
        progress: changes with every checkpoint and every record.
    """

    def __init__(self, jobs: Sequence[Job], store: ResultStore, watcher: Watcher) -> None:
        self.jobs, self.store, self.watcher = list(jobs), store, watcher
        self._observer = Owner()  # only looks: it owns nothing
        self._failed_before = {job.cell: store.failed_try(job.cell) for job in jobs}
        self._left = list(jobs)
        self.left: list[str] = [job.cell.title for job in jobs]
        self.free = 0
        self.progress: object = None
        self.look()

    def look(self) -> None:
        """Look again, and tell of the cells that have come to their end."""
        for job in list(self._left):
            failure = self._failure(job)
            if failure is None and not self.store.has_own_record(job.cell):
                continue
            self._left.remove(job)
            epochs = job.cell.recipe.epochs or 0
            self.watcher.event(job.cell.title, epochs, failure or FoundFinished(job.cell, self._record(job)))
        for among in sorted({self.store.root / job.cell.setting.dataset for job in self.jobs}):
            self.watcher.workers(at_work(among, self._observer))
        self.watcher.cells(len(self.jobs) - len(self._left), len(self.jobs))
        folders = [self.store.folder(job.cell) for job in self._left]
        self.left = [job.cell.title for job in self._left]
        self.free = sum(self._observer.may_take(folder) for folder in folders)
        self.progress = (len(folders), [_time_of(folder / FILE) for folder in folders])

    def failures(self) -> list[Failed]:
        """Return the cells that failed since this was made."""
        return [failure for job in self.jobs if (failure := self._failure(job)) is not None]

    def _record(self, job: Job) -> Record | None:
        with contextlib.suppress(UserError):  # the table names it
            return self.store.find(job.cell)
        return None

    def _failure(self, job: Job) -> Failed | None:
        if self.store.failed_try(job.cell) == self._failed_before[job.cell]:
            return None
        return Failed(job.cell, self.store.failure(job.cell) or "", traceback="")


def _time_of(path: Path) -> int | None:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return None
