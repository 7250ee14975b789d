"""This module averages what a method reports about its training over the steps of an epoch."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EpochMeans(nn.Module):
    """These are named running means that stay on the device: reading a number at every step would stall a GPU.

    Args:
        names: what is averaged.
    """

    means_K: Tensor

    def __init__(self, *names: str) -> None:
        super().__init__()
        self.names = names
        self.register_buffer("means_K", torch.zeros(len(names)))

    def update(self, step: int, **values: Tensor) -> None:
        """Count in the values of a step, one scalar for each name; step 0 starts anew."""
        values_K = torch.stack([values[name].detach().float() for name in self.names])
        self.means_K.lerp_(values_K, 1 / (step + 1))

    def scalars(self) -> dict[str, float | Tensor]:
        """Return the means by name, as `Method.scalars` wants them."""
        return dict(zip(self.names, self.means_K, strict=True))
