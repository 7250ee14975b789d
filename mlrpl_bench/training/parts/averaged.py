"""This module keeps the moving average of a method's weights, and lends it to the method for evaluation.

After every step each averaged value v moves towards the weight w: v <- d v + (1 - d) w, with the decay d of
`Recipe.decay`. It starts as a copy of the untrained weights, as in the official codes that average (ASL's and its
successors'): nothing corrects for them, which is why the time constant is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn


class AveragedWeights:
    """The averaged weights are those of the parameters that are trained and of the batch norms' statistics.

    Everything else a method keeps (label tables, prototypes, counts) is its own at any moment: a table that is
    averaged would be none. A batch norm's number of batches is whole, so it is not averaged either.

    Args:
        method: the method whose weights are averaged; they are copied.
        decay: what stays of an average at a step, in [0, 1).
    """

    def __init__(self, method: nn.Module, decay: float) -> None:
        self._live = dict(_averaged_tensors(method))
        self._values = {name: tensor.detach().clone() for name, tensor in self._live.items()}
        self._average = get_ema_multi_avg_fn(decay)

    def update(self) -> None:
        """Move the average towards the weights, after a step."""
        self._average(list(self._values.values()), [tensor.detach() for tensor in self._live.values()], 0)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the method have the averaged weights; what it assigns to a parameter's ``data`` meanwhile is theirs.

        Storages change places and nothing is copied, so tensors of a state that was taken before keep their values.
        """
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for name, tensor in self._live.items():
            tensor.data, self._values[name] = self._values[name], tensor.data

    def state(self) -> dict[str, Tensor]:
        """Return the averaged values by name; they change with the next `update`."""
        return dict(self._values)

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from values that `state` gave.

        Raises:
            ValueError: they are not those of this method's weights.
        """
        if {name: value.shape for name, value in state.items()} != {
            name: value.shape for name, value in self._values.items()
        }:
            raise ValueError("the averaged weights are not those of this method")
        for name, value in state.items():
            self._values[name].copy_(value)


def _averaged_tensors(method: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, parameter in method.named_parameters():
        if parameter.requires_grad:
            yield name, parameter
    for prefix, module in method.named_modules():
        if isinstance(module, _BatchNorm):
            for name, buffer in module.named_buffers(prefix, recurse=False):
                if buffer.is_floating_point():
                    yield name, buffer
