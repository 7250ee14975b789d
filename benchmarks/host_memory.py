"""What it saves on a CPU that a process keeps the memory that it frees: a frozen part, with and without.

    python -m benchmarks.host_memory [--backbone NAME] [--side PX] [--batch N] [--rounds N] [--json PATH]

Each round measures both in processes of their own: processor time of a forward pass without gradients (random weights,
folded, channels last, float32, one thread), how much of it the system takes, the page faults, and the peak memory.
The outputs of both must be the same bits. Linux with glibc only.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.common import machine, measured_apart, write
from mlrpl_bench.models import backbones
from mlrpl_bench.training.parts import host_memory

PASSES = 3
RATIO = "processor time with kept memory over without"


def passes(keep: bool, backbone: str, side: int, batch: int) -> dict[str, float]:
    """Processor time, page faults and a sum of the output of a pass, after one that is not counted."""
    if keep and not host_memory.keep_freed():
        raise SystemExit("the memory cannot be kept here: no glibc, or a variable of its own is set")
    torch.manual_seed(0)
    network = backbones.build(backbone, "random", folded=True).frozen.to(memory_format=torch.channels_last)
    images_B3HW = torch.randn(batch, 3, side, side).to(memory_format=torch.channels_last)
    with torch.no_grad():
        total = float(network(images_B3HW).double().sum())
        times, faults = os.times(), resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(PASSES):
            network(images_B3HW)
    after = os.times()
    return {
        "seconds": (after.user + after.system - times.user - times.system) / PASSES,
        "of_system": (after.system - times.system) / PASSES,
        "page_faults": (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults) / PASSES,
        "sum": total,
    }


def measure(backbone: str, side: int, batch: int, rounds: int) -> dict[str, Any]:
    """Return medians over rounds, with and without.

    Raises:
        SystemExit: the outputs differ, or memory cannot be kept here.
    """
    found = [[measured_apart(passes, keep, backbone, side, batch) for keep in (False, True)] for _ in range(rounds)]
    if len({each["sum"] for of_round in found for each in of_round}) > 1:
        raise SystemExit("the outputs differ; nothing is compared")
    names = ("seconds", "of_system", "page_faults", "peak_gb")
    without, kept = (
        {name: statistics.median(of_round[place][name] for of_round in found) for name in names} for place in (0, 1)
    )
    ratio = statistics.median(of_round[1]["seconds"] / of_round[0]["seconds"] for of_round in found)
    return {"without": without, "kept": kept, "ratios": {RATIO: ratio}}


def table_of(facts: dict[str, Any], title: str) -> Table:
    table = Table(title=title)
    for heading in ("freed memory", "seconds", "of the system", "page faults", "peak GB"):
        table.add_column(heading, justify="left" if heading == "freed memory" else "right")
    for name, key in (("given back", "without"), ("kept", "kept")):
        row = facts[key]
        numbers = f"{row['seconds']:.2f}", f"{row['of_system']:.2f}", f"{row['page_faults']:,.0f}"
        table.add_row(name, *numbers, f"{row['peak_gb']:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    for name, usual in (("side", 224), ("batch", 32), ("rounds", 3)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    given = vars(parser.parse_args(arguments))
    path = given.pop("json")
    torch.set_num_threads(1)
    facts = measure(**given)
    title = f"{given['backbone']}, frozen, {given['side']} px, batch {given['batch']}; {machine()}"
    Console().print(table_of(facts, title))
    write(path, ["-m", "benchmarks.host_memory", *(f"--{name}={value}" for name, value in given.items())], facts)


if __name__ == "__main__":
    main()
