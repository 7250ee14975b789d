"""Whatever moment a run is killed at, the same command goes on and the scores are those of a run without a break."""

import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from mlrpl_bench.training.checkpoint import HEAD_BYTES
from tests.helpers.places import BENCH
from tests.helpers.tiny_study import DATASET, contents, write_plugin

STEPS_PER_EPOCH = 3
"""Of the tiny data set: 12 pictures in batches of 4."""


@pytest.fixture
def command(tmp_path):
    """The command that trains one cell with a checkpoint at every step, for a results folder."""
    plugin = write_plugin(tmp_path / "tiny_set.py", DATASET)
    asked = ("run", "sarb", "--dataset=tiny", "--ratios=0.5", "--epochs=12", "--device=cpu", "--checkpoint-every=0")

    def command(results: Path) -> list[str]:
        return [sys.executable, str(BENCH), *asked, f"--plugin={plugin}", f"--results-dir={results}"]

    return command


@pytest.fixture
def environment(tmp_path):
    return {**os.environ, "MLRPL_CACHE": str(tmp_path / "cache"), "OMP_NUM_THREADS": "1"}


def scores(results: Path) -> dict[str, np.ndarray]:
    (folder,) = (results / "tiny" / "sarb").iterdir()
    assert not {"checkpoint.pt", "claim-1.jsonl"} & contents(folder).keys()
    arrays = {}
    for name in ("scores", "train_scores", "steps"):
        with np.load(folder / f"{name}.npz") as found:
            arrays |= {f"{name} {key}": found[key] for key in found}
    return arrays


def moment(results: Path) -> str:
    """In which part of a run a process was killed, from what it left behind."""
    files = {path.name: path for path in results.glob("tiny/sarb/*/*")}
    if "record.json" in files:
        return "after the record"
    if any(name.startswith(".checkpoint.pt") for name in files):
        return "while a checkpoint was written"
    if "scores.npz" in files or "cell.json" in files:
        return "while the record was written"
    if "checkpoint.pt" not in files:
        return "before the first checkpoint"
    state = torch.load(io.BytesIO(files["checkpoint.pt"].read_bytes()[HEAD_BYTES:]), weights_only=True)["state"]
    at_an_end = state["step"] == STEPS_PER_EPOCH
    return "evaluation or pass between epochs, or start" if at_an_end else "between steps, or start"


def killed_until_done(
    command: list[str], environment: dict[str, str], results: Path, kills: int, moments: random.Random, whole: float
) -> Counter[str]:
    """Start a command again and again, kill it at random moments, then let it finish; how often it was killed where."""
    killed = Counter[str]()
    for _ in range(kills):
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
        try:
            _, complaints = process.communicate(timeout=moments.uniform(0.3 * whole, whole))
            assert process.returncode == 0, complaints
            break  # it was quicker
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed[moment(results)] += 1
    for _ in range(2):  # the second one finds it done
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return killed


@pytest.mark.slow  # everyday: a few moments in test_kill_moments, and a killed process in test_many_processes
@pytest.mark.parametrize(("runs", "kills"), [(1, 2), (12, 5)])
def test_a_run_that_is_killed_gives_the_scores_of_one_that_is_not(tmp_path, command, environment, runs, kills):
    subprocess.run(command(tmp_path / "warm"), env=environment, check=True, capture_output=True)  # draws the pictures
    start = time.monotonic()
    subprocess.run(command(tmp_path / "whole"), env=environment, check=True, capture_output=True)
    whole = time.monotonic() - start
    expected = scores(tmp_path / "whole")
    killed = Counter[str]()
    for run in range(runs):
        moments = random.Random(run)
        for trial in range(6):  # on a machine that has become quicker since, a run may end before any of its kills
            results = tmp_path / f"killed-{run}-{trial}"
            met = killed_until_done(command(results), environment, results, kills, moments, whole * 0.7**trial)
            if met:
                break
        assert met, f"run {run} was never killed in time"
        killed += met
        found = scores(results)
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=f"{name} of run {run}")
    print(f"killed {killed.total()} times:", *(f"\n  {number:3} {where}" for where, number in killed.most_common()))
