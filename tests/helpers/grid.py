"""A small grid that is trained by commands in processes of their own, one after another or at the same time.

Test modules import this; it has no tests.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.helpers.places import BENCH, ROOT
from tests.helpers.tiny_study import DATASET, METHOD, contents, write_plugin

GRID = ("run", "plain", "--dataset=tiny", "--ratios=0.2,0.4,0.6,0.8", "--epochs=60", "--checkpoint-every=0.02")
CELLS = 4


def write_files(folder: Path) -> dict[str, str]:
    """Write the data set and the method; the environment variables that the commands need."""
    write_plugin(folder / "tiny_set.py", DATASET)
    write_plugin(folder / "plain.py", METHOD)
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {"MLRPL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1", "PYTHONPATH": path}


def started(folder: Path, results: str, *options: str) -> subprocess.Popen[str]:
    """The command that trains the grid into a folder of results; its words are in one stream."""
    plugins = ["--plugin=tiny_set.py", "--plugin=plain.py"]
    command = [sys.executable, str(BENCH), *GRID, f"--results-dir={results}", *plugins, *options]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(process: subprocess.Popen[str], code: int = 0) -> str:
    """What a command said until it ended as it should."""
    said = process.communicate(timeout=170)[0]
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


def wait_for_a_checkpoint(folder: Path, results: str) -> None:
    """Until a cell is in the middle of its training."""
    until = time.monotonic() + 120
    while not list((folder / results).glob("tiny/*/*/checkpoint.pt")):
        assert time.monotonic() < until, "no worker began"
        time.sleep(0.1)
