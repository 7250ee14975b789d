"""This module refuses a state of training that no cell can have, as a damaged checkpoint may hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any


def refuse_impossible(state: Mapping[str, Any], epochs: int, steps_per_epoch: int) -> None:
    """Refuse a state that a cell of this many epochs and steps cannot have.

    Raises:
        ValueError: position, history, times or numbers of threads are impossible.
    """
    epoch, step = state["epoch"], state["step"]
    if not (0 <= epoch < epochs and 0 <= step <= steps_per_epoch):
        raise ValueError(f"epoch {epoch}, step {step} of {epochs} epochs with {steps_per_epoch} steps")
    found = tuple(len(state[name]) for name in ("terms", "history", "steps"))
    if found != (step, epoch, epoch * steps_per_epoch):
        raise ValueError("history and position disagree")
    times = [state[name] for name in ("seconds", "training_seconds", "epoch_seconds") if name in state]
    if not all(isinstance(time, (int, float)) and 0 <= time < math.inf for time in times):
        raise ValueError("a time is none")
    if not all(type(number) is int and number >= 1 for number in state["threads"]):
        raise ValueError("a number of threads is none")
