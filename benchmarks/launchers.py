"""How soon several workers end beside the earliest that could be, and what preemption costs.

    python -m benchmarks.launchers [--json PATH]             simulated, with recorded step times
    python -m benchmarks.launchers --grid [--json PATH]      measured: 12 cells of `scenes`, on a quiet machine
    python -m benchmarks.launchers --grid --quick            two cells, two epochs, small images: does it run?

The simulation takes what a step of each method costs at the papers' setting from ``results/profile-80.json``: a group
costs the dearest frozen part once, and each cell's own parts. Groups are formed by the very code that workers use. The
earliest end is the work of groups as large as fit, divided evenly: no division does less, or ends before it.

The grid is trained for one epoch and for several, from which start-up follows apart. Every process has one thread, so
that the ideal division among two workers takes half the time of one process; one with two threads stands beside it.
"""

from __future__ import annotations

import argparse
import heapq
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.common import write
from mlrpl_bench.training.launchers import groups
from mlrpl_bench.training.launchers.memory import MOST_CELLS

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ROOT / "benchmarks" / "results" / "profile-80.json"
RATIOS, SEEDS = 9, 5
WORKERS = (1, 8, 64)

HOURS = 2.0
"""Taken for what a group of the largest size needs; what preemption costs hardly depends on it."""
RESTART_MINUTES = 2.0
"""Assumed: until a worker trains again on a new machine."""
MINUTES_BETWEEN_PREEMPTIONS = 60.0


class Cost(NamedTuple):
    """Seconds of a step: of the part that a group shares, and of a cell's own."""

    shared: float
    own: float


def recorded() -> list[Cost]:
    """What a step of each profiled method costs."""
    methods = json.loads(PROFILE.read_text(encoding="utf-8"))["methods"]
    return [Cost(m["seconds"]["frozen"], sum(m["seconds"].values()) - m["seconds"]["frozen"]) for m in methods]


def time_of(group: Sequence[Cost]) -> float:
    """What a step of all cells of a group costs."""
    return max(cost.shared for cost in group) + sum(cost.own for cost in group)


def divided(costs: Sequence[Cost], size: int) -> list[list[Cost]]:
    """The groups of all cells: those of a seed can be trained together."""
    of_a_seed = [cost for cost in costs for _ in range(RATIOS)]
    return [group for _ in range(SEEDS) for group in groups.portions(of_a_seed, size)]


def last_end(times: Sequence[float], workers: int) -> float:
    """When the last group ends if each worker takes the next that is left."""
    ends = [0.0] * workers
    for each in times:
        heapq.heapreplace(ends, ends[0] + each)
    return max(ends)


def simulated(costs: Sequence[Cost], workers: int) -> dict[str, float]:
    """The end of the last worker as a multiple of the earliest, with groups for the workers, and as large as fit."""
    most = MOST_CELLS["cuda"]
    largest = [time_of(group) for group in divided(costs, most)]
    size = groups.size_for([RATIOS * len(costs)] * SEEDS, most, workers)
    earliest = max(sum(largest) / workers, max(cost.shared + cost.own for cost in costs))
    planned = last_end([time_of(group) for group in divided(costs, size)], workers)
    return {"cells": size, "planned": planned / earliest, "largest": last_end(largest, workers) / earliest}


def preempted(minutes_between_checkpoints: float, hours: float, seed: int = 0) -> float:
    """What so many hours of training take where the machine is taken away about once an hour, as a multiple."""
    draw = random.Random(seed)
    left, spent = 60 * hours, 0.0
    while left > 0:
        until = draw.expovariate(1 / MINUTES_BETWEEN_PREEMPTIONS)
        if until >= left:
            return (spent + left) / (60 * hours)
        left -= until // minutes_between_checkpoints * minutes_between_checkpoints
        spent += until + RESTART_MINUTES
    return spent / (60 * hours)


class Grid(NamedTuple):
    """What is trained to measure launchers.

    Attributes:
        ratios: of known labels, as the command line has them.
        seeds: a cell for each, of each ratio.
        epochs: more than one.
        rounds: how often; the shortest time counts.
        image_size: side in pixels; None for that of `scenes`.
    """

    ratios: str = "0.1,0.3,0.5,0.9"
    seeds: int = 3
    epochs: int = 10
    rounds: int = 2
    image_size: int | None = None

    def seconds(self, options: Sequence[str], epochs: int, threads: int) -> float:
        """The wall time of the command that trains all cells into a folder of its own."""
        with tempfile.TemporaryDirectory() as folder:
            cells = ["run", "partial_bce", f"--ratios={self.ratios}", f"--seeds={self.seeds}", f"--epochs={epochs}"]
            size = [] if self.image_size is None else [f"--image-size={self.image_size}"]
            where = ["--device=cpu", "--loader-workers=0", f"--results-dir={folder}"]
            environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))}
            start = time.perf_counter()
            subprocess.run(
                [sys.executable, str(ROOT / "bench.py"), *cells, *size, *where, *options],
                check=True,
                env=environment,
                stdout=subprocess.DEVNULL,
            )
            return time.perf_counter() - start


