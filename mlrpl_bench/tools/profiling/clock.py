"""This module divides the time of a training step among its parts."""

from __future__ import annotations

import itertools
import time
from collections import defaultdict
from typing import Any

import torch


class Clock:
    """A clock divides time among named parts, step by step; at any moment one part is on."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.current_stream(device) if device.type == "cuda" else None
        self._marks: list[tuple[int, str, Any]] = []
        self._open: list[str] = []
        self._step = 0

    def start(self, step: int, part: str) -> None:
        """Begin a step, which ends the one before it."""
        self._step, self._open = step, []
        self.enter(part)

    def enter(self, part: str) -> None:
        """Enter a part within the present one."""
        self._open.append(part)
        self._mark()

    def leave(self) -> None:
        """Leave the present part for the one from which it was entered."""
        self._open.pop()
        self._mark()

    def switch(self, part: str) -> None:
        """Replace the present part by another one."""
        self._open.pop()
        self.enter(part)

    def stop(self) -> list[dict[str, float]]:
        """Return the seconds of each part, for every step since the last stop."""
        self._mark()
        if self._stream is not None:
            self._stream.synchronize()
        steps: dict[int, dict[str, float]] = defaultdict(lambda: defaultdict(float))
        for (step, part, begin), (_, _, end) in itertools.pairwise(self._marks):
            steps[step][part] += end - begin if self._stream is None else begin.elapsed_time(end) / 1000
        self._marks.clear()
        return [dict(parts) for parts in steps.values()]

    def _mark(self) -> None:
        if self._stream is None:
            now: Any = time.perf_counter()
        else:
            now = torch.cuda.Event(enable_timing=True)
            now.record(self._stream)
        self._marks.append((self._step, self._open[-1], now))
