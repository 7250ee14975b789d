"""At the full size of `scenes`, on two threads, the same command gives the same bits.

One method alone: ``pytest -m slow tests/system/test_threads.py -k sarb``.
"""

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mlrpl_bench.models.registry import load_methods
from tests.helpers.places import BENCH

TWO_THREADS = {**os.environ, "OMP_NUM_THREADS": "2"}


def command(results: Path, *arguments: str, epochs: int = 1) -> list[str]:
    """A training's command; what a method does later in training it does in a single epoch too, scaled."""
    asked = ("--ratios=0.9", f"--epochs={epochs}", "--device=cpu", f"--results-dir={results}")
    return [sys.executable, str(BENCH), *arguments, *asked]


def digests(results: Path) -> dict[str, str]:
    """Of the test scores, by the cell's folder."""
    found = {path.parent.name: path for path in results.glob("scenes/*/*/scores.npz")}
    return {
        f"{path.parent.parent.name}/{name}": hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in found.items()
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(load_methods()))
def test_a_method_trained_twice_on_two_threads_gives_the_same_scores(name, tmp_path):
    for results in (tmp_path / "first", tmp_path / "second"):
        done = subprocess.run(command(results, "run", name), env=TWO_THREADS, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    first, second = digests(tmp_path / "first"), digests(tmp_path / "second")
    assert [key.partition("/")[0] for key in first] == [name]
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("backbone", [("small",), ("resnet18", "--image-size=32", "--trained-stages=0")])
def test_cells_in_a_group_on_two_threads_have_the_scores_that_they_have_alone(backbone, tmp_path):
    """The second backbone is folded."""
    asked = ("sarb", "--ratios=0.1,0.9", "--epochs=1", "--device=cpu", "--weights=random", "--backbone", *backbone)
    for size in ("1", "2"):
        results = tmp_path / size
        arguments = [sys.executable, str(BENCH), "run", *asked, f"--results-dir={results}", f"--group={size}"]
        done = subprocess.run(arguments, env=TWO_THREADS, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("training 2 cells" in done.stderr) == (size == "2"), done.stderr
    alone, together = digests(tmp_path / "1"), digests(tmp_path / "2")
    assert len(alone) == 2 and alone == together


@pytest.mark.slow
def test_a_cell_that_is_killed_on_two_threads_goes_on_to_the_same_scores(tmp_path):
    arguments = ("run", "sarb", "--checkpoint-every=0")
    subprocess.run(command(tmp_path / "whole", *arguments, epochs=2), env=TWO_THREADS, check=True, capture_output=True)
    killed = tmp_path / "killed"
    process = subprocess.Popen(command(killed, *arguments, epochs=2), env=TWO_THREADS, stderr=subprocess.DEVNULL)
    while not list(killed.glob("scenes/sarb/*/checkpoint.pt")):
        assert process.poll() is None, "it ended before its first checkpoint"
        time.sleep(0.1)
    time.sleep(1)  # some steps further
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(killed.glob("scenes/sarb/*/record.json")), "it was finished before it was killed"
    done = subprocess.run(command(killed, *arguments, epochs=2), env=TWO_THREADS, capture_output=True, text=True)
    assert done.returncode == 0 and "goes on at epoch" in done.stderr, done.stderr
    assert digests(killed) == digests(tmp_path / "whole")
