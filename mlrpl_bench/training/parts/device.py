"""This module sets up the device on which a study trains: Fabric, determinism, threads and peak memory."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mlrpl_bench.training.parts import host_memory
from mlrpl_bench.utils.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MOST_THREADS = 1024
"""A record that states more threads than this is not believed."""

PRODUCT_SIDE = 256
"""The side of the matrices whose product tells how fast a number format is: a millisecond in 32 bits."""
PRODUCT_ROUNDS = 5


def find_device(name: str) -> tuple[str, int]:
    """Return the kind of a device, ``cpu`` or ``cuda``, and its number.

    Args:
        name: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        UserError: no device is called so, or it is not there.
    """
    kind, colon, number = name.partition(":")
    if kind not in ("auto", "cpu", "cuda") or (colon and not (kind == "cuda" and number.isdecimal())):
        raise UserError(f"no device {name!r}; there are: auto, cpu, cuda, cuda:1 ...")
    if kind == "cuda" and (not torch.cuda.is_available() or int(number or 0) >= torch.cuda.device_count()):
        raise UserError(f"device {name} is not there; use --device cpu or auto")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "cpu"
    return kind, int(number or 0)


def make_fabric(device: str, precision: str, deterministic: bool) -> Fabric:
    """Make the Fabric that puts networks and images on a device and computes in a precision.

    On a CPU the process keeps the memory that it frees from then on, see `host_memory`.

    Args:
        device: see `find_device`.
        precision: one of `options.PRECISIONS`.
        deterministic: whether only algorithms are allowed that give the same bits in every run, in the whole process.

    Raises:
        UserError: the device is not there.
    """
    from lightning_fabric import Fabric  # takes a second

    kind, number = find_device(device)
    if deterministic:
        _allow_deterministic_algorithms_only()
    if kind == "cpu":
        host_memory.keep_freed()
    devices: Any = [number] if kind == "cuda" else 1
    return Fabric(accelerator=kind, devices=devices, precision=precision)  # type: ignore[arg-type]


def _allow_deterministic_algorithms_only() -> None:
    """Allow deterministic algorithms only, in the whole process.

    From then on an operation that has no such algorithm raises, on a CPU too.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read once, when cuBLAS is first used
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True)


def bf16_slowdown() -> float:
    """Return how many times as long as in 32 bits a product of matrices takes the CPU in bf16; below 1 it is faster.

    A processor without instructions for it, as x86 before AVX-512, computes bf16 by converting every number.
    """
    return _product_seconds(torch.bfloat16) / _product_seconds(torch.float32)


def _product_seconds(dtype: torch.dtype) -> float:
    """Return the seconds of a product of matrices on the CPU, the fastest of some after a first one."""
    left, right = torch.ones(2, PRODUCT_SIDE, PRODUCT_SIDE, dtype=dtype)
    left @ right
    fastest = float("inf")
    for _ in range(PRODUCT_ROUNDS):
        start = time.perf_counter()
        left @ right
        fastest = min(fastest, time.perf_counter() - start)
    return fastest


def peak_memory(device: torch.device) -> int:
    """Return the peak memory of a device in bytes, since the process began or `forget_peak_memory` was called.

    On a CPU it is the peak memory of the process; 0 where the system does not tell (Windows).
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0  # not known there without another package
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory(device: torch.device) -> None:
    """Reset the peak memory, so that the next peak is that of what comes next; only Linux and CUDA can do that."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        host_memory.give_back()  # else the next peak has what the one before left
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


@contextmanager
def threads(number: int | None) -> Iterator[None]:
    """Let torch work with a number of threads for a while; None or no sensible number leaves it as it is.

    Sums are split among threads, so scores are the same to the bit only with the same number.
    """
    before = torch.get_num_threads()
    if isinstance(number, int) and 1 <= number <= MOST_THREADS:
        torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
