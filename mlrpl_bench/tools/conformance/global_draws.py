"""This module watches which global random generators a method draws from while it is trained."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from mlrpl_bench.models.method import Method
from mlrpl_bench.utils.randomness import torch_draws_are_lent

HOOKS = ("forward", "losses", "observe", "end_pass", "after_step", "passes", "scalars", "pseudo_labels_NC", "attention")
"""The trainer calls these functions of a method."""

DRAW_FOR_DROPOUT = ("dropout", "scaled_dot_product_attention", "multi_head_attention", "lstm", "gru", "rnn", "rrelu")
"""Torch's functions with these parts in their names take no generator; the trainer seeds torch's own for each step."""


class Watch(TorchFunctionMode):
    """A watch notes the first draw from a global generator that a method makes inside one of its hooks.

    Attributes:
        device: the device whose generator is watched beside the CPU's.
        within: the names of the hooks that run now, the innermost last.
        found: which hook drew from which generator, in words; None if none did.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device = device
        self.within: list[str] = []
        self.found: str | None = None

    def hooks_of(self, method: Method) -> None:
        """Watch the hooks of a method from now on."""

        def watched(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
            def hook(*given: Any, **named: Any) -> Any:
                with self.inside(name):
                    return call(*given, **named)

            return hook

        for name in HOOKS:
            setattr(method, name, watched(name, getattr(method, name)))

    @contextmanager
    def inside(self, name: str) -> Iterator[None]:
        """Attribute to a hook all that is drawn inside this context."""
        of_numpy, of_python = _state_of_numpy(), random.getstate()
        self.within.append(name)
        try:
            yield
        finally:
            self.within.pop()
        if _state_of_numpy() != of_numpy:
            self._note(name, "numpy's global generator")
        if random.getstate() != of_python:
            self._note(name, "Python's random")

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", "")
        # Weights are drawn from it, and layers that drop out can draw from no other.
        is_free = self.within in ([], ["__init__"]) or torch_draws_are_lent()
        if is_free or any(part in name for part in DRAW_FOR_DROPOUT):
            return function(*args, **(kwargs or {}))
        before = self._states_of_torch()
        result = function(*args, **(kwargs or {}))
        if any(not torch.equal(one, other) for one, other in zip(before, self._states_of_torch(), strict=True)):
            self._note(self.within[-1], f"torch's global generator ({name})")
        return result

    def _states_of_torch(self) -> list[Tensor]:
        on_gpu = [torch.cuda.get_rng_state(self.device)] if self.device.type == "cuda" else []
        return [torch.get_rng_state(), *on_gpu]

    def _note(self, hook: str, generator: str) -> None:
        self.found = self.found or f"{hook}() draws from {generator}"


def _state_of_numpy() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state(legacy=True)
    return name, np.asarray(keys).tobytes(), *rest
