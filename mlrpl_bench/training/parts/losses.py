"""This module fetches the loss terms of an epoch from the device, and refuses those that are not finite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class NonFiniteLoss(RuntimeError):
    """A loss term became infinite or not a number; the message has the term, the epoch and the step."""


def fetched(terms: Sequence[Mapping[str, Tensor]], epoch: int) -> list[dict[str, float]]:
    """Fetch the loss terms of an epoch's steps from the device in one transfer.

    Args:
        terms: scalars by name, for each step; a term may be missing at some steps.
        epoch: the number of the epoch, from 0, for the message.

    Raises:
        NonFiniteLoss: a loss is infinite or not a number.
    """
    names = list(dict.fromkeys(name for step in terms for name in step))
    absent = torch.tensor(float("nan"), device=next(iter(terms[0].values())).device)
    values_SK = torch.stack([torch.stack([step.get(name, absent).float() for name in names]) for step in terms]).cpu()
    steps = []
    for number, (step, values_K) in enumerate(zip(terms, values_SK.tolist(), strict=True)):
        for name, value in zip(names, values_K, strict=True):
            if name in step and not math.isfinite(value):
                raise NonFiniteLoss(
                    f"loss term {name!r} is {value} at epoch {epoch}, step {number}; nothing of this cell is kept"
                )
        steps.append({name: value for name, value in zip(names, values_K, strict=True) if name in step})
    return steps
