"""A small grid that is trained by commands in processes of their own, one after another or at the same time.

Test modules import this; it has no tests.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mlrpl_bench.api.actions.training.working import work
from mlrpl_bench.launchers import submitit
from mlrpl_bench.launchers.driver import Launch
from mlrpl_bench.launchers.order import WorkOrder
from mlrpl_bench.launchers.placement import Placement
from mlrpl_bench.records.leases.claims import in_force
from tests.helpers.places import BENCH, ROOT
from tests.helpers.tiny_study import DATASET, METHOD, contents, write_plugin

GRID = ("run", "plain", "--dataset=tiny", "--ratios=0.2,0.4,0.6,0.8", "--epochs=3", "--checkpoint-every=0")
CELLS = 4

PATIENCE_SECONDS = 400
"""A process that imports everything may need a minute on a busy machine, and a test has half a dozen."""

SLOW = (
    METHOD.replace("from torch import nn", "import pathlib\nimport time\n\nfrom torch import nn")
    .replace(
        """        return {"bce\"""",
        """        if progress.epoch + progress.step > 0:
            take_time()
        return {"bce\"""",
    )
    .replace(
        "@register_method",
        """def take_time(path=pathlib.Path(SLOWLY)):
    start = time.monotonic()
    try:
        while time.monotonic() < start + float(path.read_text()):
            time.sleep(0.01)
    except FileNotFoundError:
        pass


@register_method""",
    )
)
"""Each step but the first takes as many seconds as a file says while it is there, so that a kill meets mid-training."""


def write_files(folder: Path) -> dict[str, str]:
    """Write the data set and the method; the environment variables that the commands need."""
    write_plugin(folder / "tiny_set.py", DATASET)
    write_plugin(folder / "plain.py", SLOW.replace("SLOWLY", repr(str(folder / "slowly"))))
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {"MLRPL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def started(folder: Path, results: str, *options: str) -> subprocess.Popen[str]:
    """The command that trains the grid into a folder of results; its words are in one stream."""
    plugins = ["--plugin=tiny_set.py", "--plugin=plain.py"]
    command = [sys.executable, str(BENCH), *GRID, f"--results-dir={results}", *plugins, *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a command said until it ended as it should."""
    said = process.communicate(timeout=PATIENCE_SECONDS)[0]
    assert process.returncode == code, said
    return said


def arrays(folder: Path, results: str) -> dict[str, bytes]:
    """What all cells left behind that does not depend on when and where they were trained, by path."""
    names = ("scores.npz", "train_scores.npz", "steps.npz", "weights.safetensors")
    records = sorted((folder / results).glob("tiny/*/*/record.json"))
    return {
        f"{record.parent.relative_to(folder / results)}/{name}": contents(record.parent)[name]
        for record in records
        for name in names
    }


def trained_alone(folder: Path) -> dict[str, bytes]:
    """The arrays of the grid as one process trains it."""
    ended(started(folder, "alone", "--device=cpu"))
    found = arrays(folder, "alone")
    assert len(found) == 4 * CELLS
    return found


@contextlib.contextmanager
def slowly(folder: Path, seconds: int = 60) -> Iterator[None]:
    """Let each step of all training in the folder take so long, until the end of the context."""
    (folder / "slowly").write_text(str(seconds))
    try:
        yield
    finally:
        (folder / "slowly").unlink()


def wait_for_a_checkpoint(folder: Path, results: str) -> None:
    """Until a cell is in the middle of its training; use it in `slowly`, so that none is at its end."""
    _wait(lambda: bool(list((folder / results).glob("tiny/*/*/checkpoint.pt"))))
    assert not list((folder / results).glob("tiny/*/*/record.json"))


def owners(folder: Path, results: str) -> list[dict[str, Any]]:
    """What the claims on cells say first of those who train."""
    leases = [in_force(cell) for cell in (folder / results).glob("tiny/plain/*")]
    return [dict(lease.facts) for lease in leases if lease is not None]


def wait_for_owners(folder: Path, results: str, launchers: set[str]) -> None:
    """Until workers of all these launchers train at the same time."""
    _wait(lambda: {owner.get("launcher") for owner in owners(folder, results)} == launchers)


def launchers_of(folder: Path, results: str) -> set[str]:
    """What started those that trained the cells, as their records say."""
    records = [json.loads(path.read_text()) for path in (folder / results).glob("tiny/*/*/record.json")]
    return {record["launcher"] for record in records}


def submitted(path: Path, workers: int) -> list[Any]:
    """The jobs of submitit's local executor, which needs no SLURM, for the order in a file."""
    launch = Launch(
        dataclasses.replace(WorkOrder.read(path), launcher="submitit", planned=workers),
        path,
        Placement("submitit", workers=workers),
        None,
        work,
        print,
    )
    return submitit.submit(launch, "local")


def _wait(happened: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < until, "it never happened"
        time.sleep(0.05)
