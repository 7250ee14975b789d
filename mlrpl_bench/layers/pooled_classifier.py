"""The plainest head: the mean position and one linear layer."""

from __future__ import annotations

from torch import Tensor, nn


class PooledClassifier(nn.Linear):
    """Maps (B, D, H, W) to logits (B, C): global average pooling, then a linear classifier."""

    def forward(self, maps_BDHW: Tensor) -> Tensor:
        return super().forward(maps_BDHW.mean(dim=(2, 3)))
