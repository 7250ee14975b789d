"""A run that is killed at any of the moments that matter goes on, and its scores are those of a run without a break.

Other than in `test_kill`, where time decides, the process kills itself at the n-th call of a function.
"""

import functools
import os
import random
import signal
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tests.helpers.processes import call
from tests.helpers.tiny_study import DATASET, contents, write_plugin


class Moment(NamedTuple):
    """Just before, or just after, a call of a function whose first arguments may have to name a file.

    Attributes:
        where: module and name of the function, with the class where it is a method.
    """

    where: str
    file: str = ""
    after: bool = False


FILES_OF_A_RECORD = ("cell.json", "history.csv", "steps.npz", "scores.npz", "weights.safetensors", "record.json")

MOMENTS = {
    "before a claim": Moment("mlrpl_bench.records.leases.lease:Owner.take"),
    "claim written, not linked": Moment("os:link", "claim-1.jsonl"),
    "after a claim": Moment("mlrpl_bench.records.leases.lease:Owner.take", after=True),
    "before a step": Moment("mlrpl_bench.training.run:CellRun.step"),
    "after a step": Moment("mlrpl_bench.training.run:CellRun.step", after=True),
    "before the optimiser": Moment("torch.optim:Adam.step"),
    "while an image is scored": Moment("mlrpl_bench.training.run:CellRun._logits_BC"),
    "between scores and metrics": Moment("mlrpl_bench.evaluation.metrics:evaluate"),
    "in the pass over the training set": Moment("mlrpl_bench.training.run:CellRun.observe"),
    "before K-means": Moment("mlrpl_bench.models.layers.prototypes:cluster"),
    "after K-means": Moment("mlrpl_bench.models.layers.prototypes:cluster", after=True),
    "before a checkpoint": Moment("mlrpl_bench.training.checkpoint:write"),
    "checkpoint written, not renamed": Moment("os:replace", "checkpoint.pt"),
    "checkpoint renamed, folder not synced": Moment("os:replace", "checkpoint.pt", after=True),
    **{f"{name} written, not renamed": Moment("os:replace", name) for name in FILES_OF_A_RECORD},
    "record there, checkpoint too": Moment("mlrpl_bench.training.checkpoint:remove"),
    "record there, checkpoint gone": Moment("mlrpl_bench.training.checkpoint:remove", after=True),
    "before evidence": Moment("mlrpl_bench.leaderboard.evidence:Collector.collect"),
}


def watch(moments: dict[str, Moment], happens) -> None:
    """Call ``happens(name)`` at every moment."""
    for name, moment in moments.items():
        module, _, path = moment.where.partition(":")
        owner: Any = __import__(module, fromlist=["x"])
        *classes, attribute = path.split(".")
        owner = functools.reduce(getattr, classes, owner)
        setattr(owner, attribute, watched(getattr(owner, attribute), name, moment, happens))


def watched(function, name: str, moment: Moment, happens):
    def call_and_tell(*given, **named):
        is_it = not moment.file or any(str(argument).endswith(f"/{moment.file}") for argument in given)
        if is_it and not moment.after:
            happens(name)
        result = function(*given, **named)
        if is_it and moment.after:
            happens(name)
        return result

    return call_and_tell


def count(into: Path) -> None:
    """To be called in a process: how often each moment comes is written to a file, a line each."""
    lines = into.open("a", buffering=1)
    watch(MOMENTS, lambda name: lines.write(f"{name}\n"))


def kill_at(name: str, number: int) -> None:
    """To be called in a process: it kills itself when a moment comes so often."""
    seen = []

    def happens(name: str) -> None:
        seen.append(name)
        if len(seen) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    watch({name: MOMENTS[name]}, happens)


class World(NamedTuple):
    """A command, and what it makes when nothing happens: the files' arrays, and how often each moment comes."""

    folder: Path
    plugin: Path
    expected: dict[str, np.ndarray]
    counts: Counter

    def start(self, results: Path, prepare=None):
        return start(self.folder, self.plugin, results, prepare)


def start(folder: Path, plugin: Path, results: Path, prepare=None):
    asked = ("run", "sarb", "--dataset=tiny", "--ratios=0.5", "--epochs=12", "--device=cpu", "--checkpoint-every=0")
    environment = {"MLRPL_CACHE": str(folder / "cache"), "OMP_NUM_THREADS": "1"}
    return call([*asked, f"--plugin={plugin}", f"--results-dir={results}"], environment, folder, prepare)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("killed")
    plugin = write_plugin(folder / "tiny_set.py", DATASET)
    moments = folder / "moments"
    ended = start(folder, plugin, folder / "whole", functools.partial(count, moments))
    assert ended.code == 0, ended.said
    return World(folder, plugin, arrays(folder / "whole"), Counter(moments.read_text().splitlines()))


def arrays(results: Path) -> dict[str, np.ndarray]:
    """All of a finished cell, by file and name."""
    (folder,) = (path for path in (results / "tiny" / "sarb").iterdir() if path.is_dir())
    assert not [name for name in contents(folder) if "checkpoint" in name or "claim" in name]
    found = {}
    for name in ("scores", "train_scores", "steps"):
        with np.load(folder / f"{name}.npz") as file:
            found |= {f"{name} {key}": file[key] for key in file}
    return found


def goes_on(world: World, results: Path) -> None:
    """The same command ends well, the second one trains nothing, and the numbers are those of a run without a break."""
    for _ in range(2):
        ended = world.start(results)
        assert ended.code == 0, ended.said
    found = arrays(results)
    assert found.keys() == world.expected.keys()
    for name, array in world.expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_every_moment_comes(world):
    assert set(world.counts) == set(MOMENTS)


@pytest.mark.parametrize(
    "names",
    [
        ("after a claim", "checkpoint written, not renamed", "before K-means", "record.json written, not renamed"),
        pytest.param(tuple(MOMENTS), marks=pytest.mark.slow),
    ],
    ids=["few", "all"],
)
def test_a_run_that_is_killed_once_at_each_moment_goes_on_each_time(world, tmp_path, names):
    """One after the other on one folder: each start is killed at the next moment."""
    landed = []
    for name in names:
        ended = world.start(tmp_path, functools.partial(kill_at, name, 1))
        assert ended.code in (-signal.SIGKILL, 0), ended.said
        landed += [name] * (ended.code == -signal.SIGKILL)
    goes_on(world, tmp_path)
    print(f"killed {landed}")
    # What comes before the place where a run goes on does not come again.
    assert len(landed) >= len(names) / 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_a_run_that_is_killed_at_random_moments_goes_on(world, tmp_path, seed):
    """Three kills each, 60 in all; moments that come often are as likely as those that come once."""
    chosen = random.Random(seed)
    killed = []
    for _ in range(3):
        name = chosen.choice(sorted(MOMENTS))
        ended = world.start(tmp_path, functools.partial(kill_at, name, chosen.randint(1, world.counts[name])))
        assert ended.code in (-signal.SIGKILL, 0), ended.said
        killed += [name] * (ended.code == -signal.SIGKILL)
    goes_on(world, tmp_path)
    print(f"killed {killed}")
