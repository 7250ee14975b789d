"""What a group of cells costs beside the same cells alone and beside the floor, on `scenes`.

    python -m benchmarks.groups [--steps N] [--rounds N] [--quick] [--json PATH]

The floor is "shared part once + each cell's own part": the shared part is reading a batch and its frozen forward, a
cell's own part is its steps on batches that are held in memory. Both are measured in the same run, in turns with the
group and the cells alone; each ratio is taken within a round, and the median over the rounds counts. Only training
steps are timed, of an epoch that stands for the papers' 20, so that what methods begin late (blending, prototypes) is
in it; making the cells, passes over the training set and evaluation are not. Seconds are the processor's own, of one
thread, so that other programs on the machine weigh little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import Clock, machine, write
from mlrpl_bench.data.dataset import NINE_RATIOS
from mlrpl_bench.models.method import Progress
from mlrpl_bench.models.registry import load_datasets, load_methods
from mlrpl_bench.records.cell import Job
from mlrpl_bench.training.options import Options
from mlrpl_bench.training.run import CellRun
from mlrpl_bench.training.study import Study
from mlrpl_bench.training.trainer import Failed, StepDone, train
from mlrpl_bench.training.workbench import SharedBatch, Workbench

ONE_METHOD = ("ssgrl", "sarb")
MIXED = ["partial_bce", "ssgrl", "sarb", "asl", "kggr", "gcn_ml", "curriculum", "fm_mixup", "ip_mixup"]
"""Cheap and dear ones; the last mixes images, so it has a frozen forward of its own."""

AIM = 1.1
"""Of group / floor."""


class Plan(NamedTuple):
    """How much is measured: timed steps of each cell, rounds, sizes of groups, series; and the backbone's weights."""

    steps: int
    rounds: int
    sizes: Sequence[int] = (1, 3, 9)
    series: Sequence[str] = (*ONE_METHOD, "mixed")
    weights: str | None = None


QUICK = Plan(steps=1, rounds=1, sizes=(1, 2), series=("ssgrl",), weights="random")  # without pre-training


def series(study: Study) -> dict[str, list[Job]]:
    """Nine cells each, by name: one method at nine ratios, or nine methods at one."""
    methods = load_methods()
    jobs = {name: [study.job(methods[name], ratio, 0, 0, {}) for ratio in NINE_RATIOS] for name in ONE_METHOD}
    return {**jobs, "mixed": [study.job(methods[name], 0.5, 0, 0, {}) for name in MIXED]}


def seconds_together(jobs: Sequence[Job], workbench: Workbench, steps: int, clock: Clock = time.process_time) -> float:
    """Of so many training steps of a group, after the first."""
    events = train(jobs, workbench)
    start = None
    for event in events:
        if isinstance(event, Failed):
            raise SystemExit(f"{event.cell.title}: {event.reason}")
        if isinstance(event, StepDone):
            start = clock() if start is None else start
            if event.step == steps + 1:
                break
    seconds = clock() - (start or 0.0)
    events.close()  # type: ignore[attr-defined]
    return seconds


def shared_part(job: Job, workbench: Workbench, steps: int) -> tuple[float, list[SharedBatch]]:
    """Seconds of reading and frozen forward for so many batches after the first, and all of them."""
    batch, strong = job.cell.recipe.batch, CellRun(job, workbench).strong_view
    assert batch
    batches = workbench.training_batches(0, 0, batch, strong=[strong])
    kept = [next(batches)]
    start = time.process_time()
    kept += islice(batches, steps)
    return time.process_time() - start, kept


def own_part(job: Job, workbench: Workbench, batches: Sequence[SharedBatch]) -> float:
    """Seconds of a cell's steps on batches that are there, after the first."""
    run, (epochs, batch) = CellRun(job, workbench), (job.cell.recipe.epochs, job.cell.recipe.batch)
    assert epochs and batch
    run.look_at_training_set(Progress(0, epochs))
    run.start_epoch(Progress(0, epochs))
    start = 0.0
    for step, shared in enumerate(batches):
        if step == 1:
            start = time.process_time()
        run.step(shared, Progress(0, epochs, step, workbench.steps_per_epoch(batch)))
    return time.process_time() - start


def one_round(jobs: Sequence[Job], workbench: Workbench, plan: Plan) -> dict[int, dict[str, float]]:
    """Seconds of `alone`, `group`, `shared` and `own` part by number of cells.

    Every measurement of a cell is followed by one of another kind, so that a slow minute of the machine meets all.
    """
    shared, alone, own, group = [], [], [], {}
    for number, job in enumerate(jobs[: max(plan.sizes)], start=1):
        seconds, batches = shared_part(job, workbench, plan.steps)
        shared.append(seconds)
        own.append(own_part(job, workbench, batches))
        alone.append(seconds_together([job], workbench, plan.steps))
        if number in plan.sizes:
            group[number] = seconds_together(jobs[:number], workbench, plan.steps)
    once = statistics.median(shared)
    return {n: {"alone": sum(alone[:n]), "group": group[n], "shared": once, "own": sum(own[:n])} for n in plan.sizes}


def ratios(seconds: dict[str, float]) -> dict[str, float]:
    floor = seconds["shared"] + seconds["own"]
    return {"group / floor": seconds["group"] / floor, "alone / group": seconds["alone"] / seconds["group"]}


def measure(plan: Plan) -> dict[str, dict[str, float]]:
    """The medians over the rounds of seconds and ratios, by series and number of cells."""
    study = Study(load_datasets()["scenes"], Options(device="cpu", epochs=1, weights=plan.weights))
    say = Console(stderr=True).print
    workbench, found, jobs_of = study.workbench, {}, series(study)
    for name in plan.series:
        say(f"{name} ...")
        taken = [one_round(jobs_of[name], workbench, plan) for _ in range(plan.rounds)]
        for n in plan.sizes:
            of_rounds = [{**one[n], **ratios(one[n])} for one in taken]
            found[f"{name} x {n}"] = {key: statistics.median(one[key] for one in of_rounds) for key in of_rounds[0]}
    return found


def table_of(found: dict[str, dict[str, float]], title: str) -> Table:
    table = Table(title=title, caption="floor: shared part once + each cell's own part")
    table.add_column("cells", no_wrap=True)
    headings = ("alone s", "group s", "floor s", "of it shared s", "group / floor", "alone / group")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, facts in found.items():
        seconds = (facts["alone"], facts["group"], facts["shared"] + facts["own"], facts["shared"])
        marked = f"{facts['group / floor']:.2f}{'' if facts['group / floor'] <= AIM else ' !'}"
        table.add_row(name, *(f"{value:.2f}" for value in seconds), marked, f"{facts['alone / group']:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=15, help="timed training steps of each cell, at most 45")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    plan = QUICK if options.quick else Plan(options.steps, options.rounds)
    torch.set_num_threads(1)
    found = measure(plan)
    Console().print(table_of(found, f"Groups on scenes, {plan.steps} steps; {machine()}"))
    # Of the kind that is worse when it is larger, so that all can be compared in one way.
    worse_when_larger = {
        **{f"{name}: group / floor": round(facts["group / floor"], 3) for name, facts in found.items()},
        **{f"{name}: group / alone": round(1 / facts["alone / group"], 3) for name, facts in found.items()},
    }
    command = ["-m", "benchmarks.groups", f"--steps={plan.steps}", f"--rounds={plan.rounds}"]
    write(options.json, command, {"ratios": worse_when_larger})


if __name__ == "__main__":
    main()
