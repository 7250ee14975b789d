"""How long the metrics take beside the least that they need: one stable argsort per category, measured in turns.

    python -m benchmarks.metrics [--images 40504] [--categories 80] [--rounds 7] [--json PATH]

Scores are simulated, float32 as records store them. Plain Python loops over a tenth of the images, scaled by ten, say
what the usual code would cost; they must find the same numbers.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks.common import in_turns, machine, write
from mlrpl_bench.data.protocol import ABSENT, PRESENT
from mlrpl_bench.evaluation import metrics

RATIO = "metrics over argsort"
LOOPED = 10
"""Plain loops take one image of so many."""


def simulated(images: int, categories: int) -> tuple[NDArray[np.float32], NDArray[np.int8]]:
    """Scores of some skill; about three labels an image at COCO's size, some categories far more frequent."""
    random_numbers = np.random.default_rng(0)
    share_C = 0.6 / np.arange(1, categories + 1)
    labels_NC = np.where(random_numbers.random((images, categories)) < share_C, PRESENT, ABSENT).astype(np.int8)
    labels_NC[:2] = [[PRESENT], [ABSENT]]  # no category without either
    return (labels_NC + random_numbers.normal(size=labels_NC.shape)).astype(np.float32), labels_NC


def python_loops(scores_NC: list[list[float]], labels_NC: list[list[int]]) -> dict[str, float]:
    """The metrics as they are often written, without numpy; equal scores rank by row."""
    columns = zip(zip(*scores_NC, strict=True), zip(*labels_NC, strict=True), strict=True)
    precisions = [_looped_precision(*column) for column in columns]
    f1 = {f"OF1{suffix}": _looped_f1(scores_NC, labels_NC, limit) for suffix, limit in (("", None), ("_top3", 3))}
    return {"mAP": sum(precisions) / len(precisions), **f1}


def _looped_precision(scores_N: Sequence[float], labels_N: Sequence[int]) -> float:
    found, precisions = 0, []
    for rank, row in enumerate(sorted(range(len(scores_N)), key=lambda row: -scores_N[row]), start=1):
        if labels_N[row] == PRESENT:
            found += 1
            precisions.append(found / rank)
    best, total = 0.0, 0.0
    for precision in reversed(precisions):
        best = max(best, precision)
        total += best
    return total / len(precisions)


def _looped_f1(scores_NC: list[list[float]], labels_NC: list[list[int]], limit: int | None) -> float:
    correct = counted = 0
    for scores_C, labels_C in zip(scores_NC, labels_NC, strict=True):
        predicted = sorted((c for c, score in enumerate(scores_C) if score >= 0), key=lambda c: -scores_C[c])[:limit]
        correct += sum(labels_C[c] == PRESENT for c in predicted)
        counted += len(predicted) + labels_C.count(PRESENT)
    return 2 * correct / counted


def measure(images: int, categories: int, rounds: int) -> dict[str, Any]:
    scores_NC, labels_NC = simulated(images, categories)
    columns_CN = np.ascontiguousarray(scores_NC.T)
    taken = in_turns(
        rounds,
        lambda: [np.argsort(scores_N, kind="stable") for scores_N in columns_CN],
        lambda: metrics.evaluate(scores_NC, labels_NC),
        lambda: metrics.average_precisions(scores_NC, labels_NC),
    )
    few = max(images // LOOPED, 2)
    start = time.perf_counter()
    looped = python_loops(scores_NC[:few].tolist(), labels_NC[:few].tolist())
    loops = (time.perf_counter() - start) * images / few
    expected = metrics.evaluate(scores_NC[:few], labels_NC[:few])
    for name, value in looped.items():
        assert abs(value - expected[name]) < 1e-9, name
    floor, every, ranking = (statistics.median(column) for column in zip(*taken, strict=True))
    return {
        "seconds": {
            "one stable argsort per category": floor,
            "metrics.evaluate": every,
            "metrics.average_precisions": ranking,
            f"Python loops, a part (1 of {LOOPED}) scaled": loops,
        },
        "ratios": {RATIO: statistics.median(evaluated / sort for sort, evaluated, _ in taken)},
    }


def table_of(facts: dict[str, Any], title: str) -> Table:
    table = Table(
        title=title, caption="the ratio is the median over rounds in which both were measured; aim: at most 2"
    )
    for heading in ("metrics", "seconds", "over argsort"):
        table.add_column(heading, justify="left" if heading == "metrics" else "right")
    floor = facts["seconds"]["one stable argsort per category"]
    for name, value in facts["seconds"].items():
        table.add_row(name, f"{value:.3f}", f"{value / floor:.2f}")
    table.add_row(RATIO, "", f"{facts['ratios'][RATIO]:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("images", 40_504), ("categories", 80), ("rounds", 7)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    given = vars(parser.parse_args(arguments))
    path = given.pop("json")
    facts = measure(**given)
    Console().print(table_of(facts, f"{given['images']:,} x {given['categories']} scores; {machine()}"))
    command = ["-m", "benchmarks.metrics", *(f"--{name}={value}" for name, value in given.items())]
    write(path, command, facts)


if __name__ == "__main__":
    main()
