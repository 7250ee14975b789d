"""The device on which a study trains: Fabric, determinism, peak memory."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

MOST_THREADS = 1024
"""A record that says more is not believed."""


def peak_memory(device: torch.device) -> int:
    """Of the device, since the process began; of the process itself on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":
        return 0  # not known there without another package
    import resource

    unit = 1 if sys.platform == "darwin" else 1024  # what ru_maxrss counts in
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak_memory(device: torch.device) -> None:
    """The next peak is that of what comes next, where the system can do that (Linux, CUDA)."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
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
