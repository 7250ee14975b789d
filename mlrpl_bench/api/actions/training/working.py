"""This module does the work of a worker that a launcher started."""

from __future__ import annotations

import dataclasses
import platform
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from mlrpl_bench.api.actions.training import cells
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve
from mlrpl_bench.api.watching import Quiet, Watcher
from mlrpl_bench.launchers import same_code
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.records.cell import Finished
from mlrpl_bench.records.elsewhere.remote import address_of
from mlrpl_bench.training.launchers.epochs import Epochs, epoch_line
from mlrpl_bench.training.launchers.events import SweepEvent
from mlrpl_bench.training.launchers.sweep import Worker
from mlrpl_bench.training.trainer import Failed, Note
from mlrpl_bench.utils import shortages
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.signals import Interrupted

LINE_SECONDS = 60.0
"""A log file gets a line about an epoch at most this often."""


def carry_out(order: WorkOrder, most: int | None, watcher: Watcher, *, waits: bool = False) -> int:
    """Train what nobody else trains of the cells that an order is for.

    Args:
        most: how many cells are trained side by side at most; None for what the order says.
        waits: whether the end of the cells that others train is waited for.

    Returns:
        How many cells failed here.

    Raises:
        UserError: the code or a library differs from the order's, or data is missing; names this machine.
        Interrupted: on SIGTERM, after checkpoints were written.
    """
    request = Request.from_json(order.request)
    same_code.refuse_other(order.code, order.versions, request.plugins)
    _refuse_missing_files(request)
    if most is not None:
        request = dataclasses.replace(request, group=min(most, request.group or most))
    worker = Worker(order.launcher, order.planned, waits)
    return cells.train_as_worker(resolve(request, watcher), watcher, worker, order.failed)


def work(content: Mapping[str, Any], most: int | None) -> Mapping[str, Any]:
    """Carry out an order that came as plain data; what went wrong comes back as plain data, too.

    Returns:
        ``code`` as the command line has it, ``line`` for a person, and the ``node``.
    """
    code, line = 0, ""
    try:
        code = int(carry_out(WorkOrder.from_json(dict(content)), most, Lines()) > 0)
    except UserError as error:
        code, line = 2, str(error)
    except Interrupted as error:
        code, line = error.exit_code, f"stopped by {error}"
    except (OSError, RuntimeError) as error:
        if (shortage := shortages.shortage(error)) is None:
            raise
        code, line = 2, str(shortage)
    return {"code": code, "line": line, "node": platform.node()}


class Lines(Quiet):
    """This watcher writes a log file: a line for each cell that ends, and at most one a minute for a group's epochs.

    Args:
        clock: seconds from any start that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._epochs = Epochs(LINE_SECONDS, clock)

    def event(self, title: str, epochs: int, event: SweepEvent) -> None:
        """Write what is worth a line."""
        if (over := self._epochs.hear(epochs, event)) is not None:
            self._write(epoch_line(over))
        if isinstance(event, Finished):
            self._write(f"{title}: mAP {100 * event.metrics['mAP']:.1f} in {event.seconds:.0f} s")
        elif isinstance(event, Failed):
            self._write(f"{title}: failed, {event.reason}")
        elif isinstance(event, Note):
            self._write(f"{title}: {event.text}")

    def note(self, text: str) -> None:
        """Write it."""
        self._write(text)

    def warn(self, text: str) -> None:
        """Write it."""
        self._write(f"warning: {text}")

    def _write(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)


def _refuse_missing_files(request: Request) -> None:
    options = request.options
    for flag, path in (("--data-root", options.data_root), ("--mask-file", options.mask_file)):
        if path is not None and not path.exists():
            raise UserError(f"{flag} {path} is not there on {platform.node()}; every node needs it under the same path")
    for folder in request.results:
        if address_of(folder) is None and not folder.is_dir():
            raise UserError(
                f"--results-dir {folder} is not there on {platform.node()}; workers share one folder, or each machine "
                "trains a --shard of its own"
            )
