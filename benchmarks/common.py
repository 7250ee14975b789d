"""What benchmarks share: clocks, measuring in turns or processes apart, the file that `benchmarks.check` reads."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import platform
import resource
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from mlrpl_bench.tools.profiling.step_costs import MATMUL_ROUNDS, MATMUL_SIDE, matmul_peak

Clock = Callable[[], float]


def in_turns(
    rounds: int, *jobs: Callable[[], object], clock: Clock = time.perf_counter, warm_up: bool = True
) -> list[list[float]]:
    """By round and job the seconds; whatever else the machine does slows neighbours in time alike.

    Args:
        warm_up: do every job once before; False where all have been done already.
    """
    if warm_up:
        for job in jobs:
            job()
    return [[seconds(job, clock) for job in jobs] for _ in range(rounds)]


def seconds(job: Callable[[], object], clock: Clock = time.perf_counter) -> float:
    start = clock()
    job()
    return clock() - start


def clock_of(device: torch.device) -> Clock:
    """On a CPU the process's own time, so that other programs weigh little; else the time when the device is done."""
    if device.type == "cpu":
        return time.process_time

    def when_done() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return when_done


def peak_of(device: torch.device, dtype: torch.dtype = torch.float32) -> float:
    """As `matmul_peak`, by the clock that times the rest: on a busy CPU a wall clock gives less than a program used."""
    if device.type != "cpu":
        return matmul_peak(device, dtype)
    side = MATMUL_SIDE[device.type]
    left, right = torch.rand(2, side, side, dtype=dtype)
    rounds = in_turns(MATMUL_ROUNDS, lambda: left @ right, clock=clock_of(device), warm_up=False)
    return 2 * side**3 / min(row[0] for row in rounds)


def measured_apart(job: Callable[..., dict[str, float]], *given: Any) -> dict[str, float]:
    """A job's numbers from a process of its own, with its ``peak_gb`` where the job does not say another."""
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)

    def work() -> None:
        found = job(*given)
        sending.send({"peak_gb": peak_gb(resource.RUSAGE_SELF), **found})

    process = context.Process(target=work)
    process.start()
    sending.close()
    with contextlib.suppress(EOFError):
        found: dict[str, float] = receiving.recv()
        process.join()
        return found
    raise SystemExit(f"{job.__name__} failed")


def peak_gb(of: int) -> float:
    """The highest memory up to now of `of`, such as ``resource.RUSAGE_SELF``."""
    return resource.getrusage(of).ru_maxrss * 1024 / 1e9  # Linux counts in KiB


def machine() -> str:
    """In words, with the widest instructions that torch uses."""
    return f"one core of an {platform.machine().replace('_', '-')} CPU with {torch.backends.cpu.get_cpu_capability()}"


def write(path: Path | None, command: Sequence[str], facts: dict[str, Any], on: str | None = None) -> None:
    """What `benchmarks.check` reads: ``command`` (what follows ``python``) gives ``ratios`` again."""
    if path is not None:
        report = {"command": list(command), "machine": on or machine(), **facts}
        path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