ONE, TWO_THREADS, LOCAL, RAY = "one process", "one process, two threads", "local, two workers", "Ray, two workers"
STARTED: dict[str, tuple[list[str], int]] = {
    ONE: ([], 1),
    TWO_THREADS: ([], 2),
    LOCAL: (["--launcher=local", "--workers=2"], 1),
    RAY: (["--launcher=ray", "--ray-address=local", "--workers=2"], 1),
}
"""The options that start the workers of a row, and the threads of each process."""


def measured(grid: Grid, names: Sequence[str]) -> dict[str, dict[str, float]]:
    """By row the seconds of the whole, and its parts: start-up, and what training takes, by epoch."""
    grid.seconds([], 1, 2)  # draws the pictures and prepares the backbone
    shortest: dict[tuple[str, int], float] = {}
    for _ in range(grid.rounds):
        for name in names:
            options, threads = STARTED[name]
            for epochs in (1, grid.epochs):
                each = grid.seconds(options, epochs, threads)
                shortest[name, epochs] = min(each, shortest.get((name, epochs), each))
    return {name: parts(shortest[name, 1], shortest[name, grid.epochs], grid.epochs) for name in names}


def parts(one: float, all_: float, epochs: int) -> dict[str, float]:
    """What a command takes that trains for so many epochs, from its time for one epoch and for all of them.

    >>> parts(12.0, 30.0, 10)
    {'seconds': 30.0, 'start_up': 10.0, 'training': 20.0}
    """
    of_an_epoch = (all_ - one) / (epochs - 1)
    return {"seconds": all_, "start_up": one - of_an_epoch, "training": epochs * of_an_epoch}


def over_the_ideal(rows: dict[str, dict[str, float]]) -> dict[str, float]:
    """Training with two workers, as a multiple of half of what one process needs for it."""
    ideal = rows[ONE]["training"] / 2
    return {f"{name}: training over ideal": rows[name]["training"] / ideal for name in rows if name in (LOCAL, RAY)}


def main_of_grid(given: argparse.Namespace) -> None:
    """Measure, print and write."""
    grid = Grid("0.3,0.5", 1, 2, 1, image_size=32) if given.quick else Grid(epochs=given.epochs, rounds=given.rounds)
    rows = measured(grid, [name for name in STARTED if name != RAY or given.ray])
    ratios = over_the_ideal(rows)
    for name, row in rows.items():
        print(f"{name}: {row['seconds']:.1f} s, of which start-up {row['start_up']:.1f} s")
    print("\n".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items()))
    flags = [f"--epochs={given.epochs}", f"--rounds={given.rounds}"] + ["--quick"] * given.quick + ["--ray"] * given.ray
    facts = {"rows": rows, "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()}}
    write(given.json, ["-m", "benchmarks.launchers", "--grid", *flags], facts, f"{os.cpu_count()} cores")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", action="store_true", help="measure a grid of 12 cells")
    parser.add_argument("--epochs", type=int, default=10, help="of the measured grid, at least 2")
    parser.add_argument("--rounds", type=int, default=2, help="of which the shortest time counts")
    parser.add_argument("--quick", action="store_true", help="with --grid: two cells, two epochs, small images")
    parser.add_argument("--ray", action="store_true", help="measure it on Ray, too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if given.epochs < 2:
        parser.error("--epochs must be at least 2: start-up is told from training by their number")
    if given.grid:
        main_of_grid(given)
        return
    costs = recorded()
    ends = {f"{workers} workers": simulated(costs, workers) for workers in WORKERS}
    for name, facts in ends.items():
        print(
            f"{name}: {facts['planned']:.2f} of the earliest end with groups of at most {facts['cells']:.0f}, "
            f"{facts['largest']:.2f} with groups as large as fit"
        )
    draws = range(200)
    cost = {f"checkpoints every {m} minutes": sum(preempted(m, HOURS, n) for n in draws) / len(draws) for m in (3, 10)}
    print("\n".join(f"preempted every hour, {name}: {each:.2f} of the time" for name, each in cost.items()))
    ratios = {f"{name}: planned over earliest": facts["planned"] for name, facts in ends.items()}
    ratios |= {f"preempted, {name}": each for name, each in cost.items()}
    facts = {"cells": len(costs) * RATIOS * SEEDS, "ends": ends, "ratios": {n: round(r, 3) for n, r in ratios.items()}}
    write(given.json, ["-m", "benchmarks.launchers"], facts, "simulated, with step times of one core of an x86-64 CPU")


if __name__ == "__main__":
    main()
