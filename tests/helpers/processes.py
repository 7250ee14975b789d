"""The command line in processes that have imported everything already, so that each starts in a tenth of a second.

Test modules import this; it has no tests.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

PRELOADED = (
    *("mlrpl_bench.cli.app", "mlrpl_bench.api.actions.execute", "mlrpl_bench.tools.predict"),
    *("mlrpl_bench.leaderboard.report.write", "mlrpl_bench.leaderboard.report.figures", "rich.markdown"),
    *("lightning_fabric", "sklearn.cluster", "scipy.stats", "matplotlib.pyplot"),
)


class Ended(NamedTuple):
    """How a process ended: its exit code (-9: killed), and what it printed."""

    code: int | None
    said: str


def call(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    prepare: Callable[[], None] | None = None,
    seconds: float = 300,
) -> Ended:
    """Run a command to its end.

    Args:
        folder: the current one of the process.
        prepare: called in the process before the command; a module's function, or a partial of one.
    """
    said = folder / f"said-{len(list(folder.glob('said-*')))}"
    process = begin(arguments, environment, folder, said, said, prepare)
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(said.read_text())
    return Ended(process.exitcode, said.read_text() if said.exists() else "")


def begin(
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: Path,
    out: Path,
    err: Path,
    prepare: Callable[[], None] | None = None,
) -> BaseProcess:
    """Start a command, see `call`; what it prints is added to two files, which may be the same."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_main, args=(list(arguments), dict(environment), folder, (out, err), prepare))
    process.start()
    return process


def _main(
    arguments: list[str],
    environment: dict[str, str],
    folder: Path,
    said: tuple[Path, Path],
    prepare: Callable[[], None] | None,
) -> None:
    os.environ.update(environment)
    os.chdir(folder)
    for descriptor, path in enumerate(said, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
    import torch

    from mlrpl_bench.cli import app

    torch.set_num_threads(1)
    if prepare is not None:
        prepare()
    sys.argv = ["bench.py", *arguments]
    app.main()


def work_in_imports_of_torch(call: Callable[[], object]) -> float:
    """Return the processor time of the processes that a call waits for, in imports of torch.

    Both are measured one after the other, so that a machine on which everything takes three times as long gives
    the same number.
    """
    own = _work_of_processes(call)
    return own / _work_of_processes(lambda: subprocess.run([sys.executable, "-c", "import torch"], check=True))


def _work_of_processes(call: Callable[[], object]) -> float:
    before = os.times()
    call()
    after = os.times()
    return after.children_user + after.children_system - before.children_user - before.children_system
