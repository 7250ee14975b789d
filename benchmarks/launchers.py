"""How soon several workers end beside the earliest that could be, and what preemption costs.

    python -m benchmarks.launchers [--json PATH]             simulated, with recorded step times
    python -m benchmarks.launchers --grid [--json PATH]      measured: 12 cells of `scenes`, on a quiet machine

The simulation takes what a step of each method costs at the papers' setting from ``results/profile-80.json``: a group
costs the dearest frozen part once, and each cell's own parts. Groups are formed by the very code that workers use. The
earliest end is the work of groups as large as fit, divided evenly: no division does less, or ends before it.
"""

from __future__ import annotations

import argparse
import heapq
import json
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


def grid_seconds(options: Sequence[str], epochs: int) -> float:
    """The wall time of a grid of 12 cells, trained into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        grid = ["run", "partial_bce", "--ratios=0.1,0.3,0.5,0.9", "--seeds=3", f"--epochs={epochs}", "--device=cpu"]
        command = [sys.executable, str(ROOT / "bench.py"), *grid, f"--results-dir={folder}", *options]
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - start


def measured(epochs: int, ray: bool) -> dict[str, float]:
    """Seconds of the grid by who starts the workers; of one epoch too, which is nearly all start-up."""
    launchers = {"one process": [], "local": ["--launcher=local", "--workers=2"]}
    if ray:
        launchers["ray"] = ["--launcher=ray", "--ray-address=local", "--workers=2"]
    return {f"{name}, {n} epochs": grid_seconds(options, n) for name, options in launchers.items() for n in (1, epochs)}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--grid", action="store_true", help="measure a grid of 12 cells")
    parser.add_argument("--epochs", type=int, default=10, help="of the measured grid")
    parser.add_argument("--ray", action="store_true", help="measure it on Ray, too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    if given.grid:
        seconds = measured(given.epochs, given.ray)
        print("\n".join(f"{name}: {each:.1f} s" for name, each in seconds.items()))
        write(given.json, ["-m", "benchmarks.launchers", "--grid"], {"seconds": seconds}, "the cores of this machine")
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
