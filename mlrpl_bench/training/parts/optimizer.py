"""This module builds a cell's optimiser, and refuses the state of another one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mlrpl_bench.models.method import Method, Recipe


def build(method: Method, recipe: Recipe) -> tuple[torch.optim.Optimizer, list[float]]:
    """Build the optimiser of a method's parameter groups, and return each group's learning rate before the schedule."""
    groups: list[dict[str, Any]] = [
        {
            "params": list(group.parameters),
            "lr": group.learning_rate(recipe.lr),
            "weight_decay": recipe.weight_decay if group.weight_decay is None else group.weight_decay,
        }
        for group in method.parameter_groups()
    ]
    grouped = {id(parameter) for group in groups for parameter in group["params"]}
    assert grouped == {id(p) for p in method.parameters() if p.requires_grad}, "parameter_groups leaves some out"
    rates = [group["lr"] for group in groups]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, fused=True), rates
    assert recipe.optimizer == "adam", f"no optimiser {recipe.optimizer!r}; there are: adam, sgd"
    return torch.optim.Adam(groups, fused=True), rates


def refuse_foreign(optimizer: torch.optim.Optimizer) -> None:
    """Refuse an optimiser whose state does not fit its parameters.

    Torch compares their number alone, and fused steps compare nothing.

    Raises:
        ValueError: a tensor of the state has another shape than its parameter, or a step is no number of steps.
    """
    for parameter, remembered in optimizer.state.items():
        for name, value in remembered.items():
            if not isinstance(value, Tensor):
                continue
            if value.shape not in (parameter.shape, ()):
                raise ValueError(f"the optimiser's {name} has another shape than its parameter")
            if name == "step" and not (value.isfinite() and value >= 0):
                raise ValueError("the optimiser's step is no number of steps")
