"""How fast the frozen part of the papers' ResNet-101 is, beside torch's other ways to compute it.

    python -m benchmarks.frozen [--side PX] [--batch N] [--rounds N] [--compile] [--quick] [--json PATH]

The forward pass of conv1 to layer3 without gradients, random weights, float32 on one thread. The ways:

- *as it comes*: as the papers' public code computes it, batch norms in eval mode, channels first;
- *channels last*, *folded* (batch norms computed by the convolutions before them), both together;
- *compiled*: both together, by inductor (with ``--compile``; needs a C++ compiler and a minute);
- *bf16*: both together under autocast;
- *the package's*: what a run does in float32.

All in float32 must agree before anything is timed. Seconds are the processor's own; ratios are taken within a round,
and the median over the rounds counts.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.common import in_turns, machine, write
from mlrpl_bench.models import backbones
from mlrpl_bench.models.parts import folding

AS_IT_COMES, PACKAGE, BF16 = "as it comes", "the package's", "bf16"
TOLERANCE = 1e-4
"""Of the norm of a difference over the norm of what comes as it is."""


def ways(network: nn.Module, compiled: bool) -> Iterator[tuple[str, nn.Module, torch.memory_format]]:
    """Each way's name, network and memory format; `network` itself is left as it is."""
    folded = copy.deepcopy(network)
    folding.fold(folded)
    last = torch.channels_last
    yield AS_IT_COMES, network, torch.contiguous_format
    yield "channels last", _in(network, last), last
    yield "folded", folded, torch.contiguous_format
    yield "folded, channels last", _in(folded, last), last
    if compiled:
        yield "compiled", torch.compile(_in(folded, last)), last  # type: ignore[misc]
    yield BF16, _in(folded, last), last
    built = backbones.build(backbones.RESNET101, "random", folded=backbones.is_folded(backbones.RESNET101)).frozen
    yield PACKAGE, _in(built, last), last  # in the workbench's memory format


def _in(network: nn.Module, memory_format: torch.memory_format) -> nn.Module:
    return copy.deepcopy(network).to(memory_format=memory_format)


def measure(side: int, batch: int, rounds: int, compiled: bool) -> dict[str, Any]:
    """Seconds by way, and ratios: of each way over what comes as it is, and of the package's over the fastest.

    Raises:
        SystemExit: two ways disagree.
    """
    network = backbones.build(backbones.RESNET101, "random").frozen
    images_B3HW = torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
    jobs: dict[str, Callable[[], Tensor]] = {}
    for name, way, memory_format in ways(network, compiled):
        jobs[name] = _job(way, images_B3HW.to(memory_format=memory_format), name == BF16)
    expected = jobs[AS_IT_COMES]()
    for name, job in jobs.items():
        difference = float((job().float() - expected).norm() / expected.norm())
        if name != BF16 and not difference <= TOLERANCE:
            raise SystemExit(f"{name} differs from what comes as it is by {difference:.1e}; nothing is timed")
    timed = in_turns(rounds, *jobs.values(), clock=time.process_time, warm_up=False)
    by_name = [dict(zip(jobs, row, strict=True)) for row in timed]
    ratios = {
        f"{name} over {AS_IT_COMES}": statistics.median(row[name] / row[AS_IT_COMES] for row in by_name)
        for name in jobs
        if name != AS_IT_COMES
    }
    in_float32 = [name for name in jobs if name not in (BF16, PACKAGE)]
    fastest = min(in_float32, key=lambda name: statistics.median(row[name] for row in by_name))
    ratios[f"{PACKAGE} over the fastest in float32"] = statistics.median(row[PACKAGE] / row[fastest] for row in by_name)
    return {
        "fastest": fastest,
        "seconds": {name: statistics.median(row[name] for row in by_name) for name in jobs},
        "ratios": ratios,
        "limits": {f"{PACKAGE} over the fastest in float32": 1.1},
    }


def _job(network: nn.Module, images_B3HW: Tensor, in_bf16: bool) -> Callable[[], Tensor]:
    def job() -> Tensor:
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=in_bf16):
            maps: Tensor = network(images_B3HW)
            return maps

    return job


def table_of(facts: Mapping[str, Any], title: str) -> Table:
    table = Table(title=title, caption="times as fast: the median over rounds, of what comes as it is over this")
    for heading in ("frozen part", "seconds", "times as fast"):
        table.add_column(heading, justify="left" if heading == "frozen part" else "right")
    for name, seconds in facts["seconds"].items():
        ratio = facts["ratios"].get(f"{name} over {AS_IT_COMES}", 1.0)
        table.add_row(name, f"{seconds:.2f}", f"{1 / ratio:.2f}")
    return table


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("side", 448), ("batch", 4), ("rounds", 5)):
        parser.add_argument(f"--{name}", type=int, default=usual)
    parser.add_argument("--compile", action="store_true", help="measure inductor's form too")
    parser.add_argument("--quick", action="store_true", help="only to see that it runs")
    parser.add_argument("--json", type=Path, help="write the numbers to this file too")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    side, batch, rounds = (32, 1, 1) if options.quick else (options.side, options.batch, options.rounds)
    facts = measure(side, batch, rounds, options.compile)
    command = ["-m", "benchmarks.frozen", f"--side={side}", f"--batch={batch}", f"--rounds={rounds}"]
    write(options.json, [*command, *(["--compile"] if options.compile else [])], facts)
    Console().print(table_of(facts, f"ResNet-101 up to layer3, {side} px, batch {batch}; {machine()}"))


if __name__ == "__main__":
    main()
