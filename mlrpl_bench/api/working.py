"""What a worker does that a launcher started."""

from __future__ import annotations

import dataclasses
import platform
import sys
from collections.abc import Mapping
from typing import Any

from mlrpl_bench.api import cells
from mlrpl_bench.api.request import Request
from mlrpl_bench.api.resolving import resolve
from mlrpl_bench.api.watching import Quiet, Watcher
from mlrpl_bench.launchers import same_code
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.training.launchers.sweep import Worker
from mlrpl_bench.utils import shortages
from mlrpl_bench.utils.errors import UserError
from mlrpl_bench.utils.signals import Interrupted


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
        code = int(carry_out(WorkOrder.from_json(dict(content)), most, Quiet(_say)) > 0)
    except UserError as error:
        code, line = 2, str(error)
    except Interrupted as error:
        code, line = error.exit_code, f"stopped by {error}"
    except (OSError, RuntimeError) as error:
        if (shortage := shortages.shortage(error)) is None:
            raise
        code, line = 2, str(shortage)
    return {"code": code, "line": line, "node": platform.node()}


def _say(what: str, done: int, total: int) -> None:
    print(f"{what}: {done} of {total}", file=sys.stderr)


def _refuse_missing_files(request: Request) -> None:
    options = request.options
    for flag, path in (("--data-root", options.data_root), ("--mask-file", options.mask_file)):
        if path is not None and not path.exists():
            raise UserError(f"{flag} {path} is not there on {platform.node()}; every node needs it under the same path")
    for folder in request.results:
        if not folder.is_dir():
            raise UserError(
                f"--results-dir {folder} is not there on {platform.node()}; workers share one folder, or each machine "
                "trains a --shard of its own"
            )
