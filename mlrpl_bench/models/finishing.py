"""This module defines a finishing step: what is done to a trained method's last linear layer, after the last epoch.

A step follows a method by its name, as in ``ssgrl+cft``. The rows that it chooses on are held out before training: the
method sees their labels as unknown, as a choice on labels that a network has learnt would be none. What a step is given
is plain tensors of training rows, and what it gives back is weights of the last layer; nothing of a test image is in
reach.
"""

from __future__ import annotations

import dataclasses
import typing
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from mlrpl_bench.utils.errors import UserError

JOINT = "+"
"""This stands between the name of a method and that of the step that follows it."""


class LinearHead:
    """A linear head is a module whose outputs are the logits: logit c of an image is w_c . z_c + b_c."""

    def linear(self) -> tuple[Tensor, Tensor]:
        """Return its parameters: weights, C x D whatever their shape, and biases, C.

        There may be more rows of weights than categories; those at the end are nobody's.
        """
        raise NotImplementedError

    def inputs(self, *arguments: Any, **keywords: Any) -> Tensor:
        """Return z for what the module was called with: (B, D), or (B, C, D) where each category has its own."""
        raise NotImplementedError


@dataclass(frozen=True, eq=False)
class KnownEntries:
    """The known entries of one category, K training rows, of which some were held out before training.

    Attributes:
        category: the category's place, from 0.
        features_KD: float32, what the last layer is given, under the test transform and in eval mode.
        present_K: bool, whether the entry is known to be present; else it is known to be absent.
        held_K: bool, whether the row was held out.
        weight_D: the trained weights of the category, float32.
        bias: the trained bias, a scalar.
    """

    category: int
    features_KD: Tensor
    present_K: Tensor
    held_K: Tensor
    weight_D: Tensor
    bias: Tensor


class FinishingStep:
    """A finishing step refits the last linear layer of a trained method, category by category.

    A subclass is registered with ``@register_step(name, ...)``.

    Args:
        hyperparameters: an instance of its `Hyperparameters`.
    """

    @dataclass(frozen=True)
    class Hyperparameters:
        """These are fields made with `hyperparameters.parameter`; no method that it follows may have one of their
        names.
        """

    def __init__(self, hyperparameters: Any) -> None:
        self.hyperparameters = hyperparameters

    def held_out(self, num_rows: int, seed: int) -> Tensor:
        """Return which of N training rows are held out, bool (N,); their labels are unknown to the method.

        Args:
            seed: the seed of training.
        """
        return torch.zeros(num_rows, dtype=torch.bool)

    def rounds(self) -> int:
        """Return how often the step wants to see every category; 0 for a step that leaves the layer as it is."""
        return 1

    def refit(self, entries: KnownEntries, round_: int) -> tuple[Tensor, Tensor] | None:
        """Return new weights (D,) and a new bias for a category, or None to leave these as they are.

        The values of the last round hold. Every round starts from the trained weights.

        Args:
            round_: which of the rounds, from 0.
        """
        raise NotImplementedError

    def scalars(self) -> dict[str, float]:
        """Return numbers about the refit, for the last row of the history."""
        return {}


_Class = TypeVar("_Class", bound=type)


def followed_by(method: _Class, step: type[FinishingStep], owner: str) -> _Class:
    """Make the class of a method that is followed by a step; its hyper-parameters are those of both.

    Args:
        owner: the name under which the two are asked for, for messages.

    Raises:
        UserError: both have a hyper-parameter of one name.
    """
    own, added = method.Hyperparameters, step.Hyperparameters  # type: ignore[attr-defined]
    names = [{each.name for each in dataclasses.fields(cls)} for cls in (own, added)]
    if both := sorted(set.intersection(*names)):
        raise UserError(f"{owner}: the method and the step both have a hyper-parameter {both[0]!r}; rename one of them")
    hints = typing.get_type_hints(added)
    fields = [
        (each.name, hints[each.name], field(default=each.default, metadata=each.metadata))
        for each in dataclasses.fields(added)
    ]
    combined = dataclasses.make_dataclass("Hyperparameters", fields, bases=(own,), frozen=True)
    return derived(method, Hyperparameters=combined, finishing=step)


def derived(method: _Class, **attributes: Any) -> _Class:
    """Make a class that differs from a method's in some attributes; it counts as defined where the method is."""
    same = {name: getattr(method, name) for name in ("__module__", "__qualname__", "__doc__")}
    return type(method.__name__, (method,), {**same, **attributes})  # type: ignore[return-value]


def options_of_step(step: type[FinishingStep], hyperparameters: Any) -> Any:
    """Return the step's part of the hyper-parameters of a method that it follows."""
    names = [each.name for each in dataclasses.fields(step.Hyperparameters)]
    return step.Hyperparameters(**{name: getattr(hyperparameters, name) for name in names})
